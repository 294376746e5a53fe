"""The live policy: read from the control ledger, changed through it, applied between micro-batches.

Implements :class:`~monitor.admin.desk.PolicyDesk`. Changes are records in a ledger that all
instances read in one order (:mod:`monitor.state.control`); each instance applies what holds by
itself, and then says so there.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Literal

import msgspec

from monitor.config.policy import Policy
from monitor.config.policy_diff import policy_diff
from monitor.config.settings import checked_policy
from monitor.core.desk import (
    Applied,
    Change,
    ConflictError,
    Difference,
    ForbiddenError,
    MissingError,
    WhatIf,
)
from monitor.core.errors import StateError, TransportError, UsageError
from monitor.core.ports import Ledger
from monitor.decide.whatif import risk_histogram, whatif
from monitor.gate import Gate
from monitor.runtime.control_documents import (
    overtaken,
    plain,
    refuse_unrevoked,
    rolled_back,
    with_confirmed,
    words,
)
from monitor.runtime.follower import LedgerFollower
from monitor.runtime.recent_events import RecentEvents
from monitor.runtime.service import Service
from monitor.state.control import (
    MAX_DOCUMENT_BYTES,
    Answer,
    ControlState,
    Entry,
    Proposal,
    Report,
    answer_row,
    needs_second,
    proposal_row,
    report_row,
)

SETTLED_SECONDS = 5.0
EXPIRY_SECONDS = 5.0
MONITOR = "monitor"
Kind = Literal["start", "edit", "rollback", "expiry", "review"]


class PolicyControl:
    """Follows, applies and changes the policy. Every method but those that begin is thread-safe.

    Parameters
    ----------
    open_ledger
        Makes an object of the control ledger.
    gate
        The gate of the settings; its policy becomes the first version where there is none yet.
    instance
        This instance's name among all.
    two_person
        Whether changes of a policy that enforces wait for somebody else's approval.
    recent
        The events that what-if looks back on.
    told
        Called with every policy that is applied here, in the loop's thread.
    notice
        Receives sentences for the operator.
    clock
        Unix seconds.
    """

    def __init__(
        self,
        open_ledger: Callable[[], Ledger],
        gate: Gate,
        *,
        instance: str,
        two_person: bool = False,
        recent: RecentEvents | None = None,
        told: Sequence[Callable[[Policy], None]] = (),
        notice: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._follower = LedgerFollower(open_ledger, self._look, notice)
        self._gate, self._instance, self._two_person = gate, instance, two_person
        self._recent = recent if recent is not None else RecentEvents(gate.detectors, 1)
        self._told, self._notice, self._clock = tuple(told), notice, clock
        self._service: Service[Any] | None = None
        self._applied = 0
        self._reported = 0
        self._under_way: Future[None] | None = None
        self._expiry_tried = (0, 0.0)

    def begin(self, service: Service[Any]) -> None:
        """Read what is stored, judge by it from the first event on, and follow.

        The service calls it when its transport is open, which holds the lock and has seen to the
        topics. The first start stores the settings' policy as version 1; later what is stored goes
        before the settings.

        Raises
        ------
        MonitorError
            When the ledger cannot be read or written.
        """
        state = self._follower.catch_up()
        if state.current is None:
            first = self._proposal(self._gate.policy, 0, "start", MONITOR, "the settings' policy")
            self._follower.append([proposal_row(first)])
            deadline = time.monotonic() + SETTLED_SECONDS
            while state.current is None and time.monotonic() < deadline:
                state = self._follower.catch_up()
            if state.current is None:
                raise TransportError("The first policy was stored but cannot be read back.")
        elif policy_diff(plain(state.current), plain(self._gate.policy)):
            self._notice(
                f"The stored policy, version {state.version}, holds; that of the settings and "
                "options differs and does not count any more. Change the policy while it runs."
            )
        assert state.current is not None
        self._service = service
        self._use(service, state.current)
        self._follower.start()

    def close(self) -> None:
        """Follow no longer."""
        self._follower.close()

    def gate_of(self, version: int) -> Gate | None:
        """The gate under a version of the policy; waits a moment for one not heard of yet."""
        self._follower.wait(lambda state: state.version >= version, SETTLED_SECONDS)
        policy = self._follower.state.policy(version)
        return None if policy is None else self._gate.with_policy(policy)

    def _use(self, service: Service[Any], policy: Policy) -> None:
        """In the loop's thread, or before it runs."""
        service.gate = self._gate.with_policy(policy)
        self._applied = policy.version
        for tell in self._told:
            tell(policy)

    def _look(self, state: ControlState) -> None:
        """In the follower's thread, several times a second."""
        service, current = self._service, state.current
        if service is None or current is None:
            return
        waiting = self._under_way is not None and not self._under_way.done()
        # Not "later": whoever restored an older ledger means it.
        if current.version != self._applied and not waiting:
            self._under_way = service.submit(lambda running: self._use(running, current))
        if self._reported != self._applied:
            done = self._applied
            self._follower.append([report_row(self._report(done))])
            self._reported = done
        self._expire(state, current)

    def _report(self, version: int) -> Report:
        return Report(instance=self._instance, version=version, when=self._clock())

    def _expire(self, state: ControlState, current: Policy) -> None:
        now = self._clock()
        left = current.without_expired(now)
        version, tried = self._expiry_tried
        if left is current or (version == state.version and now - tried < EXPIRY_SECONDS):
            return
        self._expiry_tried = (state.version, now)
        gone = policy_diff(plain(current), plain(left))
        why = "expired: " + ", ".join(difference.path for difference in gone[:20])
        # Whichever instance comes first makes the version, the others' are overtaken.
        made = self._proposal(left, state.version, "expiry", MONITOR, why)
        self._follower.append([proposal_row(made)])

    # What people ask for.

    def current(self) -> Change:
        """The version that holds now."""
        state = self._state()
        return state.applied[state.version].full()

    def version(self, number: int) -> Change:
        """An applied version. Raises MissingError."""
        state = self._state()
        entry = state.applied.get(number)
        if entry is None:
            raise MissingError(f"there is no version {number}; the latest is {state.version}")
        return entry.full()

    def history(self, limit: int = 50, before: int | None = None) -> Sequence[Change]:
        """Applied versions below ``before``, the latest first."""
        applied = self._state().applied
        numbers = [number for number in applied if before is None or number < before]
        return [applied[number].full() for number in numbers[::-1][: max(0, limit)]]

    def waiting(self) -> Sequence[Change]:
        """Proposals that wait for a second person."""
        return [entry.full() for entry in self._state().waiting.values()]

    def diff(self, a: int, b: int) -> Sequence[Difference]:
        """What differs between two versions."""
        return policy_diff(self.version(a).policy, self.version(b).policy)

    def preview(self, policy: Mapping[str, Any]) -> Sequence[Difference]:
        """What a document would change in the present one; checks it."""
        return policy_diff(self.current().policy, plain(self._checked(policy)))

    def propose(self, policy: Mapping[str, Any], *, base: int, who: str, why: str) -> Change:
        """Change the policy to a whole document; applied everywhere, or waiting for approval."""
        return self._change(self._checked(policy), base, "edit", who, why)

    def rollback(self, to: int, *, base: int, who: str, why: str) -> Change:
        """Make an earlier version's document the next version; keys and their rules stay."""
        document = rolled_back(self.version(to).policy, self._now())
        return self._change(self._checked(document), base, "rollback", who, why)

    def changes(self, limit: int, before: float | None) -> Sequence[Change]:
        """For the audit, without documents: what was applied, waits, or was dropped by ``who``."""
        state = self._follower.state
        made = [entry.change for entry in (*state.applied.values(), *state.waiting.values())]
        made += state.answered
        found = [change for change in made if before is None or change.when < before]
        return sorted(found, key=lambda change: change.when, reverse=True)[: max(0, limit)]

    @property
    def in_force(self) -> Policy:
        """The policy that holds; the settings' until the stored one is read."""
        return self._follower.state.current or self._gate.policy

    def approve(self, proposal: str, *, who: str) -> Change:
        """Apply a waiting proposal of somebody else's."""
        entry = self._waits(proposal)
        if entry.change.who == who:
            raise ForbiddenError(f"{who} proposed this; somebody else has to approve it")
        answer = Answer(
            proposal=proposal, approve=True, who=words("who", who), why="", when=self._clock()
        )
        return self._answered(answer, "applied")

    def reject(self, proposal: str, *, who: str, why: str) -> Change:
        """Drop a waiting proposal."""
        self._waits(proposal)
        answer = Answer(
            proposal=proposal,
            approve=False,
            who=words("who", who),
            why=words("why", why),
            when=self._clock(),
        )
        return self._answered(answer, "rejected")

    def confirmed(self, counts: Mapping[str, int], who: str, why: str) -> None:
        """Add people's verdicts to the evidence of sources; what the quarantine calls."""
        for _ in range(5):
            state = self._state()
            assert state.current is not None
            policy = with_confirmed(state.current, counts)
            try:
                self._change(policy, state.version, "review", who, why)
            except ConflictError:
                continue
            return
        raise ConflictError("others change the policy all the time: try again")

    def whatif(self, policy: Mapping[str, Any]) -> WhatIf:
        """What ``policy`` would have made of the latest events."""
        began = time.perf_counter()
        then, now = self._checked(policy), self._now()
        columns = self._recent.columns()
        found = whatif(columns, now, then, self._gate.config.hash_seed)
        return replace(found, seconds=time.perf_counter() - began)

    def applied(self) -> Sequence[Applied]:
        """The version by which each instance judges."""
        return list(self._state().instances.values())

    def risks(self, bins: int = 60) -> Mapping[str, Any]:
        """Latest events by risk: ``edges``, ``counts`` by verdict word, ``events``."""
        if not 1 <= bins <= 1_000:
            raise UsageError(f"bins: must be from 1 to 1,000, not {bins}")
        seed = self._gate.config.hash_seed
        return risk_histogram(self._recent.columns(), self._now(), seed, bins)

    def _state(self) -> ControlState:
        state = self._follower.state
        if state.current is None:
            raise StateError("The policy is not read yet: try again in a moment.")
        return state

    def _now(self) -> Policy:
        current = self._state().current
        assert current is not None
        return current

    def _checked(self, document: Mapping[str, Any]) -> Policy:
        policy = checked_policy(document, "policy")
        size = len(msgspec.json.encode(plain(policy)))
        if size > MAX_DOCUMENT_BYTES:
            raise UsageError(
                f"the policy takes {size:,} bytes, at most {MAX_DOCUMENT_BYTES:,} are stored: "
                "shorten its lists"
            )
        return policy

    def _proposal(self, policy: Policy, base: int, kind: Kind, who: str, why: str) -> Proposal:
        needs = kind in ("edit", "rollback") and self._two_person
        waits = needs and needs_second(self._follower.state.current, policy)
        return Proposal(
            proposal=uuid.uuid4().hex,
            base=base,
            kind=kind,
            who=words("who", who),
            why=words("why", why),
            when=self._clock(),
            policy=plain(policy),
            waits=waits,
        )

    def _change(self, policy: Policy, base: int, kind: Kind, who: str, why: str) -> Change:
        state = self._state()
        if base != state.version:
            raise ConflictError(overtaken(base, state))
        refuse_unrevoked(state.current, policy)
        made = self._proposal(policy, base, kind, who, why)
        self._follower.append([proposal_row(made)])
        done = self._settled(made.proposal, lambda change: True)
        if done.state == "overtaken":
            raise ConflictError(overtaken(base, self._follower.state))
        return done

    def _waits(self, proposal: str) -> Entry:
        entry = self._state().waiting.get(proposal)
        if entry is None:
            was = self._state().outcome.get(proposal)
            if was is None:
                raise MissingError(f"no proposal {proposal!r} waits")
            raise ConflictError(f"that proposal does not wait any more: it is {was.state}")
        return entry

    def _answered(self, answer: Answer, wanted: str) -> Change:
        self._follower.append([answer_row(answer)])
        done = self._settled(answer.proposal, lambda change: change.state != "waiting")
        if done.state != wanted or done.approved_by != answer.who:
            raise ConflictError(f"somebody was faster: that proposal is {done.state} now")
        return done

    def _settled(self, proposal: str, wanted: Callable[[Change], bool]) -> Change:
        def there(state: ControlState) -> bool:
            change = state.outcome.get(proposal)
            return change is not None and wanted(change)

        if not self._follower.wait(there, SETTLED_SECONDS):
            raise TransportError(
                f"The change was written but not confirmed within {SETTLED_SECONDS:g} s: look at "
                "the policy's history before you try again."
            )
        state = self._follower.state
        done = state.outcome[proposal]
        kept = state.waiting.get(proposal) or state.applied.get(done.version)
        same = kept is not None and kept.change.proposal == proposal
        return kept.full() if same and kept is not None else done
