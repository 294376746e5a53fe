"""Whether an export can lack something at the ends of a chain, or a whole chain. Pure.

Records between two others that are there cannot be missing, as each names the one before, and
decisions neither, as the records hold their digests. So what remains are the ends of a stretch, and
whole chains. A stretch begins well at the chain's first record, or at one all of whose events are
earlier than the period; it ends well at one all of whose events are later, or where a head of the
period's end or later says that the chain stood. A chain that a head knows of must be there.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from monitor.state.audit import Record
from monitor.state.audit_export import HeaderRow, Span
from monitor.state.audit_links import Entry, Finding
from monitor.state.audit_match import DecisionCheck, place_of
from monitor.state.audit_places import last_offset, seconds_of
from monitor.state.audit_verify import Stand

BLOCK = 8192


@dataclass(slots=True)
class Edge:
    """A record at an end of a stretch: its decisions' positions, and the times among them."""

    first: int
    last: int
    low: float = math.inf
    high: float = -math.inf

    @classmethod
    def of(cls, record: Record) -> Edge:
        """That of a record of decisions; one of what people did has a time of its own."""
        if record.kind != "decisions":
            return cls(0, -1, record.when, record.when)
        return cls(record.first_offset, last_offset(record))

    def add(self, at: int, when: float) -> None:
        """A decision, maybe of this record."""
        if self.first <= at <= self.last:
            self.low, self.high = min(self.low, when), max(self.high, when)

    def before(self, since: float) -> bool:
        """Whether all of it is earlier."""
        return self.low <= self.high < since

    def behind(self, until: float) -> bool:
        """Whether all of it is later."""
        return self.high >= self.low >= until


@dataclass(slots=True)
class Part:
    """What an export holds of a chain.

    Attributes
    ----------
    entries, span
        Its records, and which of them the header names.
    check
        Takes the decisions of the first to the last record whose decisions are given.
    first, last
        These records.
    people
        Whether it is of what people did.
    earlier
        Hashes of records from before the chain began anew.
    signed, signed_to
        The last record that a signed head covers, and the position of its last decision.
    unsigned
        Decisions of the period behind it.
    """

    chain: str
    span: Span
    entries: Sequence[Entry]
    check: DecisionCheck
    first: Edge
    last: Edge
    people: bool = False
    earlier: set[str] = field(default_factory=set)
    signed: int = 0
    signed_to: int = -1
    unsigned: int = 0
    carried: float = -math.inf
    block: list[bytes] = field(default_factory=list)
    astray: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, line: bytes, since: float, until: float, *, asked: bool) -> None:
        """A decision, which is given as one that was ``asked`` for or not."""
        at, known = place_of(line), seconds_of(line)
        where = -1 if at is None else at
        if known is None:
            when = self.carried
        else:
            when = self.carried = known
            self.first.add(where, when)
            self.last.add(where, when)
        inside = since <= when < until
        if inside and where > self.signed_to:
            self.unsigned += 1
        if inside != asked:
            self.astray["changed" if inside else "inserted"].append(where)
        self.block.append(line)
        if len(self.block) >= BLOCK:
            self.flush()

    def flush(self) -> None:
        """Compare what has come."""
        self.check.feed(self.block)
        self.block.clear()

    def finish(self, header: HeaderRow) -> Iterator[Finding]:
        """There are no more decisions: what is wrong with them."""
        self.flush()
        self.check.finish()
        yield from self.check.findings
        if self.check.uncovered:
            text = f"{self.check.uncovered:,} decisions in front of the first record of "
            text += f"{self.chain} in the export are in none: they were inserted"
            yield Finding("inserted", self.chain, "beginning", text)
        for kind, places in self.astray.items():
            word = header.place
            place = f"{word} {places[0] + (word == 'line')}"
            many = f"{len(places):,} of the decisions of chain {self.chain}, the first about "
            many += f"{place}, are "
            what = "not of the period, and given as if they were"
            if kind == "changed":
                what = "of the period, and given as if they were not"
            text = f"{many}{what}: the export's --from or --to was altered, or these rows were"
            yield Finding(kind, self.chain, place, text)

    def first_words(self, header: HeaderRow) -> tuple[str, Finding | None]:
        """How it is known that nothing is missing in front, or what is not."""
        if self.entries[0].begins:
            return "at its first", None
        if self.first.before(header.since):
            return "before --from", None
        seq = self.entries[0].seq
        text = (
            f"chain {self.chain} is in the export from record {seq} on, which is not its first, "
            "and not of before the period: the beginning was left out, or is not kept any more"
        )
        return "not proven", Finding("unproven", self.chain, f"record {seq}", text)

    def last_words(
        self, header: HeaderRow, stands: Iterable[Stand], *, keys: bool
    ) -> tuple[str, Finding | None]:
        """How it is known that nothing is missing behind, or what is not; empty for not at all.

        ``stands`` are those of this chain.
        """
        last, until = min(self.span.last, self.entries[-1].seq), header.until
        behind = self.last.behind(until)
        if behind and (self.people or not keys or self.signed >= last):
            return "behind --to", None
        said = [one for one in stands if one.head.hash not in self.earlier]
        stood = [one.when for one in said if one.when >= until and one.head.seq <= last]
        # Heads that were kept elsewhere may be later than the export.
        known = [one for one in said if not one.anchored or one.when < until]
        gone = [] if behind else [one for one in known if one.head.seq > last]
        text = f"chain {self.chain} ends in the export at record {last}, within the period, but "
        kind = "truncated"
        if gone:
            text += f"{gone[0].by} knows record {gone[0].head.seq}: the end was cut off"
        elif self.entries[-1].seq > last and not behind:
            text += f"goes on to record {self.entries[-1].seq}: decisions at the end were cut off"
        elif stood:
            return f"head {clock(max(stood))}", None
        elif keys and not self.people:
            kind = "unproven"
            text = (
                f"that chain {self.chain} does not go on within the period, behind record {last}, "
                "is not proven: no signed head of --to or later covers it. The end was cut off, or "
                "the export was made before such a head was written"
            )
        else:
            return "", None
        return "not proven", Finding(kind, self.chain, f"record {last + 1}", text)


