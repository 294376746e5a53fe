"""What stands behind the desk: the live policy, its ledger, and the quarantine.

The desk's part of :mod:`monitor.cli.wiring`, which is the only other place that chooses.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.admin.desk import Desk
from monitor.cli import wiring_audit
from monitor.cli.wiring import kafka_config, make_incidents, make_service
from monitor.cli.wiring_blast import join_blast, make_blast
from monitor.config.policy import Policy
from monitor.config.settings import Settings
from monitor.core.desk import AuditEntry
from monitor.core.errors import UsageError
from monitor.core.ports import HeldSource, Ledger, Observer, Reviewer, Transport
from monitor.gate import Gate
from monitor.provenance.secrets import missing
from monitor.runtime.audit_keeper import AuditKeeper
from monitor.runtime.audited import AuditedControl, AuditedTrail, applied
from monitor.runtime.chains import Chains
from monitor.runtime.control import PolicyControl
from monitor.runtime.desk import LiveDesk, PolicyLog
from monitor.runtime.drill import Drills, Schedule
from monitor.runtime.incident_board import IncidentBoard
from monitor.runtime.parties import UNTRACED, Tracing
from monitor.runtime.recent_events import RecentEvents
from monitor.runtime.service import Service
from monitor.runtime.status import Status
from monitor.telemetry.metrics import Metrics
from monitor.transport.local import LocalTransport
from monitor.transport.local_held import LocalHeld, default_path
from monitor.transport.local_ledger import LocalLedger
from monitor.transport.local_release import REVIEWS, LocalReviewer

if TYPE_CHECKING:
    from monitor.runtime.blast import BlastRadius
    from monitor.runtime.quarantine import Outside, Quarantine


@dataclasses.dataclass(frozen=True, slots=True)
class _Ends:
    """The stream's ends that the quarantine store hangs on."""

    stream: str
    file: Path
    source: Callable[[], HeldSource]
    ledger: Callable[[], Ledger]
    reviewer: Reviewer
    instance: str = ""


def make_quarantine(
    settings: Settings,
    transport: Transport,
    service: Callable[[], Service[Any]],
    outside: Outside | None = None,
) -> Quarantine | None:
    """The quarantine's desk, not started; None when it is off.

    ``service`` gives the loop that runs on ``transport``, once somebody reviews.

    Raises
    ------
    UsageError
        When ``quarantine.url`` cannot be used.
    """
    from monitor.runtime.quarantine import Quarantine  # noqa: PLC0415 - slow to import
    from monitor.runtime.quarantine_follower import Follower  # noqa: PLC0415
    from monitor.store.database import Database, sqlite_url  # noqa: PLC0415
    from monitor.store.held_store import HeldStore  # noqa: PLC0415
    from monitor.store.writing import Bounds  # noqa: PLC0415

    kept = settings.quarantine
    if not kept.enabled:
        return None
    if isinstance(transport, LocalTransport):
        ends = _local_ends(settings, transport, service)
    else:
        ends = _kafka_ends(settings)
    store = HeldStore(Database(kept.url or sqlite_url(ends.file)), ends.stream)
    follower = Follower(
        store,
        ends.source,
        ends.ledger,
        bounds=Bounds(kept.keep_days, kept.keep_events, kept.keep_bytes),
        audit=kept.keep_audit_entries,
        instance=ends.instance,
        notice=outside.notice if outside is not None else lambda _: None,
    )
    return Quarantine(store, follower, ends.reviewer, outside=outside, bulk=kept.max_bulk_events)


def make_outside(
    control: PolicyControl,
    status: Status,
    blast: BlastRadius | None = None,
    audited: Callable[[AuditEntry], None] = lambda _: None,
) -> Outside:
    """What the quarantine asks of the policy: its promise and its history, and to count poison."""
    from monitor.runtime.quarantine import Outside  # noqa: PLC0415 - slow to import

    return Outside(
        promised=lambda: control.in_force.quarantine_at,
        confirmed=control.confirmed,
        changes=control.changes,
        accepted=(lambda _: (0, {})) if blast is None else blast.accepted_of,
        audited=audited,
        notice=status.notice,
    )


def _local_ends(
    settings: Settings, transport: LocalTransport, service: Callable[[], Service[Any]]
) -> _Ends:
    folder = transport.folder

    def ledger() -> Ledger:
        return LocalLedger(folder / ".monitor" / REVIEWS)

    return _Ends(
        stream=f"local:{folder.absolute()}" if settings.quarantine.url else "local",
        file=default_path(folder),
        source=lambda: LocalHeld(folder),
        ledger=ledger,
        reviewer=LocalReviewer(lambda job: service().submit(job), transport, ledger()),
    )


def _kafka_ends(settings: Settings) -> _Ends:
    from monitor.transport.kafka_held import KafkaHeld  # noqa: PLC0415 - slow to import
    from monitor.transport.kafka_ledger import KafkaLedger  # noqa: PLC0415
    from monitor.transport.kafka_reviewer import INSTANCE, KafkaReviewer  # noqa: PLC0415

    config = kafka_config(settings)
    if config.instance == INSTANCE:
        raise UsageError(f"kafka.instance: {INSTANCE!r} is taken by reviews; choose another name")
    return _Ends(
        stream=f"kafka:{config.group_id}:{config.topics.quarantine}",
        file=Path(settings.quarantine.dir) / "quarantine.db",
        source=lambda: KafkaHeld(config),
        ledger=lambda: KafkaLedger(config, config.topics.reviews),
        reviewer=KafkaReviewer(config),
        instance=instance_name(settings),
    )


