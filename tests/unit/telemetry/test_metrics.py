"""Metrics count what was committed, with bounded labels, and are all documented."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from prometheus_client import Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_open
from prometheus_client.parser import text_string_to_metric_families

from monitor.config.policy import Policy
from monitor.core.blast import IndexSize
from monitor.core.desk import Observed
from monitor.core.drill import Drill, DrillPlan, DrillState
from monitor.core.errors import RejectCode
from monitor.core.ports import CommitUnit, PartitionCommit
from monitor.core.types import Action, DecisionBatch, Family, Mode, RawBatch, Reason
from monitor.telemetry.histogram import ArrayHistogram
from monitor.telemetry.metrics import AGES, MAX_CLASSES, PREFIX, Metrics
from monitor.telemetry.reviews import ReviewedShare

DOCUMENT = Path(__file__).parents[3] / "deploy" / "metrics.md"


def values(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.expose()[0].decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name.removeprefix(PREFIX)}{{{labels}}}"] = sample.value
    return found


def a_unit(
    partition: int = 0,
    snapshot: bytes | None = None,
    ts: Any = 990.0,
    timestamps: list[int] | None = None,
) -> CommitUnit:
    verdict = np.array([0, 0, 1, 2, 3], dtype=np.uint8)
    action = np.array([0, 0, 0, Action.HOLD, Action.REJECT], dtype=np.uint8)
    reject = np.array([0, 0, 0, 0, RejectCode.NOT_JSON], dtype=np.uint8)
    decisions = DecisionBatch(
        partition=partition,
        offset=np.arange(5),
        risk=np.zeros(5),
        channel=np.array([255, 0, 0, 1, 255], dtype=np.uint8),
        verdict=verdict,
        action=action,
        reject=reject,
        warmup=np.array([True, False, False, False, False]),
        p_value=np.ones((5, 2)),
        channels=("label_flip", "sybil"),
        reasons={3: (Reason("source_evidence", 9.0, 1e-4, 1e-3, "text"),)},
        policy_version=4,
        mode=Mode.SHADOW,
        records=[orjson.dumps({"ts": ts, "label": "x"})] * 5,
    )
    raw = RawBatch.of([b"{}"] * 5, start=70, partition=partition)
    raw = replace(raw, timestamps=timestamps)
    return CommitUnit((PartitionCommit(raw, decisions, 5, b"", snapshot),))


SECONDS = {"poll": 3.0, "gate": 0.02, "snapshot": 0.0, "commit": 0.01}


def test_counts_a_commit() -> None:
    metrics = Metrics(clock=lambda: 1000.0)
    metrics.committed(a_unit(snapshot=b"12345"), SECONDS)
    metrics.committed(a_unit(), SECONDS)
    seen = values(metrics)
    assert seen["events_total{action=pass,verdict=accept}"] == 4
    assert seen["events_total{action=hold,verdict=quarantine}"] == 2
    assert seen["events_total{action=reject,verdict=invalid}"] == 2
    assert seen["rejects_total{code=not_json}"] == 2
    assert seen["rejects_total{code=too_deep}"] == 0
    assert seen["flagged_total{family=label_flip,verdict=flag}"] == 2
    assert seen["flagged_total{family=sybil,verdict=quarantine}"] == 2
    assert seen["evidence_total{detector=source_evidence}"] == 2
    assert seen["warmup_events_total{}"] == 2
    assert seen["batches_total{}"] == 2
    assert seen["snapshots_total{}"] == 1
    assert seen["state_bytes{}"] == 5
    assert seen["stage_seconds_total{stage=poll}"] == 6
    assert seen["batch_seconds_count{}"] == 2
    assert abs(seen["batch_seconds_sum{}"] - 0.06) < 1e-9  # waiting for input is not work
    assert seen["batch_events_sum{}"] == 10
    assert seen["policy_version{}"] == 4
    assert seen["policy_mode{mode=shadow}"] == 1
    assert seen["policy_mode{mode=enforce}"] == 0
    assert seen["event_age_seconds_sum{}"] == 20
    assert seen["output_records_total{output=accepted}"] == 6
    assert seen["output_records_total{output=quarantine}"] == 2
    assert seen["output_records_total{output=invalid}"] == 2
    assert seen["output_records_total{output=decisions}"] == 10
    # Without time stamps of records, by the events' own: four valid ones of a commit, 10 s old.
    assert seen["event_latency_seconds_count{}"] == 8
    assert seen["event_latency_seconds_sum{}"] == 80


OPEN = "application/openmetrics-text; version=1.0.0"


def exemplars(metrics: Metrics) -> dict[str, tuple[dict[str, str], float]]:
    """Labels and value of each exemplar by the sample's name and bound, in OpenMetrics."""
    text = metrics.expose(OPEN)[0].decode()
    return {
        f"{s.name.removeprefix(PREFIX)}:{s.labels['le']}": (s.exemplar.labels, s.exemplar.value)
        for family in parsed_open(text)
        for s in family.samples
        if s.exemplar is not None
    }


