"""Keeps the index of accepted events up to date, in a thread of its own.

The gate comes first: while it has its hands full, the index takes a small share of one core and
falls behind; what it has not read stays where it is.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from monitor.core.blast import AcceptedBatch
from monitor.core.errors import TransportError
from monitor.core.ports import AcceptedSource, Ledger
from monitor.lineage.reading import MAX_FEATURES, segment_of
from monitor.lineage.segment import Segment, together
from monitor.runtime.following import Following
from monitor.runtime.quarantine_follower import Clock
from monitor.store.accepted_store import AcceptedStore, MovedError

_READ_SECONDS = 0.1
_FLUSH_SECONDS = 10.0
_SWEEP_SECONDS = 60.0
_BUSY_PAUSES = 9.0
"""Times the work just done, that the thread sleeps while the gate is busy: a tenth of a core."""
_LONGEST_PAUSE = 2.0
_LAST_SECONDS = 1.0
"""At the end; what is not read then is read at the next start."""


class AcceptedFollower(Following):
    """Follows the accepted events, the reviews and the checkpoints.

    Parameters
    ----------
    store
        Where it goes.
    source, ledger, checkpoints
        Make a source of accepted events, a reader of the reviews ledger and one of the
        checkpoints' ledger; made anew after a failure.
    segment_events
        So many new events are stored at once, or those of some seconds.
    keep_checkpoints
        The latest ones that are kept.
    busy
        Whether the gate has more to do than it can.
    notice
        Gets sentences for the operator.
    """

    def __init__(
        self,
        store: AcceptedStore,
        source: Callable[[], AcceptedSource],
        ledger: Callable[[], Ledger],
        checkpoints: Callable[[], Ledger],
        *,
        segment_events: int = 4096,
        max_features: int = MAX_FEATURES,
        keep_checkpoints: int = 1000,
        busy: Callable[[], bool] = lambda: False,
        notice: Callable[[str], None] = lambda _: None,
        clock: Clock = time.time,
    ) -> None:
        super().__init__(
            store, ledger, name="accepted", called="The index of accepted events", notice=notice
        )
        self._store, self._clock, self.busy = store, clock, busy
        self._new_source, self._new_checkpoints = source, checkpoints
        self._full, self._features, self._keep = segment_events, max_features, keep_checkpoints
        self._source: AcceptedSource | None = None
        self._announced: Ledger | None = None
        self._lock, self._models_lock = threading.Lock(), threading.Lock()
        self._new: list[Segment] = []
        self._waiting = 0
        self._stood: dict[int, int] = {}
        self._reached: dict[int, int] = {}
        self._begins: dict[int, int] = {}
        self.behind = 0

    def sync(self, seconds: float = 5.0) -> None:
        """Bring the index up to what is accepted now, as far as the time goes. From any thread.

        Raises
        ------
        TransportError
            When the source or the store fails.
        """
        deadline = time.monotonic() + seconds
        while self._read(_READ_SECONDS) and time.monotonic() < deadline:
            pass
        with self._lock:
            self._flush()

    def partitions(self) -> frozenset[int]:
        """The partitions of the accepted events; none while nothing was read of them."""
        return frozenset(part for part in self._reached if part >= 0)

    def ends(self) -> Mapping[int, int]:
        """Where the accepted events end now, by partition, as far as that can be told.

        Raises
        ------
        TransportError
            When the source fails.
        """
        with self._lock:
            return {} if self._source is None else self._source.ends()

    def sync_checkpoints(self) -> None:
        """Bring the store up to the present end of the checkpoints. From any thread.

        Raises
        ------
        TransportError
            When the ledger or the store fails.
        """
        with self._models_lock:
            self._read_checkpoints(to_the_end=True)

    def _begin(self) -> None:
        self._store.open()
        self.sync_reviews()
        self.sync_checkpoints()
        with self._lock:
            self._source = self._new_source()
            self._start()

    def _start(self) -> None:
        """Within the lock: go on where the store says."""
        assert self._source is not None
        self._new, self._waiting, self._begins = [], 0, {}
        self._stood = self._store.places()
        self._reached = dict(self._stood)
        self._source.start(self._stood)

    def _follow(self) -> None:
        flushed = time.monotonic()
        swept = flushed - _SWEEP_SECONDS
        while not self._stop.is_set():
            began = time.thread_time()
            self._read(_READ_SECONDS)
            with self._reviews_lock:
                self._read_reviews(to_the_end=False)
            with self._models_lock:
                self._read_checkpoints(to_the_end=False)
            now = time.monotonic()
            if now - flushed >= _FLUSH_SECONDS:
                with self._lock:
                    self._flush()
                flushed = now
            if now - swept >= _SWEEP_SECONDS:
                self._store.forget(self._clock())
                swept = now
            if self.busy():
                spent = time.thread_time() - began
                self._stop.wait(min(_BUSY_PAUSES * spent, _LONGEST_PAUSE))
        self.sync(_LAST_SECONDS)

    def _read(self, seconds: float) -> int:
        """Take in what there is; how many events that were."""
        with self._lock:
            if self._source is None:
                raise TransportError(
                    "The index of accepted events is not up to date yet: try again soon."
                )
            batch = self._source.read(seconds)
            if batch.anew:
                self._store.clear()
                self._start()
                return 1
            self._take(batch)
            if self._waiting >= self._full:
                self._flush()
            return len(batch.values)

    def _take(self, batch: AcceptedBatch) -> None:
        self.behind = batch.behind
        self._reached = dict(batch.places)
        self._begins |= batch.begins
        if len(batch.values):
            self._new.append(segment_of(batch, self._features))
            self._waiting += len(batch.values)

    def _flush(self) -> None:
        """Within the lock: store what is waiting, with where reading goes on after it."""
        if self._reached == self._stood:
            return
        new = together(self._new) if self._new else None
        try:
            self._store.add(new, self._stood, self._reached, self._begins)
        except MovedError:
            self._catch_on(new)
            return
        self._new, self._waiting, self._begins = [], 0, {}
        self._stood = dict(self._reached)

    def _catch_on(self, new: Segment | None) -> None:
        """Another instance has stored some of what is waiting: go on with what it has not."""
        self._stood = self._store.places()
        if self._source is None or any(
            self._reached.get(part, 0) < at for part, at in self._stood.items()
        ):
            self._new, self._waiting, self._begins = [], 0, {}
            self._reached = dict(self._stood)
            if self._source is not None:
                self._source.start(self._stood)
            return
        if new is not None:
            places = new.places
            stood = np.array([self._stood.get(p, 0) for p in places.part.tolist()])
            rest = new.take(np.flatnonzero(places.pos >= stood))
            self._new, self._waiting = ([rest], len(rest)) if len(rest) else ([], 0)

    def _read_checkpoints(self, *, to_the_end: bool) -> None:
        if self._announced is None:
            self._announced, to_the_end = self._new_checkpoints(), True
        try:
            ledger: Any = self._announced
            rows = ledger.catch_up() if to_the_end else ledger.read(0.0)
            if rows:
                self._store.announce(rows, self._keep)
        except BaseException:
            self._drop_checkpoints()
            raise

    def _drop_checkpoints(self) -> None:
        ledger, self._announced = self._announced, None
        if ledger is not None:
            with contextlib.suppress(Exception):
                ledger.close()

    def _let_go(self) -> None:
        with self._lock:
            source, self._source = self._source, None
            self._new, self._waiting = [], 0
            if source is not None:
                with contextlib.suppress(Exception):
                    source.close()
        with self._models_lock:
            self._drop_checkpoints()
        super()._let_go()
