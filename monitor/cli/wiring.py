"""Which implementation stands behind each port. The only place that chooses."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI

from monitor.admin.app import create_app
from monitor.admin.auth import Auth
from monitor.admin.desk import Desk
from monitor.admin.lockout import Lockout
from monitor.admin.server import HttpServer, Tls
from monitor.admin.session import Sessions
from monitor.admin.tokens import TokenFile
from monitor.cli import common
from monitor.config.settings import Settings, as_dict
from monitor.console import add_console
from monitor.core.errors import UsageError
from monitor.core.limits import Limits
from monitor.core.ports import Meter, Observer, Transport
from monitor.core.schema import SchemaSpec
from monitor.detectors import default_detectors
from monitor.gate import Gate, GateConfig
from monitor.provenance.secrets import Secrets
from monitor.runtime.chains import Chains
from monitor.runtime.control import PolicyControl
from monitor.runtime.detector_watch import DetectorWatch
from monitor.runtime.incident_board import IncidentBoard
from monitor.runtime.overload import Overload
from monitor.runtime.parties import UNTRACED, Listener, Tracing
from monitor.runtime.service import Service
from monitor.runtime.status import Status
from monitor.runtime.watchdog import Watchdog
from monitor.state.audit import Chaining
from monitor.telemetry.metrics import Metrics
from monitor.telemetry.traces import Traces, from_environment
from monitor.transport.local import (
    FileLines,
    FollowFile,
    JournalStatus,
    LineSource,
    LiveSource,
    LocalTransport,
    PipeLines,
    journal_status,
)
from monitor.transport.local_headers import HeaderLines, WithHeaders

if TYPE_CHECKING:
    from monitor.transport.kafka import KafkaConfig

STDIN = 0
STDOUT = 1


def make_gate(settings: Settings, *, local: bool, meter: Meter | None = None) -> Gate:
    """The pure pipeline with the settings' limits, warm-up and policy."""
    gate = settings.gate
    features = gate.schema_
    config = GateConfig(
        limits=Limits(**settings.limits.model_dump()),
        hash_seed=gate.hash_seed,
        warmup=gate.warmup,
        warmup_events=gate.warmup_events,
        warmup_max_bytes=gate.warmup_max_bytes,
        schema=None if features is None else schema_spec([(f.name, f.kind) for f in features]),
        local=local,
        on_detector_error=gate.on_detector_error,
        several=not local and settings.state.exchange_min_events > 0,
        secrets=make_secrets(settings),
    )
    detectors = default_detectors(gate.extra_detectors)
    for detector in detectors:
        if detector.name in gate.extra_detectors and not settings.policy.budget.get(
            detector.family, 0.0
        ):
            raise UsageError(
                f"gate.extra_detectors has {detector.name!r}, but its family has no part of "
                f"policy.budget: give {detector.family.value} a part above 0"
            )
    return Gate(config, settings.policy, detectors, meter)


def make_secrets(settings: Settings) -> Secrets:
    """Where the secrets of the policy's keys are."""
    folder = settings.provenance.secret_dir
    return Secrets(None if folder is None else Path(folder))


def schema_spec(features: Sequence[tuple[str, str]]) -> SchemaSpec:
    """The gate's form of an explicit schema."""
    return SchemaSpec(
        names=tuple(name for name, _ in features),
        categorical=tuple(kind == "categorical" for _, kind in features),
    )


def deciding(settings: Settings) -> dict[str, Any]:
    """The settings that decide about events, as plain values."""
    values = as_dict(settings)
    return {key: values[key] for key in ("policy", "gate", "limits", "batch")}


def identity(settings: Settings, *, policy: bool) -> str:
    """Text that is equal when a stopped run may go on under these settings.

    A replay must keep its policy; the service may be restarted with another one.
    """
    values = deciding(settings)
    if not policy:
        del values["policy"]
        # Whether a failed batch was flagged or held, nothing was learned from it.
        del values["gate"]["on_detector_error"]
    del values["batch"]["linger_milliseconds"]
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()


def replay_transport(
    source: LineSource | LiveSource,
    folder: Path,
    settings: Settings,
    *,
    overwrite: bool,
    headers: Path | None = None,
) -> Transport:
    """Recorded lines into an output folder, resumable; ``headers`` has those of each line."""
    transport = LocalTransport(
        source,
        folder,
        identity=identity(settings, policy=True),
        overwrite=overwrite,
        fsync="never" if settings.local.fsync == "never" else "snapshot",
        finishes=True,
    )
    if headers is None:
        return transport
    made: Any = WithHeaders(transport, HeaderLines(headers))
    signed: Transport = made
    return signed


def earlier_run(folder: Path) -> JournalStatus | None:
    """What an earlier replay has left in ``folder``; None when nothing."""
    return journal_status(folder)


def stdin_lines() -> LiveSource:
    """Standard input."""
    return PipeLines(STDIN)


def run_transport(settings: Settings) -> Transport:
    """What ``run`` reads and writes: Kafka, or files and pipes."""
    if settings.transport == "local":
        return _local_transport(settings)
    from monitor.transport.kafka import KafkaTransport  # noqa: PLC0415 - slow to import

    return KafkaTransport(kafka_config(settings))


def kafka_config(settings: Settings) -> KafkaConfig:
    """The transport's form of the section ``kafka``."""
    from monitor.transport.kafka import KafkaConfig, Topics  # noqa: PLC0415
    from monitor.transport.kafka_security import security_of  # noqa: PLC0415

    values = settings.kafka.model_dump()
    values["security"] = security_of(values["security"])
    values["topics"] = Topics(**values["topics"])
    values["compression"] = None if values["compression"] == "none" else values["compression"]
    return KafkaConfig(**values)


