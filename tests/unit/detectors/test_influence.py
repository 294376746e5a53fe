"""The influence detector: whose learning would hurt trusted events, a burst included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from monitor.core.types import EventBatch
from monitor.detectors.influence import Influence, InfluenceState
from monitor.detectors.label_conflict import LabelConflict
from tests.checks.detector_laws import fresh
from tests.unit.detectors.test_trigger import batch, stream

SIZE = 512


def events_of(g: np.ndarray, y: np.ndarray, start: int) -> EventBatch:
    ids = np.arange(start, start + len(y), dtype=np.uint64)
    return replace(batch(g, y), id_hash=ids, source=ids % np.uint64(40))


def warm(batches: int = 8) -> tuple[Influence, InfluenceState]:
    detector = Influence()
    state = detector.empty(6)
    g, y = stream(batches * SIZE)
    for first in range(0, len(y), SIZE):
        part = events_of(g[first : first + SIZE], y[first : first + SIZE], first)
        state = detector.observe(state, part, np.ones(SIZE, dtype=bool))
    return detector, state


def test_flips_that_hurt_trusted_events_stand_out() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=1)
    rows = np.flatnonzero(np.abs(g[:, 0]) > 1.0)[:20]
    y[rows] = 1 - y[rows]
    score = detector.score(state, events_of(g, y, 9000)).value
    others = np.delete(score, rows)
    assert np.median(score[rows]) > np.quantile(others, 0.98)


def test_learning_a_push_hurts_the_holdout_and_learning_the_truth_heals_it() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=2)
    y[:200] = 1  # A burst that pushes one way, so that the holdout has something to say.
    rows = np.flatnonzero(g[:, 0] < -0.5)
    found = detector.explain(state, events_of(g, y, 9000), rows)
    told = np.array([evidence.data["loss_change_by_1000"] for evidence in found])
    hurts, heals = y[rows] == 1, y[rows] == 0
    assert hurts.sum() > 20 and heals.sum() > 20
    assert np.median(told[hurts]) > 0.0
    assert np.median(told[heals]) < 0.0


def test_the_burst_at_hand_does_not_move_what_the_holdout_calls_for() -> None:
    """After a step on the batch alone its flips look likelier; the step back undoes that."""
    detector, state = warm(2)
    g, y = stream(SIZE, seed=3)
    clean = detector.score(state, events_of(g, y, 9000)).value
    flipped = y.copy()
    rows = np.flatnonzero(g[:, 0] < -1.0)
    flipped[rows] = 1
    events = events_of(g, flipped, 9000)
    score = detector.score(state, events).value
    assert np.median(score[rows]) > np.quantile(clean, 0.95)


def test_only_accepted_events_are_trusted() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=4)
    nobody = np.zeros(SIZE, dtype=bool)
    assert detector.observe(state, events_of(g, y, 9000), nobody) is state


def test_the_surrogate_is_the_one_of_label_conflict() -> None:
    """Equal from the start, so that both learn it once."""
    one, other = Influence(), LabelConflict()
    a, b = one.empty(6), other.empty(6)
    g, y = stream(SIZE)
    events, everything = events_of(g, y, 0), np.ones(SIZE, dtype=bool)
    a, b = one.observe(a, events, everything), other.observe(b, events, everything)
    assert a.softmax is b.softmax


def test_a_label_only_the_holdout_knows_is_no_trouble() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=5)
    y[:300] = 2
    third = replace(events_of(g, y, 9000), n_classes=3, label_names=("a", "b", "c"))
    state = detector.observe(state, third, np.ones(SIZE, dtype=bool))
    few = events_of(*stream(SIZE, seed=6), 12_000)
    scored = detector.score(state, fresh(few))
    assert scored.ready.all() and np.isfinite(scored.value).all()


def test_words() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=1)
    g[0], y[0] = [-3.0, -2.4, 0.0, 0.0, 0.0, 0.0], 1
    found = detector.explain(state, events_of(g, y, 9000), np.array([0]))[0]
    assert "'class1'" in found.text and "trusted events" in found.text
    assert found.data["expected"] == "class0"
    empty = detector.explain(detector.empty(6), events_of(g, y, 9000), np.array([0]))[0]
    assert "too few" in empty.text