def left_out(names: Iterable[str], header: HeaderRow, stands: Sequence[Stand]) -> Iterator[Finding]:
    """Chains that heads know of, but the export does not."""
    own = max((one.when for one in stands if not one.anchored), default=-math.inf)
    latest = max(own, header.until)  # of a chain that began later nothing needs to be there
    told = set(names) | set(header.chains)
    for one in stands:
        if one.chain in told or (one.anchored and one.when > latest) or not one.head.seq:
            continue
        told.add(one.chain)
        text = f"chain {one.chain} is not in the export, but {one.by} knows its record "
        text += f"{one.head.seq}: it was left out, or is not kept any more"
        yield Finding("dropped", one.chain, "chain", text)


def of_header(header: HeaderRow, parts: Sequence[Part]) -> Iterator[Finding]:
    """What the header says of chains against what is there."""
    there = {part.chain: part.entries for part in parts if part.entries}
    for chain, span in header.chains.items():
        if chain not in there:
            text = f"chain {chain}, records {span.first} to {span.upto}, was left out"
            yield Finding("dropped", chain, "chain", text)
            continue
        first, last = there[chain][0].seq, there[chain][-1].seq
        if first > span.first:
            yield _other("dropped", chain, span.first, first - 1)
        if last < span.upto:
            yield _other("dropped", chain, last + 1, span.upto)
        if first < span.first:
            yield _other("inserted", chain, first, span.first - 1)
        if last > span.upto:
            yield _other("inserted", chain, span.upto + 1, last)
    for chain in sorted(there.keys() - header.chains.keys()):
        text = f"the export's header does not name chain {chain}: it was inserted"
        yield Finding("inserted", chain, "chain", text)


def _other(kind: str, chain: str, first: int, last: int) -> Finding:
    one = first == last
    which = f"record {first}" if one else f"records {first} to {last}"
    are = "is" if one else "are"
    what = f"{are} missing" if kind == "dropped" else f"{are} not in the export's header"
    were = "it was" if one else "they were"
    return Finding(kind, chain, which, f"audit {which} of {chain} {what}: {were} {kind}")


def clock(seconds: float) -> str:
    """A time in UTC; one that no calendar has as seconds."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):  # whoever wrote it: no time that a calendar has
        return f"{seconds:g} s"
