"""Metrics that are read from the service's status at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

PREFIX = "poisoning_monitor_"
MAX_CLASSES = 64
OTHER = "other"

Snapshot = Mapping[str, Any]


class StatusCollector(Collector):
    """What is read from the status at each scrape."""

    def __init__(self, status: Callable[[], Snapshot]) -> None:
        self._status = status

    def describe(self) -> Iterator[Metric]:
        """Names only, so that registering needs no status yet."""
        return self._families({})

    def collect(self) -> Iterator[Metric]:
        """The status of now."""
        return self._families(self._status())

    def _families(self, status: Snapshot) -> Iterator[Metric]:
        yield _gauge("ready", "1 once partitions are assigned and restored.", status.get("ready"))
        yield _gauge("idle_seconds", "Time since the loop last moved.", status.get("idle_seconds"))
        yield _gauge(
            "lag_events", "Events waiting in the assigned partitions.", status.get("lag_events")
        )
        partitions = status.get("partitions")
        yield _gauge(
            "partitions",
            "Input partitions assigned and restored.",
            None if partitions is None else len(partitions),
        )
        views = status.get("views")
        for word, text in (
            ("others", "Other partitions whose knowledge partitions here are judged with."),
            ("apart", "Other partitions whose knowledge could not be used, see the log."),
        ):
            counts = None if views is None else sum(view[word] for view in views.values())
            yield _gauge(f"view_{word}", text, counts)
        restore = CounterMetricFamily(
            PREFIX + "restore_seconds", "Time spent bringing partitions' state back."
        )
        restore.add_metric([], float(status.get("stage_seconds", {}).get("restore", 0.0)))
        yield restore
        yield _gauge(
            "restore_last_seconds",
            "Time the latest restore of a partition's state took.",
            status.get("restore_last_seconds"),
        )
        yield _classes(status.get("classes", {}))


def _classes(classes: Mapping[str, Mapping[str, int]]) -> Metric:
    """Counts by class; what is beyond the first 64 classes is ``other``."""
    family = CounterMetricFamily(
        PREFIX + "class_events", "Events by their label.", labels=["class", "verdict"]
    )
    counts: dict[tuple[str, str], int] = {}
    named: set[str] = set()
    for label, verdicts in classes.items():
        name = label if label in named or len(named) < MAX_CLASSES else OTHER
        named.add(name)
        for verdict, n in verdicts.items():
            counts[name, verdict] = counts.get((name, verdict), 0) + n
    for (name, verdict), n in counts.items():
        family.add_metric([name, verdict], n)
    return family


class StateBytes(Collector):
    """Size of the latest snapshots of the partitions that are still here."""

    def __init__(
        self, held: Callable[[], Mapping[int, int]], status: Callable[[], Snapshot] | None
    ) -> None:
        self._held = held
        self._status = status

    def describe(self) -> Iterator[Metric]:
        """The name only."""
        yield _gauge("state_bytes", "", None)

    def collect(self) -> Iterator[Metric]:
        """Summed over partitions."""
        held = self._held()
        here = None if self._status is None else self._status().get("partitions")
        total = sum(n for p, n in held.items() if here is None or str(p) in here)
        yield _gauge("state_bytes", "Size of the stored state of the partitions here.", total)


def _gauge(name: str, text: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text)
    if value is not None:
        family.add_metric([], float(value))
    return family
