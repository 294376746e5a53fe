"""What stands behind the audit: where chains are read, by which keys, and who keeps them."""

from __future__ import annotations

import functools
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitor.cli import common
from monitor.config.settings import Settings
from monitor.core.desk import AuditEntry
from monitor.core.errors import UsageError
from monitor.core.ports import ChainLog, Ledger, Transport
from monitor.runtime.audit_anchors import Anchor, FileAnchor, HttpAnchor
from monitor.runtime.audit_keeper import MONITOR, AuditKeeper, Writing
from monitor.runtime.chains import Chains, remembered
from monitor.runtime.parties import Listener
from monitor.runtime.standing import Standing
from monitor.runtime.status import Status
from monitor.state.audit_export import Export
from monitor.state.audit_keys import SigningKey, load_public
from monitor.state.audit_lineage import lineage
from monitor.state.audit_places import Source
from monitor.state.audit_proof import rows_of, verify_export
from monitor.state.audit_verify import Report
from monitor.transport.audit_folder import DESK, Trust, folder_source, verify_folder
from monitor.transport.local import LocalTransport
from monitor.transport.local_chain import LocalChainLog
from monitor.transport.local_ledger import LocalLedger
from monitor.transport.local_release import REVIEWS

if TYPE_CHECKING:
    from monitor.runtime.quarantine import Quarantine


def trust(keys: Sequence[Path], anchors: Path | None, *, restarts: bool) -> Trust:
    """What a verification goes by. Raises UsageError for files that cannot be used."""
    kept: Sequence[bytes] = ()
    if anchors is not None:
        try:
            kept = [line for line in anchors.read_bytes().split(b"\n") if line]
        except OSError as error:
            raise UsageError(f"{anchors}: {error.strerror or error}") from error
    return Trust(load_public(keys) if keys else None, kept, restarts)


def verified(place: Path | None, settings: Settings, by: Trust) -> Report:
    """Check a folder, or what the settings name."""
    if place is None and settings.transport == "local":
        place = Path(settings.local.out_dir)
    if place is not None and not place.exists():
        raise UsageError(
            f"{place}: there is no such file or folder; give the folder of a replay or a local "
            "service, or a file that `audit export` wrote"
        )
    if place is not None and not place.is_dir():  # a pipe is read as well
        try:
            with place.open("rb") as stream:
                return verify_export(rows_of(stream), by.keys, by.anchors, restarts=by.restarts)
        except UsageError as error:
            raise UsageError(f"{place}: {error}") from error
    if place is not None:
        return verify_folder(place, by)
    from monitor.cli.wiring import kafka_config  # noqa: PLC0415 - each needs the other
    from monitor.transport.audit_topics import verify_topics  # noqa: PLC0415 - slow to import

    return verify_topics(kafka_config(settings), by)


def source_of(place: Path | None, settings: Settings) -> Source:
    """Chains and decisions of a folder, or of what the settings name."""
    if place is None and settings.transport == "local":
        place = Path(settings.local.out_dir)
    if place is not None and place.is_file():
        raise UsageError(
            f"{place}: is a file; give the folder of a replay or a local service (`audit verify` "
            "checks a file that was exported)"
        )
    if place is not None:
        return folder_source(place)
    from monitor.cli.wiring import kafka_config  # noqa: PLC0415 - each needs the other
    from monitor.transport.audit_topics import topics_source  # noqa: PLC0415 - slow to import

    return topics_source(kafka_config(settings))


def reviews_of(place: Path | None, settings: Settings) -> list[dict[str, Any]]:
    """What people said about held events, by key, as the reviews ledger has it."""
    from monitor.store.ledger_rows import read_rows  # noqa: PLC0415 - slow to import

    ledger: Ledger
    if place is not None or settings.transport == "local":
        path = (place or Path(settings.local.out_dir)) / ".monitor" / REVIEWS
        if not path.is_file():
            return []
        ledger = LocalLedger(path)
    else:
        from monitor.cli.wiring import kafka_config  # noqa: PLC0415
        from monitor.transport.kafka_ledger import KafkaLedger  # noqa: PLC0415

        config = kafka_config(settings)
        ledger = KafkaLedger(config, config.topics.reviews)
    try:
        found = read_rows(ledger.catch_up()).reviews
    finally:
        ledger.close()
    names = ("status", "who", "why", "at")
    said = {f"{row['part']}-{row['pos']}": row for row in found}  # one that is repeated is one
    return [{"key": key, **{name: row[name] for name in names}} for key, row in said.items()]