def _local_transport(settings: Settings) -> LocalTransport:
    local = settings.local
    source: LineSource | LiveSource
    if local.from_ == "-":
        source = PipeLines(STDIN)
    elif local.follow:
        source = FollowFile(Path(local.from_))
    else:
        source = FileLines([Path(local.from_)])
    return LocalTransport(
        source,
        Path(local.out_dir),
        accepted=STDOUT if local.to == "-" else Path(local.to),
        identity=identity(settings, policy=False),
        fsync=local.fsync,
    )


def make_status() -> Status:
    """Counts of what the service does."""
    return Status()


def make_incidents() -> IncidentBoard:
    """What the partitions at hand know of incidents."""
    return IncidentBoard()


def watched(settings: Settings, status: Status) -> contextlib.AbstractContextManager[Any]:
    """Within this, a loop that hangs in Kafka's client ends the process; exit code 3."""
    if settings.transport != "kafka":
        return contextlib.nullcontext()
    kafka = settings.kafka
    # Coming back from a failed commit, or waiting for someone else's to end, may take these.
    deadlines = 4 * (kafka.request_timeout_seconds + kafka.commit_deadline_seconds)
    bound = kafka.max_poll_interval_seconds + deadlines
    return Watchdog(status.idle_seconds, bound, status.notice)


def make_metrics(settings: Settings, status: Status, *, live: bool) -> Metrics:
    """The Prometheus metrics; ``live`` when the events' own times are of now."""
    clock = time.time if live else None
    return Metrics(settings.policy, status=status.snapshot, clock=clock)


def make_traces() -> Traces | None:
    """Spans for OpenTelemetry where the environment asks for them, else None."""
    return from_environment(os.environ)


def make_server(settings: Settings, *, option: str) -> HttpServer:
    """The HTTP interface, its port taken but not answering yet. Raises UsageError."""
    http = settings.http
    make_tokens(settings)
    tls = None
    if http.tls_cert_file is not None:
        tls = Tls(http.tls_cert_file, http.tls_key_file, http.tls_client_ca_file)
    return HttpServer(
        http.host,
        http.port,
        option=option,
        login=http.tokens_file is not None,
        tls=tls,
        insecure=http.insecure,
        proxies=http.trusted_proxies,
    )


def make_tokens(settings: Settings) -> TokenFile | None:
    """The file of tokens, None for no login.

    Raises
    ------
    UsageError
        When it holds none.
    StateError
        When it cannot be read or trusted.
    """
    name = settings.http.tokens_file
    if name is None:
        return None
    tokens = TokenFile(Path(name))
    if not tokens.tokens():
        raise UsageError(
            f"http.tokens_file: {name} holds no token, so nobody could log in; make one: "
            f"poisoning-monitor token create NAME --file {name}"
        )
    return tokens


def make_auth(settings: Settings) -> Auth:
    """Who may ask. Raises like :func:`make_tokens`."""
    http = settings.http
    return Auth(
        make_tokens(settings),
        lockout=Lockout(http.login_failures, http.lockout_seconds),
        sessions=Sessions(http.session_hours * 3600.0),
        open_metrics=http.open_metrics,
    )


def make_app(
    settings: Settings,
    service: Service[Any],
    status: Status,
    metrics: Metrics,
    desk: Desk | None = None,
    *,
    incidents: IncidentBoard | None = None,
    chains: Chains | None = None,
) -> FastAPI:
    """What the HTTP interface answers with. Raises UsageError when nobody could log in."""
    auth = make_auth(settings)
    app = create_app(
        status=status,
        service=service,
        settings=settings,
        metrics=metrics,
        desk=desk,
        auth=auth,
        hosts=settings.http.allowed_hosts,
        incidents=incidents,
        chains=chains,
    )
    if settings.http.console:
        add_console(app, status, desk, auth, incidents=incidents, chains=chains)
    return app


def make_service(
    settings: Settings,
    gate: Gate,
    transport: Transport,
    *,
    observers: Sequence[Observer] = (),
    status: Status | None = None,
    listener: Listener | None = None,
    policies: PolicyControl | None = None,
    tracing: Tracing = UNTRACED,
) -> Service[Any]:
    """The loop, told of to ``observers`` and ``status``; judges by the live ``policies``."""
    watch = DetectorWatch(lambda text: None if status is None else status.notice(text))
    return Service(
        gate,
        transport,
        observers=tuple(observers) if status is None else (status, watch, *observers),
        on_status=status if listener is None else listener,
        batch_events=settings.batch.max_events,
        linger_seconds=settings.batch.linger_milliseconds / 1000,
        snapshot_every_batches=settings.state.snapshot_every_batches,
        snapshot_every_events=settings.state.snapshot_every_events,
        overload=Overload(
            fail_open=settings.overload.mode == "fail_open",
            lag_events=settings.overload.lag_events,
            after_seconds=settings.overload.after_seconds,
        ),
        exchange_events=settings.state.exchange_min_events,
        policies=policies,
        tracing=tracing,
        chaining=chaining(settings, transport),
    )


def chaining(settings: Settings, transport: Transport) -> Chaining | None:
    """What the audit chains are called; None where there are none."""
    if not settings.audit.enabled:
        return None
    local = isinstance(transport, LocalTransport)
    stream = "local" if local else settings.kafka.topics.input
    return Chaining(stream, common.version())


def field_names(kind: type[Any]) -> set[str]:
    """Names of a dataclass's fields, to hold settings and implementations together in tests."""
    return {field.name for field in dataclasses.fields(kind)}
