"""All that people see and do, put together from the live policy and the quarantine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from monitor.core.desk import AuditEntry, Change
from monitor.core.errors import UsageError
from monitor.runtime.control import PolicyControl
from monitor.runtime.drill import Drills

if TYPE_CHECKING:
    from monitor.runtime.blast import BlastRadius
    from monitor.runtime.quarantine import Quarantine


class NoQuarantine:
    """Stands where the quarantine would be; every question is answered with how to turn it on."""

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: Any, **__: Any) -> Any:
            raise UsageError("There is no quarantine store here: set quarantine.enabled to true.")

        return refuse


class NoBlast:
    """Stands where the index of accepted events would be; says how to turn it on."""

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: Any, **__: Any) -> Any:
            raise UsageError(
                "There is no index of accepted events here: set blast.enabled to true; where "
                "accepted events go to a pipe (local.to is -) nothing can be looked up."
            )

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
    blast: Any = field(default_factory=NoBlast)

    @classmethod
    def of(
        cls,
        policy: PolicyControl,
        quarantine: Quarantine | None,
        drills: Drills,
        counts: Callable[[], Mapping[str, Any]],
        blast: BlastRadius | None = None,
    ) -> LiveDesk:
        """With or without a quarantine store and an index of accepted events."""
        lineage = NoBlast() if blast is None else blast
        if quarantine is None:
            log = PolicyLog(policy.changes)
            return cls(policy, NoQuarantine(), log, drills, counts, lineage)
        return cls(policy, quarantine, quarantine, drills, counts, lineage)

    def status(self) -> Mapping[str, Any]:
        """Counts of this instance."""
        return self.counts()
