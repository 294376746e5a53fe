"""A detector that fails never stops the line silently, and never takes the others with it."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from monitor.config.policy import Policy
from monitor.core.errors import DetectorError
from monitor.core.types import Action, DecisionBatch, Mode, RawBatch, Verdict
from monitor.decide.guard import BadValueError, described, still_finite
from monitor.detectors import default_detectors
from monitor.detectors.base import Scores
from monitor.gate import Gate, GateConfig
from monitor.runtime.detector_watch import DetectorWatch
from monitor.runtime.service import Service
from monitor.telemetry.metrics import Metrics
from tests.sim.model import ModelTransport, Store
from tests.unit.test_gate_steps import values

CONFIG = GateConfig(warmup_events=100)
WARM = values(900)
MARK = 5000.0
BAD = "trigger"


class Failing:
    """A detector that works until a batch holds an event of weight ``MARK``."""

    def __init__(self, inner: Any, how: str) -> None:
        self.inner, self.how = inner, how

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def _due(self, batch: Any) -> bool:
        return bool((batch.weight == MARK).any())

    def score(self, view: Any, batch: Any) -> Scores:
        scores = self.inner.score(view, batch)
        if self._due(batch):
            if self.how == "score":
                raise RuntimeError(f"no luck with {object()}")
            if self.how in ("nan", "inf"):
                value = scores.value.copy()
                value[0] = np.nan if self.how == "nan" else np.inf
                return replace(scores, value=value)
            if self.how == "shape":
                return replace(scores, value=scores.value[:-1])
            if self.how in ("explain", "explain_short"):  # something to explain
                return replace(scores, value=scores.value + 1e6, ready=np.ones(len(batch), bool))
        return scores

    def observe(self, state: Any, batch: Any, accepted: Any) -> Any:
        after = self.inner.observe(state, batch, accepted)
        if self._due(batch) and self.how == "observe":
            raise ZeroDivisionError
        return after

    def explain(self, view: Any, batch: Any, rows: Any) -> Any:
        if self._due(batch) and self.how == "explain":
            raise KeyError("word")
        found = self.inner.explain(view, batch, rows)
        return found[:-1] if self._due(batch) and self.how == "explain_short" else found


def batch(seed: int, *, bad: bool, n: int = 60) -> list[bytes]:
    found = values(n, seed=seed)
    event = orjson.loads(values(1, seed=seed + 1000)[0]) if bad else None
    if event is not None:
        event["weight"] = MARK
        found.append(orjson.dumps(event))
    return found


def gate(how: str, setting: str = "flag", name: str = BAD, **policy: Any) -> Gate:
    detectors = [Failing(d, how) if d.name == name else d for d in default_detectors()]
    config = replace(CONFIG, on_detector_error=setting)  # type: ignore[arg-type]
    return Gate(config, Policy(**policy), detectors)


def warm(made: Gate) -> Gate:
    made.check(WARM)
    return made


STEP = {"score": "score", "nan": "score", "inf": "score", "shape": "score", "observe": "observe"}
STEP |= {"explain": "explain", "explain_short": "explain"}


@pytest.mark.parametrize("how", STEP)
def test_the_batch_is_flagged_and_the_reason_names_detector_and_error(how: str) -> None:
    made = warm(gate(how))
    before = made.state
    decided = made.check(batch(3, bad=True))
    valid = decided.verdict != Verdict.INVALID
    assert (decided.verdict[valid] >= Verdict.FLAG).all()
    (failure,) = decided.failures
    assert (failure.detector, failure.step) == (BAD, STEP[how])
    for row in np.flatnonzero(valid).tolist():
        assert any(r.detector == BAD and failure.error in r.text for r in decided.reasons[row])
        said = orjson.loads(decided.records[row])["reasons"]
        assert any(r["detector"] == BAD and failure.error in r["text"] for r in said)
    if how not in ("explain", "explain_short"):
        assert made.state.detectors[BAD] is before.detectors[BAD]
        assert made.state.references[BAD] is before.references[BAD]
    # The others have seen the batch, but learned none of it.
    assert made.state.events == before.events + int(valid.sum())
    assert made.state.detectors["source_evidence"] is not before.detectors["source_evidence"]
    for field in ("count", "mean"):
        old, new = (s.detectors["class_moments"] for s in (before, made.state))
        if hasattr(old, field):
            np.testing.assert_array_equal(getattr(old, field), getattr(new, field))


@pytest.mark.parametrize("how", STEP)
def test_the_next_batch_is_judged_as_ever(how: str) -> None:
    """And as by a gate that was never to fail, had its events been flagged there too."""
    made = warm(gate(how))
    made.check(batch(3, bad=True))
    decided = made.check(batch(4, bad=False))
    assert decided.failures == ()
    assert (decided.verdict == Verdict.ACCEPT).mean() > 0.6
    made.load(made.dump(made.state))


@pytest.mark.parametrize("mode", list(Mode))
def test_quarantine_holds_in_enforce_only(mode: Mode) -> None:
    made = warm(gate("score", "quarantine", mode=mode))
    decided = made.check(batch(3, bad=True))
    valid = decided.verdict != Verdict.INVALID
    assert (decided.verdict[valid] == Verdict.QUARANTINE).all()
    held = Action.HOLD if mode is Mode.ENFORCE else Action.PASS
    assert (decided.action[valid] == held).all()


def test_flag_and_quarantine_learn_the_same() -> None:
    """So the setting may change over a restart."""
    states = []
    for setting in ("flag", "quarantine"):
        made = warm(gate("observe", setting))
        made.check(batch(3, bad=True))
        made.check(batch(4, bad=False))
        states.append(made.digest(made.state))
    assert states[0] == states[1]


def test_a_failure_is_the_same_in_every_process() -> None:
    found = []
    for _ in range(2):
        made = warm(gate("score"))
        found.append((list(made.check(batch(3, bad=True)).records), made.digest(made.state)))
    assert found[0] == found[1]
    assert b"0x" not in found[0][0][0]


@pytest.mark.parametrize("how", ["score", "nan", "observe", "explain"])
def test_stop_raises_and_learns_nothing(how: str) -> None:
    made = warm(gate(how, "stop"))
    before = made.state
    with pytest.raises(DetectorError, match=f"{BAD} failed in {STEP[how]}.*on_detector_error"):
        made.check(batch(3, bad=True))
    assert made.state is before
    assert DetectorError.exit_code not in (0, 1, 2, 3, 130)


def test_while_the_schema_is_learned() -> None:
    event = orjson.loads(WARM[0])
    event["weight"] = MARK
    sample = [*WARM[1:150], orjson.dumps(event)]
    for how in ("score", "observe"):
        made = gate(how)
        made.config = replace(made.config, warmup_events=len([v for v in sample if v[:1] == b"{"]))
        decided = made.check(sample)
        while not decided.failures:
            decided = made.check(sample)
        assert made.state.schema is not None
        rows = np.flatnonzero(decided.verdict == Verdict.FLAG)
        assert len(rows)
        assert orjson.loads(decided.records[int(rows[-1])])["reasons"][-1]["detector"] == BAD


def test_every_detector_may_fail_at_once() -> None:
    made = Gate(CONFIG, Policy(), [Failing(d, "score") for d in default_detectors()])
    made.check(WARM)
    decided = made.check(batch(3, bad=True))
    assert len(decided.failures) == len(made.detectors)
    assert (decided.verdict >= Verdict.FLAG).all()
    assert made.check(batch(4, bad=False)).failures == ()


def test_running_out_of_memory_is_not_swallowed() -> None:
    made = warm(gate("score"))
    failing = next(d for d in made.detectors if d.name == BAD)

    def score(view: Any, events: Any) -> Scores:
        raise MemoryError

    failing.score = score  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        made.check(batch(3, bad=False))


def test_a_state_that_is_no_longer_finite_is_not_adopted() -> None:
    good = {"a": np.zeros(3), "b": (np.array([np.inf]), 1.0)}
    still_finite(good, {"a": np.ones(3), "b": (np.array([np.inf]), float("inf"))})
    for bad in (
        {"a": np.array([0.0, np.nan]), "b": good["b"]},
        {"a": np.array([0.0, np.inf]), "b": good["b"]},
        {"a": good["a"], "b": (np.array([np.nan]), 1.0)},
        {"a": good["a"], "b": (np.array([1.0]), float("nan"))},
    ):
        with pytest.raises(BadValueError, match=r"state\["):
            still_finite(good, bad)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_state_may_hold_the_largest_numbers(kind: type[np.floating[Any]]) -> None:
    largest = np.full((3, 5), np.finfo(kind).max)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for held in (largest, largest.T, largest[:, ::2], largest[:0]):
            still_finite(np.zeros(1), held)
    spoilt = largest.copy()
    spoilt[1, 2] = np.inf
    for bad in (spoilt, spoilt.T, spoilt[:, ::2]):
        with pytest.raises(BadValueError):
            still_finite(np.zeros(1), bad)


def test_the_gate_looks_at_states() -> None:
    class Spoils(Failing):
        def observe(self, state: Any, batch: Any, accepted: Any) -> Any:
            after = self.inner.observe(state, batch, accepted)
            return replace(after, seen=float("nan")) if self._due(batch) else after

    name = next(d.name for d in default_detectors() if hasattr(d.empty(3), "seen"))
    detectors = [Spoils(d, "") if d.name == name else d for d in default_detectors()]
    made = warm(Gate(CONFIG, Policy(), detectors))
    before = made.state.detectors[name]
    (failure,) = made.check(batch(3, bad=True)).failures
    assert (failure.detector, failure.step) == (name, "observe")
    assert "state.seen is NaN" in failure.error
    assert made.state.detectors[name] is before


def test_errors_are_described_alike() -> None:
    assert described(KeyError("a")) == "KeyError: 'a'"
    assert described(RuntimeError(f"{object()}  \n x")) == "RuntimeError: <object object> x"
    assert len(described(ValueError("y" * 9000))) <= 200


class Run:
    """The service over a stream in which some batches fail."""

    def __init__(self, setting: str, store: Store) -> None:
        self.told: list[str] = []
        self.metrics = Metrics()
        self.store = store
        self.service = Service(
            gate("score", setting),
            ModelTransport(store),
            observers=(DetectorWatch(self.told.append), self.metrics),
            batch_events=61,
            snapshot_every_batches=100,
            digests=True,
        )


def stream() -> Store:
    groups = [WARM[:610]]
    groups += [batch(i, bad=i in (12, 13, 15)) for i in range(10, 18)]
    flat = [v for g in groups for v in (g if len(g) % 61 == 0 else [*g, b"{"])]
    return Store({0: list(enumerate(flat))})


def test_the_service_tells_once_an_episode_and_counts_batches() -> None:
    run = Run("flag", stream())
    run.service.run(threading.Event())
    begun = [t for t in run.told if "fails in score" in t]
    ended = [t for t in run.told if "works again" in t]
    assert (len(begun), len(ended)) == (2, 2)
    text = run.metrics.expose()[0].decode()
    assert f'poisoning_monitor_detector_errors_total{{detector="{BAD}"}} 3.0' in text
    # A second process over the same input says the same.
    again = Run("flag", stream())
    again.service.run(threading.Event())
    assert again.told == run.told
    assert again.store.outputs == run.store.outputs


def test_stop_leaves_nothing_of_the_batch_and_another_setting_goes_on() -> None:
    store = stream()
    with pytest.raises(DetectorError):
        Run("stop", store).service.run(threading.Event())
    done = store.committed[0].next_offset
    assert done == 610 + 2 * 61
    assert len(store.outputs["decisions"]) == done
    Run("flag", store).service.run(threading.Event())
    # And back: what was committed as flagged does not stop a recovery.
    store.records[0] += list(enumerate(values(61, seed=77), len(store.records[0])))
    Run("stop", store).service.run(threading.Event())
    assert store.committed[0].next_offset == len(store.records[0])


def test_failures_are_joined_over_parts() -> None:
    made = gate("score")
    young = [*WARM[:300], *batch(3, bad=True), *WARM[300:420]]
    decided, _ = made.step(made.start(), RawBatch.of(young))
    assert isinstance(decided, DecisionBatch)
    assert [f.detector for f in decided.failures] == [BAD]
    flagged = decided.verdict == Verdict.FLAG
    assert 0 < flagged.sum() < len(young) / 2
