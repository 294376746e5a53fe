"""A control ledger in memory: one log, as many ledger objects as wanted."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from monitor.core.errors import TransportError

Row = tuple[bytes, bytes | None]


class Log:
    """What all ledger objects share."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.news = threading.Condition()
        self.down = False

    def open(self) -> MemoryLedger:
        return MemoryLedger(self)


class MemoryLedger:
    def __init__(self, log: Log) -> None:
        self._log, self._at = log, 0

    def _check(self) -> None:
        if self._log.down:
            raise TransportError("the log is down")

    def append(self, rows: Sequence[Row]) -> None:
        self._check()
        with self._log.news:
            self._log.rows += rows
            self._log.news.notify_all()

    def read(self, timeout_seconds: float) -> Sequence[Row]:
        with self._log.news:
            self._log.news.wait_for(lambda: len(self._log.rows) > self._at, timeout_seconds)
        return self.catch_up()

    def catch_up(self) -> Sequence[Row]:
        self._check()
        found = self._log.rows[self._at :]
        self._at += len(found)
        return found

    def close(self) -> None:
        self._log = Log()
