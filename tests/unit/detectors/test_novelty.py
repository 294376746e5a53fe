"""The novelty detector: moved features fall between grid points, records and new units do not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.detectors.novelty import Novelty, NoveltyState
from monitor.sketches.grid import Grid, between
from tests.checks.detector_laws import fresh
from tests.unit.detectors.test_trigger import batch

SIZE = 256
COLUMNS = 5


def prices(events: int, seed: int = 0) -> np.ndarray:
    """Cents, whole degrees, a rating, a flag and a measured quantity without a grid."""
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            np.round(rng.lognormal(3.0, 1.0, events), 2),
            np.rint(rng.normal(15.0, 8.0, events)),
            rng.integers(1, 6, events),
            rng.random(events) < 0.1,
            rng.normal(size=events),
        ]
    ).astype(float)


def scores(detector: Novelty, state: NoveltyState, x: np.ndarray) -> np.ndarray:
    return detector.score(state, batch(x / 10.0, np.zeros(len(x), dtype=int))).value


def warm(events: int = 4096) -> tuple[Novelty, NoveltyState]:
    detector = Novelty()
    state = detector.empty(COLUMNS)
    x = prices(events)
    for first in range(0, events, SIZE):
        part = batch(x[first : first + SIZE] / 10.0, np.zeros(SIZE, dtype=int))
        state = detector.observe(state, fresh(part), np.ones(SIZE, dtype=bool))
    return detector, state


def test_moved_points_stand_out_and_ordinary_ones_score_nothing() -> None:
    detector, state = warm()
    x = prices(SIZE, seed=1)
    moved = x.copy()
    moved[:20] += 0.6 * (x.mean(axis=0) - x[:20] + 0.1234567)
    found = scores(detector, state, moved)
    assert found[:20].min() > 5.0
    assert (found[20:] > 0.0).mean() < 0.02


def test_one_new_value_is_a_record_and_not_an_attack() -> None:
    detector, state = warm()
    x = prices(SIZE, seed=2)
    x[0, 1] = 9999.0
    assert scores(detector, state, x)[0] == 0.0


def test_a_column_without_a_grid_says_nothing() -> None:
    detector, state = warm()
    x = prices(SIZE, seed=3)
    x[:, 4] = np.random.default_rng(4).normal(size=SIZE) * 17.0
    assert (scores(detector, state, x) > 0.0).mean() < 0.02


def test_what_everybody_does_is_a_new_unit() -> None:
    detector, state = warm()
    x = prices(2 * SIZE, seed=5)
    x[:, :2] *= 0.453592
    state = detector.observe(
        state, batch(x[:SIZE] / 10.0, np.zeros(SIZE, dtype=int)), np.ones(SIZE, dtype=bool)
    )
    assert (scores(detector, state, x[SIZE:]) > 0.0).mean() < 0.05


def test_the_explanation_names_columns_values_and_grids() -> None:
    detector, state = warm()
    x = prices(SIZE, seed=6)
    x[0, :2] += 0.012345
    events = batch(x / 10.0, np.zeros(SIZE, dtype=int))
    found = detector.explain(state, events, np.array([0]))[0]
    assert "f0=" in found.text and "f1=" in found.text
    assert "at most 0 decimals" in found.text or "at most 2 decimals" in found.text
    assert found.data["columns"] == 2


@given(st.integers(-(10**6), 10**6), st.integers(0, 6))
def test_values_written_with_few_decimals_are_on_their_grid(whole: int, places: int) -> None:
    value = np.array([[whole / 10**places]])
    assert not between(value, np.array([places]))[0, 0]
    assert between(value + 0.31 / 10**places, np.array([places]))[0, 0]


def test_a_grid_is_told_only_from_enough_values() -> None:
    grid = Grid.empty(1)
    assert grid.usual()[0] > 8
    across = np.arange(64.0)[None, :]
    learned = grid.learn(across, grid.look(across), np.ones(64, dtype=bool), 1000.0)
    assert learned.usual()[0] == 0
    assert learned.look(across)[1].sum() == 0


def test_a_column_that_has_filled_its_memory_brings_no_surprise() -> None:
    """Measured quantities bring new values for ever; a full memory must not make them rare."""
    detector, size, columns = Novelty(), 2_000, 6
    state = detector.empty(columns)
    x = np.round(np.random.default_rng(5).normal(size=(84_000, columns)), 6)
    for first in range(0, len(x), size):
        rows = x[first : first + size]
        assert scores(detector, state, rows).max() == 0.0
        part = batch(rows / 10.0, np.zeros(size, dtype=int))
        state = detector.observe(state, fresh(part), np.ones(size, dtype=bool))
