"""What people do, told to the audit chain as it is done."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from monitor.config.policy import Policy
from monitor.core.desk import AuditEntry, Change
from monitor.runtime.audit_keeper import MONITOR
from monitor.runtime.control import PolicyControl

Tell = Callable[[AuditEntry], None]


class Trail(Protocol):
    """The audit trail that people read (:class:`~monitor.admin.desk.AuditDesk`)."""

    def audit(self, limit: int = 100, before: float | None = None) -> Sequence[AuditEntry]:
        """Entries, the latest first."""

    def note(self, entry: AuditEntry) -> None:
        """Remember one."""


class AuditedTrail:
    """A trail of which every note goes to the audit chain as well."""

    def __init__(self, trail: Trail, tell: Tell) -> None:
        self._trail, self._tell = trail, tell

    def audit(self, limit: int = 100, before: float | None = None) -> Sequence[AuditEntry]:
        """Entries, the latest first."""
        return self._trail.audit(limit, before)

    def note(self, entry: AuditEntry) -> None:
        """Remember what was done elsewhere."""
        try:
            self._trail.note(entry)
        finally:
            self._tell(entry)


class AuditedControl(PolicyControl):
    """The live policy, whose changes go to the audit chain, and what is in force here too."""

    tell: Tell = staticmethod(lambda _: None)

    def propose(self, policy: Mapping[str, Any], *, base: int, who: str, why: str) -> Change:
        """Change the policy to a whole document."""
        return self._said(super().propose(policy, base=base, who=who, why=why))

    def rollback(self, to: int, *, base: int, who: str, why: str) -> Change:
        """Make an earlier version's document the next version."""
        return self._said(super().rollback(to, base=base, who=who, why=why))

    def approve(self, proposal: str, *, who: str) -> Change:
        """Apply a waiting proposal of somebody else's."""
        return self._said(super().approve(proposal, who=who), who)

    def reject(self, proposal: str, *, who: str, why: str) -> Change:
        """Drop a waiting proposal."""
        return self._said(super().reject(proposal, who=who, why=why), who, why)

    def _said(self, change: Change, who: str | None = None, why: str | None = None) -> Change:
        details = {
            "version": change.version,
            "base": change.base,
            "state": change.state,
            "proposal": change.proposal,
            "proposed_by": change.who,
            "approved_by": change.approved_by,
        }
        said = change.why if why is None else why
        what = f"policy {change.kind}"
        self.tell(AuditEntry(time.time(), who or change.who, what, said, details))
        return change


def applied(policy: Policy) -> AuditEntry:
    """That a policy is in force here from now on; its digest binds the document to its number."""
    details = {"version": policy.version, "sha256": policy_digest(policy)}
    return AuditEntry(time.time(), MONITOR, "policy applied", "", details)


def policy_digest(policy: Policy) -> str:
    """SHA-256 of the document as JSON with sorted keys."""
    data = orjson.dumps(policy.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(data).hexdigest()
