"""``run``: the service, on Kafka or on files and pipes."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import structlog
import typer

from monitor.cli import common
from monitor.config.settings import Settings, load_policy, load_settings, with_policy
from monitor.core.errors import UsageError
from monitor.runtime.parties import UNTRACED

HTTP_OPTION = "--http-port"


def serve(settings: Settings) -> int:
    """Run the service until its input ends or it is told to stop; the exit code.

    Raises
    ------
    MonitorError
        When the input, the output, the stored state or a setting cannot be used.
    """
    # heavy imports, not needed for --help
    from monitor.cli import logs, wiring, wiring_desk  # noqa: PLC0415

    log = structlog.get_logger(logs.NAME)
    http = wiring.make_server(settings, option=HTTP_OPTION) if settings.http.enabled else None
    status = logs.LoggedStatus()
    metrics = wiring.make_metrics(settings, status, live=True)
    local = settings.transport == "local"
    gate = wiring.make_gate(settings, local=local, meter=metrics.meter)
    transport = wiring.run_transport(settings)
    traces = wiring.make_traces()
    batch_log = logs.BatchLog(traces or UNTRACED)
    manned = wiring_desk.make_manned(
        settings,
        gate,
        transport,
        status=status,
        metrics=metrics,
        observers=[batch_log, *([] if traces is None else [traces])],
        tracing=batch_log,
    )
    stop = threading.Event()
    try:
        if http is not None:
            given = (settings, manned.service, status, metrics, manned.desk)
            http.start(wiring.make_app(*given, incidents=manned.incidents, chains=manned.chains))
        log.info(
            "starting",
            version=common.version(),
            transport=settings.transport,
            mode=settings.policy.mode.value,
            http=None if http is None else http.url,
        )
        with common.stop_on_signals(stop) as signals, wiring.watched(settings, status):
            manned.service.run(stop)
    finally:
        manned.close()
        if http is not None:
            http.stop()
        if traces is not None:
            traces.close()
    return common.INTERRUPTED if signal.SIGINT in signals else 0


def _logged(settings: Settings) -> int:
    """:func:`serve`, where errors too are lines of the log when that is for programs."""
    from monitor.cli import logs  # noqa: PLC0415 - heavy

    logs.setup(settings.log)
    is_json, debug = settings.log.format == "json", settings.log.level == "debug"
    try:
        return serve(settings)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        if not is_json:
            raise
        return logs.failed("interrupted", common.INTERRUPTED)
    except Exception as error:
        if not is_json:
            raise
        text, code = common.explained(error, debug)
        return logs.failed(" ".join(text.split()), code, error if debug else None)


def command(
    *,
    config: common.ConfigOption = None,
    transport: Annotated[
        Literal["kafka", "local"] | None,
        typer.Option("--transport", help="kafka: topics. local: files and pipes."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Events from a JSONL file, followed as it grows, or - for standard input. "
            "Means --transport local.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FILE",
            help="Accepted events to a file, or - for standard output. Means --transport local.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="With local: folder for quarantined, invalid and decision records.",
        ),
    ] = None,
    no_follow: Annotated[
        bool,
        typer.Option("--no-follow", metavar="", help="With local: stop at the end of the file."),
    ] = False,
    bootstrap_servers: Annotated[
        str | None,
        typer.Option("--bootstrap-servers", metavar="HOST:PORT,...", help="Kafka brokers."),
    ] = None,
    policy: common.PolicyOption = None,
    mode: common.ModeOption = None,
    flag_at: common.FlagAtOption = None,
    quarantine_at: common.QuarantineAtOption = None,
    http_port: Annotated[
        int | None,
        typer.Option(HTTP_OPTION, metavar="PORT", help="Port of the HTTP interface, 0 for any."),
    ] = None,
    no_http: Annotated[
        bool, typer.Option("--no-http", metavar="", help="No HTTP interface.")
    ] = False,
    log_format: Annotated[
        Literal["json", "text"] | None,
        typer.Option("--log-format", help="Logs go to standard error."),
    ] = None,
    debug: common.DebugOption = False,
) -> int:
    """Run the service until it is told to stop (Ctrl-C or SIGTERM).

    Reads feedback from Kafka, or from a file or pipe; writes accepted events, byte-identical,
    for the learner, and held back, invalid and decision records beside them. Serves /healthz,
    /readyz, /metrics and POST /v1/check on localhost. After a stop or a crash it goes on where
    it was; nothing is lost or doubled. (After a crash, standard output may bring the last
    micro-batch again: what a pipe has taken cannot be taken back.)
    """
    if transport == "kafka" and (from_ or to):
        raise UsageError("--from and --to are for --transport local; Kafka topics are settings")
    options: dict[str, Any] = {
        "transport": "local" if from_ or to else transport,
        "local.from": from_,
        "local.to": to,
        "local.out_dir": out,
        "local.follow": False if no_follow else None,
        "kafka.bootstrap_servers": bootstrap_servers,
        "http.port": http_port,
        "http.enabled": False if no_http else None,
        "log.format": log_format,
        "log.level": "debug" if debug else None,
    }
    settings = load_settings(config, options=options)
    base = load_policy(policy) if policy is not None else None
    changes = {"mode": mode, "flag_at": flag_at, "quarantine_at": quarantine_at}
    settings = with_policy(settings, base, changes)
    if settings.transport == "local":
        _check_paths(settings)
    return _logged(settings)


def _check_paths(settings: Settings) -> None:
    """Refuse what can be seen to be wrong before anything is opened. Raises UsageError."""
    source, target = settings.local.from_, settings.local.to
    if source != "-" and source == target:
        raise UsageError(f"{source} is both input and output: give another output")
    for name, path in (("--from", source), ("--to", target)):
        if path != "-" and Path(path).is_dir():
            raise UsageError(f"{name}: {path} is a folder; name a file, or - for a pipe")
    if target != "-":
        common.existing_folder_or_new(Path(target).parent)
    common.existing_folder_or_new(Path(settings.local.out_dir))


EPILOG = """\
**Examples**

`poisoning-monitor run --bootstrap-servers localhost:9092`

`poisoning-monitor run --config monitor.yaml --mode shadow`

`producer | poisoning-monitor run --from - --to - | learner`

A setting can also come from the environment: MONITOR_KAFKA__BOOTSTRAP_SERVERS=broker-1:9092
"""
