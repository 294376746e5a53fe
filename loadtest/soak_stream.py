"""Endless input for the soak test: any record can be made again from its offset alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import orjson

from monitor.core.errors import TransportError
from monitor.core.ports import CommitUnit, Polled, Resume
from monitor.core.types import RawBatch

BLOCK = 2048


@dataclass(frozen=True)
class Shape:
    """What the stream is like.

    Attributes
    ----------
    events
        Length of the stream; every event has an id of its own.
    features, labels
        Columns, all numeric, and classes.
    sources
        Distinct sources, taken in turn, so that all of them have spoken after as many events;
        a tenth of the events come from 200 regular ones instead.
    seed
        Of everything.
    """

    events: int
    features: int
    labels: int
    sources: int
    seed: int = 0


@lru_cache(maxsize=4)
def _centres(shape: Shape) -> np.ndarray:
    rng = np.random.default_rng(shape.seed)
    return 1.5 * rng.normal(size=(shape.labels, min(shape.features, 64)))


def block(shape: Shape, number: int) -> list[bytes]:
    """The records with offsets ``number · BLOCK`` and on."""
    rng = np.random.default_rng([shape.seed, number])
    first = number * BLOCK
    n = min(BLOCK, shape.events - first)
    y = rng.integers(0, shape.labels, n)
    centre = _centres(shape)
    x = rng.normal(size=(n, shape.features))
    x[:, : centre.shape[1]] += centre[y]
    x = np.round(x, 3)
    regular = rng.random(n) < 0.1
    source = np.where(regular, rng.integers(0, 200, n), 200 + np.arange(first, first + n))
    source = np.where(regular, source, 200 + (source - 200) % shape.sources)
    return [
        orjson.dumps(
            {
                "id": f"evt-{first + i:09d}",
                "ts": 1_700_000_000 + (first + i) * 0.01,
                "source": f"acct-{source[i]}",
                "label": f"class-{y[i]}",
                "subject": f"item-{(first + i) * 7919 % shape.sources}",
                "features": x[i],
            },
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        for i in range(n)
    ]


def values(shape: Shape, start: int, stop: int) -> list[bytes]:
    """The records from offset ``start`` up to ``stop``."""
    found: list[bytes] = []
    for number in range(start // BLOCK, -(-stop // BLOCK)):
        at = number * BLOCK
        found += block(shape, number)[max(0, start - at) : max(0, stop - at)]
    return found


class Endless:
    """A transport whose input is made on demand and whose outputs are only counted."""

    def __init__(self, shape: Shape, stop_at: int | None = None) -> None:
        self.shape = shape
        self.stop_at = shape.events if stop_at is None else stop_at
        self.next_offset = 0
        self.stamp: bytes | None = None
        self.snapshot: bytes | None = None
        self.records = 0
        self._position = -1

    def open(self) -> None:
        self._position = -1

    def poll(self, max_events: int, timeout_seconds: float) -> Polled:
        if self._position < 0:
            self._position = self.next_offset
            return Polled(assigned=[Resume(0, self.next_offset, self.stamp, self.snapshot)])
        start = self._position
        stop = min(start + max_events, self.stop_at)
        raw = RawBatch.of(values(self.shape, start, stop), start=start)
        self._position = stop
        return Polled(batches=[raw] if len(raw) else [], finished=stop >= self.stop_at)

    def read_range(self, partition: int, start: int, stop: int) -> Iterator[RawBatch]:
        for at in range(start, stop, BLOCK):
            yield RawBatch.of(values(self.shape, at, min(at + BLOCK, stop)), start=at)

    def commit(self, unit: CommitUnit) -> None:
        for part in unit.parts:
            if len(part.decisions.records) != len(part.raw):
                raise TransportError("a record was not decided")
            self.records += len(part.raw)
            self.next_offset, self.stamp = part.next_offset, part.stamp
            if part.snapshot is not None:
                self.snapshot = part.snapshot

    def abort(self) -> None:
        self._position = self.next_offset

    def close(self) -> None:
        self._position = -1
