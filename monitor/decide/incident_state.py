"""What is remembered of incidents: bounded, immutable, stored with the partition's state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from monitor.core.types import Family, FloatArray, HashArray, IntArray
from monitor.decide.data_faults import Pipeline
from monitor.decide.incident_facts import FAMILIES, SHAPES, Facts, Suspects
from monitor.decide.incident_timeline import Timeline

MOST_OPEN = 64
MOST_CLOSED = 32
MOST_CORE = 64
MOST_KEYS = 16
RECENT = 512
"""Suspicious events that are kept, whatever became of them."""
WINDOW = 4096
"""Valid events in which a group must stand out."""
SLOTS = 4096
CELLS = 64
CELL = 0.125
LABELS = 16
CLOCK = 33
SEEN_BITS = 1024
TOP = 24

Counts = npt.NDArray[np.int32]


def slot_of(source: HashArray) -> IntArray:
    """int64[n]: the place of each source in the traffic's sketch."""
    return (source % np.uint64(SLOTS)).astype(np.int64)


def cell_of(shape: npt.NDArray[np.float32]) -> IntArray:
    """int64[n, c]: the grid cell of each normal score."""
    return np.clip(((shape + 4.0) / CELL).astype(np.int64), 0, CELLS - 1)


def counted(shape: npt.NDArray[np.float32]) -> Counts:
    """int32[c, CELLS]: how many of n events have each cell of each column."""
    c = shape.shape[1]
    flat = (cell_of(shape) + np.arange(c) * CELLS).ravel()
    return np.bincount(flat, minlength=c * CELLS).reshape(c, CELLS).astype(np.int32)


def tallied(tally: Mapping[str, float], more: Iterable[str], most: int = TOP) -> dict[str, float]:
    """``tally`` with ``more`` counted: at most ``most`` texts, by Space-Saving.

    A text that comes new takes the place, and the count, of the rarest (Metwally et al. 2005), so
    counts are upper bounds and what is frequent is never lost.
    """
    out = dict(tally)
    for text in more:
        if text in out:
            out[text] += 1.0
        elif len(out) < most:
            out[text] = 1.0
        else:
            rarest = min(out, key=out.__getitem__)
            out[text] = out.pop(rarest) + 1.0
    return out


