"""What the HTTP interface, the console and the terminal ask for; the runtime provides it.

Every method may be called from any thread and may block for a moment. All raise
:class:`~monitor.core.errors.MonitorError` with a sentence: ``ConflictError`` for a stale version,
``MissingError`` for an unknown key, ``UsageError`` for bad values, others when a store is down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from monitor.core.blast import Announced, Asked, Checkpoint, Retracted, RetractionOutcome
from monitor.core.desk import (
    Applied,
    AuditEntry,
    Change,
    Difference,
    Held,
    HeldFilter,
    HeldPage,
    Observed,
    ReviewOutcome,
    WhatIf,
)
from monitor.core.drill import Drill, DrillPlan


class PolicyDesk(Protocol):
    """Reads and changes the live policy."""

    def current(self) -> Change:
        """The version that holds now."""

    def version(self, number: int) -> Change:
        """An applied version."""

    def history(self, limit: int = 50, before: int | None = None) -> Sequence[Change]:
        """Applied versions below ``before``, the latest first."""

    def waiting(self) -> Sequence[Change]:
        """Proposals that wait for a second person."""

    def diff(self, a: int, b: int) -> Sequence[Difference]:
        """What differs between two versions."""

    def preview(self, policy: Mapping[str, Any]) -> Sequence[Difference]:
        """What a document would change in the present one; checks it."""

    def propose(self, policy: Mapping[str, Any], *, base: int, who: str, why: str) -> Change:
        """Change the policy to a whole document; applied everywhere, or waiting for approval."""

    def rollback(self, to: int, *, base: int, who: str, why: str) -> Change:
        """Make an earlier version's document the next version."""

    def approve(self, proposal: str, *, who: str) -> Change:
        """Apply a waiting proposal of somebody else's."""

    def reject(self, proposal: str, *, who: str, why: str) -> Change:
        """Drop a waiting proposal."""

    def whatif(self, policy: Mapping[str, Any]) -> WhatIf:
        """What ``policy`` would have made of the latest events."""

    def applied(self) -> Sequence[Applied]:
        """The version by which each instance judges."""

    def risks(self, bins: int = 60) -> Mapping[str, Any]:
        """Histogram of the latest events' risk: ``edges`` and counts by verdict word."""


class QuarantineDesk(Protocol):
    """Reads held events and reviews them."""

    def search(self, chosen: HeldFilter, limit: int = 50, cursor: str | None = None) -> HeldPage:
        """Held events, the latest first, without their bytes."""

    def get(self, key: str) -> Held:
        """One event with its bytes and its decision."""

    def counts(self, chosen: HeldFilter) -> Mapping[str, Mapping[str, int]]:
        """Numbers of the chosen events by ``family``, ``source``, ``label`` and ``status``."""

    def release(
        self, chosen: HeldFilter, *, who: str, why: str, dry_run: bool = False
    ) -> ReviewOutcome:
        """Send the original bytes to the learner's topic, each exactly once."""

    def confirm(
        self, chosen: HeldFilter, *, who: str, why: str, dry_run: bool = False
    ) -> ReviewOutcome:
        """Mark as poison; counts against their sources from now on."""

    def erase(self, source: str, *, who: str, why: str, dry_run: bool = False) -> int:
        """Remove what is stored of a source; how many events that were."""

    def observed(self) -> Observed:
        """The observed false-positive share beside the promised one."""

    def source(self, name: str) -> Mapping[str, Any]:
        """History of a source: held events by status, day and family, first and last seen."""


class AuditDesk(Protocol):
    """What people did."""

    def audit(self, limit: int = 100, before: float | None = None) -> Sequence[AuditEntry]:
        """Changes, reviews, erasures and logins, the latest first."""

    def note(self, entry: AuditEntry) -> None:
        """Remember what was done elsewhere, such as a refused login."""


class DrillDesk(Protocol):
    """Tries attacks on a copy of the state."""

    def start(self, plan: DrillPlan, *, who: str, why: str) -> Drill:
        """Begin a drill; one at a time."""

    def stop(self, drill_id: str, *, who: str) -> Drill:
        """End one early."""

    def get(self, drill_id: str) -> Drill:
        """One as it stands."""

    def list(self) -> Sequence[Drill]:
        """The latest ones, the latest first."""


class BlastDesk(Protocol):
    """Looks accepted events up and takes them back; tells of stored models."""

    def blast(self, asked: Asked, shown: int = 20) -> Mapping[str, Any]:
        """What the meant events add up to, and which checkpoints are clean."""

    def retract(
        self, asked: Asked, *, who: str, why: str, key: str | None = None, dry_run: bool = False
    ) -> RetractionOutcome:
        """Tell the learner to take them back, each exactly once; ``key`` makes it repeatable."""

    def retractions(self, limit: int = 50, before: float | None = None) -> Sequence[Retracted]:
        """Requests for retraction, the latest first."""

    def announce(self, checkpoint: Checkpoint, *, who: str, dated: bool = True) -> Announced:
        """Tell of a stored model, whose time was said if ``dated``. Raises ConflictError."""

    def checkpoints(self) -> Sequence[Checkpoint]:
        """Stored models, the latest first."""


class Desk(Protocol):
    """All that people see and do."""

    @property
    def policy(self) -> PolicyDesk:
        """The live policy."""

    @property
    def quarantine(self) -> QuarantineDesk:
        """Held events."""

    @property
    def log(self) -> AuditDesk:
        """What people did."""

    @property
    def blast(self) -> BlastDesk:
        """What the learner was given."""

    @property
    def drills(self) -> DrillDesk:
        """Attacks that are tried."""

    def status(self) -> Mapping[str, Any]:
        """Counts of this instance, as ``/v1/status`` shows them."""