def export_of(source: Source, since: float, until: float) -> Export:
    """What writes an export."""
    return Export(source, since, until)


def lives(place: Path | None, settings: Settings, event_id: str) -> list[dict[str, Any]]:
    """What there is to tell of events with an id."""
    reviews = reviews_of(place, settings)
    return lineage(source_of(place, settings), event_id, reviews=reviews)


def make_chains(
    settings: Settings, keeper: AuditKeeper | None, quarantine: Quarantine | None, status: Status
) -> Chains:
    """What the HTTP interface tells of the chains, and of an event's life."""
    if settings.transport == "local":
        folder = Path(settings.local.out_dir)
        return Chains(keeper, lambda name: _looked_up(folder, settings, name))
    stream = settings.kafka.topics.input
    return Chains(keeper, lambda name: remembered(stream, name, quarantine, status.flagged))


def _looked_up(folder: Path, settings: Settings, name: str) -> list[dict[str, Any]]:
    return lineage(folder_source(folder), name, reviews=reviews_of(folder, settings))


def make_keeper(
    settings: Settings, transport: Transport, notice: Callable[[str], None]
) -> AuditKeeper | None:
    """What writes the chain of people's actions and the heads of all; None where it is off.

    Raises
    ------
    UsageError
        When the key cannot be used.
    """
    audit = settings.audit
    if not audit.enabled:
        return None
    key = None if audit.key_file is None else SigningKey.load(Path(audit.key_file))
    anchors: list[Anchor] = []
    if audit.anchor_file is not None:
        anchors.append(FileAnchor(Path(audit.anchor_file)))
    if audit.anchor_url is not None:
        anchors.append(HttpAnchor(audit.anchor_url, audit.anchor_timeout_seconds))
    log, chain = _chain_log(settings, transport)
    by = Writing(
        *(chain, common.version(), key),
        every_seconds=audit.head_every_seconds,
        every_records=audit.head_every_records,
        anchors=anchors,
    )
    keeper = AuditKeeper(log, by, notice=notice)
    keeper.record(AuditEntry(time.time(), MONITOR, "service start", ""))
    return keeper


def listening(
    settings: Settings, transport: Transport, status: Listener, keeper: AuditKeeper | None
) -> Listener:
    """What is told of the loop: the status, and whoever writes down where chains stand."""
    from monitor.cli.wiring import chaining  # noqa: PLC0415 - each needs the other

    by = chaining(settings, transport)
    return status if keeper is None or by is None else Standing(status, keeper, by)


def _chain_log(settings: Settings, transport: Transport) -> tuple[ChainLog, str]:
    if isinstance(transport, LocalTransport):
        return LocalChainLog(transport.folder / DESK), "desk-local"
    from monitor.cli.wiring import kafka_config  # noqa: PLC0415 - each needs the other
    from monitor.transport.kafka_chain import KafkaChainLog  # noqa: PLC0415 - slow to import

    chain = f"desk-{settings.kafka.instance or socket.gethostname()}"
    return KafkaChainLog(kafka_config(settings), chain), chain


def make_sealer(settings: Settings, transport: Transport) -> AuditKeeper | None:
    """What signs and anchors the heads of a replay at its end; None where neither is asked for."""
    audit = settings.audit
    if audit.key_file is None and audit.anchor_file is None and audit.anchor_url is None:
        return None
    return make_keeper(settings, transport, lambda text: print(text, file=sys.stderr))


def recorder(
    keeper: AuditKeeper | None, *, wait_seconds: float = 1.0
) -> Callable[[AuditEntry], None]:
    """Takes what somebody did, and waits so long, at most, until it is written."""
    if keeper is None:
        return lambda _: None
    return functools.partial(keeper.record, wait_seconds=wait_seconds)


def end(keeper: AuditKeeper | None) -> None:
    """Write down that the service ends, and the last heads."""
    if keeper is None:
        return
    keeper.record(AuditEntry(time.time(), MONITOR, "service stop", ""), wait_seconds=0.0)
    keeper.close()
