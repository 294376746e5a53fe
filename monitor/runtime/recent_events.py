"""The latest scored events, in columns: what other policies would have made of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from monitor.core.ports import CommitUnit
from monitor.core.types import HashArray, Scored
from monitor.decide.judged import AnyDetector
from monitor.decide.whatif import Columns, Speaker, speakers

MAX_NAMES = 8_192


class RecentEvents:
    """Observer of a :class:`~monitor.runtime.service.Service`. Thread-safe, bounded.

    Parameters
    ----------
    detectors
        The gate's.
    capacity
        How many events are kept.
    """

    def __init__(self, detectors: Sequence[AnyDetector], capacity: int = 50_000) -> None:
        self._speakers: tuple[Speaker, ...] = speakers(detectors)
        self._names_here = tuple(speaker.name for speaker in self._speakers)
        self._lock = threading.Lock()
        self._capacity, self._at, self._filled = capacity, 0, 0
        self._p = np.full((capacity, len(self._speakers)), np.nan, dtype=np.float32)
        self._source: HashArray = np.zeros(capacity, dtype=np.uint64)
        self._subject: HashArray = np.zeros(capacity, dtype=np.uint64)
        self._y = np.zeros(capacity, dtype=np.int32)
        self._partition = np.zeros(capacity, dtype=np.int32)
        self._offset = np.zeros(capacity, dtype=np.int64)
        self._ids: npt.NDArray[np.object_] = np.full(capacity, "", dtype=object)
        self._sources: npt.NDArray[np.object_] = np.full(capacity, "", dtype=object)
        self._names: dict[str, int] = {}

    def __len__(self) -> int:
        return self._filled

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Keep the scored events of a micro-batch."""
        with self._lock:
            for part in unit.parts:
                for scored in part.decisions.scored:
                    self._put(scored, part.raw.partition, part.decisions.offset)

    def _put(self, scored: Scored, partition: int, offset: npt.NDArray[np.int64]) -> None:
        codes = self._codes(scored.label_names)
        done = max(0, len(scored.row) - self._capacity)
        while done < len(scored.row):
            # Up to the end of the ring, then from its beginning: slices, which cost little.
            m = min(len(scored.row) - done, self._capacity - self._at)
            to, of = slice(self._at, self._at + m), slice(done, done + m)
            same = scored.detectors == self._names_here
            self._p[to] = scored.p[of] if same else self._fit(scored, of)
            self._source[to], self._subject[to] = scored.source[of], scored.subject[of]
            self._partition[to], self._offset[to] = partition, offset[scored.row[of]]
            self._y[to] = codes[scored.y[of]]
            self._ids[to], self._sources[to] = scored.ids[of], scored.sources[of]
            done += m
            self._at = (self._at + m) % self._capacity
            self._filled = min(self._capacity, self._filled + m)

    def _fit(self, scored: Scored, rows: slice) -> npt.NDArray[np.float32]:
        """Columns in the order here; of other detectors than the gate began with none."""
        out = np.full((rows.stop - rows.start, len(self._speakers)), np.nan, dtype=np.float32)
        for i, name in enumerate(scored.detectors):
            if name in self._names_here:
                out[:, self._names_here.index(name)] = scored.p[rows, i]
        return out

    def _codes(self, names: tuple[str, ...]) -> npt.NDArray[np.int32]:
        """int32[c]: the place here of each label; labels of several partitions share places."""
        if len(self._names) + len(names) > MAX_NAMES:
            self._forget_unused()
        known = self._names
        return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int32)

    def _forget_unused(self) -> None:
        texts = list(self._names)
        used, y = np.unique(self._y[: self._filled], return_inverse=True)
        self._y[: self._filled] = y
        self._names = {texts[code]: place for place, code in enumerate(used.tolist())}

    def columns(self) -> Columns:
        """A copy of what is kept, the oldest first."""
        with self._lock:
            n = self._filled
            rows = (self._at - n + np.arange(n)) % self._capacity
            return Columns(
                self._speakers,
                self._p[rows],
                self._source[rows],
                self._subject[rows],
                self._y[rows],
                tuple(self._names),
                self._ids[rows],
                self._sources[rows],
                self._partition[rows],
                self._offset[rows],
            )
