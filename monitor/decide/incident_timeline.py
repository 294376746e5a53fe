"""When an incident's events came: counts in at most ``BINS`` bins that widen as time goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.core.types import BoolArray, IntArray

BINS = 64
SECOND = 1_000_000_000


def _none() -> npt.NDArray[np.int32]:
    return np.zeros((2, BINS), dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Events by event time.

    Attributes
    ----------
    start_ns
        Beginning of the first bin, nanoseconds since 1970.
    width_ns
        Of a bin; a second at first, twice as much whenever there is no room; 0 without events.
    count
        int32[2, BINS], all events, and those with verdict quarantine.
    """

    start_ns: int = 0
    width_ns: int = 0
    count: npt.NDArray[np.int32] = field(default_factory=_none)

    def after(self, time_ns: IntArray, held: BoolArray) -> Timeline:
        """With more events, int64[n] and bool[n]. What is older than the first counts there."""
        weight = np.stack([np.ones(len(held), dtype=np.int32), held.astype(np.int32)])
        return self._with(time_ns, weight)

    def joined(self, other: Timeline) -> Timeline:
        """Both as one; the bins of the later one as if all came in their middle."""
        if not other.width_ns:
            return self
        if not self.width_ns:
            return other
        first, then = (self, other) if self.start_ns <= other.start_ns else (other, self)
        middle = then.start_ns + (2 * np.arange(BINS) + 1) * (then.width_ns // 2)
        some = then.count[0] > 0
        return first._with(middle[some], then.count[:, some])

    def _with(self, time_ns: IntArray, weight: npt.NDArray[np.int32]) -> Timeline:
        if not len(time_ns):
            return self
        start, width, count = self.start_ns, self.width_ns, self.count
        if not width:
            start, width = int(time_ns.min()) // SECOND * SECOND, SECOND
        while int(time_ns.max()) - start >= BINS * width:
            half = count.reshape(2, BINS // 2, 2).sum(axis=2, dtype=np.int32)
            count, width = np.concatenate([half, np.zeros_like(half)], axis=1), 2 * width
        at = np.clip((time_ns - start) // width, 0, BINS - 1)
        more = np.stack([np.bincount(at, row, minlength=BINS) for row in weight])
        return Timeline(start, width, count + more.astype(np.int32))

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Timeline:
        """What :meth:`told` gave."""
        rows = [told["events"], told["quarantined"]]
        count = np.pad(np.array(rows, dtype=np.int32), ((0, 0), (0, BINS - len(rows[0]))))
        return cls(round(told["start"] * SECOND), round(told["seconds"] * SECOND), count)

    def told(self) -> Mapping[str, Any]:
        """In plain values; times and widths in seconds, empty bins at the end left out."""
        n = int(np.flatnonzero(self.count[0]).max(initial=-1)) + 1
        return {
            "start": self.start_ns / SECOND,
            "seconds": self.width_ns / SECOND,
            "events": self.count[0, :n].tolist(),
            "quarantined": self.count[1, :n].tolist(),
        }
