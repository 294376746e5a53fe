"""Flagged events become few incidents: a pure fold over judged batches.

Suspicious events are grouped by what they have in common: sources that send far more of them than
others do, a label that a trigger comes with, a pair of given and expected label, a subject, copied
content, or at least the family of the strongest channel. A group opens an incident when it has more
events than the promised share of false alarms explains among the last ``WINDOW`` events; the bound
is Chernoff's on a Poisson tail, m·ln(m/λ) − m + λ nats, λ doubled because false alarms come in
clumps. From then on what matches joins it. It closes when it has not stood out for ``QUIET_EVENTS``
events and ``QUIET_SECONDS`` of event time, and goes on under its old identifier when the same group
comes back soon. Incidents that share a good part of their events become one, the older.

What kind of incident it is follows from all of its events together
(:mod:`monitor.decide.incident_family`), not from what single events are flagged for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import orjson

from monitor.core.incident import Account, Changed, IncidentChange, IncidentKind
from monitor.core.types import BoolArray, IntArray
from monitor.decide.data_faults import SPAN, Fault, watched
from monitor.decide.incident_absorb import FAMILY, absorbed, all_keys, both_keys, united
from monitor.decide.incident_account import account, called
from monitor.decide.incident_causes import WORLD, explains
from monitor.decide.incident_facts import (
    CONTENT,
    PATTERN,
    SOURCE,
    Facts,
    Suspects,
)
from monitor.decide.incident_groups import (
    LEAST_EVENTS,
    LEAST_HOT,
    LEAST_RATE,
    OF,
    Group,
    Looking,
)
from monitor.decide.incident_names import comes_back, identifier, is_same
from monitor.decide.incident_split import RING, other_ring, signs_of
from monitor.decide.incident_state import (
    MOST_CLOSED,
    MOST_CORE,
    MOST_KEYS,
    MOST_OPEN,
    RECENT,
    WINDOW,
    Incident,
    IncidentBook,
)
from monitor.decide.incident_timeline import SECOND
from monitor.sketches.tails import tail_nats

STAY_NATS = 3.0
QUIET_EVENTS, QUIET_SECONDS = 2048, 300.0
SHARED, LEAST_SHARED = 0.25, 4
COMMON = 0.5
GROWN, GROWN_BY = 1.5, 10
FREE, GONE = -1, -2
"""Owner of an event that belongs to no incident, and to one that is closed."""


@dataclass(frozen=True, slots=True)
class Folded:
    """The book after a batch; by row of the batch the incident it belongs to; what changed."""

    book: IncidentBook
    incidents: Mapping[int, str] = field(default_factory=dict)
    changes: tuple[IncidentChange, ...] = ()


def fold(book: IncidentBook, facts: Facts) -> Folded:
    """``book`` after a batch. Pure."""
    pipeline, faults = watched(book.pipeline, facts.all_rows(), facts.columns)
    work = _Fold(replace(book.counting(facts), pipeline=pipeline), facts)
    if len(work.suspects) or work.open or facts.changed or faults:
        work.run(faults)
    return work.result(book)


class _Fold:
    """One batch's work; lives for one call only."""

    def __init__(self, book: IncidentBook, facts: Facts) -> None:
        self.book, self.facts = book, facts
        self.suspects = book.suspects
        self.keys = all_keys(self.suspects)
        self.owner = self.suspects.owner.copy()
        self.open: dict[int, Incident] = {i.serial: i for i in book.open}
        self.closed: list[Incident] = list(book.closed)
        self.serial = book.serial
        self.now = book.now_ns
        m, full = len(self.suspects), len(self.suspects) >= RECENT
        reach = book.seen - int(self.suspects.seen[0]) if m and full else book.seen
        self.span = max(1, min(WINDOW, reach))
        self.recent: BoolArray = self.suspects.seen >= book.seen - self.span
        self.looking = Looking(self.suspects, self.keys, facts, book, self.span)
        self.changes: list[IncidentChange] = []
        self.touched: set[int] = set()
        self.sent_again = False

    def run(self, faults: tuple[Fault, ...]) -> None:
        self._world()
        # Older ones match nothing, or they were given away before.
        self._assign(np.arange(len(self.suspects) - len(self.facts.rows), len(self.suspects)))
        for _ in range(MOST_OPEN):
            group = self._standing_out()
            if group is None:
                break
            self._begin(group)
            self._assign()
        self._faults(faults)
        self._grow()
        self._part()
        self._merge()
        self._settle()

    # -- What belongs where ---------------------------------------------------------------------

    def _free(self) -> IntArray:
        return np.flatnonzero(self.recent & (self.owner == FREE))

    def _matching(self, incident: Incident) -> IntArray:
        """int64[m]: 3 where a source is the incident's, 2 where a key is, 1 for its family."""
        found = np.zeros(len(self.suspects), dtype=np.int64)
        if len(incident.keys):
            hit = np.isin(self.keys, incident.keys) & (self.keys != 0)
            found[hit[:, FAMILY]] = 1
            found[hit[:, PATTERN:FAMILY].any(axis=1)] = 2
        if len(incident.core):
            found[np.isin(self.keys[:, SOURCE], incident.core)] = 3
        return found

    def _assign(self, among: IntArray | None = None) -> None:
        """Give every free event to the incident that it matches best, the oldest of these."""
        free = self._free()
        if among is not None:
            free = free[np.isin(free, among, assume_unique=True)]
        if not len(free) or not self.open:
            return
        best, owner = np.zeros(len(free), dtype=np.int64), np.full(len(free), -1)
        for serial in sorted(self.open):
            found = self._matching(self.open[serial])[free]
            better = found > best
            best[better], owner[better] = found[better], serial
        for serial in np.unique(owner[owner >= 0]).tolist():
            self._absorb(serial, free[owner == serial])

    def _absorb(self, serial: int, rows: IntArray) -> None:
        if len(rows):
            self.owner[rows] = serial
            self.open[serial] = absorbed(self.open[serial], self.suspects, rows, self.book.traffic)
            self.touched.add(serial)

    def _standing_out(self) -> Group | None:
        """The most telling group of free events, if there is room for one more."""
        free = self._free()
        if len(free) < LEAST_EVENTS or len(self.open) >= MOST_OPEN:
            return None
        return self.looking.standing_out(free)

    # -- Opening, growing, merging, closing -----------------------------------------------------

    def _world(self) -> None:
        """A change of the world that the detectors have met: a drift."""
        if not self.facts.changed:
            return
        key = WORLD
        same = [i.serial for i in self.open.values() if i.key == key]
        if not same and len(self.open) < MOST_OPEN:
            none = np.empty(0, dtype=np.uint64)
            group = Group(key, np.empty(0, dtype=np.int64), none, none, 0.0)
            same = [self._begin(group, IncidentKind.DRIFT)]
        for serial in same[:1]:
            moved = replace(
                self.open[serial],
                active_seen=self.book.seen,
                active_ns=self.now,
                surprised=self.open[serial].surprised + self.facts.changed,
            )
            self.open[serial] = moved
            self.touched.add(serial)
            here = self.suspects.seen >= self.book.seen - len(self.facts.source)
            copied = self.keys[:, CONTENT] != 0
            mine = here & (self.owner == FREE) & ~self._is_core() & ~copied
            self._absorb(serial, np.flatnonzero(mine))

    def _faults(self, faults: tuple[Fault, ...]) -> None:
        """Faults of whatever brings the data."""
        if not faults:
            return
        n = SPAN + len(self.facts.source)
        attacked = self._is_core() & (self.suspects.seen >= self.book.seen - n)
        for fault in faults:
            self.sent_again |= fault.sent_again
            if not fault.sent_again and fault.events <= 2 * np.count_nonzero(attacked):
                continue  # a ring of sources repeats itself, not the pipeline
            key = f"{fault.name}|{fault.feature}"
            same = [i.serial for i in self.open.values() if i.key == key]
            if not same and len(self.open) < MOST_OPEN:
                none = np.empty(0, dtype=np.uint64)
                group = Group(key, np.empty(0, dtype=np.int64), none, none, 0.0)
                same = [self._begin(group, IncidentKind.DATA_FAULT)]
            for serial in same[:1]:
                found = self.open[serial]
                self.open[serial] = replace(
                    found,
                    detail=fault.text,
                    surprised=found.surprised + fault.events,
                    last_ns=self.now,
                    last_seen=self.book.seen,
                    active_seen=self.book.seen,
                    active_ns=self.now,
                )
                self.touched.add(serial)

    def _is_core(self) -> BoolArray:
        """bool[m]: events of sources that belong to an open incident."""
        cores = [i.core for i in self.open.values() if len(i.core)]
        if not cores:
            return np.zeros(len(self.suspects), dtype=bool)
        return np.isin(self.keys[:, SOURCE], np.concatenate(cores))

    def _begin(self, group: Group, kind: IncidentKind = IncidentKind.CAMPAIGN) -> int:
        """Open an incident, or go on with one of the same name that was closed lately."""
        name = identifier(kind, group.key, self.now)
        at = (self.book.seen, self.now)
        again = [i for i in self.closed if not i.merged and comes_back(i, group.key, name, at)]
        going = [i.serial for i in self.open.values() if is_same(i, group.key, name)]
        if going:
            serial = going[0]
        elif again:
            old = again[-1]
            self.closed.remove(old)
            serial = old.serial
            self.open[serial] = replace(old, is_open=True, final=b"")
        else:
            serial, self.serial = self.serial, self.serial + 1
            if any(i.id == name for i in (*self.open.values(), *self.closed)):
                name = identifier(kind, f"{group.key}|{serial}", self.now)
            columns = len(self.book.columns)
            self.open[serial] = Incident.begun(serial, (name, kind, group.key), at, columns)
        incident = self.open[serial]
        self.open[serial] = replace(
            incident,
            core=both_keys(incident.core, group.core, MOST_CORE),
            keys=both_keys(incident.keys, group.keys, MOST_KEYS),
            stray=max(incident.stray, group.stray),
            active_seen=self.book.seen,
            active_ns=self.now,
        )
        self._absorb(serial, group.rows)
        self.touched.add(serial)
        return serial

    def _grow(self) -> None:
        """Take up sources and keys that most of an incident's latest events share."""
        for serial in sorted(self.touched & self.open.keys()):
            rows = np.flatnonzero(self.recent & (self.owner == serial))
            if len(rows) < LEAST_EVENTS:
                continue
            incident = self.open[serial]
            more, _ = self.looking.hot(incident.core, rows)
            keys, stray = [], incident.stray
            # What its sources do, others do by chance; when more do, that is a group of its own.
            owned = 2 * incident.of_core >= incident.events
            for column, family in () if owned else OF.items():
                values, count = np.unique(self.keys[rows, column], return_counts=True)
                for value, n in zip(values.tolist(), count.tolist(), strict=True):
                    if value and n >= COMMON * len(rows) and value not in incident.keys:
                        keys.append(value)
                        stray = max(stray, self.looking.chance(family))
            self.open[serial] = replace(
                incident,
                core=both_keys(incident.core, more, MOST_CORE),
                keys=both_keys(incident.keys, np.array(keys, dtype=np.uint64), MOST_KEYS),
                stray=stray,
            )
        self._assign()

    def _part(self) -> None:
        """Make two of an incident of which two rings are behind, while all of it is at hand."""
        for serial in sorted(self.touched & self.open.keys()):
            incident = self.open[serial]
            rows = np.flatnonzero(self.owner == serial)
            at_hand = len(incident.core) > 0 and len(rows) == incident.events
            if incident.kind != IncidentKind.CAMPAIGN or not at_hand or len(self.open) >= MOST_OPEN:
                continue
            own = rows[np.isin(self.keys[rows, SOURCE], incident.core)]
            found = other_ring(self.keys[own, SOURCE], signs_of(self.suspects, own))
            if found is None:
                continue
            members, mine, other = found
            if other == incident.key:  # it is the second that it was told to be
                members, mine, other = ~members, other, mine
            theirs = own[members]
            names = np.unique(self.keys[theirs, SOURCE])
            self.owner[theirs] = FREE
            core = np.setdiff1d(incident.core, names)
            taken = incident.key != RING or any(i.key == mine for i in self.open.values())
            key = incident.key if taken else mine
            self.open[serial] = incident.emptied(key, core, (self.book.seen, self.now))
            self._absorb(serial, np.setdiff1d(rows, theirs))
            none = np.empty(0, dtype=np.uint64)
            self._begin(Group(other, theirs, names, none, 0.0))

    def _merge(self) -> None:
        """Make those one that share a good part of their latest events."""
        if len(self.open) < 2:
            return
        order = sorted(self.open)
        match = np.stack([self._matching(self.open[serial]) > 0 for serial in order])
        match |= self.owner == np.array(order)[:, None]
        match &= self.recent
        shared = match.astype(np.int64) @ match.T.astype(np.int64)
        for at, older in enumerate(order):
            for then in range(at + 1, len(order)):
                younger = order[then]
                if older not in self.open or younger not in self.open:
                    continue
                least = min(shared[at, at], shared[then, then])
                enough = shared[at, then] >= max(LEAST_SHARED, SHARED * least)
                alike = self.open[older].kind == self.open[younger].kind
                if (enough and alike) or self._has_cause(older, younger):
                    self._unite(older, younger)

    def _has_cause(self, older: int, younger: int) -> bool:
        a, b = self.open[older], self.open[younger]
        cause, other = (b, a) if a.kind == IncidentKind.CAMPAIGN else (a, b)
        at_once = self.book.seen - cause.active_seen <= WINDOW
        return at_once and explains(cause, other, sent_again=self.sent_again)

    def _unite(self, older: int, younger: int) -> None:
        gone, kept = self.open.pop(younger), self.open[older]
        whole = united(kept, gone)
        if kept.kind == IncidentKind.CAMPAIGN != gone.kind:  # it is called by its cause
            whole = replace(
                whole,
                kind=gone.kind,
                key=gone.key,
                detail=gone.detail,
                surprised=gone.surprised,
            )
        self.open[older] = whole
        self.owner[self.owner == younger] = older
        self.touched.discard(younger)
        self.touched.add(older)
        if gone.told_as:
            over = replace(gone, is_open=False, merged=self.open[older].id)
            self.closed.append(over)
            self.changes.append(IncidentChange(Changed.MERGED, self._account(over)))

    def _settle(self) -> None:
        """See who still stands out, and close who has not for long."""
        for serial in sorted(self.open):
            incident = self.open[serial]
            rows = np.flatnonzero(self.recent & (self.owner == serial))
            rate = incident.stray * self.span + float(self.looking.expected(incident.core).sum())
            stands = tail_nats(len(rows), max(rate, LEAST_RATE)) >= STAY_NATS
            if len(rows) > rate and len(rows) >= LEAST_HOT and stands:
                incident = replace(incident, active_seen=self.book.seen, active_ns=self.now)
            quiet = self.book.seen - incident.active_seen >= QUIET_EVENTS
            if quiet and self.now - incident.active_ns >= QUIET_SECONDS * SECOND:
                self._close(incident)
            else:
                self.open[serial] = incident

    def _close(self, incident: Incident) -> None:
        del self.open[incident.serial]
        self.owner[self.owner == incident.serial] = GONE
        over = replace(incident, is_open=False)
        said = self._account(over)
        self.closed.append(replace(over, told=over.events, final=orjson.dumps(said)))
        self.touched.discard(incident.serial)
        self.changes.append(IncidentChange(Changed.CLOSED, said))

    def _account(self, incident: Incident) -> Account:
        return account(incident, self.book.columns, self.book.traffic)

    # -- What comes out -------------------------------------------------------------------------

    def result(self, before: IncidentBook) -> Folded:
        """The book, the rows' incidents, and changes worth telling."""
        known = {i.serial for i in before.open}
        for serial in sorted(self.touched & self.open.keys()):
            incident = self.open[serial]
            name = called(incident, self.book.traffic)
            new = serial not in known
            grown = incident.events >= GROWN * incident.told + GROWN_BY
            if new or grown or name != incident.told_as:
                incident = replace(incident, told=incident.events, told_as=name)
                self.open[serial] = incident
                what = Changed.OPENED if new else Changed.UPDATED
                self.changes.append(IncidentChange(what, self._account(incident)))
        suspects = replace(self.suspects, owner=self.owner)
        book = replace(
            self.book,
            suspects=suspects.latest(RECENT),
            open=tuple(self.open[serial] for serial in sorted(self.open)),
            closed=tuple(self.closed[-MOST_CLOSED:]),
            serial=self.serial,
        )
        return Folded(book, self._by_row(suspects), tuple(self.changes))

    def _by_row(self, suspects: Suspects) -> dict[int, str]:
        m = len(self.facts.rows)
        owner = suspects.owner[len(suspects) - m :] if m else suspects.owner[:0]
        return {
            row: self.open[serial].id
            for row, serial in zip(self.facts.rows.tolist(), owner.tolist(), strict=True)
            if serial in self.open
        }