def test_latency_by_the_records_time_with_the_slowest_as_exemplar() -> None:
    metrics = Metrics(clock=lambda: 1000.0)
    # 1 s, exactly at a bound; unknown; from the future; 40 s; 0.2 s
    times = [999_000, -1, 1_000_500, 960_000, 999_800]
    metrics.committed(a_unit(partition=3, timestamps=times), SECONDS)
    seen = values(metrics)
    assert seen["event_latency_seconds_count{}"] == 4
    assert abs(seen["event_latency_seconds_sum{}"] - 41.2) < 1e-9
    assert seen["event_latency_seconds_bucket{le=0.1}"] == 1
    assert seen["event_latency_seconds_bucket{le=0.25}"] == 2
    assert seen["event_latency_seconds_bucket{le=1.0}"] == 3
    assert seen["event_latency_seconds_bucket{le=30.0}"] == 3
    assert seen["event_latency_seconds_bucket{le=60.0}"] == 4
    found = exemplars(metrics)
    assert found["event_latency_seconds_bucket:60.0"] == ({"partition": "3", "offset": "73"}, 40.0)
    labels, value = found["batch_seconds_bucket:0.05"]
    assert labels == {"partition": "3", "offset": "70"}
    assert abs(value - 0.03) < 1e-9
    assert len(found) == 2
    assert b" # {" not in metrics.expose()[0]  # the plain format has no exemplars


def test_a_histogram_counts_as_the_clients_own_does() -> None:
    rng = np.random.default_rng(5)
    drawn = np.concatenate([rng.exponential(2.0, 500), np.array(AGES)])
    ours, theirs = ArrayHistogram("x", "", AGES), Histogram("x", "", buckets=AGES, registry=None)
    for part in np.split(drawn, [100, 101, 400]):
        ours.observe(part)
    for value in drawn:
        theirs.observe(value)
    expected = {
        (s.name, s.labels.get("le")): s.value
        for s in next(iter(theirs.collect())).samples
        if not s.name.endswith("_created")
    }
    found = {(s.name, s.labels.get("le")): s.value for s in next(ours.collect()).samples}
    assert found.keys() == expected.keys()
    assert all(abs(found[k] - v) < 1e-9 * max(v, 1.0) for k, v in expected.items())
    ours.observe(np.array([np.nan, np.inf]))
    assert {(s.name, s.labels.get("le")): s.value for s in next(ours.collect()).samples} == found


def test_a_replay_measures_latency_of_no_event() -> None:
    metrics = Metrics(clock=None)
    metrics.committed(a_unit(), SECONDS)
    assert values(metrics)["event_latency_seconds_count{}"] == 0


