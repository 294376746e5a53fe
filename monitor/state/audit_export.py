"""A part of the chains for an auditor, with what proves that it is right and that it is all. Pure.

An export is JSON lines. Its header says of which time it is, and which audit records of which
chains are in it; then come these records, then decisions as they were written, then an end. Of
each chain it holds a stretch of consecutive records: from one in front of the time, or the chain's
first, to one behind the time, or the chain's last; and *all* decisions of these, as a decision's
time is in the decision only. Those of another time are in rows of type ``beside``: they show that
they are not asked for. Records behind the stretch lead to a head that was written down, which a
signature proves. The check is in :mod:`monitor.state.audit_proof`.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from monitor.state.audit import Opened
from monitor.state.audit_match import place_of
from monitor.state.audit_places import Chain, Places, Source, seconds_of

VERSION = 2
_TIMES = {"since": "from", "until": "to"}


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Which records of a chain there are, by number.

    All decisions of ``first`` to ``last`` are given; those after it, up to ``upto``, are only
    links to a head.
    """

    first: int
    last: int
    upto: int


class HeaderRow(
    msgspec.Struct, frozen=True, tag="export", forbid_unknown_fields=True, rename=_TIMES
):
    """The first row: of which time, of what, and which records of which chains."""

    version: int
    since: float
    until: float
    of: str
    place: Literal["line", "offset"]
    chains: dict[str, Span]


class RecordRow(msgspec.Struct, frozen=True, tag="record", forbid_unknown_fields=True):
    """An audit record."""

    line: str


class DecisionRow(msgspec.Struct, frozen=True, tag="decision", forbid_unknown_fields=True):
    """A decision about an event of the time that was asked for."""

    chain: str
    line: str


class BesideRow(msgspec.Struct, frozen=True, tag="beside", forbid_unknown_fields=True):
    """Another decision of the same audit records."""

    chain: str
    line: str


class EndRow(msgspec.Struct, frozen=True, tag="end", forbid_unknown_fields=True, rename=_TIMES):
    """The last row: the time again, how many rows there are, and the SHA-256 of all before it."""

    since: float
    until: float
    records: int
    decisions: int
    beside: int
    sha256: str


@dataclass(slots=True)
class _Stretch:
    """Records of a chain by their place in it, both ends included.

    ``low`` and ``high`` are the times of what each record is about, ``seen`` how many decisions
    of it there are, ``touched`` the first and last record with something of the period.
    """

    chain: Chain
    since: float
    until: float
    low: list[float] = field(init=False)
    high: list[float] = field(init=False)
    seen: list[int] = field(init=False)
    touched: list[int] = field(default_factory=list)
    start: int = 0
    end: int = 0
    upto: int = 0
    behind: bool = False

    def __post_init__(self) -> None:
        n = len(self.chain.records)
        self.low, self.high, self.seen = [math.inf] * n, [-math.inf] * n, [0] * n

    def add(self, index: int, when: float | None) -> None:
        """Something that a record is about."""
        self.seen[index] += 1
        if when is None:
            return
        self.low[index] = min(self.low[index], when)
        self.high[index] = max(self.high[index], when)
        if self.since <= when < self.until:
            ends = self.touched or [index, index]
            self.touched = [min(ends[0], index), max(ends[1], index)]

    def choose(self) -> None:
        """The shortest stretch that shows that nothing is missing at its ends, if there is one."""
        n, first = len(self.chain.records), self._lead()
        last = first - 1
        if self.touched:
            first, last = self.touched
        early = range(first - 1, -1, -1)
        before = next((i for i in early if self._whole(i) and self.high[i] < self.since), None)
        if before is not None:
            self.start = before
        else:  # what is not kept any more cannot be given
            self.start = 0 if all(map(self._whole, range(first))) else min(first, n - 1)
        late = range(last + 1, n)
        behind = next((i for i in late if self._whole(i) and self.low[i] >= self.until), None)
        self.behind = behind is not None
        self.end = n - 1 if behind is None else behind
        while behind is None and self.end > max(last, self.start) and not self.seen[self.end]:
            self.end -= 1  # of after the decisions were read
        self.upto = self.end

    def extend(self, index: int) -> None:
        """Have a record in it, too."""
        self.start, self.end = min(self.start, index), max(self.end, index)
        self.upto = max(self.upto, self.end)

    def _lead(self) -> int:
        """Where the records in front of the period, from the beginning on, end."""
        return next((i for i, high in enumerate(self.high) if high >= self.since), len(self.high))

    def _whole(self, index: int) -> bool:
        """Whether all that a record is about is at hand, and of a known time."""
        record = self.chain.records[index].record
        known = self.low[index] <= self.high[index]
        return known and (record.kind != "decisions" or self.seen[index] >= record.count)

    def holds(self, index: int) -> bool:
        """Whether the decisions of a record are given."""
        return self.start <= index <= self.end

    def seq(self, index: int) -> int:
        """The number of a record."""
        return self.chain.records[index].record.seq

    @property
    def span(self) -> Span:
        """For the header."""
        return Span(self.seq(self.start), self.seq(self.end), self.seq(self.upto))


