"""Where audit chains and decisions lie, which record holds a decision, and of which time it is."""

from __future__ import annotations

import bisect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from monitor.core.errors import StateError
from monitor.state.audit import DIGEST_BYTES, Opened, Record, digests, opened
from monitor.state.audit_match import place_of

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
    place: Literal["line", "offset"]
    lines: Sequence[bytes]
    decisions: Callable[[], Iterator[tuple[str, Sequence[bytes]]]]


@dataclass(slots=True)
class Chain:
    """The records of a chain in the order in which they were found."""

    records: list[Opened] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    _sorted: list[tuple[int, int]] = field(default_factory=list)
    _near: tuple[int, int, int] = (0, -1, -1)

    def locate(self, at: int) -> int | None:
        """Which record holds the decision about a position, if its digests are of that one."""
        first, last, index = self._near
        if first <= at <= last:  # mostly it is the one before
            return index
        if len(self._sorted) != len(self.records):
            firsts = (found.record.first_offset for found in self.records)
            self._sorted = sorted((first, index) for index, first in enumerate(firsts))
        i = bisect.bisect_right(self._sorted, (at, len(self.records))) - 1
        if i < 0:
            return None
        index = self._sorted[i][1]
        last = last_offset(self.records[index].record)
        if i + 1 < len(self._sorted):
            self._near = self._sorted[i][0], min(last, self._sorted[i + 1][0] - 1), index
        return index if at <= last else None


class Places:
    """Finds the audit record that holds a decision.

    Attributes
    ----------
    decided, desks
        Chains of decisions, and of what people did with the heads that were written down.
    told
        All records of ``desks`` with their lines, in the order in which they were found.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.decided: dict[str, Chain] = defaultdict(Chain)
        self.desks: dict[str, Chain] = defaultdict(Chain)
        self.told: list[tuple[Opened, bytes]] = []
        self._last: tuple[Record, bytes] | None = None
        for line in lines:
            try:
                found = opened(line)
            except StateError:
                continue
            record = found.record
            if record.kind != "decisions":
                self.told.append((found, line))
            chain = (self.decided if record.kind == "decisions" else self.desks)[record.chain]
            chain.records.append(found)
            chain.lines.append(line)

    def find(self, chain: str, record: bytes) -> tuple[Record, int] | None:
        """The audit record with the digest of a decision, and which of its digests that is."""
        at = place_of(record)
        if at is None or chain not in self.decided:
            return None
        index = self.decided[chain].locate(at)
        return None if index is None else self.held(self.decided[chain], index, at, record)

    def held(self, chain: Chain, index: int, at: int, record: bytes) -> tuple[Record, int] | None:
        """The same where it is known which record is in question, and the decision's position."""
        found = chain.records[index].record
        row = _row(found, at)
        if row is None:
            return None
        if self._last is None or self._last[0] is not found:
            self._last = found, found.digest_bytes()
        part = self._last[1][row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]
        return (found, row) if part == digests([record]) else None


def last_offset(record: Record) -> int:
    """Position of the last decision in an audit record."""
    row, first = record.gaps[-1] if record.gaps else (0, record.first_offset)
    return first + record.count - row - 1


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
