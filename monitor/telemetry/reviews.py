"""What is read from a store now and then: what reviews say of the promise, and index sizes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from monitor.core.blast import IndexSize
from monitor.core.desk import Observed

THRESHOLD = "quarantine"
"""Only held events are reviewed."""
T = TypeVar("T")


class SlowAnswer(Collector, Generic[T]):
    """What a store says, for scrapes of any frequency.

    The store is asked at most once in ``every_seconds``, in a thread of its own: a scrape waits
    for it a moment, then tells what is known, and nothing once that is ``stale_seconds`` old.

    Parameters
    ----------
    prefix
        Of the metrics' names.
    ask
        Reads the store; may be slow and may raise anything.
    every_seconds, stale_seconds, patience_seconds
        How often it is asked at most, how long an answer counts, how long a scrape waits for one.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        prefix: str,
        ask: Callable[[], T],
        *,
        every_seconds: float = 15.0,
        stale_seconds: float = 120.0,
        patience_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prefix, self._ask, self._clock = prefix, ask, clock
        self._every, self._stale, self._patience = every_seconds, stale_seconds, patience_seconds
        self._lock = threading.Lock()
        self._asking: threading.Thread | None = None
        self._asked_at = float("-inf")
        self._known: tuple[float, T] | None = None

    def describe(self) -> Iterator[Metric]:
        """Names only, without asking."""
        yield from self._families(None)

    def collect(self) -> Iterator[Metric]:
        """The latest answer, asked for again when it is time."""
        self._refresh()
        known = self._known
        if known is not None and self._clock() - known[0] > self._stale:
            known = None
        yield from self._families(None if known is None else known[1])

    def _refresh(self) -> None:
        with self._lock:
            running = self._asking is not None and self._asking.is_alive()
            if not running and self._clock() - self._asked_at >= self._every:
                self._asked_at = self._clock()
                self._asking = threading.Thread(target=self._read, name="metrics", daemon=True)
                self._asking.start()
            asking = self._asking
        if asking is not None:
            asking.join(self._patience)

    def _read(self) -> None:
        try:
            found = self._ask()
        except Exception:  # the store's own pages say what is wrong with it
            return
        self._known = (self._clock(), found)

    def _families(self, found: T | None) -> Iterator[Metric]:
        raise NotImplementedError


class ReviewedShare(SlowAnswer[Observed]):
    """The observed false-positive share."""

    def _families(self, found: Observed | None) -> Iterator[Metric]:
        share = GaugeMetricFamily(
            self._prefix + "observed_false_positive_share",
            "Share of honest events held back, estimated from reviews.",
            labels=["threshold"],
        )
        reviewed = GaugeMetricFamily(
            self._prefix + "observed_reviewed_events",
            "Reviews that the observed share rests on.",
            labels=["threshold"],
        )
        if found is not None and found.estimated is not None:
            share.add_metric([THRESHOLD], found.estimated)
            reviewed.add_metric([THRESHOLD], found.released + found.confirmed)
        yield share
        yield reviewed


class IndexGauges(SlowAnswer[IndexSize]):
    """The index of accepted events: how much it holds, and how far behind it is."""

    def _families(self, found: IndexSize | None) -> Iterator[Metric]:
        made: tuple[tuple[Metric, str], ...] = (
            (
                GaugeMetricFamily(
                    self._prefix + "accepted_index_events", "Accepted events in the index."
                ),
                "events",
            ),
            (
                GaugeMetricFamily(self._prefix + "accepted_index_bytes", "Bytes of the index."),
                "bytes",
            ),
            (
                GaugeMetricFamily(
                    self._prefix + "accepted_index_lag_events",
                    "Accepted events that are not in the index yet, about.",
                ),
                "behind",
            ),
            (
                CounterMetricFamily(
                    self._prefix + "retractions", "Accepted events that were taken back."
                ),
                "retracted",
            ),
        )
        for family, name in made:
            if found is not None:
                family.add_metric([], getattr(found, name))  # type: ignore[attr-defined]
            yield family
