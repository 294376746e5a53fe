"""Keeps the quarantine store up to date, in a thread of its own.

Reads what is held back and what the reviews ledger says, and stores it. When the store, the
brokers or a disk go on failing it tells once, lets go of everything, and begins again where the
store says; the loop that judges is not touched by any of it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Protocol

from monitor.core.errors import MonitorError, TransportError
from monitor.core.ports import CommitUnit, HeldSource, Ledger
from monitor.core.types import Verdict
from monitor.store.held_store import HeldStore
from monitor.store.ledger_rows import judged_row
from monitor.store.writing import Bounds

_READ_SECONDS = 0.1
_LEDGER_SECONDS = 0.02
_SWEEP_SECONDS = 60.0
_COUNT_SECONDS = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0
_HEALTHY_SECONDS = 30.0
_TOLD_FAILURE = 4
"""In a row; the first ones may be due to topics that are only just being made."""


class Clock(Protocol):
    """Unix seconds."""

    def __call__(self) -> float:
        """Now."""


class Judged:
    """Counts judged events of this process, in the loop's thread; others read it."""

    def __init__(self) -> None:
        self.events = 0

    def add(self, unit: CommitUnit) -> None:
        """Count a committed micro-batch; what is invalid was not judged."""
        for part in unit.parts:
            verdict = part.decisions.verdict
            self.events += len(verdict) - int((verdict == Verdict.INVALID).sum())


class Follower:
    """Follows the quarantine and the reviews.

    Parameters
    ----------
    store
        Where it goes.
    source, ledger
        Make a source and a reader of the reviews ledger; made anew after a failure.
    bounds, audit
        How much is kept, and how many entries of the audit trail.
    instance
        Name under which this process says how many events it judged; empty when the source
        counts them.
    notice
        Gets sentences for the operator.
    """

    def __init__(
        self,
        store: HeldStore,
        source: Callable[[], HeldSource],
        ledger: Callable[[], Ledger],
        *,
        bounds: Bounds,
        audit: int = 100_000,
        instance: str = "",
        notice: Callable[[str], None] = lambda _: None,
        clock: Clock = time.time,
    ) -> None:
        self.judged = Judged()
        self._store, self._bounds, self._audit = store, bounds, audit
        self._new_source, self._new_ledger = source, ledger
        self._instance, self._notice, self._clock = instance, notice, clock
        self._source: HeldSource | None = None
        self._ledger: Ledger | None = None
        self._reviews_lock, self._held_lock = threading.Lock(), threading.Lock()
        self._last_places: dict[int, int] | None = None
        self._began, self._before, self._said = 0.0, 0, -1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="quarantine", daemon=True)

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

    def sync_held(self, seconds: float = 5.0) -> None:
        """Bring the store up to what is held back now, as far as the time goes.

        Raises
        ------
        TransportError
            When the source or the store fails.
        """
        deadline = time.monotonic() + seconds
        while self._read_held(_READ_SECONDS) and time.monotonic() < deadline:
            pass

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
                    self._notice(f"The quarantine store is not up to date: {told}")
            self._let_go()
            self._stop.wait(min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE))
        with contextlib.suppress(MonitorError):
            self._store.close()

    def _begin(self) -> None:
        self._store.open()
        self.sync_reviews()
        if self._instance:
            self._take_up_count()
        with self._held_lock:
            self._source = self._new_source()
            self._source.start(self._store.places())

    def _follow(self) -> None:
        swept = counted = time.monotonic() - _SWEEP_SECONDS
        while not self._stop.is_set():
            self._read_held(_READ_SECONDS)
            with self._reviews_lock:
                self._read_reviews(to_the_end=False)
            now = time.monotonic()
            if now - swept >= _SWEEP_SECONDS:
                self._store.forget(self._bounds, self._clock(), self._audit)
                swept = time.monotonic()
            if self._instance and now - counted >= _COUNT_SECONDS:
                self._tell_count()
                counted = now
        self.sync_held()
        if self._instance:
            self._tell_count()

    def _read_held(self, seconds: float) -> int:
        with self._held_lock:
            if self._source is None:
                raise TransportError("The quarantine store is not up to date yet: try again soon.")
            batch = self._source.read(seconds)
            if not batch.records and batch.places == self._last_places:
                return 0
            n = self._store.add(batch, self._clock())
            self._last_places = dict(batch.places)
            return max(n, len(batch.records))

    def _read_reviews(self, *, to_the_end: bool) -> None:
        """Within the lock. What was read but not stored is read again from the beginning."""
        if self._ledger is None:
            self._ledger, to_the_end = self._new_ledger(), True
        try:
            ledger = self._ledger
            rows = ledger.catch_up() if to_the_end else ledger.read(_LEDGER_SECONDS)
            if rows:
                self._store.apply(rows)
        except BaseException:
            self._drop_ledger()
            raise

    def _take_up_count(self) -> None:
        """Go on counting where this instance stopped, or begin."""
        known = self._store.judged().get(self._instance)
        if self._said < 0:
            self._began, self._before = known or (self._clock(), 0)
        if known is None:
            self._tell_count()

    def _tell_count(self) -> None:
        events = self._before + self.judged.events
        if events != self._said:
            with self._reviews_lock:
                if self._ledger is None:
                    self._read_reviews(to_the_end=True)
                assert self._ledger is not None
                self._ledger.append([judged_row(self._instance, self._began, events)])
                self._read_reviews(to_the_end=True)
            self._said = events

    def _drop_ledger(self) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            with contextlib.suppress(Exception):
                ledger.close()

    def _let_go(self) -> None:
        with self._held_lock:
            source, self._source, self._last_places = self._source, None, None
            if source is not None:
                with contextlib.suppress(Exception):
                    source.close()
        with self._reviews_lock:
            self._drop_ledger()
