"""What the control ledger's records add up to: the policy, its history, what waits. Pure.

Every instance folds the same records in the same order into the same state, so nobody has to be
asked who may change the policy. A proposal names the version it builds on; the first one that
builds on the latest version makes the next version, all others with the same base are overtaken.

Keys are unique, so that compaction of the topic keeps all but an instance's older ``applied``.
Values are JSON with a format version; one that is damaged, or from a newer monitor, is skipped
and said.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec
from pydantic import ValidationError

from monitor.config.policy import Policy
from monitor.config.policy_provenance import ProvenancePolicy
from monitor.core.desk import Applied, Change
from monitor.core.types import Mode

FORMAT = 1
MAX_DOCUMENT_BYTES = 512 << 10
KEPT_OUTCOMES = 1_000
MAX_WAITING = 100
MAX_INSTANCES = 10_000
NO_PROVENANCE = ProvenancePolicy().model_dump(mode="json")
Row = tuple[bytes, bytes | None]


class _Formatted(msgspec.Struct, frozen=True, kw_only=True):
    format: int


class Proposal(_Formatted, frozen=True, kw_only=True):
    """A change as its author wrote it; ``waits`` for a second person."""

    proposal: str
    base: int
    kind: Literal["start", "edit", "rollback", "expiry", "review"]
    who: str
    why: str
    when: float
    policy: dict[str, Any]
    waits: bool = False
    format: int = FORMAT


class Answer(_Formatted, frozen=True, kw_only=True):
    """A second person's word on a proposal."""

    proposal: str
    approve: bool
    who: str
    why: str
    when: float
    format: int = FORMAT


class Report(_Formatted, frozen=True, kw_only=True):
    """An instance says by which version it judges."""

    instance: str
    version: int
    when: float
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Entry:
    """A proposal and what became of it; the document is held compressed."""

    change: Change
    packed: bytes

    def full(self) -> Change:
        """With its document."""
        document = msgspec.json.decode(zlib.decompress(self.packed))
        return replace(self.change, policy={**document, "version": self.change.version})


@dataclass(frozen=True, slots=True)
class ControlState:
    """What the records so far add up to.

    ``current`` is the policy that holds, None before the first version. ``applied`` versions and
    ``waiting`` proposals are by number and by proposal; ``outcome`` tells the state of the latest
    proposals, ``instances`` what each last reported; ``skipped`` counts records without effect,
    and ``notices`` are sentences about those of the last fold.
    """

    version: int = 0
    current: Policy | None = None
    applied: Mapping[int, Entry] = field(default_factory=dict)
    waiting: Mapping[str, Entry] = field(default_factory=dict)
    outcome: Mapping[str, Change] = field(default_factory=dict)
    answered: tuple[Change, ...] = ()
    instances: Mapping[str, Applied] = field(default_factory=dict)
    skipped: int = 0
    notices: tuple[str, ...] = ()

    def policy(self, version: int) -> Policy | None:
        """The policy of an applied version."""
        if version == self.version:
            return self.current
        entry = self.applied.get(version)
        return None if entry is None else Policy.model_validate(entry.full().policy)


def proposal_row(proposal: Proposal) -> Row:
    """The record of a change.

    Without its part about provenance where that says nothing: monitors that do not know it, in an
    update of one replica after the other, would leave the whole record out.
    """
    if proposal.policy.get("provenance") == NO_PROVENANCE:
        policy = {name: value for name, value in proposal.policy.items() if name != "provenance"}
        proposal = msgspec.structs.replace(proposal, policy=policy)
    key = f"policy/{proposal.base + 1}/{proposal.proposal}"
    return key.encode(), msgspec.json.encode(proposal)


def answer_row(answer: Answer) -> Row:
    """The record of an approval or a rejection."""
    key = f"approval/{answer.proposal}/{uuid.uuid5(uuid.NAMESPACE_OID, answer.who).hex}"
    return key.encode(), msgspec.json.encode(answer)


def report_row(report: Report) -> Row:
    """The record by which an instance says what it judges by; replaces its earlier ones."""
    return f"applied/{report.instance}".encode(), msgspec.json.encode(report)


def needs_second(old: Policy | None, new: Policy) -> bool:
    """Whether a change from one to the other is one that holds events back, or ceases to."""
    return any(policy is not None and _enforces(policy) for policy in (old, new))


def _enforces(policy: Policy) -> bool:
    return policy.mode is Mode.ENFORCE or any(o.mode is Mode.ENFORCE for o in policy.overrides)


