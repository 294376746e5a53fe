"""All chains of a folder or a topic, checked together: links, decisions, signatures, heads. Pure.

Lines come first (:meth:`Verification.add`), then :meth:`Verification.link`, then the decisions of
each chain go to :meth:`Verification.decisions`, and :meth:`Verification.report` says what came out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from monitor.core.errors import StateError
from monitor.state.audit import Head, Opened, opened
from monitor.state.audit_keys import check_signature
from monitor.state.audit_links import Entry, Finding, Links, check_links
from monitor.state.audit_match import DecisionCheck, Expected


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What became of one chain; counts as in :class:`~monitor.state.audit_match.DecisionCheck`.

    ``begins`` and ``ends`` say of a part of it how it is known that nothing is missing there.
    """

    chain: str
    records: int
    head: Head
    decisions: int = 0
    uncovered: int = 0
    expired: int = 0
    begins: str = ""
    ends: str = ""


@dataclass(frozen=True, slots=True)
class Stand:
    """A record that was believed, of time ``when``, says where a chain stood.

    ``by`` names it; ``anchored`` ones were kept elsewhere, ``signed`` ones are signed.
    """

    by: str
    chain: str
    head: Head
    when: float
    anchored: bool
    signed: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked and found.

    ``keys`` counts signed records by key id, ``trusted`` says whether they were asked to be by
    given keys; ``heads`` counts statements of where a chain stood that were compared. ``notes``
    are sentences about what could not be checked; ``period`` is one about the time that an export
    says it is of, empty where it is none.
    """

    findings: tuple[Finding, ...]
    chains: tuple[ChainReport, ...]
    keys: Mapping[str, int]
    trusted: bool
    heads: int
    notes: tuple[str, ...] = ()
    period: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return {"ok": not self.findings, **found}


@dataclass(slots=True)
class Verification:
    """Checks audit records and decisions.

    Parameters
    ----------
    fetch
        Gives the line that was added under a number again.
    trusted
        Public keys by id that records may be signed by; None takes any key at its word.
    restarts
        Whether a chain may have been begun anew.
    expires
        Whether decisions are kept for a time only.
    cut
        Whether audit records are, so that those in front may be gone.
    part
        Whether this is only a part of the chains, which may have gone on.

    Attributes
    ----------
    stands
        What records that were believed say of where chains stood, once all is linked.
    headed
        The time of the latest of the heads among the records themselves.
    """

    fetch: Callable[[int], bytes]
    trusted: Mapping[str, str] | None = None
    restarts: bool = False
    expires: bool = False
    cut: bool = False
    part: bool = False
    _entries: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    _told: list[tuple[str, Opened]] = field(default_factory=list)
    _links: dict[str, Links] = field(default_factory=dict)
    _checks: dict[str, DecisionCheck] = field(default_factory=dict)
    _findings: list[Finding] = field(default_factory=list)
    _claims: list[tuple[str, str, Head]] = field(default_factory=list)
    stands: list[Stand] = field(default_factory=list)
    headed: float = -math.inf
    _keys: Counter[str] = field(default_factory=Counter)

    def add(self, line: bytes, at: int, where: str) -> None:
        """An audit record, in the order in which they are found; ``where`` that is, in words."""
        try:
            found = opened(line)
        except StateError as error:
            self._find("unreadable", "", where, f"{where}: {error}")
            return
        self._entries[found.record.chain].append(Entry.of(found, at))
        if found.record.kind != "decisions":
            self._told.append(("", found))

    def anchor(self, line: bytes) -> None:
        """A head that was kept elsewhere."""
        try:
            self._told.append(("anchored", opened(line)))
        except StateError as error:
            self._find("unreadable", "", "anchor", f"a line of the anchors: {error}")

    def claim(self, by: str, chain: str, head: Head) -> None:
        """Somebody knows where a chain stands: it must have come so far, and be the same."""
        if head.seq:
            self._claims.append((by, chain, head))

    def link(self) -> None:
        """All lines are there: check how they hang together."""
        for chain, entries in self._entries.items():
            links = check_links(chain, entries, whole=not self.cut)
            self._links[chain] = links
            restarts = [f for f in links.findings if f.kind == "restart"]
            self._findings += [f for f in links.findings if not (self.restarts and f in restarts)]
        signed: set[str] = set()
        for by, found in self._told:
            self._check_told(by, found, signed)
        if self.trusted is not None and not self._keys and not self.part:
            text = "keys were given, but nothing is signed: the chain of what people do, which "
            self._find("signature", "", "all", text + "holds the signed heads, is not there")
        self._check_claims()

    def _check_told(self, by: str, found: Opened, signed: set[str]) -> None:
        record = found.record
        place = f"{by} record {record.seq}".strip()
        if not found.intact:
            if by:
                text = f"an anchored record {record.seq} of {record.chain} was changed"
                self._find("changed", record.chain, place, text)
            return
        if found.signature:
            try:
                key = check_signature(found)
                self._keys[key] += 1
                signed.add(record.chain)
                if self.trusted is not None and self.trusted.get(key) != record.public_key:
                    text = f"audit record {record.seq} of {record.chain} is signed by {key}, which "
                    self._find("signature", record.chain, place, text + "is none of the keys given")
            except StateError as error:
                self._find("signature", record.chain, place, str(error))
                return
        elif self.trusted is not None or record.chain in signed:
            text = f"audit record {record.seq} of {record.chain} is not signed"
            self._find("signature", record.chain, place, text)
            return
        word = "an anchored head" if by else f"the head in record {record.seq} of {record.chain}"
        heads = {chain: Head(seq, digest) for chain, (seq, digest) in record.heads.items()}
        if by:
            heads[record.chain] = Head(record.seq, found.hash)
        elif record.kind == "heads":
            self.headed = max(self.headed, record.when)
        for chain, head in heads.items():
            self.claim(word, chain, head)
            told = bool(by), bool(found.signature)
            self.stands.append(Stand(word, chain, head, record.when, *told))

    def _check_claims(self) -> None:
        known: dict[str, dict[int, set[str]]] = {}
        told: set[tuple[str, str]] = set()
        for chain, links in self._links.items():
            found = known.setdefault(chain, defaultdict(set))
            for entry in (entry for run in links.runs for entry in run):
                found[entry.seq] |= {entry.hash, entry.computed}
        for by, chain, head in sorted(self._claims, key=lambda claim: claim[2].seq):
            seqs = known.get(chain, {})
            last = max(seqs, default=0)
            if head.seq > last and self.part:
                continue
            if head.seq > last:
                kind = "truncated"
                text = f"chain {chain} ends at record {last}, but {by} knows record {head.seq}: the"
                text += " end was cut off"
            elif head.seq not in seqs or head.hash in seqs[head.seq]:
                continue  # missing ones are told of already, or not kept any more
            else:
                kind = "rewritten"
                text = f"audit record {head.seq} of {chain} is not the one that {by} knows: the "
                text += "chain was written anew"
            if (kind, chain) not in told:
                told.add((kind, chain))
                self._find(kind, chain, f"record {head.seq}", text)

    def runs(self, chain: str) -> Sequence[Sequence[Entry]]:
        """The records of a chain that count, in its order, from each of its beginnings."""
        return self._links.get(chain, Links()).runs

    def names(self) -> Sequence[str]:
        """All chains of which there are records."""
        return sorted(self._links)

    def chains(self) -> list[str]:
        """Chains that hold decisions."""
        return [c for c, links in self._links.items() if any(self._decided(links))]

    def last_offset(self, chain: str) -> int:
        """The position of the last decision in ``chain``, −1 for none."""
        runs = self._links[chain].runs if chain in self._links else []
        if not runs:
            return -1
        *_, last = opened(self.fetch(runs[-1][-1].at)).record.offsets()
        return last

    def _decided(self, links: Links) -> Iterator[Expected]:
        for run in links.runs:
            for entry in run:
                record = opened(self.fetch(entry.at)).record
                if record.kind != "decisions":
                    return
                try:
                    yield Expected.of(record)
                except StateError as error:
                    self._find("changed", record.chain, f"record {record.seq}", str(error))

    def decisions(self, chain: str, *, place: str = "offset") -> DecisionCheck:
        """Takes the decisions of ``chain``, in the order in which they are found."""
        if chain not in self._checks:
            expected = self._decided(self._links.get(chain, Links()))
            self._checks[chain] = DecisionCheck(
                chain, expected, place=place, may_expire=self.expires
            )
        return self._checks[chain]

    def report(self, notes: Iterable[str] = (), *, decisions: bool = True) -> Report:
        """All decisions were given, unless they are checked elsewhere: what came out."""
        for chain in self.chains() if decisions else ():
            self.decisions(chain)
        findings = self._findings
        for _, check in sorted(self._checks.items()):
            check.finish()
            findings += check.findings
        return Report(
            tuple(findings), tuple(self._chain_reports()), self._keys, self.trusted is not None,
            len(self._claims), tuple(notes),
        )  # fmt: skip

    def _chain_reports(self) -> Iterable[ChainReport]:
        for chain, links in sorted(self._links.items()):
            last = links.runs[-1][-1]
            report = ChainReport(chain, sum(map(len, links.runs)), Head(last.seq, last.hash))
            check = self._checks.get(chain)
            if check is not None:
                counts = check.checked, check.uncovered, check.expired
                report = ChainReport(chain, report.records, report.head, *counts)
            yield report

    def _find(self, kind: str, chain: str, place: str, text: str) -> None:
        self._findings.append(Finding(kind, chain, place, text))
