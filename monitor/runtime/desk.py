"""All that people see and do, put together from the live policy and the quarantine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monitor.core.desk import AuditEntry, Change
from monitor.core.errors import UsageError
from monitor.runtime.control import PolicyControl
from monitor.runtime.drill import Drills

if TYPE_CHECKING:
    from monitor.runtime.quarantine import Quarantine


class NoQuarantine:
    """Stands where the quarantine would be; every question is answered with how to turn it on."""

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: Any, **__: Any) -> Any:
            raise UsageError("There is no quarantine store here: set quarantine.enabled to true.")

        return refuse


class PolicyLog:
    """The audit trail where there is no store for it: the policy's changes alone."""

    def __init__(self, changes: Callable[[int, float | None], Sequence[Change]]) -> None:
        self._changes = changes

    def audit(self, limit: int = 100, before: float | None = None) -> Sequence[AuditEntry]:
        """Changes of the policy, the latest first."""
        from monitor.runtime.quarantine import change_entry  # noqa: PLC0415 - slow to import

        return [change_entry(change) for change in self._changes(limit, before)]

    def note(self, entry: AuditEntry) -> None:
        """There is nowhere to keep it."""


@dataclass(frozen=True, slots=True)
class LiveDesk:
    """The desk of a running instance; see :mod:`monitor.admin.desk`."""

    policy: PolicyControl
    quarantine: Any
    log: Any
    drills: Drills
    counts: Callable[[], Mapping[str, Any]]

    @classmethod
    def of(
        cls,
        policy: PolicyControl,
        quarantine: Quarantine | None,
        drills: Drills,
        counts: Callable[[], Mapping[str, Any]],
    ) -> LiveDesk:
        """With or without a quarantine store."""
        if quarantine is None:
            return cls(policy, NoQuarantine(), PolicyLog(policy.changes), drills, counts)
        return cls(policy, quarantine, quarantine, drills, counts)

    def status(self) -> Mapping[str, Any]:
        """Counts of this instance."""
        return self.counts()
