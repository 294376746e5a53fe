"""Whether the records of a chain hang together, and if not, which of them do not. Pure."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from monitor.state.audit import ROOT, Opened


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where.

    Attributes
    ----------
    kind
        ``changed``, ``dropped``, ``inserted``, ``moved``, ``broken`` (two records do not join),
        ``restart``, ``truncated``, ``signature``, ``unreadable``.
    chain, place
        Which chain, and what of it: ``record 7`` is an audit record, ``offset 12`` or ``line 13``
        a decision.
    text
        A sentence.
    """

    kind: str
    chain: str
    place: str
    text: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An audit record without its contents; ``at`` is where whoever read it finds it again."""

    seq: int
    prev: str
    hash: str
    computed: str
    at: int

    @classmethod
    def of(cls, opened: Opened, at: int) -> Entry:
        """What ``opened`` is for its chain."""
        record = opened.record
        return cls(record.seq, record.prev, opened.hash, opened.computed, at)

    @property
    def begins(self) -> bool:
        """Whether it is the first of a chain."""
        return self.seq == 1 and self.prev == ROOT

    def joins(self, before: Entry) -> bool:
        """Whether it names ``before``, whichever of its hashes was tampered with."""
        return self.prev in (before.hash, before.computed)


@dataclass(slots=True)
class Links:
    """What is wrong with a chain's records, and which of them count, in the chain's order.

    ``runs`` has a list for every beginning: more than one where the chain was begun again.
    """

    findings: list[Finding] = field(default_factory=list)
    runs: list[list[Entry]] = field(default_factory=list)


def in_order(values: Sequence[int]) -> set[int]:
    """Places of a longest rising part of ``values``: what is left out was moved.

    Examples
    --------
    >>> sorted(in_order([1, 5, 2, 3, 4]))
    [0, 2, 3, 4]
    """
    tails: list[int] = []
    ends: list[int] = []
    back: list[int] = []
    for place, value in enumerate(values):
        at = bisect.bisect_left(tails, value)
        back.append(ends[at - 1] if at else -1)
        if at == len(tails):
            tails.append(value)
            ends.append(place)
        else:
            tails[at], ends[at] = value, place
    found: set[int] = set()
    place = ends[-1] if ends else -1
    while place >= 0:
        found.add(place)
        place = back[place]
    return found


def check_links(chain: str, entries: Iterable[Entry], *, whole: bool = True) -> Links:
    """Check one chain's records, given in the order in which they are found.

    ``whole`` false takes the first record as given: there may have been others before.
    """
    links = Links()
    runs: list[list[Entry]] = []
    for entry in entries:
        # The first record of a chain found further on is a chain begun again, or a moved one; where
        # those in front may be gone, the first of the chain before is one of them.
        again = bool(runs) and entry.begins
        if not runs or (again and (not whole or any(other.begins for other in runs[-1]))):
            if runs and entry.hash == runs[-1][0].hash:
                links.findings.append(_extra(chain, entry))
                continue
            runs.append([])
        runs[-1].append(entry)
    for number, run in enumerate(runs):
        if number:
            text = (
                f"chain {chain} begins anew behind record {runs[number - 1][-1].seq}: its state "
                "was reset, or its records were replaced"
            )
            links.findings.append(Finding("restart", chain, f"record {run[0].seq}", text))
        links.runs.append(_checked(chain, run, links.findings, whole=whole))
    return links


def _extra(chain: str, entry: Entry) -> Finding:
    text = f"audit record {entry.seq} of {chain} is there once more: it was inserted"
    return Finding("inserted", chain, f"record {entry.seq}", text)


def _checked(
    chain: str, run: Sequence[Entry], findings: list[Finding], *, whole: bool
) -> list[Entry]:
    kept = _one_each(chain, run, findings)
    straight = in_order([entry.seq for entry in kept])
    for place, entry in enumerate(kept):
        if place not in straight:
            text = f"audit record {entry.seq} of {chain} is not in its place: it was moved"
            findings.append(Finding("moved", chain, f"record {entry.seq}", text))
    kept.sort(key=lambda entry: entry.seq)
    for entry in kept:
        if entry.hash != entry.computed:
            text = f"audit record {entry.seq} of {chain} was changed: it does not match its hash"
            findings.append(Finding("changed", chain, f"record {entry.seq}", text))
    _check_joints(chain, kept, findings, whole=whole)
    return kept


def _check_joints(
    chain: str, kept: Sequence[Entry], findings: list[Finding], *, whole: bool
) -> None:
    before: Entry | None = None
    for entry in kept:
        last = entry.seq - 1 if before is None and not whole else before.seq if before else 0
        if entry.seq > last + 1:
            first, end = last + 1, entry.seq - 1
            which = f"record {first}" if first == end else f"records {first} to {end}"
            text = f"audit {which} of {chain} is missing: it was dropped"
            findings.append(Finding("dropped", chain, which, text))
        elif before is not None and not entry.joins(before):
            text = (
                f"audit record {entry.seq} of {chain} does not name record {before.seq} as the one "
                "before: one of them was replaced"
            )
            findings.append(Finding("broken", chain, f"record {entry.seq}", text))
        elif before is None and whole and entry.prev != ROOT:
            text = f"audit record 1 of {chain} names one before it: the beginning was replaced"
            findings.append(Finding("broken", chain, "record 1", text))
        before = entry


def _one_each(chain: str, run: Sequence[Entry], findings: list[Finding]) -> list[Entry]:
    """One entry a number: of several the one that joins its neighbours, and is in its place."""
    straight = in_order([entry.seq for entry in run])
    placed = {id(entry) for place, entry in enumerate(run) if place in straight}
    by_seq: dict[int, list[Entry]] = defaultdict(list)
    for entry in run:
        by_seq[entry.seq].append(entry)
    chosen: set[int] = set()
    for seq, same in by_seq.items():
        if len(same) == 1:
            chosen.add(id(same[0]))
            continue

        def worth(entry: Entry, seq: int = seq) -> tuple[bool, ...]:
            joins = any(entry.joins(before) for before in by_seq.get(seq - 1, ()))
            joined = any(after.joins(entry) for after in by_seq.get(seq + 1, ()))
            intact = entry.hash == entry.computed
            return joined, joins or entry.begins, intact, id(entry) in placed

        best = max(same, key=worth)
        chosen.add(id(best))
        findings += [_extra(chain, entry) for entry in same if entry is not best]
    return [entry for entry in run if id(entry) in chosen]