def test_time_by_detector_is_counted_after_the_commit_and_in_the_loops_thread() -> None:
    metrics = Metrics()
    metrics.expect(["trigger", "ring"])
    metrics.meter("trigger", lambda: sum(range(1000)))
    assert values(metrics)["detector_seconds_total{detector=trigger}"] == 0
    other = threading.Thread(target=lambda: metrics.meter("ring", lambda: None))
    other.start()
    other.join()
    metrics.committed(a_unit(), SECONDS)
    seen = values(metrics)
    assert seen["detector_seconds_total{detector=trigger}"] > 0
    assert seen["detector_seconds_total{detector=ring}"] == 0
    assert seen["detector_errors_total{detector=ring}"] == 0


OBSERVED = Observed(
    promised=0.001,
    judged=10_000,
    held=40,
    released=6,
    confirmed=14,
    at_least=6e-4,
    estimated=0.0012,
)


class Store:
    """Stands for the quarantine's store: answers, fails or hangs as told."""

    def __init__(self) -> None:
        self.asked, self.answer = 0, OBSERVED
        self.fails, self.free = False, threading.Event()
        self.free.set()

    def observed(self) -> Observed:
        self.asked += 1
        assert self.free.wait(30)
        if self.fails:
            raise OSError("gone")
        return self.answer


def reviewed(store: Store, now: list[float]) -> Callable[[], dict[str, float]]:
    share = ReviewedShare("", store.observed, clock=lambda: now[0], patience_seconds=0.2)
    return lambda: {s.name: s.value for f in share.collect() for s in f.samples}


def test_reviews_are_read_every_15_seconds_at_most() -> None:
    store, now = Store(), [100.0]
    scrape = reviewed(store, now)
    expected = {"observed_false_positive_share": 0.0012, "observed_reviewed_events": 20.0}
    assert scrape() == scrape() == expected
    now[0] += 14.9
    assert scrape() == expected and store.asked == 1
    store.answer = replace(OBSERVED, estimated=0.5)
    now[0] += 0.2
    assert scrape()["observed_false_positive_share"] == 0.5
    assert store.asked == 2


def test_nothing_is_told_before_the_first_review() -> None:
    store = Store()
    store.answer = replace(OBSERVED, released=0, confirmed=0, estimated=None)
    assert reviewed(store, [0.0])() == {}


def test_a_store_that_fails_or_hangs_fails_no_scrape() -> None:
    store, now = Store(), [0.0]
    scrape = reviewed(store, now)
    known = scrape()
    store.fails = True
    now[0] += 60.0
    assert scrape() == known  # for a while the last answer counts
    now[0] += 100.0
    assert scrape() == {}
    store.fails = False
    store.free.clear()
    now[0] += 15.0
    assert scrape() == {} == scrape()
    now[0] += 15.0
    assert scrape() == {} and store.asked == 4  # no second thread waits for it
    store.free.set()
    deadline = time.monotonic() + 20
    while scrape() != known:
        assert time.monotonic() < deadline


def test_incidents_and_drills() -> None:
    metrics = Metrics()
    metrics.set_incidents({("open", "backdoor"): 2, ("open", "nonsense"): 7})
    plan = DrillPlan("sybil")
    ended = Drill("1", plan, DrillState.DONE, "ann", "weekly", 0.0, sent=4, held=3, delay_events=12)
    metrics.drill(ended)
    metrics.drill(replace(ended, sent=2, held=1, delay_events=None))
    seen = values(metrics)
    assert seen["incidents{family=backdoor,state=open}"] == 2
    assert not any("nonsense" in name for name in seen)
    assert seen["drill_recall{family=sybil}"] == 0.5
    assert np.isnan(seen["drill_delay_events{family=sybil}"])
    assert seen["drill_canaries_total{family=sybil,outcome=caught}"] == 4
    assert seen["drill_canaries_total{family=sybil,outcome=missed}"] == 2
    metrics.drill(replace(ended, sent=0, held=0, delay_events=None))
    seen = values(metrics)  # what the drill before has shown stands for this one no more
    assert np.isnan(seen["drill_recall{family=sybil}"])
    assert seen["drill_canaries_total{family=sybil,outcome=missed}"] == 2
    metrics.set_incidents({})
    assert values(metrics)["incidents{family=backdoor,state=open}"] == 0


