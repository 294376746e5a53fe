"""Prometheus metrics of the service. The only module that knows the Prometheus client.

Every label is bounded: nothing an event carries becomes a label, except its class, of which the
first 64 get a series and the rest share ``other``. Sources and ids never do. What a commit makes
true is counted after the commit; the rest is read from the service's status at each scrape.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from monitor.config.policy import Policy
from monitor.core.errors import RejectCode
from monitor.core.ports import CommitUnit, PartitionCommit
from monitor.core.types import Action, DecisionBatch, Mode, Verdict

PREFIX = "poisoning_monitor_"
MAX_CLASSES = 64
OTHER = "other"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
AGES = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
SIZES = (1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
WAITING = "poll"

Snapshot = Mapping[str, Any]


class _Time(msgspec.Struct, gc=False):
    ts: float | str | None = None


_time_of = msgspec.json.Decoder(_Time).decode


class Metrics:
    """Observer of a :class:`~monitor.runtime.service.Service` that answers scrapes.

    Each instance has a registry of its own: two services in one process do not mix.

    Parameters
    ----------
    policy
        The policy at start; see :meth:`set_policy`.
    status
        Gives the service's status as a mapping (``Status.snapshot``), read at each scrape. Lag,
        readiness and per-class counts come from it; without it they are absent.
    clock
        Seconds since 1970. None where event times are not of now (a replay): the age of events at
        commit is then not measured.

    Examples
    --------
    >>> text, kind = Metrics(Policy(flag_at=0.02)).expose()
    >>> kind.split(";")[0]
    'text/plain'
    >>> 'poisoning_monitor_policy_share{threshold="flag"} 0.02' in text.decode()
    True
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        status: Callable[[], Snapshot] | None = None,
        clock: Callable[[], float] | None = time.time,
    ) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._lock = threading.Lock()
        self._state_bytes: dict[int, int] = {}
        self._count_events()
        self._count_batches()
        self._describe()
        if status is not None:
            self.registry.register(_StatusCollector(status))
        self.registry.register(_StateBytes(self._held_bytes, status))
        ProcessCollector(registry=self.registry)
        self.set_policy(policy or Policy())

    def _count_events(self) -> None:
        self._events = self._counter(
            "events", "Events committed, by verdict and by what was done.", "verdict", "action"
        )
        self._flagged = self._counter(
            "flagged",
            "Events flagged or quarantined, by the family of the strongest channel.",
            "family",
            "verdict",
        )
        self._evidence = self._counter(
            "evidence", "Pieces of evidence given in decisions, by detector.", "detector"
        )
        self._unjudged = self._counter(
            "unjudged_events", "Valid events let by unjudged in an overload."
        )
        self._failures = self._counter(
            "detector_errors", "Micro-batches on which a detector failed, by detector.", "detector"
        )
        self._rejects = self._counter("rejects", "Invalid records, by cause.", "code")
        self._warmup = self._counter("warmup_events", "Events decided by the warm-up setting.")
        for verdict in Verdict:
            if verdict is not Verdict.INVALID:
                self._events.labels(verdict.word, Action.PASS.word)
        self._events.labels(Verdict.QUARANTINE.word, Action.HOLD.word)
        self._events.labels(Verdict.INVALID.word, Action.REJECT.word)
        for code in RejectCode:
            if code is not RejectCode.OK:
                self._rejects.labels(code.word)

    def _count_batches(self) -> None:
        self._batches = self._counter("batches", "Micro-batches committed.")
        self._snapshots = self._counter("snapshots", "Snapshots of a partition's state stored.")
        self._stages = self._counter(
            "stage_seconds", "Time spent by the loop, by stage; poll is waiting for input.", "stage"
        )
        self._batch_seconds = self._histogram(
            "batch_seconds", "Time from a polled micro-batch to its commit.", SECONDS
        )
        self._batch_events = self._histogram("batch_events", "Events in a micro-batch.", SIZES)
        self._last_commit = Gauge(
            PREFIX + "last_commit_timestamp_seconds",
            "When the last micro-batch was committed, seconds since 1970.",
            registry=self.registry,
        )
        self._age = self._histogram(
            "event_age_seconds",
            "Age of the newest event of a micro-batch when it was committed, by its own time.",
            AGES,
        )

    def _describe(self) -> None:
        self._policy_version = self._gauge("policy_version", "Version of the policy in force.")
        self._share = self._gauge(
            "policy_share",
            "Share of honest events the policy allows to be flagged or quarantined.",
            "threshold",
        )
        self._mode = self._gauge("policy_mode", "1 for the mode in force, 0 for others.", "mode")
        info = self._gauge("build_info", "Always 1; the version is in labels.", "version", "python")
        info.labels(_version(), platform.python_version()).set(1)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(PREFIX + name, text, buckets=buckets, registry=self.registry)

    def set_policy(self, policy: Policy) -> None:
        """Show ``policy`` as the one in force. From any thread."""
        self._policy_version.set(policy.version)
        self._share.labels("flag").set(policy.flag_at)
        self._share.labels("quarantine").set(policy.quarantine_at)
        self._show_mode(policy.mode)

    def _show_mode(self, current: Mode) -> None:
        for mode in Mode:
            self._mode.labels(mode.value).set(mode is current)

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Count a committed micro-batch; ``seconds`` by stage."""
        for part in unit.parts:
            self._count(part.decisions)
            self._keep_size(part)
        self._batches.inc()
        self._batch_events.observe(sum(len(part.decisions) for part in unit.parts))
        self._batch_seconds.observe(sum(s for name, s in seconds.items() if name != WAITING))
        for stage, spent in seconds.items():
            self._stages.labels(stage).inc(max(spent, 0.0))
        self._last_commit.set_to_current_time()
        if self._clock is not None:
            ages = [_age(part.decisions, self._clock()) for part in unit.parts]
            known = [age for age in ages if age is not None]
            if known:
                self._age.observe(min(known))

    def _count(self, decisions: DecisionBatch) -> None:
        verdict = decisions.verdict.astype(np.int64)
        pair = np.bincount(verdict * len(Action) + decisions.action)
        for code in np.flatnonzero(pair):
            what, done = divmod(int(code), len(Action))
            self._events.labels(Verdict(what).word, Action(done).word).inc(int(pair[code]))
        for code in np.flatnonzero(np.bincount(decisions.reject[verdict == Verdict.INVALID])):
            n = int((decisions.reject == code).sum())
            self._rejects.labels(RejectCode(int(code)).word).inc(n)
        self._warmup.inc(int(decisions.warmup.sum()))
        suspicious = (verdict == Verdict.FLAG) | (verdict == Verdict.QUARANTINE)
        for row in np.flatnonzero(suspicious & (decisions.channel < len(decisions.channels))):
            family = decisions.channels[decisions.channel[row]]
            self._flagged.labels(family, Verdict(int(verdict[row])).word).inc()
        for reasons in decisions.reasons.values():
            for reason in reasons:
                self._evidence.labels(reason.detector).inc()
        if decisions.unjudged:
            self._unjudged.inc(int((verdict != Verdict.INVALID).sum()))
        for detector in {failure.detector for failure in decisions.failures}:
            self._failures.labels(detector).inc()
        self._policy_version.set(decisions.policy_version)
        self._show_mode(decisions.mode)

    def _keep_size(self, part: PartitionCommit) -> None:
        if part.snapshot is not None:
            self._snapshots.inc()
            with self._lock:
                self._state_bytes[part.raw.partition] = len(part.snapshot)

    def _held_bytes(self) -> dict[int, int]:
        with self._lock:
            return dict(self._state_bytes)

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics as text, and its content type, for a scrape with this Accept header."""
        encode, kind = choose_encoder(accept)
        return encode(_Plain(self.registry)), kind


class _Plain(CollectorRegistry):
    """A registry without the ``_created`` series, which double a scrape and tell nobody much."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._full = registry

    def collect(self) -> Iterator[Metric]:
        """What the full registry has, minus those."""
        for family in self._full.collect():
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family


class _StatusCollector(Collector):
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


class _StateBytes(Collector):
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


def _age(decisions: DecisionBatch, now: float) -> float | None:
    """Seconds since the time of the last valid event, or None; never negative."""
    valid = np.flatnonzero(decisions.verdict != Verdict.INVALID)
    if not len(valid) or int(valid[-1]) >= len(decisions.records):
        return None
    try:
        ts = _time_of(decisions.records[int(valid[-1])]).ts
        if isinstance(ts, str):
            ts = datetime.fromisoformat(ts).timestamp()
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return None
    return None if ts is None else max(now - ts, 0.0)


def _version() -> str:
    try:
        return version("poisoning-monitor")
    except PackageNotFoundError:
        return "unknown"
