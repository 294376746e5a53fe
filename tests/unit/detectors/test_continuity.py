"""Continuity: a lone departure from the neighbours in time stands out, a common one does not."""

from __future__ import annotations

import numpy as np

from monitor.detectors.continuity import Continuity, ContinuityState
from tests.checks.detector_laws import taught
from tests.unit.detectors.test_trigger import batch, batches

SIZE = 256
EVENTS = 4096


def smooth(events: int, seed: int = 0) -> np.ndarray:
    """Three slow random walks that stay bounded, and one column of noise."""
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.normal(size=(events, 3)), axis=0) * 0.05
    return np.column_stack([1.5 * np.sin(steps), rng.normal(size=events)])


def warm(values: np.ndarray) -> tuple[Continuity, ContinuityState]:
    detector = Continuity()
    same = np.zeros(len(values), dtype=int)
    return detector, taught(detector, batches(values, same), values.shape[1])


def test_a_moved_event_stands_out_and_its_neighbours_do_not() -> None:
    values = smooth(EVENTS + SIZE)
    detector, state = warm(values[:EVENTS])
    g = values[EVENTS:].copy()
    moved = np.arange(10, 250, 25)
    g[moved, :3] += 0.8
    score = detector.score(state, batch(g, np.zeros(SIZE, dtype=int))).value
    honest = np.delete(score, moved)
    assert score[moved].min() > np.quantile(honest, 0.99)
    beside = score[np.concatenate([moved - 1, moved + 1])]
    assert np.median(beside) < np.quantile(honest, 0.95)


def test_values_swapped_for_others_of_the_same_column_stand_out() -> None:
    values = smooth(EVENTS + SIZE)
    detector, state = warm(values[:EVENTS])
    g = values[EVENTS:].copy()
    moved = np.arange(10, 250, 25)
    g[moved, :3] = np.where(
        g[moved, :3] > 0, values[:EVENTS, :3].min(0), values[:EVENTS, :3].max(0)
    )
    score = detector.score(state, batch(g, np.zeros(SIZE, dtype=int))).value
    assert score[moved].min() > np.quantile(np.delete(score, moved), 0.99)


def test_columns_of_noise_do_not_count() -> None:
    _, state = warm(smooth(EVENTS))
    assert state.follows.tolist() == [True, True, True, False]


def test_events_without_an_order_leave_it_silent() -> None:
    values = np.random.default_rng(5).normal(size=(EVENTS, 4))
    detector, state = warm(values)
    assert not detector.score(state, batch(values[:SIZE], np.zeros(SIZE, dtype=int))).ready.any()


def test_the_end_of_a_batch_is_silent_and_its_beginning_is_not() -> None:
    values = smooth(EVENTS + SIZE)
    detector, state = warm(values[:EVENTS])
    scored = detector.score(state, batch(values[EVENTS:], np.zeros(SIZE, dtype=int)))
    assert scored.ready[:-2].all() and not scored.ready[-2:].any()


def test_a_restless_stretch_scores_less_than_a_lone_event() -> None:
    values = smooth(EVENTS + SIZE)
    detector, state = warm(values[:EVENTS])
    rng = np.random.default_rng(6)
    g = values[EVENTS:].copy()
    g[100:140, :3] += 0.5 * rng.choice([-1.0, 1.0], size=(40, 3))
    g[200, :3] += 0.5
    score = detector.score(state, batch(g, np.zeros(SIZE, dtype=int))).value
    assert score[200] > np.quantile(score[100:140], 0.9)


def test_what_was_not_accepted_is_no_neighbour_of_the_next_batch() -> None:
    values = smooth(EVENTS + SIZE)
    detector, state = warm(values[:EVENTS])
    part = batch(values[EVENTS:], np.zeros(SIZE, dtype=int))
    accepted = np.ones(SIZE, dtype=bool)
    accepted[-1] = False
    after = detector.observe(state, part, accepted)
    np.testing.assert_array_equal(after.last, values[EVENTS:][-3:-1])


def test_the_explanation_gives_the_values_beside() -> None:
    values = smooth(EVENTS + SIZE)
    detector, state = warm(values[:EVENTS])
    g = values[EVENTS:].copy()
    g[50, 0] += 1.0
    found = detector.explain(state, batch(g, np.zeros(SIZE, dtype=int)), np.array([50]))[0]
    assert found.data["columns"][0] == "f0"
    assert f"{g[49, 0] * 10.0:.5g} and {g[51, 0] * 10.0:.5g}" in found.text
