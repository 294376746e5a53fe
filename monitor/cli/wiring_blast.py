"""What stands behind the blast radius: the index of accepted events, retractions, checkpoints.

A part of :mod:`monitor.cli.wiring_desk`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.cli.wiring import kafka_config
from monitor.config.settings import Settings
from monitor.core.desk import AuditEntry
from monitor.core.ports import AcceptedSource, Ledger, Reviewer, Transport
from monitor.runtime.incident_board import IncidentBoard
from monitor.runtime.service import Service
from monitor.transport.local import LocalTransport
from monitor.transport.local_accepted import LocalAccepted, checkpoints_path, default_path
from monitor.transport.local_ledger import LocalLedger
from monitor.transport.local_release import REVIEWS, LocalReviewer

if TYPE_CHECKING:
    from monitor.runtime.blast import BlastRadius


@dataclasses.dataclass(frozen=True, slots=True)
class _Ends:
    """The stream's ends that the index hangs on."""

    stream: str
    topic: str
    file: Path
    source: Callable[[], AcceptedSource]
    ledger: Callable[[], Ledger]
    checkpoints: Callable[[], Ledger]
    reviewer: Reviewer


def make_blast(
    settings: Settings,
    transport: Transport,
    service: Callable[[], Service[Any]],
    notice: Callable[[str], None] = lambda _: None,
) -> BlastRadius | None:
    """The desk of the blast radius, not started; None when it is off, or nothing can be read back.

    ``service`` gives the loop that runs on ``transport``, once somebody retracts.

    Raises
    ------
    UsageError
        When ``blast.url`` cannot be used.
    """
    from monitor.runtime.blast import AcceptedFollower, BlastRadius  # noqa: PLC0415 - slow
    from monitor.store.accepted_store import AcceptedStore  # noqa: PLC0415
    from monitor.store.accepted_writing import Kept  # noqa: PLC0415
    from monitor.store.database import Database, sqlite_url  # noqa: PLC0415

    kept = settings.blast
    if not kept.enabled:
        return None
    ends = (
        _local_ends(settings, transport, service)
        if isinstance(transport, LocalTransport)
        else _kafka_ends(settings)
    )
    if ends is None:
        return None
    database = Database(kept.url or sqlite_url(ends.file), "blast.url", "index of accepted events")
    store = AcceptedStore(
        database, ends.stream, Kept(kept.keep_days, kept.keep_bytes, kept.segment_events)
    )
    follower = AcceptedFollower(
        store,
        ends.source,
        ends.ledger,
        ends.checkpoints,
        segment_events=kept.segment_events,
        max_features=kept.max_features,
        keep_checkpoints=kept.keep_checkpoints,
        notice=notice,
    )
    return BlastRadius(
        store,
        follower,
        ends.reviewer,
        ends.checkpoints,
        topic=ends.topic,
        batch_events=settings.batch.max_events,
        most=kept.max_retract_events,
        keys="verified" if isinstance(transport, LocalTransport) else "claimed",
    )


def join_blast(
    blast: BlastRadius,
    board: IncidentBoard,
    note: Callable[[AuditEntry], None],
    chain: Callable[[AuditEntry], None],
) -> None:
    """Let it look up incidents, and put things into the audit trail or its chain alone."""
    from monitor.runtime.blast.desk import Around  # noqa: PLC0415 - slow to import

    blast.around = Around(lambda name: board.snapshot().get(name), note, chain)


def _local_ends(
    settings: Settings, transport: LocalTransport, service: Callable[[], Service[Any]]
) -> _Ends | None:
    folder, path = transport.folder, transport.accepted_path
    if path is None:
        return None

    def ledger() -> Ledger:
        return LocalLedger(folder / ".monitor" / REVIEWS)

    return _Ends(
        stream=f"local:{folder.absolute()}" if settings.blast.url else "local",
        topic=path.name,
        file=default_path(folder),
        source=lambda: LocalAccepted(folder, path),
        ledger=ledger,
        checkpoints=lambda: LocalLedger(checkpoints_path(folder)),
        reviewer=LocalReviewer(lambda job: service().submit(job), transport, ledger()),
    )


def _kafka_ends(settings: Settings) -> _Ends:
    from monitor.transport.kafka_accepted import KafkaAccepted  # noqa: PLC0415 - slow to import
    from monitor.transport.kafka_ledger import KafkaLedger  # noqa: PLC0415
    from monitor.transport.kafka_reviewer import KafkaReviewer  # noqa: PLC0415

    config = kafka_config(settings)
    topics = config.topics
    return _Ends(
        stream=f"kafka:{config.group_id}:{topics.accepted}",
        topic=topics.accepted,
        file=Path(settings.blast.dir) / "accepted.db",
        source=lambda: KafkaAccepted(config),
        ledger=lambda: KafkaLedger(config, topics.reviews),
        checkpoints=lambda: KafkaLedger(config, topics.checkpoints),
        reviewer=KafkaReviewer(config),
    )
