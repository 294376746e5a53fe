"""Functions from other threads, run by the loop in its own between two micro-batches."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from monitor.core.errors import StateError

T = TypeVar("T")


class Jobs:
    """A queue of functions, each with a future for its result."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = (
            queue.SimpleQueue()
        )
        self._over = False
        self._lock = threading.Lock()

    def put(self, job: Callable[[], T]) -> Future[T]:
        """Have ``job`` run. From any thread; fails at once when nobody runs any more."""
        future: Future[T] = Future()
        with self._lock:
            if self._over:
                future.set_exception(_stopped())
            else:
                self._waiting.put((job, future))
        return future

    def run(self) -> None:
        """Run what waits."""
        while not self._waiting.empty():
            job, future = self._waiting.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except Exception as error:  # it belongs to whoever asked
                future.set_exception(error)

    def close(self) -> None:
        """Take no more, and tell those that wait."""
        with self._lock:
            self._over = True
        while not self._waiting.empty():
            future = self._waiting.get()[1]
            if future.set_running_or_notify_cancel():
                future.set_exception(_stopped())


def _stopped() -> StateError:
    return StateError("The service has stopped: start it again.")
