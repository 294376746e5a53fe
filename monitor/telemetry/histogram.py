"""A histogram that takes many values at once, with an exemplar of the largest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from prometheus_client.core import Exemplar, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from monitor.core.types import FloatArray, IntArray


class ArrayHistogram(Collector):
    """Counts arrays into buckets without a loop over their values. Thread-safe.

    Parameters
    ----------
    name, text
        Of the metric.
    bounds
        Upper bounds, inclusive and increasing, without infinity.
    wall
        Seconds since 1970, for exemplars.

    Examples
    --------
    >>> h = ArrayHistogram("latency_seconds", "How long.", (0.1, 1.0))
    >>> h.observe(np.array([0.05, 0.1, 0.5, 7.0]))
    >>> [int(s.value) for s in next(h.collect()).samples]
    [2, 3, 4, 4, 7]
    """

    def __init__(
        self,
        name: str,
        text: str,
        bounds: Sequence[float],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._name, self._text, self._wall = name, text, wall
        self._bounds = np.asarray(bounds, dtype=np.float64)
        self._words = [*(str(float(b)) for b in bounds), "+Inf"]
        self._counts: IntArray = np.zeros(len(self._words), dtype=np.int64)
        self._sum = 0.0
        self._exemplars: list[Exemplar | None] = [None] * len(self._words)
        self._lock = threading.Lock()

    def observe(
        self, values: FloatArray, exemplar: Callable[[int], Mapping[str, str]] | None = None
    ) -> None:
        """Count float64[n]; ``exemplar`` gives the labels for the row of the largest value.

        Values that are not finite are left out.
        """
        rows = np.flatnonzero(np.isfinite(values))
        if not len(rows):
            return
        values = values[rows]
        place = np.searchsorted(self._bounds, values, side="left")
        counts = np.bincount(place, minlength=len(self._words))
        largest = int(np.argmax(values))
        told = None
        if exemplar is not None:
            labels = dict(exemplar(int(rows[largest])))
            told = Exemplar(labels, float(values[largest]), self._wall())
        with self._lock:
            self._counts += counts
            self._sum += float(values.sum())
            if told is not None:
                self._exemplars[int(place[largest])] = told

    def describe(self) -> Iterator[Metric]:
        """The name only."""
        yield HistogramMetricFamily(self._name, self._text)

    def collect(self) -> Iterator[Metric]:
        """Cumulative buckets, count and sum."""
        with self._lock:
            counts, total = np.cumsum(self._counts).tolist(), self._sum
            exemplars = list(self._exemplars)
        family = HistogramMetricFamily(self._name, self._text)
        buckets = [
            (word, float(n)) if told is None else (word, float(n), told)
            for word, n, told in zip(self._words, counts, exemplars, strict=True)
        ]
        family.add_metric([], buckets, total)
        yield family
