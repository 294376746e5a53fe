"""Structure: broken relations stand out, far but consistent events do not."""

from __future__ import annotations

import numpy as np

from monitor.detectors.structure import FREE, Structure, StructureParams, StructureState
from tests.checks.detector_laws import taught
from tests.unit.detectors.test_trigger import batch, batches

SIZE = 256


def related(events: int, seed: int = 0) -> np.ndarray:
    """Two numbers, their sum and their difference, and one that is free."""
    rng = np.random.default_rng(seed)
    a, b, free = rng.normal(size=(3, events))
    noise = 0.001 * rng.normal(size=(2, events))
    return np.column_stack([a, b, a + b + noise[0], a - b + noise[1], free])


def warm(values: np.ndarray) -> tuple[Structure, StructureState]:
    detector = Structure()
    same = np.zeros(len(values), dtype=int)
    return detector, taught(detector, batches(values, same), values.shape[1])


def test_values_snapped_one_by_one_stand_out() -> None:
    detector, state = warm(related(4096))
    g = related(SIZE, seed=1)
    grid = np.sort(related(200, seed=2), axis=0)
    for j in range(4):
        g[:20, j] = grid[np.clip(np.searchsorted(grid[:, j], g[:20, j]), 0, 199), j]
    score = detector.score(state, batch(g, np.zeros(SIZE, dtype=int))).value
    assert np.median(score[:20]) > score[20:].max()


def test_far_events_that_keep_the_relations_do_not() -> None:
    detector, state = warm(related(4096))
    g = related(SIZE, seed=3)
    g[:20, :4] += np.array([3.0, 1.0, 4.0, 2.0])
    score = detector.score(state, batch(g, np.zeros(SIZE, dtype=int))).value
    assert np.median(score[:20]) < np.quantile(score[20:], 0.95)


def test_columns_that_do_not_determine_each_other_leave_it_silent() -> None:
    values = np.random.default_rng(4).normal(size=(4096, 5))
    detector, state = warm(values)
    assert not detector.score(state, batch(values[:SIZE], np.zeros(SIZE, dtype=int))).ready.any()


def test_only_determined_columns_count() -> None:
    _, state = warm(related(4096))
    assert (state.usual < FREE).tolist() == [True, True, True, True, False]


def test_a_constant_column_and_huge_values_do_no_harm() -> None:
    values = related(4096)
    values[:, 4] = 3.0
    detector, state = warm(values)
    g = related(SIZE, seed=5)
    g[0], g[1] = 1e300, -1e300
    score = detector.score(state, batch(g, np.zeros(SIZE, dtype=int)))
    assert np.isfinite(score.value).all()
    after = detector.observe(state, batch(g, np.zeros(SIZE, dtype=int)), np.ones(SIZE, dtype=bool))
    assert np.isfinite(detector.score(after, batch(g, np.zeros(SIZE, dtype=int))).value).all()


def test_memory_follows_the_rows_asked_for() -> None:
    detector = Structure(StructureParams(rows=64))
    state = detector.empty(5)
    for seed in range(8):
        part = batch(related(SIZE, seed), np.zeros(SIZE, dtype=int))
        state = detector.observe(state, part, np.ones(SIZE, dtype=bool))
    assert len(state.rows) == 64
    assert state.count == 8 * 64


def test_the_explanation_says_what_was_to_be_expected() -> None:
    detector, state = warm(related(4096))
    g = related(SIZE, seed=6)
    g[7, 2] += 1.0
    found = detector.explain(state, batch(g, np.zeros(SIZE, dtype=int)), np.array([7]))[0]
    told = {item["name"]: item for item in found.data["columns"]}
    assert abs(told["f2"]["expected"] - 10.0 * (g[7, 0] + g[7, 1])) < 2.0
    assert "f2=" in found.text
