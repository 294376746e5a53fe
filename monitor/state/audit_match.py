"""Whether decision records are those that a chain holds digests of, and if not, which differ. Pure.

As long as all is well a block of records costs one hash a record and one comparison. From the
first difference on both sides are laid beside each other, a window at a time: what is in both in
the same order is as it should be, what is in one only was dropped, inserted or changed, and what
is in both in another order was moved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from monitor.core.errors import StateError
from monitor.state.audit import DIGEST_BYTES, Record, digests
from monitor.state.audit_links import Finding, in_order

WINDOW = 65_536
MOST_REMEMBERED = 100_000
_PLACE = re.compile(rb'"partition":(\d+),"(line|offset)":(\d+),')


@dataclass(frozen=True, slots=True)
class Expected:
    """The decisions of an audit record."""

    offsets: Sequence[int]
    digests: bytes

    @classmethod
    def of(cls, record: Record) -> Expected:
        """What ``record`` says was decided. Raises StateError for one that contradicts itself."""
        if record.count > 1 << 24 or any(row >= record.count for row, _ in record.gaps):
            raise StateError(f"audit record {record.seq} of {record.chain} contradicts itself")
        return cls(tuple(record.offsets()), record.digest_bytes())


def place_of(record: bytes) -> int | None:
    """The input position that a decision record names, from 0; None where it names none."""
    found = _PLACE.search(record)
    return None if found is None else int(found[3]) - (found[2] == b"line")


class DecisionCheck:
    """Compares decisions, as they come, with the digests of one chain.

    Parameters
    ----------
    chain
        Its name.
    expected
        The decisions of its records, in the chain's order.
    place
        How a decision's position is called: ``line`` (from 1) or ``offset``.
    may_expire
        Whether decisions from the beginning may be gone because a topic keeps them for a time.

    Attributes
    ----------
    checked
        Decisions that are as they were written.
    uncovered
        Decisions in front of the chain's beginning.
    expired
        Decisions at the chain's beginning that are not kept any more.
    """

    def __init__(
        self,
        chain: str,
        expected: Iterator[Expected],
        *,
        place: str = "offset",
        may_expire: bool = False,
    ) -> None:
        self._chain, self._expected, self._place = chain, expected, place
        self._may_expire, self._started = may_expire, False
        self.findings: list[Finding] = []
        self.checked = self.uncovered = self.expired = self.read = 0
        self._want, self._offsets = b"", list[int]()
        self._got, self._records = b"", list[bytes]()
        self._no_more = False
        self._missing: dict[bytes, int] = {}
        self._away: set[bytes] = set()

    def feed(self, records: Sequence[bytes]) -> None:
        """More decisions, in the order in which they are found."""
        self._got += digests(records)
        self._records += records
        self._run(ended=False)

    def finish(self) -> None:
        """There are no more decisions."""
        self._run(ended=True)

    def _run(self, *, ended: bool) -> None:
        while True:
            n = min(len(self._records), self._wanted(len(self._records)))
            same = self._same(n)
            self._take(same, same)
            self.checked += same
            self._started = self._started or same > 0
            wanted = self._wanted(1)
            if not self._records and not (ended and wanted):
                return
            if not ended and len(self._records) < WINDOW:
                return  # differs: wait until there is enough to tell how
            self._wanted(WINDOW)
            self._lay_beside(ended=ended)

    def _wanted(self, least: int) -> int:
        """Have ``least`` expected decisions at hand if there are so many; how many there are."""
        if len(self._offsets) < least and not self._no_more:
            digests_, more = [self._want], 0
            while len(self._offsets) < least:
                part = next(self._expected, None)
                if part is None:
                    self._no_more = True
                    break
                digests_.append(part.digests)
                self._offsets += part.offsets
                more += 1
            if more:
                self._want = b"".join(digests_)
        return len(self._offsets)

    def _same(self, n: int) -> int:
        """How many of the first ``n`` are the same on both sides, up to the first that is not."""
        low, high = 0, n
        if self._want[: n * DIGEST_BYTES] == self._got[: n * DIGEST_BYTES]:
            return n
        while high - low > 1:  # the first ``low`` are the same, the first ``high`` are not
            mid = (low + high) // 2
            part = slice(low * DIGEST_BYTES, mid * DIGEST_BYTES)
            if self._want[part] == self._got[part]:
                low = mid
            else:
                high = mid
        return low

    def _take(self, want: int, got: int) -> None:
        self._want, self._offsets = self._want[want * DIGEST_BYTES :], self._offsets[want:]
        self._got, self._records = self._got[got * DIGEST_BYTES :], self._records[got:]
        self.read += got

    def _lay_beside(self, *, ended: bool) -> None:
        """Tell how a window differs, and go on behind what both sides have in common."""
        want = _cut(self._want, min(len(self._offsets), WINDOW))
        got = _cut(self._got, min(len(self._records), WINDOW))
        index = {digest: i for i, digest in enumerate(want)}
        common = [(j, index[digest]) for j, digest in enumerate(got) if digest in index]
        # Rising without equals: of a record and its copies one is chosen.
        straight = in_order([i for _, i in common])
        pairs = [pair for k, pair in enumerate(common) if k in straight]
        astray = [pair for k, pair in enumerate(common) if k not in straight]
        all_want = ended and self._no_more and len(want) == len(self._offsets)
        all_got = ended and len(got) == len(self._records)
        ends = len(want), len(got)
        if not (all_want and all_got):
            if pairs:
                ends = pairs[-1][1] + 1, pairs[-1][0] + 1
            elif want and got:
                ends = (min(ends),) * 2
        self._tell(want, got, ends, (pairs, astray))
        self.checked += len(pairs)
        self._started = self._started or bool(pairs)
        self._take(*ends)

    def _tell(
        self,
        want: Sequence[bytes],
        got: Sequence[bytes],
        ends: tuple[int, int],
        shared: tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]],
    ) -> None:
        """Findings about the first ``ends`` of both sides; ``shared`` are in both, or astray."""
        pairs, astray = shared
        there, known = {i for _, i in pairs}, {j for j, _ in pairs}
        for j, i in astray:
            if i in there or (i >= ends[0] and j >= ends[1]):
                continue  # a copy, or of the next window
            there.add(i)
            known.add(j)
            self._find("moved", self._offsets[i], f"is not in its place, {self._at(j)}")
            self.checked += 1
            if i >= ends[0]:
                self._away.add(want[i])
            if j >= ends[1]:
                self._away.add(got[j])
        missing = [i for i in range(ends[0]) if i not in there and not self._told(want[i])]
        extra = [j for j in range(ends[1]) if j not in known and not self._told(got[j])]
        self._pair_up(want, got, (missing, extra), pairs)

    def _pair_up(
        self,
        want: Sequence[bytes],
        got: Sequence[bytes],
        left: tuple[list[int], list[int]],
        pairs: Sequence[tuple[int, int]],
    ) -> None:
        """What is in one side only: changed where both have the same position, else by itself."""
        missing, extra = left
        by_offset = {self._offsets[i]: i for i in missing}
        changed: dict[int, int] = {}
        for j in extra:
            i = by_offset.get(self._own(j, -1), -1)
            if i >= 0 and i not in changed:
                changed[i] = j
        first = pairs[0] if pairs else (len(got), len(want))
        unpaired = [j for j in extra if j not in set(changed.values())]
        changed |= _by_place([i for i in missing if i not in changed], unpaired, pairs)
        taken = set(changed.values())
        for i, j in sorted(changed.items()):
            self._find("changed", self._offsets[i], f"was changed, {self._at(j)}")
        for i in missing:
            if i in changed:
                continue
            if self._may_expire and not self._started and i < first[1]:
                self.expired += 1
                continue
            if len(self._missing) < MOST_REMEMBERED:
                self._missing[want[i]] = self._offsets[i]
            self._find("dropped", self._offsets[i], "is missing: it was dropped")
        for j in extra:
            if j in taken:
                continue
            own = self._own(j, -1)
            before_chain = not self._started and j < first[0] and bool(self._offsets)
            if before_chain and 0 <= own < self._offsets[0]:
                self.uncovered += 1
            elif got[j] in self._missing:
                where = self._missing[got[j]]
                self._find("moved", where, f"is not in its place, {self._at(j)}")
            else:
                what = f"is not in the chain: it was inserted, {self._at(j)}"
                self._find("inserted", own, what)

    def _own(self, row: int, default: int) -> int:
        found = place_of(self._records[row])
        return default if found is None else found

    def _told(self, digest: bytes) -> bool:
        """Whether it was told already that this one is elsewhere."""
        if digest in self._away:
            self._away.discard(digest)
            return True
        return False

    def _at(self, row: int) -> str:
        return f"it stands as number {self.read + row + 1}"

    def _find(self, kind: str, offset: int, what: str) -> None:
        number = offset + (self._place == "line")
        place = f"{self._place} {number}" if offset >= 0 else "of no position"
        subject = f"the decision about {place}" if offset >= 0 else "a record that is no decision"
        text = f"{subject} in chain {self._chain} {what}"
        self.findings.append(Finding(kind, self._chain, place, text))


def _cut(data: bytes, n: int) -> list[bytes]:
    return [data[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES] for i in range(n)]


def _by_place(
    missing: Sequence[int], extra: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> dict[int, int]:
    """Which stands for which between the same neighbours, where both are equally many."""
    gaps: dict[int, tuple[list[int], list[int]]] = {}
    wants, gots = [i for _, i in pairs], [j for j, _ in pairs]
    for at, (values, bounds) in enumerate(((missing, wants), (extra, gots))):
        place = 0
        for value in values:
            while place < len(bounds) and bounds[place] < value:
                place += 1
            gaps.setdefault(place, ([], []))[at].append(value)
    return {
        i: j
        for some, others in gaps.values()
        if len(some) == len(others)
        for i, j in zip(some, others, strict=True)
    }
