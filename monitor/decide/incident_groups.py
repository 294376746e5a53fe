"""Which groups of suspicious events stand out from what ordinary traffic explains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from monitor.core.types import BoolArray, Family, FloatArray, HashArray, IntArray
from monitor.decide.incident_absorb import family_key
from monitor.decide.incident_causes import WORLD
from monitor.decide.incident_facts import (
    CONTENT,
    FAMILIES,
    PAIR,
    PATTERN,
    SOURCE,
    SUBJECT,
    Facts,
    Suspects,
)
from monitor.decide.incident_split import ring_key, signs_of
from monitor.decide.incident_state import MOST_CORE, IncidentBook, slot_of
from monitor.sketches.tails import tail_nats

CLUMPS = 2.0
"""False alarms come in clumps: so many times the promised share counts as ordinary."""
OPEN_NATS, GROUP_NATS, HOT_NATS = 14.0, 25.0, 6.0
YOUNG_EVENTS = 2048
"""Thresholds of a young state are rough, and those of a world that has just changed: only behind
this age does a group open that nobody in particular is behind, and it needs twice as many nats."""
DIRECT_NATS, MASSES, SEVERAL = 8.0, 150.0, 3
"""What is said against a group's events themselves, apart from who sent them. Without it a group
needs ``MASSES`` of nats and ``SEVERAL`` sources: distrust alone keeps itself alive."""
LEAST_EVENTS, LEAST_FAMILY, LEAST_HOT = 8, 12, 3
LEAST_RATE = 0.5
OF = {PATTERN: "backdoor", PAIR: "label_flip", SUBJECT: "shilling", CONTENT: "replay"}
"""The channel by which an event gets each of its keys."""


class Group(NamedTuple):
    """A group that stands out: its name, rows of the suspects, and what belongs to it later."""

    key: str
    rows: IntArray
    core: HashArray
    keys: HashArray
    stray: float


@dataclass(frozen=True, slots=True)
class Looking:
    """Looks for groups among ``suspects`` within the last ``span`` events of ``book``.

    ``keys`` uint64[m, 6] come from :func:`~monitor.decide.incident_absorb.all_keys`.
    """

    suspects: Suspects
    keys: HashArray
    facts: Facts
    book: IncidentBook
    span: int

    @property
    def _age(self) -> int:
        """Events since the world last changed, or since there was none."""
        known = (*self.book.open, *self.book.closed)
        changed = max((i.active_seen for i in known if i.key == WORLD), default=0)
        return self.book.seen - changed

    def standing_out(self, free: IntArray) -> Group | None:
        """The most telling group of the events ``free`` int64[f], if any."""
        found, age = self._hot(free), self._age
        if found is not None or age < YOUNG_EVENTS:
            return found
        free = free[self.suspects.seen[free] >= self.book.seen - age + YOUNG_EVENTS / 2]
        more = 1.0 + YOUNG_EVENTS / age
        for column in (CONTENT, SUBJECT, PATTERN, PAIR):
            found = found or self._keyed(free, column, more)
        return found or self._of_one_family(free, more)

    def chance(self, family: str) -> float:
        """Share of ordinary events that the family's channel may flag, clumps included."""
        return CLUMPS * self.facts.promise * self.facts.share.get(family, 0.0)

    def expected(self, source: HashArray) -> FloatArray:
        """float64[s]: ordinary events of each source that may be flagged within the span."""
        traffic = self.book.traffic
        sent = traffic.source[slot_of(source)] * (self.span / max(traffic.mass, 1.0))
        rate: FloatArray = np.maximum(CLUMPS * self.facts.promise * sent, 0.05)
        return rate

    def hot(self, source: HashArray, rows: IntArray) -> tuple[HashArray, FloatArray]:
        """Sources with many more suspicious events than they should have, and what they should."""
        names, count = np.unique(self.keys[rows, SOURCE], return_counts=True)
        expected = self.expected(names)
        hot = (count >= LEAST_HOT) & (tail_nats(count, expected) >= HOT_NATS)
        hot &= ~np.isin(names, source)
        return names[hot], expected[hot]

    def _hot(self, free: IntArray) -> Group | None:
        names, expected = self.hot(np.empty(0, dtype=np.uint64), free)
        at_once = self._at_once(free, names)
        names, expected = names[at_once], expected[at_once]
        rows = free[np.isin(self.keys[free, SOURCE], names)]
        nats = tail_nats(len(rows), max(expected.sum(), LEAST_RATE))
        if len(rows) < LEAST_EVENTS or nats < GROUP_NATS:
            return None
        in_masses = nats >= MASSES and len(names) >= SEVERAL
        if not in_masses and self._direct(rows) < DIRECT_NATS:
            return None
        known = {i.key for i in (*self.book.open, *self.book.closed)}
        key = ring_key(signs_of(self.suspects, rows), known)
        return Group(key, rows, names[:MOST_CORE], np.empty(0, dtype=np.uint64), 0.0)

    def _direct(self, rows: IntArray) -> float:
        """How unlikely the strongest family's sum of −ln p is by chance, senders aside, in nats.

        The sum is Gamma distributed then, and Chernoff's bound is n·(m − 1 − ln m), m its mean.
        """
        mean = self.suspects.nats[rows].mean(axis=0, dtype=np.float64)
        strongest = max(1.0, float(np.delete(mean, FAMILIES.index(Family.SYBIL)).max()))
        return len(rows) * (strongest - 1.0 - math.log(strongest))

    def _at_once(self, free: IntArray, names: HashArray) -> BoolArray:
        """bool[s]: sources of which a quarter of the events fall into the middle half of all.

        Once a source is distrusted all it sends is, so an unlucky one has several suspicious events
        too, but at a time of its own.
        """
        rows = free[np.isin(self.keys[free, SOURCE], names)]
        if not len(rows):
            return np.zeros(len(names), dtype=bool)
        seen, whose = self.suspects.seen[rows], np.searchsorted(names, self.keys[rows, SOURCE])
        first, last = np.quantile(seen, [0.25, 0.75])
        middle = np.bincount(whose, (seen >= first) & (seen <= last), minlength=len(names))
        found: BoolArray = 4.0 * middle >= np.bincount(whose, minlength=len(names))
        return found

    def _keyed(self, free: IntArray, column: int, more: float) -> Group | None:
        values, count = np.unique(self.keys[free, column], return_counts=True)
        known = (values != 0) & (count >= LEAST_EVENTS)
        if not known.any():
            return None
        stray = self.chance(OF[column])
        value, most = values[known][count[known].argmax()], int(count[known].max())
        if tail_nats(most, max(stray * self.span, LEAST_RATE)) < OPEN_NATS * more:
            return None
        rows = free[self.keys[free, column] == value]
        keys = [int(value), *([family_key(OF[column])] if column == PAIR else [])]
        name = f"{OF[column]}|{int(value):016x}"
        core = np.empty(0, dtype=np.uint64)
        return Group(name, rows, core, np.array(keys, dtype=np.uint64), stray)

    def _of_one_family(self, free: IntArray, more: float) -> Group | None:
        for place, family in enumerate(FAMILIES):
            if family == Family.SYBIL:  # that is for sources that stand out
                continue
            rows = free[self.suspects.family[free] == place]
            stray = self.chance(family)
            rate = max(stray * self.span, 2 * LEAST_RATE)
            if len(rows) >= LEAST_FAMILY and tail_nats(len(rows), rate) >= OPEN_NATS * more:
                keys = np.array([family_key(family)], dtype=np.uint64)
                none = np.empty(0, dtype=np.uint64)
                return Group(f"family|{family}", rows, none, keys, stray)
        return None