def joined(a: Mapping[str, float], b: Mapping[str, float], most: int = TOP) -> dict[str, float]:
    """Both tallies as one, the most frequent texts of it."""
    both = dict(a)
    for text, count in b.items():
        both[text] = both.get(text, 0.0) + count
    kept = sorted(both, key=lambda text: (-both[text], text))[:most]
    return {text: both[text] for text in kept}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What all valid events look like lately; counts halve in ``WINDOW`` events.

    Attributes
    ----------
    mass
        Decayed number of events.
    source
        float32[SLOTS], events by hash of the source: an upper bound of what each has sent.
    cells
        float32[c, CELLS], events by column and grid cell.
    labels, label_mass, label_sum
        uint64[k] labels, at most ``LABELS``; float64[k] events; float64[k, c] sums of normal
        scores.
    """

    mass: float
    source: npt.NDArray[np.float32]
    cells: npt.NDArray[np.float32]
    labels: HashArray
    label_mass: FloatArray
    label_sum: FloatArray

    @classmethod
    def none(cls, columns: int) -> Traffic:
        """No events yet."""
        return cls(
            0.0,
            np.zeros(SLOTS, dtype=np.float32),
            np.zeros((columns, CELLS), dtype=np.float32),
            np.empty(0, dtype=np.uint64),
            np.empty(0),
            np.empty((0, columns)),
        )

    def after(self, facts: Facts) -> Traffic:
        """With a batch counted."""
        n = len(facts.source)
        keep = 0.5 ** (n / WINDOW)
        came = np.bincount(slot_of(facts.source), minlength=SLOTS)
        source = self.source * np.float32(keep) + came.astype(np.float32)
        cells = self.cells * np.float32(keep) + counted(facts.shape)
        found, place = np.unique(facts.label, return_inverse=True)
        known = set(self.labels.tolist())
        new = [label for label in found.tolist() if label not in known][: LABELS - len(known)]
        labels = np.concatenate([self.labels, np.array(new, dtype=np.uint64)])
        size = len(labels)
        mass, total = np.zeros(size), np.zeros((size, self.label_sum.shape[1]))
        mass[: len(self.labels)] = keep * self.label_mass
        total[: len(self.labels)] = keep * self.label_sum
        where = {label: at for at, label in enumerate(labels.tolist())}
        for number, label in enumerate(found.tolist()):
            if label in where:
                mine = place == number
                mass[where[label]] += np.count_nonzero(mine)
                total[where[label]] += facts.shape[mine].sum(axis=0, dtype=np.float64)
        return Traffic(keep * self.mass + n, source, cells, labels, mass, total)


@dataclass(frozen=True, slots=True)
class Incident:
    """A group of suspicious events, as far as it is known.

    Attributes
    ----------
    serial, id, kind, key
        Its number in the partition; the identifier others see; see ``IncidentKind``; what its
        events had in common when it opened.
    opened_ns, first_ns, last_ns, first_seen, last_seen
        Event times, and places among the partition's valid events.
    first_offset, last_offset, first_event, last_event
        The first and the last event.
    active_seen, active_ns
        When it last stood out from what ordinary traffic explains.
    is_open, merged
        Whether it goes on; the identifier of the one it became a part of.
    events, held, weight, risk, influence
        Sums over its events; ``risk`` is the largest.
    of_core
        How many events came from sources of its own.
    core
        uint64[k], sources whose suspicious events are all its own.
    keys
        uint64[j], what else events have in common with it.
    stray
        Share of ordinary events that come under ``keys`` by chance.
    nats
        float64[F], sums of −ln p by family.
    families, primary
        int64[F], events against which each family speaks; for which it is the strongest.
    sources, labels, pairs, subjects, tokens
        Tallies of what its events show.
    seen_sources
        bool[SEEN_BITS], hashed sources, for an estimate of their number.
    cells, total, square
        int32[c, CELLS]; float64[c], float64[c, c]: moments of the normal scores.
    slide
        float64[8], for the trend of the way its events are moved; see ``incident_family``.
    gaps
        float64[3], number, sum and sum of squares of counts in spans of events; see there.
    timeline
        When its events came.
    evidence
        Ids of its first events and of its last.
    told
        Events at the latest change that was reported, and how it was called then.
    detail
        Of a data fault: what is wrong, in words.
    surprised
        Of a drift: events in masses that surprise, which are not held against anybody.
    final
        What was said of it when it closed, as JSON.
    """

    serial: int
    id: str
    kind: str
    key: str
    opened_ns: int
    first_ns: int
    last_ns: int
    first_seen: int
    last_seen: int
    first_offset: int
    last_offset: int
    first_event: str
    last_event: str
    active_seen: int
    active_ns: int
    is_open: bool
    merged: str
    events: int
    held: int
    weight: float
    risk: float
    influence: float
    of_core: int
    core: HashArray
    keys: HashArray
    stray: float
    nats: FloatArray
    families: IntArray
    primary: IntArray
    sources: dict[str, float]
    labels: dict[str, float]
    pairs: dict[str, float]
    subjects: dict[str, float]
    tokens: dict[str, float]
    seen_sources: npt.NDArray[np.bool_]
    cells: Counts
    total: FloatArray
    square: FloatArray
    slide: FloatArray
    gaps: FloatArray
    timeline: Timeline
    evidence: tuple[str, ...]
    told: int
    told_as: str
    detail: str
    surprised: int
    final: bytes

    @classmethod
    def begun(
        cls, serial: int, name: tuple[str, str, str], at: tuple[int, int], c: int
    ) -> Incident:
        """One without events: ``name`` is id, kind and key, ``at`` (events seen, time)."""
        identifier, kind, key = name
        seen, now = at
        blank = np.empty(0, dtype=np.uint64)
        families = np.zeros(len(FAMILIES), dtype=np.int64)
        cells, total, square = _no_moments(c)
        return cls(
            *(serial, identifier, kind, key, now, now, now, seen, seen, -1, -1, "", "", seen, now),
            *(True, "", 0, 0, 0.0, 0.0, 0.0, 0, blank, blank, 0.0, np.zeros(len(FAMILIES))),
            *(families, families, {}, {}, {}, {}, {}, np.zeros(SEEN_BITS, dtype=bool)),
            cells=cells,
            total=total,
            square=square,
            slide=np.zeros(8),
            gaps=np.zeros(3),
            timeline=Timeline(),
            evidence=(),
            told=0,
            told_as="",
            detail="",
            surprised=0,
            final=b"",
        )

    @property
    def copied(self) -> float:
        """Share of its events that replay speaks against."""
        return float(self.families[FAMILIES.index(Family.REPLAY)]) / max(self.events, 1)

    def emptied(self, key: str, core: HashArray, at: tuple[int, int]) -> Incident:
        """The same without its events, of these sources; ``at`` as in :meth:`begun`.

        With no events ``told``, so that what is left of it is told anew.
        """
        name = (self.id, self.kind, key)
        return replace(
            Incident.begun(self.serial, name, at, len(self.total)),
            opened_ns=self.opened_ns,
            core=core,
            keys=self.keys,
            stray=self.stray,
            told_as=self.told_as,
        )


def _no_moments(c: int) -> tuple[Counts, FloatArray, FloatArray]:
    return np.zeros((c, CELLS), dtype=np.int32), np.zeros(c), np.zeros((c, c))


@dataclass(frozen=True, slots=True)
class IncidentBook:
    """The incidents of a partition.

    Attributes
    ----------
    seen
        Valid events so far.
    clock
        int64[≤ CLOCK], the latest event times: their median is now, so that one wrong time stamp
        closes nothing.
    columns
        Names of the columns that are looked at.
    traffic
        What all events look like.
    suspects
        The latest suspicious ones.
    open, closed
        Incidents that go on, by serial number; the latest that are over.
    serial
        The next number.
    pipeline
        What the data looked like, for faults of whatever brings it.
    """

    seen: int = 0
    clock: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    columns: tuple[str, ...] = ()
    traffic: Traffic = field(default_factory=lambda: Traffic.none(0))
    suspects: Suspects = field(default_factory=Suspects.none)
    open: tuple[Incident, ...] = ()
    closed: tuple[Incident, ...] = ()
    serial: int = 0
    pipeline: Pipeline = field(default_factory=Pipeline)

    @property
    def now_ns(self) -> int:
        """The event time, nanoseconds since 1970."""
        return int(np.median(self.clock)) if len(self.clock) else 0

    def counting(self, facts: Facts) -> IncidentBook:
        """With a batch's events counted, and its suspicious ones among the latest."""
        book = self
        if facts.columns != self.columns:
            book = replace(
                self,
                columns=facts.columns,
                traffic=Traffic.none(len(facts.columns)),
                open=tuple(shapeless(i, len(facts.columns)) for i in self.open),
            )
        return replace(
            book,
            seen=self.seen + len(facts.source),
            clock=np.concatenate([self.clock, facts.time_ns])[-CLOCK:],
            traffic=book.traffic.after(facts),
            suspects=self.suspects.then(facts.suspects, max(RECENT, len(facts.suspects))),
        )


def shapeless(incident: Incident, columns: int) -> Incident:
    """Without what was known of columns that are others now."""
    cells, total, square = _no_moments(columns)
    return replace(incident, cells=cells, total=total, square=square, slide=np.zeros(8))


__all__ = ["SHAPES", "Incident", "IncidentBook", "Traffic"]
