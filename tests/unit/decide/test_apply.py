"""What the policy makes of p-values: in the gate, and again in what-if."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pytest

from monitor.config.policy import Policy
from monitor.core.ports import CommitUnit, PartitionCommit
from monitor.core.types import Action, DecisionBatch, Mode, RawBatch, Verdict
from monitor.decide.apply import learned_from
from monitor.decide.whatif import Columns, judged_again, risk_histogram, speakers, whatif
from monitor.detectors import default_detectors
from monitor.gate import Gate, GateConfig, GateState
from monitor.runtime.recent_events import RecentEvents
from tests.unit.test_gate_steps import values

CONFIG = GateConfig(warmup_events=100, hash_seed=5)
PLAIN = Policy(flag_at=0.05, quarantine_at=0.01)
WARM, MORE = 2_400, 290
"""So that the second batch is judged in one piece: nothing is learned within it."""


def lines(start: int, n: int) -> list[bytes]:
    return [line for line in values(WARM + MORE) if line.startswith(b'{"id":"')][start : start + n]


@pytest.fixture(scope="module")
def warm() -> GateState:
    gate = Gate(CONFIG)
    return gate.step(gate.start(), RawBatch.of(lines(0, WARM)))[1]


def judged(warm: GateState, policy: Policy) -> DecisionBatch:
    batch = lines(WARM, MORE)
    done = Gate(CONFIG, policy).step(warm, RawBatch.of(batch, start=WARM))[0]
    assert len(done.scored) == 1 and len(done) > 100
    return done


def columns(decisions: DecisionBatch) -> Columns:
    recent = RecentEvents(default_detectors(), 10_000)
    raw = RawBatch.of([b""] * len(decisions), start=WARM)
    recent.committed(CommitUnit((PartitionCommit(raw, decisions, 0, b""),)), {})
    return recent.columns()


def changed(**changes: Any) -> Policy:
    return Policy.model_validate({**PLAIN.model_dump(mode="json"), **changes})


def records(decisions: DecisionBatch) -> list[dict[str, Any]]:
    return [orjson.loads(record) for record in decisions.records]


SOURCE = orjson.loads(lines(WARM, 1)[0])["source"]
SUBJECT = orjson.loads(lines(WARM, 1)[0])["subject"]

POLICIES: Mapping[str, dict[str, Any]] = {
    "other thresholds": {"flag_at": 0.3, "quarantine_at": 0.1},
    "other budget": {"budget": {"sybil": 1.0, "label_flip": 1.0}},
    "weights": {"detectors": {"trigger": {"weight": 5.0}, "novelty": {"weight": 0.2}}},
    "alert": {"detectors": {name.name: {"mode": "alert"} for name in default_detectors()}},
    "alert for one": {"detectors": {"label_conflict": {"mode": "alert"}}},
    "overrides": {
        "overrides": [
            {"id": "l", "scope": "label", "match": True, "flag_at": 0.5},
            {"id": "u", "scope": "subject", "match": SUBJECT, "quarantine_at": 0.4},
            {"id": "s", "scope": "source", "match": SOURCE, "flag_at": 0.9, "mode": "alert"},
        ]
    },
    "lists": {"deny": [{"source": SOURCE}], "allow": [{"source": "bad0"}, {"source": "bad1"}]},
    "confirmed": {"confirmed": {"bad0": 3, SOURCE: 1_000_000}},
}


@pytest.mark.parametrize("name", POLICIES)
def test_what_if_says_what_the_gate_does(warm: GateState, name: str) -> None:
    """One function: what a policy would make of events scored under another is what it makes."""
    policy = changed(**POLICIES[name])
    done = judged(warm, policy)
    kept = columns(judged(warm, PLAIN))
    if name != "weights":  # which also change what the source's evidence hears
        np.testing.assert_array_equal(kept.p, columns(done).p)
        rows = done.scored[0].row
        again = judged_again(kept, policy, CONFIG.hash_seed)
        edge = np.isclose(again.tail, policy.flag_at, rtol=1e-5)
        assert (again.verdict == done.verdict[rows])[~edge].all()
        np.testing.assert_allclose(-np.log10(again.tail), done.risk[rows], rtol=1e-5, atol=1e-6)
        assert (again.channel == done.channel[rows]).mean() > 0.99  # ties within single precision
    found = whatif(kept, PLAIN, policy, CONFIG.hash_seed)
    assert found.events == len(kept) and sum(found.after.values()) == found.events
    before, after = found.before["quarantine"], found.after["quarantine"]
    for by in (found.by_label, found.by_source):
        assert sum(a for a, _ in by.values()) == before and sum(b for _, b in by.values()) == after
    assert found.n_flips == len(found.flips) or len(found.flips) == 200


def test_detectors_in_alert_hold_nothing_back_and_in_shadow_have_no_say(warm: GateState) -> None:
    plain = judged(warm, PLAIN)
    assert (plain.verdict == Verdict.QUARANTINE).any()
    everyone = [detector.name for detector in default_detectors()]
    alert = judged(warm, changed(detectors={name: {"mode": "alert"} for name in everyone}))
    np.testing.assert_array_equal(alert.verdict, np.minimum(plain.verdict, Verdict.FLAG))
    np.testing.assert_array_equal(alert.risk, plain.risk)
    shadow = judged(warm, changed(detectors={name: {"mode": "shadow"} for name in everyone}))
    assert not shadow.verdict.any() and not shadow.risk.any() and not shadow.reasons
    zero = judged(warm, changed(detectors={name: {"weight": 0.0} for name in everyone}))
    np.testing.assert_array_equal(zero.verdict, shadow.verdict)
    # It is scored all the same, so that what-if can say what it would do.
    said = {part.detectors.index("label_conflict"): part.p for part in shadow.scored}
    assert all(np.isfinite(p[:, column]).all() for column, p in said.items())


def test_an_alert_detector_never_makes_more_be_held(warm: GateState) -> None:
    plain = judged(warm, PLAIN)
    for name in ("label_conflict", "trigger", "novelty", "source_evidence"):
        one = judged(warm, changed(detectors={name: {"mode": "alert"}}))
        assert (one.verdict <= plain.verdict).all()
        assert ((one.verdict == 0) == (plain.verdict == 0)).all()


def test_a_denied_source_is_quarantined_with_that_reason(warm: GateState) -> None:
    deny = [{"source": SOURCE, "why": "stolen"}]
    policy = changed(deny=deny, allow=[{"source": SOURCE}])  # deny goes first
    done = judged(warm, policy)
    told = records(done)
    rows = [i for i, record in enumerate(told) if record["source"] == SOURCE]
    assert rows and (done.verdict[rows] == Verdict.QUARANTINE).all()
    assert (done.action[rows] == Action.HOLD).all()
    text = f"source {SOURCE} is on the policy's deny list (stolen)"
    assert all(told[i]["reasons"][0]["text"] == text for i in rows)
    others = np.setdiff1d(np.arange(len(done)), rows)
    np.testing.assert_array_equal(done.verdict[others], judged(warm, PLAIN).verdict[others])


def test_denied_sources_are_held_in_the_warm_up_and_in_an_overload(warm: GateState) -> None:
    gate = Gate(CONFIG, changed(deny=[{"source": SOURCE}]))
    raw = RawBatch.of(lines(WARM, MORE))
    mine = [orjson.loads(line)["source"] == SOURCE for line in raw.values]
    for done in (gate.let_by(warm, raw), gate.step(gate.start(), raw.part(0, 50))[0]):
        held = np.array(mine[: len(done)])
        assert held.any()
        np.testing.assert_array_equal(done.action == Action.HOLD, held)


def test_an_allowed_source_is_flagged_at_most(warm: GateState) -> None:
    plain = judged(warm, PLAIN)
    told = records(plain)
    rows = [i for i in np.flatnonzero(plain.verdict == 2) if told[i]["source"] == "bad0"]
    assert rows
    done = judged(warm, changed(allow=[{"source": "bad0", "why": "a test account"}]))
    assert (done.verdict[rows] == Verdict.FLAG).all() and (done.action[rows] == Action.PASS).all()
    texts = [reason.text for reason in done.reasons[int(rows[0])]]
    assert any("allow list (a test account)" in text for text in texts)


def test_overrides_of_source_before_subject_before_label(warm: GateState) -> None:
    def of(scope: str, match: Any, share: float, name: str = "x") -> dict[str, Any]:
        return {"id": name, "scope": scope, "match": match, "flag_at": share}

    tail = 10.0 ** -judged(warm, PLAIN).risk
    told = records(judged(warm, PLAIN))
    labels = [of("label", True, 0.9, "a"), of("label", False, 0.9, "b")]
    label_only = judged(warm, changed(overrides=labels))
    np.testing.assert_array_equal(label_only.verdict > 0, tail <= 0.9)
    least = 1e-9
    both = judged(warm, changed(overrides=[of("source", SOURCE, least, "c"), *labels]))
    mine = np.array([record["source"] == SOURCE for record in told])
    np.testing.assert_array_equal(both.verdict > 0, np.where(mine, tail <= least, tail <= 0.9))
    subject = [of("subject", SUBJECT, 0.95, "d"), *labels]
    about = np.array([orjson.loads(v)["subject"] == SUBJECT for v in lines(WARM, MORE)])
    third = judged(warm, changed(overrides=subject))
    np.testing.assert_array_equal(third.verdict > 0, np.where(about, tail <= 0.95, tail <= 0.9))
    # Of two with one scope the later one goes first.
    twice = [of("source", SOURCE, 0.9, "e"), of("source", SOURCE, least, "f")]
    assert not (judged(warm, changed(overrides=twice)).verdict[mine & (tail > least)]).any()


def test_an_override_sets_the_mode_of_its_events_only(warm: GateState) -> None:
    shadow = [{"id": "x", "scope": "label", "match": True, "mode": "shadow"}]
    done = judged(warm, changed(overrides=shadow, flag_at=0.5, quarantine_at=0.3))
    told = records(done)
    assert {(r["label"], r["mode"]) for r in told} == {(True, "shadow"), (False, "enforce")}
    held = done.verdict == Verdict.QUARANTINE
    yes = np.array([record["label"] for record in told])
    assert (held & yes).any() and (held & ~yes).any()
    assert (done.action[held & yes] == Action.PASS).all()
    assert (done.action[held & ~yes] == Action.HOLD).all()
    assert set(done.modes.values()) == {Mode.SHADOW}
    assert all(r["action"] == "pass" for r in told if r["label"])
    # What is learned follows the verdicts, whatever is done about them.
    raw = RawBatch.of(lines(WARM, MORE), start=WARM)
    same = changed(flag_at=0.5, quarantine_at=0.3)
    other = changed(overrides=shadow, flag_at=0.5, quarantine_at=0.3, mode="alert")
    states = [Gate(CONFIG, policy).step(warm, raw)[1] for policy in (same, other)]
    assert len({Gate(CONFIG).digest(state) for state in states}) == 1


def test_confirmed_poison_counts_against_its_source(warm: GateState) -> None:
    plain, told = judged(warm, PLAIN), records(judged(warm, PLAIN))
    mine = np.array([record["source"] == SOURCE for record in told])
    for n, factor in ((2, 21.0), (10**6, 1001.0)):
        done = judged(warm, changed(confirmed={SOURCE: n}))
        expected = np.where(mine, plain.risk + math.log10(factor), plain.risk)
        np.testing.assert_allclose(done.risk, np.minimum(expected, 15.0), rtol=1e-6, atol=1e-9)
    flagged = np.flatnonzero(mine & (done.verdict > 0))
    assert len(flagged)
    texts = [reason.text for reason in done.reasons[int(flagged[0])]]
    assert any("confirmed 1000000 events of this source" in text for text in texts)


def test_learning_speed_freezes_or_thins(warm: GateState) -> None:
    raw = RawBatch.of(lines(WARM, MORE), start=WARM)

    def after(speed: float) -> GateState:
        return Gate(CONFIG, changed(learning_speed=speed)).step(warm, raw)[1]

    gate = Gate(CONFIG)
    frozen, half, full = after(0.0), after(0.5), after(1.0)
    assert gate.digest(full) == gate.digest(Gate(CONFIG, PLAIN).step(warm, raw)[1])
    assert len({gate.digest(state) for state in (frozen, half, full)}) == 3
    assert frozen.labels.used == warm.labels.used != half.labels.used != full.labels.used


def test_which_events_are_learned_from_depends_on_their_place_alone() -> None:
    offsets = np.arange(10_000)
    policy = changed(learning_speed=0.25)
    first = learned_from(policy, 3, offsets)
    assert first is not None and abs(float(first.mean()) - 0.25) < 0.02
    later = learned_from(policy, 3, offsets[5_000:])
    np.testing.assert_array_equal(later, first[5_000:])
    other = learned_from(policy, 4, offsets)
    assert other is not None and abs(float((first & other).mean()) - 0.0625) < 0.02
    wider = learned_from(changed(learning_speed=0.5), 3, offsets)
    assert wider is not None and wider[first].all()
    assert learned_from(PLAIN, 3, offsets) is None
    none = learned_from(changed(learning_speed=0.0), 3, offsets)
    assert none is not None and not none.any()


def many(n: int) -> Columns:
    rng = np.random.default_rng(0)
    them = speakers(default_detectors())
    p = rng.random((n, len(them)), dtype=np.float32)
    p[: n // 3, 9:] = np.nan
    names = np.array([f"acct-{i}" for i in range(2_000)], dtype=object)
    who = rng.integers(0, 2_000, n)
    return Columns(
        them, p, who.astype(np.uint64), rng.integers(0, 99, n).astype(np.uint64),
        rng.integers(0, 5, n).astype(np.int32), tuple("abcde"), names[who], names[who],
        np.zeros(n, dtype=np.int32), np.arange(n),
    )  # fmt: skip


def test_the_histogram_counts_every_event_once() -> None:
    found = risk_histogram(many(5_000), PLAIN, 0, 40)
    assert len(found["edges"]) == 41 and found["events"] == 5_000
    assert sum(map(sum, found["counts"].values())) == 5_000
    empty = risk_histogram(columns_of_none(), PLAIN, 0, 5)
    assert empty["events"] == 0 and sum(map(sum, empty["counts"].values())) == 0


def columns_of_none() -> Columns:
    return RecentEvents(default_detectors(), 10).columns()


def test_the_ring_keeps_the_latest(warm: GateState) -> None:
    done = judged(warm, PLAIN)
    recent = RecentEvents(default_detectors(), 70)
    raw = RawBatch.of([b""] * len(done), start=WARM)
    for _ in range(3):
        recent.committed(CommitUnit((PartitionCommit(raw, done, 0, b""),)), {})
    kept = recent.columns()
    assert len(kept) == 70
    whole = columns(done)
    assert kept.ids.tolist() == whole.ids.tolist()[-70:]
    np.testing.assert_array_equal(kept.p, whole.p[-70:])
    np.testing.assert_array_equal(kept.offset, whole.offset[-70:])
    assert [kept.label_names[y] for y in kept.y] == [whole.label_names[y] for y in whole.y[-70:]]


if __name__ == "__main__":
    events = many(50_000)
    for label, policy in [("plain", PLAIN), *((k, changed(**v)) for k, v in POLICIES.items())]:
        began = time.perf_counter()
        whatif(events, PLAIN, policy, 0)
        print(label, round(1000 * (time.perf_counter() - began)), "ms")
