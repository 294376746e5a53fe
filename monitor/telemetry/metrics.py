"""Prometheus metrics of the service. The only module that knows the Prometheus client.

Every label is bounded: nothing an event carries becomes a label, except its class, of which the
first 64 get a series and the rest share ``other``. Sources and ids never do. What a commit makes
true is counted after the commit; the rest is read from the service's status at each scrape.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from monitor.config.policy import Policy
from monitor.core.blast import IndexSize
from monitor.core.desk import Observed
from monitor.core.drill import Drill
from monitor.core.errors import RejectCode
from monitor.core.ports import CommitUnit, PartitionCommit
from monitor.core.provenance import Outcome
from monitor.core.types import Action, DecisionBatch, Family, Mode, RawBatch, Verdict
from monitor.telemetry.histogram import ArrayHistogram
from monitor.telemetry.meter import DetectorClock
from monitor.telemetry.reviews import IndexGauges, ReviewedShare
from monitor.telemetry.scraped import MAX_CLASSES, PREFIX, Snapshot, StateBytes, StatusCollector
from monitor.telemetry.times import age, arrivals, place

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
AGES = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
SIZES = (1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
WAITING = "poll"
DECISIONS = "decisions"
OUTPUTS = {Action.PASS: "accepted", Action.HOLD: "quarantine", Action.REJECT: "invalid"}
STATES = ("open", "closed")
KINDS = (*(family.value for family in Family), "data_fault")
"""What incidents may be called here: a family, or that the data's pipeline is at fault."""


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
        commit, and their latency by their own times, are then not measured.

    Attributes
    ----------
    meter
        For the gate: what it measures in the loop's thread is counted with the next commit.

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
        self.meter = DetectorClock()
        self._count_events()
        self._count_batches()
        self._describe()
        self._find()
        if status is not None:
            self.registry.register(StatusCollector(status))
        self.registry.register(StateBytes(self._held_bytes, status))
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
        self._provenance = self._counter(
            "provenance_events", "Events by what became of their signature.", "outcome"
        )
        for outcome in Outcome:
            self._provenance.labels(outcome.word)
        self._warmup = self._counter("warmup_events", "Events decided by the warm-up setting.")
        self._outputs = self._counter(
            "output_records", "Records written by commits, by output.", "output"
        )
        self._detector_seconds = self._counter(
            "detector_seconds", "Time spent in detectors, by detector.", "detector"
        )
        for output in (*OUTPUTS.values(), DECISIONS):
            self._outputs.labels(output)
        # A series that begins with its first event hides that event from rate().
        for family in Family:
            if family is not Family.INVALID:
                for verdict in (Verdict.FLAG, Verdict.QUARANTINE):
                    self._flagged.labels(family.value, verdict.word)
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
        self._latency = ArrayHistogram(
            PREFIX + "event_latency_seconds",
            "Time from an event's arrival in the input to its commit.",
            AGES,
        )
        self.registry.register(self._latency)

    def _find(self) -> None:
        self._ask_incidents: Callable[[], Mapping[tuple[str, str], int]] | None = None
        self._incidents = self._gauge(
            "incidents", "Incidents, by state and family.", "state", "family"
        )
        self._recall = self._gauge(
            "drill_recall", "Share of the latest drill's canaries that were caught.", "family"
        )
        self._delay = self._gauge(
            "drill_delay_events",
            "Events between the latest drill's first canary and the first one caught.",
            "family",
        )
        self._canaries = self._counter(
            "drill_canaries", "Canaries of drills, by outcome.", "family", "outcome"
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

    def expect(self, detectors: Iterable[str]) -> None:
        """Show counters of ``detectors`` from the start: rate() misses a series' first value."""
        for name in detectors:
            for counter in (self._failures, self._detector_seconds, self._evidence):
                counter.labels(name)

    def watch_reviews(self, ask: Callable[[], Observed]) -> None:
        """Show what reviews say of the promise; see :class:`ReviewedShare`. Once."""
        self.registry.register(ReviewedShare(PREFIX, ask))

    def watch_incidents(self, ask: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Show at each scrape what ``ask`` gives, which is as :meth:`set_incidents` takes it."""
        self._ask_incidents = ask

    def watch_accepted(self, ask: Callable[[], IndexSize]) -> None:
        """Show the index of accepted events; see :class:`IndexGauges`. Once."""
        self.registry.register(IndexGauges(PREFIX, ask))

    def set_incidents(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Show how many incidents there are by (state, family); what is not named is 0.

        States are ``open`` and ``closed``, families those of :class:`Family` and ``data_fault``;
        nothing else becomes a label.
        """
        for state in STATES:
            for family in KINDS:
                self._incidents.labels(state, family).set(counts.get((state, family), 0))

    def drill(self, ended: Drill) -> None:
        """Show the result of a drill that has ended.

        Without a canary that was held its delay is NaN, and without one that was judged its recall
        too, so that no earlier drill's figures stand for this one's.
        """
        family = ended.plan.family
        delay = float("nan") if ended.delay_events is None else ended.delay_events
        self._recall.labels(family).set(float("nan") if ended.recall is None else ended.recall)
        self._delay.labels(family).set(delay)
        self._canaries.labels(family, "caught").inc(ended.held)
        self._canaries.labels(family, "missed").inc(ended.sent - ended.held)

    def _show_mode(self, current: Mode) -> None:
        for mode in Mode:
            self._mode.labels(mode.value).set(mode is current)

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Count a committed micro-batch; ``seconds`` by stage."""
        for part in unit.parts:
            self._count(part.decisions)
            self._take(part.raw, part.decisions)
            self._keep_size(part)
        self._batches.inc()
        self._batch_events.observe(sum(len(part.decisions) for part in unit.parts))
        self._batch_seconds.observe(
            sum(s for name, s in seconds.items() if name != WAITING),
            next((place(part.raw, 0) for part in unit.parts if len(part.raw)), None),
        )
        for detector, spent in self.meter.taken().items():
            self._detector_seconds.labels(detector).inc(spent)
        for stage, spent in seconds.items():
            self._stages.labels(stage).inc(max(spent, 0.0))
        self._last_commit.set_to_current_time()
        if self._clock is not None:
            ages = [age(part.decisions, self._clock()) for part in unit.parts]
            known = [a for a in ages if a is not None]
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
        if decisions.provenance is not None:
            for value, n in enumerate(np.bincount(decisions.provenance).tolist()):
                self._provenance.labels(Outcome(value).word).inc(n)
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

    def _take(self, raw: RawBatch, decisions: DecisionBatch) -> None:
        """How long events took, and where they went."""
        went = np.bincount(decisions.action, minlength=len(Action))
        for action, output in OUTPUTS.items():
            self._outputs.labels(output).inc(int(went[action]))
        self._outputs.labels(DECISIONS).inc(len(decisions))
        came = arrivals(raw, decisions, by_events=self._clock is not None)
        if came is not None:
            now = time.time() if self._clock is None else self._clock()
            self._latency.observe(np.maximum(now - came, 0.0), lambda row: place(raw, row))

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
        if self._ask_incidents is not None:
            self.set_incidents(self._ask_incidents())
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


def _version() -> str:
    try:
        return version("poisoning-monitor")
    except PackageNotFoundError:
        return "unknown"


__all__ = ["MAX_CLASSES", "PREFIX", "Metrics"]