@dataclass(frozen=True, slots=True)
class _Told:
    """A record with heads, and its place in its chain."""

    found: Opened
    index: int

    def hash(self, chain: str) -> str:
        """The record at which it says that a chain stood."""
        return self.found.record.heads[chain][1]


@dataclass(slots=True)
class Export:
    """The decisions about events from ``since`` up to ``until``, and what proves them.

    Times are the events' own; a decision without one goes with the one before.

    Attributes
    ----------
    records, decisions, beside
        Rows that were written.
    unproven
        Decisions among them that are not as the chain has them.
    open
        Chains of which nothing shows that they did not go on within the period.
    """

    source: Source
    since: float
    until: float
    records: int = 0
    decisions: int = 0
    beside: int = 0
    unproven: int = 0
    open: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[bytes]:
        """The lines of the file, in order."""
        places = Places(self.source.lines)
        stretches = self._decided(places)
        desks = {name: self._desk(chain) for name, chain in places.desks.items()}
        heads = _heads(places)
        for name, stretch in stretches.items():
            self._reach(name, stretch, heads.get(name, ()), desks)
        everything = stretches | desks
        digest = hashlib.sha256()
        for row in self._rows(places, stretches, everything):
            digest.update(row)
            yield row
        counts = self.records, self.decisions, self.beside
        yield _line(EndRow(self.since, self.until, *counts, digest.hexdigest()))

    def _rows(
        self, places: Places, stretches: Mapping[str, _Stretch], everything: Mapping[str, _Stretch]
    ) -> Iterator[bytes]:
        spans = {name: stretch.span for name, stretch in everything.items()}
        source = self.source
        yield _line(HeaderRow(VERSION, self.since, self.until, source.stream, source.place, spans))
        for given in everything.values():
            for line in given.chain.lines[given.start : given.upto + 1]:
                self.records += 1
                yield _line(RecordRow(line.decode()))
        last: dict[str, float] = {}
        for chain, records in self.source.decisions():
            stretch = stretches.get(chain)
            for record in records:
                known, at = seconds_of(record), place_of(record)
                when = last.get(chain, -math.inf) if known is None else known
                inside = self.since <= when < self.until
                index = None if at is None or stretch is None else stretch.chain.locate(at)
                held = index is not None and stretch is not None and stretch.holds(index)
                if not inside and not held:
                    continue
                last[chain] = when
                if at is None or index is None or stretch is None:
                    self.unproven += 1
                else:
                    self.unproven += places.held(stretch.chain, index, at, record) is None
                self.decisions += inside
                self.beside += not inside
                kind = DecisionRow if inside else BesideRow
                yield _line(kind(chain, record.decode("utf-8", "replace")))

    def _decided(self, places: Places) -> dict[str, _Stretch]:
        found = {
            name: _Stretch(chain, self.since, self.until) for name, chain in places.decided.items()
        }
        for name, records in self.source.decisions():
            if name not in found:
                continue
            stretch = found[name]
            for record in records:
                at = place_of(record)
                index = None if at is None else stretch.chain.locate(at)
                if index is not None:
                    stretch.add(index, seconds_of(record))
        for stretch in found.values():
            stretch.choose()
        return found

    def _desk(self, chain: Chain) -> _Stretch:
        found = _Stretch(chain, self.since, self.until)
        for index, opened in enumerate(chain.records):
            found.add(index, opened.record.when)
        found.choose()
        told = (
            index
            for index, opened in enumerate(chain.records)
            if opened.record.kind == "heads" and opened.record.when >= self.until
        )
        found.extend(next(told, found.end))  # it says which chains there were by then
        return found

    def _reach(
        self,
        name: str,
        stretch: _Stretch,
        heads: Sequence[_Told],
        desks: Mapping[str, _Stretch],
    ) -> None:
        """Have the export hold the head that proves a chain's stretch."""
        place = {found.hash: index for index, found in enumerate(stretch.chain.records)}
        signed = [told for told in heads if told.found.signature] or heads
        known = [(place[told.hash(name)], told) for told in signed if told.hash(name) in place]
        beyond = [(at, told) for at, told in known if at >= stretch.end]
        within = [told for at, told in known if at <= stretch.end]
        best = None
        if stretch.behind and beyond:
            stretch.upto, best = min(beyond, key=lambda one: (one[0], one[1].found.record.when))
        elif within:
            best = max(within, key=lambda told: told.found.record.when)
        if best is not None:
            desk = desks[best.found.record.chain]
            desk.extend(best.index)
        if not stretch.behind and (best is None or best.found.record.when < self.until):
            self.open.append(name)


def _heads(places: Places) -> dict[str, list[_Told]]:
    """By the chain that they tell of."""
    heads: dict[str, list[_Told]] = defaultdict(list)
    for desk in places.desks.values():
        for index, found in enumerate(desk.records):
            for name in found.record.heads:
                heads[name].append(_Told(found, index))
    return heads


def _line(row: msgspec.Struct) -> bytes:
    return msgspec.json.encode(row) + b"\n"
