"""A part of the chains for an auditor, with what proves it, and the check of such a part. Pure.

An export is JSON lines: a header, decision records as they were written, the audit records from the
first that holds one of them up to a head that was written down, and what people did. An audit
record's digests prove each decision, the links prove the records, a signature proves the head.
"""

from __future__ import annotations

import bisect
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from monitor.core.errors import StateError, UsageError
from monitor.state.audit import DIGEST_BYTES, Opened, Record, digests, opened
from monitor.state.audit_links import Finding
from monitor.state.audit_match import place_of
from monitor.state.audit_verify import Report, Verification

VERSION = 1
_TS = re.compile(rb'"ts":(?:"([^"]{1,64})"|(-?[0-9][0-9.eE+-]{0,40}))')


@dataclass(frozen=True, slots=True)
class Source:
    """Chains and decisions, wherever they lie.

    Attributes
    ----------
    stream
        The topic or file that the decisions are about.
    place
        How a position in it is called: ``offset`` or ``line``.
    lines
        All audit records, those of one chain in order.
    decisions
        Decisions by chain, those of one chain in order; anew with each call.
    """

    stream: str
    place: str
    lines: Sequence[bytes]
    decisions: Callable[[], Iterator[tuple[str, Sequence[bytes]]]]


class Places:
    """Finds the audit record that holds a decision."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._by_chain: dict[str, list[tuple[int, Opened, bytes]]] = defaultdict(list)
        self.told: list[tuple[Opened, bytes]] = []
        for line in lines:
            try:
                found = opened(line)
            except StateError:
                continue
            record = found.record
            if record.kind == "decisions":
                self._by_chain[record.chain].append((record.first_offset, found, line))
            else:
                self.told.append((found, line))
        for records in self._by_chain.values():
            records.sort(key=lambda one: (one[0], one[1].record.seq))

    def find(self, chain: str, record: bytes) -> tuple[Record, int] | None:
        """The audit record with the digest of a decision, and which of its digests that is."""
        at = place_of(record)
        records = self._by_chain.get(chain, ())
        i = bisect.bisect_right(records, -1 if at is None else at, key=lambda one: one[0]) - 1
        if at is None or i < 0:
            return None
        found = records[i][1].record
        row = _row(found, at)
        if row is None:
            return None
        part = found.digest_bytes()[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]
        return (found, row) if part == digests([record]) else None

    def between(self, chain: str, first: int, last: float) -> Iterator[tuple[Opened, bytes]]:
        """Records of a chain of decisions by number, both ends included."""
        for _, found, line in self._by_chain.get(chain, ()):
            if first <= found.record.seq <= last:
                yield found, line


def _row(record: Record, offset: int) -> int | None:
    starts = [(0, record.first_offset), *record.gaps]
    ends = [row for row, _ in record.gaps] + [record.count]
    for (row, first), end in zip(starts, ends, strict=True):
        if first <= offset < first + end - row:
            return row + offset - first
    return None


def seconds_of(record: bytes) -> float | None:
    """The event's own time in a decision record, in Unix seconds; None where it has none."""
    found = _TS.search(record)
    if found is None:
        return None
    try:
        if found[2] is not None:
            return float(found[2])
        said = datetime.fromisoformat(found[1].decode())
        return (said if said.tzinfo is not None else said.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def export(source: Source, since: float, until: float) -> Iterator[Mapping[str, Any]]:
    """The decisions about events from ``since`` up to ``until``, and what proves them.

    Times are the events' own; a record without one goes with the one before. The last mapping, of
    type ``end``, counts what was written.
    """
    places = Places(source.lines)
    yield {"type": "export", "version": VERSION, "from": since, "to": until, "of": source.stream}
    needed: dict[str, list[int]] = {}
    counts = {"decisions": 0, "unproven": 0, "records": 0}
    last: dict[str, float] = {}
    for chain, records in source.decisions():
        for record in records:
            when = seconds_of(record)
            when = last.setdefault(chain, -math.inf) if when is None else when
            last[chain] = when
            if not since <= when < until:
                continue
            found = places.find(chain, record)
            counts["decisions"] += 1
            counts["unproven"] += found is None
            if found is not None:
                ends = needed.setdefault(chain, [found[0].seq, found[0].seq])
                ends[:] = min(ends[0], found[0].seq), max(ends[1], found[0].seq)
            yield {"type": "decision", "chain": chain, "line": record.decode("utf-8", "replace")}
    for line in _proof(places, needed, since, until):
        counts["records"] += 1
        yield {"type": "record", "line": line.decode()}
    yield {"type": "end", **counts}


def _proof(
    places: Places, needed: Mapping[str, Sequence[int]], since: float, until: float
) -> Iterator[bytes]:
    """The audit records from the needed ones to a head, and people's in between."""
    desks: dict[str, list[int]] = {}
    for found, _ in places.told:
        if since <= found.record.when < until:
            _reach(desks, found.record)
    for chain, (first, last) in needed.items():
        heads = [
            (found.record.heads[chain][0], found)
            for found, _ in places.told
            if chain in found.record.heads and found.record.heads[chain][0] >= last
        ]
        signed = [(seq, found) for seq, found in heads if found.signature]
        upto, head = min(signed or heads, key=lambda one: one[0], default=(None, None))
        if head is not None:
            _reach(desks, head.record)
        for _, line in places.between(chain, first, math.inf if upto is None else upto):
            yield line
    for found, line in places.told:
        first, last = desks.get(found.record.chain, (1, 0))
        if first <= found.record.seq <= last:
            yield line


def _reach(ends: dict[str, list[int]], record: Record) -> None:
    found = ends.setdefault(record.chain, [record.seq, record.seq])
    found[:] = min(found[0], record.seq), max(found[1], record.seq)


_NO_EXPORT = (
    "is not a file that `audit export` wrote. Give that file, or the folder of a replay or a local "
    "service, not a file in it."
)


def verify_export(
    rows: Iterable[bytes], trusted: Mapping[str, str] | None, anchors: Sequence[bytes] = ()
) -> Report:
    """Check what :func:`export` gave.

    Raises
    ------
    UsageError
        When it is no export.
    """
    lines: list[bytes] = []
    decisions: list[tuple[str, bytes]] = []
    header, end = None, None
    for number, row in enumerate(rows, 1):
        try:
            said = msgspec.json.decode(row, type=dict[str, Any])
            kind = said["type"]
            if kind == "record":
                lines.append(said["line"].encode())
            elif kind == "decision":
                decisions.append((said["chain"], said["line"].encode()))
            elif kind == "export":
                header = said
            elif kind == "end":
                end = said
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
            if header is None:
                raise UsageError(_NO_EXPORT) from None
            raise UsageError(
                f"line {number} is not of an export, so the file was changed or cut: {error}. "
                "Verify another copy, or export it again."
            ) from None
        if header is None:
            raise UsageError(_NO_EXPORT)
    if header is None:
        raise UsageError(_NO_EXPORT)
    check = Verification(lines.__getitem__, trusted, cut=True, part=True)
    for number, line in enumerate(lines):
        check.add(line, number, f"audit record {number + 1} of the export")
    for line in anchors:
        check.anchor(line)
    check.link()
    return _compared(check.report(decisions=False), Places(lines), decisions, end)


def _compared(
    report: Report,
    places: Places,
    decisions: Sequence[tuple[str, bytes]],
    end: Mapping[str, Any] | None,
) -> Report:
    """The report with the decisions of an export, which are only a part of those in the records."""
    covered: dict[str, int] = defaultdict(int)
    for found, _ in places.told:
        if found.signature:
            for chain, (seq, _) in found.record.heads.items():
                covered[chain] = max(covered[chain], seq)
    findings = list(report.findings)
    proven: dict[str, int] = defaultdict(int)
    unsigned = 0
    for chain, record in decisions:
        found_at = places.find(chain, record)
        if found_at is None:
            at = place_of(record)
            text = f"the decision about position {at} of {chain} is not the one in the chain"
            findings.append(Finding("changed", chain, f"offset {at}", text))
            continue
        proven[chain] += 1
        unsigned += found_at[0].seq > covered[chain]
    notes = list(report.notes)
    if end is None or end.get("decisions") != len(decisions):
        findings.append(Finding("truncated", "", "end", "the export is not whole"))
    if unsigned:
        some = "1 decision is" if unsigned == 1 else f"{unsigned:,} decisions are"
        notes.append(f"{some} not covered by a signed head")
    chains = tuple(replace(c, decisions=proven[c.chain]) for c in report.chains)
    return replace(report, findings=tuple(findings), chains=chains, notes=tuple(notes))