def fold(state: ControlState, rows: Iterable[Row]) -> ControlState:
    """``state`` with more records, in the ledger's order."""
    folding = _Folding(state)
    for key, value in rows:
        folding.take(key, value)
    return folding.state()


class _Folding:
    """A state that is being added to; copies once for many records."""

    def __init__(self, state: ControlState) -> None:
        self._version, self._current = state.version, state.current
        self._applied, self._waiting = dict(state.applied), dict(state.waiting)
        self._outcome, self._instances = dict(state.outcome), dict(state.instances)
        self._answered = list(state.answered)
        self._skipped = state.skipped
        self._notices: list[str] = []

    def state(self) -> ControlState:
        """What it has come to."""
        for gone in list(self._outcome)[: max(0, len(self._outcome) - KEPT_OUTCOMES)]:
            del self._outcome[gone]
        return ControlState(
            self._version,
            self._current,
            self._applied,
            self._waiting,
            self._outcome,
            tuple(self._answered[-KEPT_OUTCOMES:]),
            self._instances,
            self._skipped,
            tuple(self._notices),
        )

    def take(self, key: bytes, value: bytes | None) -> None:
        """One record."""
        kind = key.split(b"/", 1)[0]
        name = key[:80].decode("utf-8", "replace")
        if value is None or kind == b"audit":  # where an instance's own audit chain stands
            return
        try:
            found = msgspec.json.decode(value, type=_Formatted).format
            if found != FORMAT:
                self._skip(name, f"has format {found}, this monitor reads {FORMAT}: update it")
            elif kind == b"policy":
                self._propose(msgspec.json.decode(value, type=Proposal))
            elif kind == b"approval":
                self._answer(msgspec.json.decode(value, type=Answer))
            elif kind == b"applied":
                self._report(msgspec.json.decode(value, type=Report))
            else:
                self._skip(name, "is of no known kind")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._skip(name, f"is damaged ({error})")
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            self._skip(name, f"holds no policy this monitor knows ({where}: {problem['msg']})")

    def _skip(self, name: str, why: str) -> None:
        self._skipped += 1
        self._notices.append(f"A record of the policy's ledger is left out: {name} {why}.")

    def _propose(self, made: Proposal) -> None:
        if made.proposal in self._outcome:
            return  # a repeated append
        version = made.base + 1
        policy = Policy.model_validate({**made.policy, "version": version})
        change = Change(
            made.proposal,
            version,
            made.base,
            made.kind,
            "waiting",
            made.who,
            made.why,
            made.when,
            {},
        )
        document = policy.model_dump(mode="json")
        entry = Entry(change, zlib.compress(msgspec.json.encode(document), 1))
        if made.base != self._version:
            self._settle(entry, "overtaken")
        elif made.waits:
            self._waiting[made.proposal] = entry
            self._settle(entry, "waiting")
            for oldest in list(self._waiting)[:-MAX_WAITING]:
                self._settle(self._waiting.pop(oldest), "overtaken")
        else:
            self._apply(entry, policy)

    def _apply(self, entry: Entry, policy: Policy, approved_by: str | None = None) -> None:
        done = self._settle(entry, "applied", approved_by)
        self._version, self._current = entry.change.version, policy
        self._applied[self._version] = done
        self._waiting.pop(entry.change.proposal, None)
        for late in list(self._waiting.values()):
            self._settle(self._waiting.pop(late.change.proposal), "overtaken")

    def _settle(self, entry: Entry, state: str, approved_by: str | None = None) -> Entry:
        change = replace(entry.change, state=state, approved_by=approved_by)
        self._outcome.pop(change.proposal, None)
        self._outcome[change.proposal] = change
        return Entry(change, entry.packed)

    def _answer(self, answer: Answer) -> None:
        entry = self._waiting.get(answer.proposal)
        if entry is None:
            return
        if not answer.approve:
            self._waiting.pop(answer.proposal)
            done = self._settle(entry, "rejected", answer.who).change
            self._answered.append(replace(done, who=answer.who, why=answer.why, when=answer.when))
        elif answer.who != entry.change.who:
            policy = Policy.model_validate(entry.full().policy)
            self._apply(entry, policy, answer.who)

    def _report(self, report: Report) -> None:
        if report.instance not in self._instances and len(self._instances) >= MAX_INSTANCES:
            self._instances.pop(next(iter(self._instances)))
        self._instances[report.instance] = Applied(report.instance, report.version, report.when)
