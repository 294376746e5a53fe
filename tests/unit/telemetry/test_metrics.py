"""Metrics count what was committed, with bounded labels, and are all documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from prometheus_client.parser import text_string_to_metric_families

from monitor.config.policy import Policy
from monitor.core.errors import RejectCode
from monitor.core.ports import CommitUnit, PartitionCommit
from monitor.core.types import Action, DecisionBatch, Mode, RawBatch, Reason
from monitor.telemetry.metrics import MAX_CLASSES, PREFIX, Metrics

DOCUMENT = Path(__file__).parents[3] / "deploy" / "metrics.md"


def values(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.expose()[0].decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name.removeprefix(PREFIX)}{{{labels}}}"] = sample.value
    return found


def a_unit(partition: int = 0, snapshot: bytes | None = None, ts: Any = 990.0) -> CommitUnit:
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
    raw = RawBatch.of([b"{}"] * 5, partition=partition)
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
    status |= {"stage_seconds": {"restore": 1.5}}
    seen = values(metrics)
    assert (seen["ready{}"], seen["lag_events{}"], seen["partitions{}"]) == (1, 7, 1)
    assert seen["restore_seconds_total{}"] == 1.5
    assert seen["state_bytes{}"] == 6  # partition 0 went elsewhere


def test_classes_are_bounded() -> None:
    classes = {f"c{i}": {"accept": 1, "flag": 0} for i in range(MAX_CLASSES + 40)}
    metrics = Metrics(status=lambda: {"classes": classes})
    seen = {name: v for name, v in values(metrics).items() if name.startswith("class_events")}
    assert len(seen) == 2 * (MAX_CLASSES + 1)
    assert seen["class_events_total{class=other,verdict=accept}"] == 40
    assert sum(seen.values()) == MAX_CLASSES + 40


def test_instances_do_not_mix() -> None:
    first, second = Metrics(), Metrics()
    first.committed(a_unit(), SECONDS)
    assert values(second)["batches_total{}"] == 0


def test_open_metrics_on_request() -> None:
    text, kind = Metrics().expose("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    exposed = Metrics(status=dict).expose()[0].decode()
    exist = set(re.findall(r"^# TYPE (\S+)", exposed, flags=re.M))
    documented = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), flags=re.M))
    assert {name for name in exist if name.startswith(PREFIX)} == documented
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)", exposed, flags=re.M))
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCUMENT.read_text(), flags=re.M)
    assert dict(rows) == {n: kinds[n] for n in documented}
    process = set(re.findall(r"`(process_\w+)`", DOCUMENT.read_text()))
    assert {name for name in exist if name.startswith("process_")} <= process
