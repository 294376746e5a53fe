"""A thread for calls into a client, none of which may hang the service."""

from __future__ import annotations

import contextvars
import functools
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from monitor.core.errors import TransportError

T = TypeVar("T")


class Worker:
    """One daemon thread that runs calls one by one, each with a deadline of our own.

    The client's blocking calls have no deadline or do not keep it (a partition leader that
    left the metadata leaves futures open for ever), so the caller waits here and gives up.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stuck: str | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def call(self, what: str, seconds: float, function: Callable[[], T]) -> T:
        """Run ``function`` and return its result, or raise its error.

        Raises
        ------
        TransportError
            When it has not finished after ``seconds``, and from then on always.
        """
        if self._stuck is not None:
            raise TransportError(f"{what}: not possible, {self._stuck}; restart the process")
        results: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                results.put((function(), None))
            except BaseException as error:  # handed over to the waiting thread
                results.put((None, error))

        # What is logged meanwhile belongs to the same batch as the caller.
        self._calls.put(functools.partial(contextvars.copy_context().run, run))
        try:
            result, error = results.get(timeout=seconds)
        except queue.Empty:
            self._stuck = f"{what} did not finish within {seconds:g} s"
            raise TransportError(f"{self._stuck}: are the Kafka brokers up?") from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def stop(self) -> None:
        """End the thread after the calls already made; a stuck one is left behind."""
        self._calls.put(None)
