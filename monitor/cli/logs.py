"""Logs on standard error, never on standard output, which may carry accepted events."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from monitor.config.policy import Policy
from monitor.config.sections import LogSettings
from monitor.runtime.status import Status
from monitor.state.recovery import Stamp

_QUIET = ("kafka", "uvicorn", "asyncio")


def setup(settings: LogSettings) -> None:
    """Send structlog and the standard logging of libraries to standard error in one format."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
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
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # The libraries' own account of a lost connection; ours says what to do about it.
    quiet = level if level == logging.DEBUG else max(level, logging.ERROR)
    for name in _QUIET:
        logging.getLogger(name).setLevel(quiet)


class LoggedStatus(Status):
    """A status that also logs what happens to the loop."""

    def __init__(self) -> None:
        super().__init__()
        self._log = structlog.get_logger("monitor")

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