def control_ledger(settings: Settings) -> Callable[[], Ledger]:
    """Makes objects of the ledger that holds the policy's changes."""
    if settings.transport == "local":
        path = Path(settings.local.out_dir) / ".monitor" / "control.jsonl"
        return lambda: LocalLedger(path)
    from monitor.transport.kafka_ledger import KafkaLedger  # noqa: PLC0415 - slow to import

    config = kafka_config(settings)
    return lambda: KafkaLedger(config, config.topics.control)


def instance_name(settings: Settings) -> str:
    """How this instance calls itself among all."""
    if settings.transport == "local":
        return "local"
    return settings.kafka.instance or socket.gethostname()


def make_control(
    settings: Settings,
    gate: Gate,
    *,
    recent: RecentEvents | None,
    status: Status,
    metrics: Metrics,
    told: Sequence[Callable[[Policy], None]] = (),
) -> AuditedControl:
    """The live policy: follows and writes the control ledger once the service runs."""

    def told_of_secrets(policy: Policy) -> None:
        for text in missing(policy, gate.config.secrets):
            status.notice(text)

    return AuditedControl(
        control_ledger(settings),
        gate,
        instance=instance_name(settings),
        two_person=settings.control.two_person,
        recent=recent,
        told=(status.use, metrics.set_policy, told_of_secrets, *told),
        notice=status.notice,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Manned:
    """A loop and its desk. The loop starts the quarantine, and :meth:`close` ends what follows."""

    service: Service[Any]
    desk: Desk
    control: PolicyControl
    quarantine: Quarantine | None
    drills: Drills
    incidents: IncidentBoard
    blast: BlastRadius | None
    chains: Chains
    keeper: AuditKeeper | None = None

    def close(self) -> None:
        """End the threads of drills, and those that follow the ledgers and the stores."""
        self.drills.close()
        self.control.close()
        if self.blast is not None:
            self.blast.stop()
        if self.quarantine is not None:
            self.quarantine.stop()
        wiring_audit.end(self.keeper)


def make_manned(
    settings: Settings,
    gate: Gate,
    transport: Transport,
    *,
    status: Status,
    metrics: Metrics,
    observers: Sequence[Observer] = (),
    tracing: Tracing = UNTRACED,
) -> Manned:
    """The loop with a live policy, what-if and quarantine, and the desk where people use them.

    ``observers`` are told of commits before the desk's own.

    Raises
    ------
    UsageError
        When a setting cannot be used.
    """
    recent = RecentEvents(gate.detectors, settings.control.whatif_events)
    board = make_incidents()
    keeper = wiring_audit.make_keeper(settings, transport, status.notice)
    audited = wiring_audit.recorder(keeper)
    noted = wiring_audit.recorder(keeper, wait_seconds=0.0)  # the loop waits for nothing
    control = make_control(
        *(settings, gate),
        recent=recent,
        status=status,
        metrics=metrics,
        told=[lambda policy: noted(applied(policy))],
    )
    control.tell = audited
    running: list[Service[Any]] = []  # the loop, which needs the quarantine as observer first
    blast = make_blast(settings, transport, lambda: running[0], status.notice)
    quarantine = make_quarantine(
        settings, transport, lambda: running[0], make_outside(control, status, blast, audited)
    )
    trail = AuditedTrail(PolicyLog(control.changes) if quarantine is None else quarantine, audited)
    drills = Drills(
        lambda: running[0],
        gate.config.limits,
        note=trail.note,
        told=metrics.drill,
        schedule=Schedule(settings.drills.every_hours * 3600.0, settings.drills.plans()),
    )
    metrics.watch_incidents(lambda: board.snapshot().count)
    if blast is not None:
        join_blast(blast, board, trail.note, audited)
        metrics.watch_accepted(blast.size)
    watching = [*observers, metrics, recent, drills, *([] if blast is None else [blast])]
    metrics.expect(detector.name for detector in gate.detectors)
    if quarantine is not None:
        metrics.watch_reviews(quarantine.observed)
    service = make_service(
        settings,
        gate,
        transport,
        observers=[*watching, board, *(one for one in (quarantine, keeper) if one is not None)],
        status=status,
        listener=wiring_audit.listening(settings, transport, status, keeper),
        policies=control,
        tracing=tracing,
    )
    running.append(service)
    if quarantine is not None:  # once topics and folders are there
        service.submit(lambda _: quarantine.start())
    if blast is not None:
        service.submit(lambda _: blast.start())
    if keeper is not None:
        service.submit(lambda _: keeper.start())
    desk = LiveDesk.of(control, quarantine, drills, status.snapshot, blast)
    desk = dataclasses.replace(desk, log=trail)
    chains = wiring_audit.make_chains(settings, keeper, quarantine, status)
    return Manned(service, desk, control, quarantine, drills, board, blast, chains, keeper)
