"""The gate in front of a model: exactly what passes is learned, once and in order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import orjson
import pyarrow as pa
import pytest
from river import dummy, linear_model, preprocessing, stats
from scipy import sparse  # type: ignore[import-untyped]
from sklearn.linear_model import SGDClassifier

from monitor.config.policy import Policy
from monitor.core.errors import RejectCode, UsageError
from monitor.core.types import Action, DecisionBatch, Mode
from monitor.gate import Gate, GateConfig
from monitor.learner import MANY_EVENTS, GatedLearner


class Recorder:
    """A model that remembers what it was told."""

    def __init__(self) -> None:
        self.ones: list[tuple[Any, Any, dict[str, Any]]] = []
        self.tables: list[tuple[Any, Any, dict[str, Any]]] = []
        self.fails_at: Any = None

    def learn_one(self, x: Any, y: Any, **params: Any) -> None:
        if self.fails_at is not None and y == self.fails_at:
            raise RuntimeError("model failed")
        self.ones.append((x, y, params))

    def learn_many(self, X: Any, y: Any, **params: Any) -> None:
        self.tables.append((X, y, params))

    partial_fit = learn_many


class Strict(Gate):
    """Holds every event whose source is "bad", and keeps the events it saw."""

    def __init__(self) -> None:
        super().__init__(GateConfig(warmup_events=1_000_000))
        self.events: list[dict[str, Any]] = []
        self.sizes: list[int] = []

    def check(self, batch: Any) -> DecisionBatch:
        events = [orjson.loads(value) for value in cast("Sequence[bytes]", batch)]
        self.events += events
        self.sizes.append(len(events))
        decided = super().check(batch)
        decided.action[[event["source"] == "bad" for event in events]] = Action.HOLD
        return decided


@pytest.fixture
def learner() -> GatedLearner[Recorder]:
    return GatedLearner(Recorder(), Strict())


def seen(learner: GatedLearner[Any]) -> list[dict[str, Any]]:
    return cast("Strict", learner.gate).events


def test_only_what_passes_is_learned_unchanged(learner: GatedLearner[Recorder]) -> None:
    x = {"a": 1, 2: "text"}
    assert learner.learn_one(x, "yes", source="good", w=0.5) is None  # type: ignore[func-returns-value]
    learner.learn_one({"a": 2}, "no", source="bad")
    assert learner.model.ones == [(x, "yes", {"w": 0.5})]
    assert learner.model.ones[0][0] is x
    assert [(held.x, held.y) for held in learner.held] == [({"a": 2}, "no")]
    assert learner.held[0].decision["source"] == "bad"
    assert learner.counts == {"pass": 1, "hold": 1, "reject": 0}
    assert learner.last is not None and len(learner.last) == 1


def test_ids_sources_and_times_are_made_up_where_absent(learner: GatedLearner[Recorder]) -> None:
    learner.learn_one({"a": 1}, True)
    learner.learn_one({"a": 1}, True, source="s", id="mine", ts=dt.datetime(2024, 1, 1))
    learner.learn_one({"a": 1}, np.int64(3), ts=np.float64(5.5))
    first, second, third = seen(learner)
    assert (first["id"], first["source"], first["ts"]) == ("learner-0", "learner-0", 0.0)
    assert (second["id"], second["source"]) == ("mine", "s")
    assert second["ts"] == "2024-01-01T00:00:00+00:00"
    assert (third["label"], third["ts"], third["id"]) == (3, 5.5, "learner-2")


def test_a_buffer_delays_and_keeps_the_order() -> None:
    learner = GatedLearner(Recorder(), Strict(), batch_events=3)
    for i in range(5):
        learner.learn_one({"a": i}, i, source="bad" if i == 1 else "good")
    assert [y for _, y, _ in learner.model.ones] == [0, 2]
    learner.flush()
    learner.flush()
    assert [y for _, y, _ in learner.model.ones] == [0, 2, 3, 4]
    assert cast("Strict", learner.gate).sizes == [3, 2]


def test_a_failing_model_loses_one_example_and_doubles_none() -> None:
    learner = GatedLearner(Recorder(), Strict(), batch_events=4)
    learner.model.fails_at = 1
    for i in range(3):
        learner.learn_one({"a": i}, i)
    with pytest.raises(RuntimeError, match="model failed"):
        learner.learn_one({"a": 3}, 3)
    learner.flush()
    assert [y for _, y, _ in learner.model.ones] == [0, 2, 3]


def test_held_is_bounded() -> None:
    learner = GatedLearner(Recorder(), Strict(), keep_held=2)
    for i in range(5):
        learner.learn_one({"a": i}, i, source="bad")
    assert [held.y for held in learner.held] == [3, 4]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -np.inf, np.float32("nan")])
def test_numbers_that_would_spoil_a_model_are_refused(value: float) -> None:
    learner = GatedLearner(Recorder())
    learner.learn_one({"a": value}, 1)
    learner.partial_fit([[value]], [1])
    learner.learn_many(pa.table({"a": [value, 1.0]}), pa.array([1, 0]))
    assert learner.counts == {"pass": 1, "hold": 0, "reject": 3}
    codes = {held.decision["reasons"][0]["code"] for held in learner.held}
    assert codes == {RejectCode.NON_FINITE.word}


def test_nan_may_mean_missing_but_infinity_never() -> None:
    learner = GatedLearner(Recorder(), allow_nan=True)
    learner.learn_one({"a": float("nan"), "b": None}, 1)
    learner.learn_one({"a": float("inf")}, 1)
    learner.partial_fit(np.array([[1.0, np.nan]]), [1])
    learner.partial_fit(np.array([[1.0, np.inf]]), [1])
    assert learner.counts == {"pass": 2, "hold": 0, "reject": 2}


def test_arrays_lose_the_rows_that_did_not_pass(learner: GatedLearner[Recorder]) -> None:
    X, y = np.arange(8.0).reshape(4, 2), np.array([0.0, 1.0, 0.0, 1.0])
    weight = np.array([1.0, 2.0, 0.0, 4.0])
    source = ["g", "bad", "g", "g"]
    assert learner.partial_fit(X, y, source=source, sample_weight=weight) is learner
    (got_x, got_y, params), *_ = learner.model.tables
    assert got_x.tolist() == X[[0, 2, 3]].tolist() and got_y.tolist() == [0.0, 0.0, 1.0]
    assert params["sample_weight"].tolist() == [1.0, 0.0, 4.0]
    assert [event["label"] for event in seen(learner)] == [0, 1, 0, 1]
    assert [event.get("weight") for event in seen(learner)] == [1.0, 2.0, None, 4.0]
    assert (learner.held[0].x, learner.held[0].y) == ([2.0, 3.0], 1.0)


def test_when_all_pass_the_very_same_objects_reach_the_model(
    learner: GatedLearner[Recorder],
) -> None:
    X, y = np.ones((3, 2)), np.array(["a", "b", "a"])
    learner.partial_fit(X, y)
    assert learner.model.tables[0][0] is X and learner.model.tables[0][1] is y


def test_sparse_rows(learner: GatedLearner[Recorder]) -> None:
    X = sparse.csr_matrix(np.eye(3))
    learner.partial_fit(X, [1, 2, 3], source=["g", "bad", "g"])
    got_x, got_y, _ = learner.model.tables[0]
    assert got_x.toarray().tolist() == np.eye(3)[[0, 2]].tolist() and got_y == [1, 3]
    assert seen(learner)[1]["features"] == [0.0, 1.0, 0.0]


def test_frames_keep_their_kind_and_names(learner: GatedLearner[Recorder]) -> None:
    X = pa.table({"amount": [1.0, 2.0, 3.0], "card": ["visa", None, "amex"]})
    y = pa.chunked_array([[True, False, True]])
    source = pa.chunked_array([["g", "bad", "g"]]).to_pylist()
    learner.learn_many(X, y, source=source)
    got_x, got_y, _ = learner.model.tables[0]
    assert got_x.to_pylist() == [{"amount": 1.0, "card": "visa"}, {"amount": 3.0, "card": "amex"}]
    assert got_y.to_pylist() == [True, True]
    assert seen(learner)[1]["features"] == {"amount": 2.0, "card": None}
    assert learner.held[0].x == {"amount": 2.0, "card": None}


def test_nothing_passed_means_the_model_is_not_called(learner: GatedLearner[Recorder]) -> None:
    learner.partial_fit([[1.0]], [1], classes=[0, 1], source="bad")
    learner.partial_fit(np.zeros((0, 1)), [])
    assert learner.model.tables == []
    learner.partial_fit([[1.0], [2.0]], [1, 0])
    learner.partial_fit([[1.0], [2.0]], [1, 0])
    assert [table[2] for table in learner.model.tables] == [{"classes": [0, 1]}, {}]


def test_large_tables_are_judged_in_parts_and_answered_as_one(
    learner: GatedLearner[Recorder],
) -> None:
    n = 2 * MANY_EVENTS + 10
    source = ["bad" if i == n - 1 else "g" for i in range(n)]
    learner.partial_fit(np.ones((n, 1)), np.zeros(n, dtype=int), source=source)
    assert cast("Strict", learner.gate).sizes == [MANY_EVENTS, MANY_EVENTS, 10]
    last = learner.last
    assert last is not None and len(last) == n == len(last.records)
    assert last.rows(Action.HOLD).tolist() == [n - 1]
    assert last.offset.tolist() == list(range(n))


def test_a_waiting_example_comes_before_a_table() -> None:
    learner = GatedLearner(Recorder(), Strict(), batch_events=100)
    learner.learn_one({"a": 1}, 0)
    learner.learn_many(pa.table({"a": [2.0]}), pa.array([1]))
    assert len(learner.model.ones) == 1 and len(learner.model.tables) == 1


@pytest.mark.parametrize(
    ("X", "y", "about"),
    [
        ([[1.0], [2.0]], [1], {}),
        ([1.0, 2.0], [1, 2], {}),
        ([[1.0]], [[1, 2]], {}),
        ([[1.0], [2.0]], [1, 2], {"source": ["a"]}),
    ],
)
def test_what_is_not_one_table_is_said(
    learner: GatedLearner[Recorder], X: Any, y: Any, about: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        learner.partial_fit(X, y, **about)


def test_a_buffer_needs_room() -> None:
    with pytest.raises(UsageError, match="batch_events"):
        GatedLearner(Recorder(), batch_events=0)


def test_labels_that_are_none_or_fractions_are_refused_not_raised() -> None:
    learner = GatedLearner(Recorder())
    learner.learn_one({"a": 1.0}, None)
    learner.learn_one({"a": 1.0}, 0.5)
    assert learner.counts["reject"] == 2


def test_everything_else_is_the_models(learner: GatedLearner[Recorder]) -> None:
    learner.model.fails_at = 7
    assert learner.fails_at == 7
    with pytest.raises(AttributeError):
        _ = learner.predict_one
    model = GatedLearner(SGDClassifier())
    assert hasattr(model, "predict") and not hasattr(model, "predict_one")


def test_river_learns_the_same_as_without_the_gate_when_all_passes() -> None:
    def fresh() -> Any:
        return preprocessing.StandardScaler() | linear_model.LogisticRegression()

    rng = np.random.default_rng(3)
    plain, gated = fresh(), GatedLearner(fresh(), Gate(policy=Policy(mode=Mode.SHADOW)))
    for row in rng.normal(size=(300, 3)):
        x = dict(zip("abc", row.tolist(), strict=True))
        plain.learn_one(x, x["a"] > 0)
        gated.learn_one(x, x["a"] > 0)
    probe = {"a": 0.3, "b": 0.0, "c": -1.0}
    assert gated.predict_proba_one(probe) == plain.predict_proba_one(probe)


def test_other_river_models_work() -> None:
    gated = GatedLearner(dummy.StatisticRegressor(stats.Mean()))
    for i in range(4):
        gated.learn_one({"a": 1.0}, i)
    assert gated.predict_one({}) == 1.5


def test_flips_of_one_source_are_held_back() -> None:
    rng = np.random.default_rng(5)
    n = 3000
    y = rng.integers(0, 2, n)
    X = rng.normal(size=(n, 4)) + 2.5 * y[:, None]
    attack = np.zeros(n, dtype=bool)
    attack[1200:1260] = True
    source = np.where(attack, "mallory", [f"acct-{i % 50}" for i in range(n)]).tolist()
    said = np.where(attack, 1 - y, y)
    learner = GatedLearner(SGDClassifier(random_state=0), Gate(GateConfig(warmup_events=256)))
    held = np.zeros(n, dtype=bool)
    for first in range(0, n, 100):
        rows = np.arange(first, first + 100)
        learner.partial_fit(X[rows], said[rows], classes=[0, 1], source=[source[i] for i in rows])
        assert learner.last is not None
        held[rows] = learner.last.action == Action.HOLD
    assert held[attack].mean() > 0.5
    assert held[~attack].mean() < 0.02
