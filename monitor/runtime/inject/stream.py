"""Recorded streams in columns, and attacked copies of them with their ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import orjson

from monitor.core.types import BoolArray, ByteArray, FloatArray, IntArray, Label

Derive = Callable[["Stream"], FloatArray]


@dataclass(frozen=True, slots=True)
class Stream:
    """A recorded labelled stream in columns.

    Attributes
    ----------
    name
        Used in the ids.
    columns
        d feature names.
    x
        float64[n, d], raw feature values; NaN where an event has none.
    y
        int64[n], index into ``labels``.
    labels
        The C labels as they appear in the events.
    source
        n source names.
    ts
        float64[n], Unix seconds, not decreasing.
    subject
        n subjects (what the feedback is about), or None.
    gradient
        float64[n, p], the update each event carries, or None.
    ids
        n ids, or None for ``name-0``, ``name-1``, …
    derive
        For streams whose features follow from who rated what when: float64[n, d] of a stream,
        computed again. Rows that an attack inserts get their features this way.
    """

    name: str
    columns: tuple[str, ...]
    x: FloatArray
    y: IntArray
    labels: tuple[Label, ...]
    source: tuple[str, ...]
    ts: FloatArray
    subject: tuple[str, ...] | None = None
    gradient: FloatArray | None = None
    ids: tuple[str, ...] | None = None
    derive: Derive | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.y)

    def id_of(self, row: int) -> str:
        """The id of one event."""
        return f"{self.name}-{row}" if self.ids is None else self.ids[row]

    def take(self, rows: IntArray) -> Stream:
        """The events ``rows`` (int64[m]), in that order; ids stay with their events."""
        index = rows.tolist()
        return Stream(
            self.name,
            self.columns,
            self.x[rows],
            self.y[rows],
            self.labels,
            tuple(self.source[i] for i in index),
            self.ts[rows],
            None if self.subject is None else tuple(self.subject[i] for i in index),
            None if self.gradient is None else self.gradient[rows],
            tuple(self.id_of(i) for i in index),
            self.derive,
        )

    def lines(self) -> list[bytes]:
        """One JSON event a row, features as an object of names."""
        return [self._line(i) for i in range(len(self))]

    def _line(self, i: int) -> bytes:
        event: dict[str, object] = {
            "id": self.id_of(i),
            "ts": float(self.ts[i]),
            "source": self.source[i],
            "label": self.labels[int(self.y[i])],
            "features": dict(zip(self.columns, self.x[i].tolist(), strict=True)),
        }
        if self.subject is not None:
            event["subject"] = self.subject[i]
        if self.gradient is not None:
            event["gradient"] = self.gradient[i].tolist()
        return orjson.dumps(event)


class Role(IntEnum):
    """What an event is in an attacked stream; from ``POISON`` on it is the attacker's."""

    HONEST = 0
    HONEST_BURST = 1
    """An honest event of a source that sends many at a time."""
    HONEST_NEWCOMER = 2
    """An honest event of a source that sends only this one."""
    HIJACKED_HONEST = 3
    """An honest event that a hijacked source sent itself, before or after it was taken over."""
    POISON = 4
    PREPARE = 5
    """An attacker's event that does little by itself: the first phase of ``accumulative``."""
    FILLER = 6
    """An attacker's rating of another item than its target, which makes its profile look usual."""

    @property
    def word(self) -> str:
        """The name in truth files."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Attacked:
    """An attacked copy of a stream, and the truth about each of its n events.

    Attributes
    ----------
    stream
        The copy. Events that no attack changed or inserted are those of the honest stream.
    poison
        bool[n], the attacker's events.
    attack
        Name of the attack.
    role
        uint8[n] of :class:`Role`; empty when unknown.
    row
        int64[n], the row of the honest stream that this event is, or for an inserted one is
        modelled on.
    inserted
        bool[n], events that the honest stream does not have.
    """

    stream: Stream
    poison: BoolArray
    attack: str
    role: ByteArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))
    row: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    inserted: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    @property
    def honest_burst(self) -> BoolArray:
        """bool[n], honest events of sources that burst beside the attack."""
        return np.asarray(self.role == Role.HONEST_BURST, dtype=bool)

    @property
    def honest_newcomer(self) -> BoolArray:
        """bool[n], honest events whose source sends nothing else."""
        return np.asarray(self.role == Role.HONEST_NEWCOMER, dtype=bool)


def honest_sources(n: int, *, count: int = 200, seed: int = 0) -> tuple[str, ...]:
    """``n`` source names drawn from ``count`` accounts with Zipf-like activity."""
    rng = np.random.default_rng([seed, 11])
    activity = 1.0 / np.arange(1, count + 1) ** 0.7
    drawn = rng.choice(count, size=n, p=activity / activity.sum())
    return tuple(f"acct-{i:04d}" for i in drawn)


def column_of(values: tuple[str, ...]) -> npt.NDArray[np.object_]:
    """Names as an object array, to index with rows."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
