"""The spectral detector: new directions stand out at once, wide drifts and noise do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monitor.detectors.spectral import Spectral, SpectralParams, SpectralState
from tests.checks.detector_laws import fresh, taught
from tests.unit.detectors.test_trigger import batch, batches, stream

SIZE = 512


def warm(d: int = 6, params: SpectralParams | None = None) -> tuple[Spectral, SpectralState]:
    detector = Spectral(params)
    return detector, taught(detector, batches(*stream(8 * SIZE, d)), d)


def triggered(g: np.ndarray, y: np.ndarray, rows: slice) -> None:
    """Three columns far from what the others call for, one label."""
    g[rows, 1] = -1.0 * np.sign(g[rows, 0]) - 1.0
    g[rows, 3], g[rows, 4], y[rows] = 3.0, -3.0, 1


@pytest.mark.parametrize("d", [6, 80])
def test_a_burst_stands_out_in_its_first_batch(d: int) -> None:
    params = SpectralParams()
    detector, state = warm(d, params)
    g, y = stream(SIZE, d, seed=1)
    if d > 64:
        # Columns beyond 64 are not watched: the trigger is put where somebody looks.
        watched = np.random.default_rng([params.seed, d]).permutation(d)[:3]
        g[:30, watched], y[:30] = 3.0, 1
    else:
        triggered(g, y, slice(0, 30))
    score = detector.score(state, batch(g, y)).value
    assert np.median(score[:30]) > np.quantile(score[30:], 0.99)


def test_it_counts_the_batch_at_hand() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=1)
    triggered(g, y, slice(0, 30))
    together = detector.score(state, batch(g, y)).value[0]
    rows = np.r_[0, 30:SIZE]
    alone = detector.score(state, batch(g[rows], y[rows])).value[0]
    assert together > alone + 0.5


def test_ordinary_traffic_has_next_to_no_weight() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=2)
    score = detector.score(state, batch(g, y)).value
    g, y = stream(SIZE, seed=2)
    triggered(g, y, slice(0, 30))
    attacked = detector.score(state, batch(g, y)).value
    assert score.max() < np.median(attacked[:30])


def test_a_class_that_spreads_as_a_whole_is_no_attack() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=3)
    wide = g.copy()
    wide[:, 3] *= 3.0
    minority = g.copy()
    minority[y == 1, 3] = np.where(np.arange((y == 1).sum()) % 12, g[y == 1, 3], 9.0)
    drifted = detector.score(state, batch(wide, y)).value
    poisoned = detector.score(state, batch(minority, y)).value
    assert np.quantile(drifted, 0.99) < np.quantile(poisoned[y == 1], 0.97)


def test_the_long_run_learns_accepted_events_only() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=4)
    after = detector.observe(state, batch(g, y), np.zeros(SIZE, dtype=bool))
    assert after.slow is state.slow
    assert after.fast.weight.sum() > state.fast.weight.sum()


def test_small_classes_and_those_beyond_the_limit_are_silent() -> None:
    detector, state = warm(params=SpectralParams(max_classes=1))
    g, y = stream(SIZE, seed=5)
    y[:300] = 0
    ready = detector.score(state, batch(g, y)).ready
    assert ready[y == 0].all() and not ready[y == 1].any()
    y[:5] = 2
    ready = Spectral().score(state, batch(g, y, 3)).ready
    assert not ready[:5].any() and ready[5:].all()


def test_a_column_that_comes_alive_does_not_stand_out() -> None:
    detector = Spectral()
    state = detector.empty(6)
    g, y = stream(9 * SIZE)
    dead = g.copy()
    dead[:, 5] = 0.0
    for first in range(0, 8 * SIZE, SIZE):
        part = batch(dead[first : first + SIZE], y[first : first + SIZE])
        state = detector.observe(state, part, np.ones(SIZE, dtype=bool))
    alive = batch(g[8 * SIZE :], y[8 * SIZE :])
    told = detector.rescaled(state, np.array([5]))
    assert detector.score(told, fresh(alive)).value.max() < 3.0
    assert (
        detector.score(told, fresh(alive)).value.mean()
        <= detector.score(state, fresh(alive)).value.mean()
    )


def test_the_explanation_names_the_columns_of_the_trigger() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=1)
    triggered(g, y, slice(0, 30))
    events = batch(g, y)
    found = detector.explain(state, events, np.array([0]))[0]
    assert "'class1'" in found.text and "trigger" in found.text
    assert {"f3", "f4"} <= set(found.data["features"])
    assert found.data["variance_ratio"] > found.data["by_chance"]
    nothing = detector.explain(detector.empty(6), replace(events, memo={}), np.array([0]))[0]
    assert "too few" in nothing.text
