"""A thread that keeps a store up to date with the stream and with the reviews ledger.

When the store, the brokers or a disk go on failing it tells once, lets go of everything, and begins
again where the store says; the loop that judges is not touched by any of it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from monitor.core.errors import MonitorError
from monitor.core.ports import Ledger

_LEDGER_SECONDS = 0.02
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0
_HEALTHY_SECONDS = 30.0
_TOLD_FAILURE = 4
"""In a row; the first ones may be due to topics that are only just being made."""


class Store(Protocol):
    """What is kept up to date."""

    def open(self) -> None:
        """Make it usable."""

    def close(self) -> None:
        """Let go of it."""

    def apply(self, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Store what rows of the reviews ledger say; may be said again."""


class Following:
    """The thread, its failures, and the reviews ledger; what is followed beside it is the heirs'.

    Parameters
    ----------
    store
        Where it goes.
    ledger
        Makes a reader of the reviews ledger; made anew after a failure.
    name, called
        Of the thread, and of the store in sentences.
    notice
        Gets sentences for the operator.
    """

    def __init__(
        self,
        store: Store,
        ledger: Callable[[], Ledger],
        *,
        name: str,
        called: str,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._kept_in, self._new_ledger = store, ledger
        self._called, self._notice = called, notice
        self._ledger: Ledger | None = None
        self._reviews_lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """Stop following and close everything."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def sync_reviews(self) -> None:
        """Bring the store up to the present end of the reviews. From any thread.

        Raises
        ------
        TransportError
            When the ledger or the store fails.
        """
        with self._reviews_lock:
            self._read_reviews(to_the_end=True)

    def _begin(self) -> None:
        """Go on where the store says."""
        raise NotImplementedError

    def _follow(self) -> None:
        """Until told to stop. Raises whatever fails."""
        raise NotImplementedError

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._begin()
                self._follow()
            except Exception as error:  # whatever it is, the next attempt may go well
                failures = failures + 1 if time.monotonic() - began < _HEALTHY_SECONDS else 1
                if failures == _TOLD_FAILURE:
                    told = error if isinstance(error, MonitorError) else repr(error)
                    self._notice(f"{self._called} is not up to date: {told}")
            self._let_go()
            self._stop.wait(min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE))
        with contextlib.suppress(MonitorError):
            self._kept_in.close()

    def _read_reviews(self, *, to_the_end: bool) -> None:
        """Within the lock. What was read but not stored is read again from the beginning."""
        if self._ledger is None:
            self._ledger, to_the_end = self._new_ledger(), True
        try:
            ledger = self._ledger
            rows = ledger.catch_up() if to_the_end else ledger.read(_LEDGER_SECONDS)
            if rows:
                self._kept_in.apply(rows)
        except BaseException:
            self._drop_ledger()
            raise

    def _drop_ledger(self) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            with contextlib.suppress(Exception):
                ledger.close()

    def _let_go(self) -> None:
        with self._reviews_lock:
            self._drop_ledger()