def test_event_times_of_any_form_never_fail() -> None:
    metrics = Metrics(clock=lambda: 1000.0)
    for ts in ("1970-01-01T00:16:00Z", "nonsense", 1e300, None, [1]):
        metrics.committed(a_unit(ts=ts), SECONDS)
    seen = values(metrics)
    assert seen["event_age_seconds_count{}"] == 2  # 40 s, and a time in the future counts as 0
    assert seen["event_age_seconds_sum{}"] == 40


def test_a_replay_measures_no_age() -> None:
    metrics = Metrics(clock=None)
    metrics.committed(a_unit(), SECONDS)
    assert values(metrics)["event_age_seconds_count{}"] == 0


def test_policy_is_shown() -> None:
    metrics = Metrics(Policy(flag_at=0.02, quarantine_at=0.002))
    assert values(metrics)["policy_share{threshold=quarantine}"] == 0.002
    metrics.set_policy(Policy(version=2, flag_at=0.05, mode=Mode.ALERT))
    assert values(metrics)["policy_share{threshold=flag}"] == 0.05
    assert values(metrics)["policy_mode{mode=alert}"] == 1


def test_status_is_read_at_each_scrape() -> None:
    status: dict[str, Any] = {"ready": False, "lag_events": None, "idle_seconds": 1.0}
    metrics = Metrics(status=lambda: status)
    assert values(metrics)["ready{}"] == 0
    assert "lag_events{}" not in values(metrics)
    metrics.committed(a_unit(0, b"abc"), SECONDS)
    metrics.committed(a_unit(1, b"abcdef"), SECONDS)
    status |= {"ready": True, "lag_events": 7, "partitions": {"1": 3}}
    status |= {"stage_seconds": {"restore": 1.5}, "restore_last_seconds": 0.5}
    seen = values(metrics)
    assert (seen["ready{}"], seen["lag_events{}"], seen["partitions{}"]) == (1, 7, 1)
    assert seen["restore_seconds_total{}"] == 1.5
    assert seen["restore_last_seconds{}"] == 0.5
    assert seen["state_bytes{}"] == 6  # partition 0 went elsewhere


def test_classes_are_bounded() -> None:
    classes = {f"c{i}": {"accept": 1, "flag": 0} for i in range(MAX_CLASSES + 40)}
    metrics = Metrics(status=lambda: {"classes": classes})
    seen = {name: v for name, v in values(metrics).items() if name.startswith("class_events")}
    assert len(seen) == 2 * (MAX_CLASSES + 1)
    assert seen["class_events_total{class=other,verdict=accept}"] == 40
    assert sum(seen.values()) == MAX_CLASSES + 40


def test_suspicions_of_every_family_start_at_zero() -> None:
    seen = values(Metrics())
    for family in set(Family) - {Family.INVALID}:
        assert seen[f"flagged_total{{family={family.value},verdict=quarantine}}"] == 0


def test_instances_do_not_mix() -> None:
    first, second = Metrics(), Metrics()
    first.committed(a_unit(), SECONDS)
    assert values(second)["batches_total{}"] == 0


def test_open_metrics_on_request() -> None:
    text, kind = Metrics().expose("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    metrics = Metrics(status=dict)
    metrics.watch_reviews(lambda: OBSERVED)
    metrics.watch_accepted(lambda: IndexSize(5, 900, 2, 1))
    exposed = metrics.expose()[0].decode()
    assert "poisoning_monitor_accepted_index_lag_events 2.0" in exposed
    assert "poisoning_monitor_retractions_total 1.0" in exposed
    exist = set(re.findall(r"^# TYPE (\S+)", exposed, flags=re.M))
    documented = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), flags=re.M))
    assert {name for name in exist if name.startswith(PREFIX)} == documented
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)", exposed, flags=re.M))
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCUMENT.read_text(), flags=re.M)
    assert dict(rows) == {n: kinds[n] for n in documented}
    process = set(re.findall(r"`(process_\w+)`", DOCUMENT.read_text()))
    assert {name for name in exist if name.startswith("process_")} <= process
