"""Keeps the quarantine store up to date, in a thread of its own.

Reads what is held back and what the reviews ledger says, and stores it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Protocol

from monitor.core.errors import TransportError
from monitor.core.ports import CommitUnit, HeldSource, Ledger
from monitor.core.types import Verdict
from monitor.runtime.following import Following
from monitor.store.held_store import HeldStore
from monitor.store.ledger_rows import judged_row
from monitor.store.writing import Bounds

_READ_SECONDS = 0.1
_SWEEP_SECONDS = 60.0
_COUNT_SECONDS = 60.0


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


class Follower(Following):
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
        super().__init__(
            store, ledger, name="quarantine", called="The quarantine store", notice=notice
        )
        self.judged = Judged()
        self._store, self._bounds, self._audit = store, bounds, audit
        self._new_source, self._instance, self._clock = source, instance, clock
        self._source: HeldSource | None = None
        self._held_lock = threading.Lock()
        self._last_places: dict[int, int] | None = None
        self._began, self._before, self._said = 0.0, 0, -1

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

    def _let_go(self) -> None:
        with self._held_lock:
            source, self._source, self._last_places = self._source, None, None
            if source is not None:
                with contextlib.suppress(Exception):
                    source.close()
        super()._let_go()
