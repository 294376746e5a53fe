"""Logs on standard error, never on standard output, which may carry accepted events."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from monitor.config.policy import Policy
from monitor.config.sections import LogSettings
from monitor.core.errors import MonitorError
from monitor.core.ports import CommitUnit
from monitor.core.types import RawBatch
from monitor.runtime.parties import UNTRACED, Tracing
from monitor.runtime.status import Status
from monitor.state.recovery import Stamp

_QUIET = ("kafka", "uvicorn", "asyncio", "httpx", "httpcore", "opentelemetry", "urllib3")
NAME = "monitor"


def setup(settings: LogSettings) -> None:
    """Send all there is to say to standard error in one format: structlog, logging, warnings.

    As JSON a line is an object with ``timestamp``, ``level``, ``logger`` and ``event``, the
    sentence; lines about a micro-batch have ``batch`` too, see :func:`batch_name`.
    """
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # The libraries' own account of a lost connection; ours says what to do about it. What they say
    # at level debug are the bytes that they send, passwords and events among them.
    quiet = logging.INFO if level == logging.DEBUG else max(level, logging.ERROR)
    for name in _QUIET:
        logging.getLogger(name).setLevel(quiet)
    logging.captureWarnings(True)
    threading.excepthook = _thread_failed


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        name = args.thread.name if args.thread is not None else "unknown"
        structlog.get_logger(NAME).error("a thread failed", thread=name, exc_info=args.exc_value)


def failed(text: str, code: int, error: BaseException | None = None) -> int:
    """Log the end of the process by an error and give back its exit code."""
    structlog.get_logger(NAME).error(text, exit_code=code, exc_info=error)
    return code


def batch_name(batches: Sequence[RawBatch]) -> str:
    """What a micro-batch is called: partition, first and last offset (or line) of each part.

    Examples
    --------
    >>> batch_name([RawBatch.of([b"{}"] * 3, start=7), RawBatch.of([b"{}"], partition=2)])
    '0:7-9,2:0-0'
    """
    parts = ((raw.partition, raw.offset) for raw in batches if len(raw))
    return ",".join(f"{p}:{int(offset[0])}-{int(offset[-1])}" for p, offset in parts)


class BatchLog:
    """Has every line that is written while a micro-batch is worked on name the batch.

    Also an observer: says of every commit how it went, at level debug, and at level info which
    incidents it opened, changed or closed. What events hold is not in it.

    Parameters
    ----------
    inner
        Told the same. The names that it gives a batch are on the lines as well.
    """

    def __init__(self, inner: Tracing = UNTRACED) -> None:
        self._inner = inner
        self._log = structlog.get_logger(NAME)

    @contextlib.contextmanager
    def batch(
        self, batches: Sequence[RawBatch], began: float, polled: float
    ) -> Iterator[Mapping[str, str]]:
        """See :class:`~monitor.runtime.parties.Tracing`."""
        with self._inner.batch(batches, began, polled) as names:
            name = batch_name(batches)
            with bound_contextvars(**{"batch": name, **names} if name else names):
                try:
                    yield names
                except MonitorError as error:
                    self._log.warning("batch not committed", error=str(error))
                    raise

    def stage(self, name: str, began: float, ended: float, partition: int | None = None) -> None:
        """See :class:`~monitor.runtime.parties.Tracing`."""
        self._inner.stage(name, began, ended, partition)

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Say what became of incidents; how many events got which verdict; what took how long."""
        for part in unit.parts:
            for change in part.decisions.changes:
                told = {name: change.incident[name] for name in ("kind", "family", "events")}
                self._log.info(
                    f"incident {change.change.value}",
                    incident=change.incident["id"],
                    partition=part.raw.partition,
                    **told,
                )
        if not self._log.is_enabled_for(logging.DEBUG):
            return
        self._log.debug(
            "batch committed",
            events=sum(len(part.raw) for part in unit.parts),
            policy_version=unit.parts[0].decisions.policy_version,
            seconds={stage: round(spent, 4) for stage, spent in seconds.items()},
            **unit.verdicts(),
        )


class LoggedStatus(Status):
    """A status that also logs what happens to the loop."""

    def __init__(self) -> None:
        super().__init__()
        self._log = structlog.get_logger(NAME)

    def restored(self, partition: int, stamp: Stamp, seconds: float) -> None:
        """Log a partition that has come."""
        super().restored(partition, stamp, seconds)
        self._log.info(
            "partition ready",
            partition=partition,
            next_offset=stamp.next_offset,
            seconds=round(seconds, 3),
        )

    def revoked(self, partition: int) -> None:
        """Log a partition that has gone."""
        super().revoked(partition)
        self._log.info("partition went to another instance", partition=partition)

    def use(self, policy: Policy) -> None:
        """Log the policy that holds from now on."""
        super().use(policy)
        self._log.info("policy in force", policy_version=policy.version, mode=policy.mode.value)

    def notice(self, text: str) -> None:
        """Log a sentence for the operator."""
        super().notice(text)
        self._log.warning(text)

    def stopped(self, reason: str) -> None:
        """Log the end with the counts."""
        super().stopped(reason)
        snapshot = self.snapshot()
        self._log.info("stopped", reason=reason, events=snapshot["events"], **snapshot["verdicts"])
