"""The undo detector: moved points stand out, points of another class's side do not."""

from __future__ import annotations

import numpy as np

from monitor.detectors.undo import Undo, UndoParams, UndoState
from tests.checks.detector_laws import fresh
from tests.unit.detectors.test_trigger import batch

SIZE = 256


def blobs(events: int, seed: int = 0, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, events)
    centre = 3.0 * np.eye(classes, 4)
    return centre[y] + rng.normal(size=(events, 4)), y


def warm(params: UndoParams | None = None, classes: int = 3) -> tuple[Undo, UndoState]:
    detector = Undo(params)
    state = detector.empty(4)
    g, y = blobs(4096, classes=classes)
    for first in range(0, len(y), SIZE):
        part = batch(g[first : first + SIZE], y[first : first + SIZE], classes)
        state = detector.observe(state, fresh(part), np.ones(SIZE, dtype=bool))
    return detector, state


def test_a_point_moved_towards_another_class_stands_out() -> None:
    detector, state = warm()
    g, y = blobs(SIZE, seed=1)
    towards = (y[:20] + 1) % 3
    g[:20] += 0.8 * (3.0 * np.eye(3, 4)[towards] - 3.0 * np.eye(3, 4)[y[:20]])
    score = detector.score(state, batch(g, y, 3)).value
    assert np.median(score[:20]) > np.quantile(score[20:], 0.99)


def test_points_far_away_on_the_other_side_do_not() -> None:
    detector, state = warm()
    g, y = blobs(SIZE, seed=2)
    g[:20] -= 2.0 * (3.0 * np.eye(3, 4)[(y[:20] + 1) % 3] - 3.0 * np.eye(3, 4)[y[:20]])
    score = detector.score(state, batch(g, y, 3)).value
    assert np.median(score[:20]) < np.quantile(score[20:], 0.9)


def test_the_explanation_names_the_class_and_the_distance() -> None:
    detector, state = warm()
    g, y = blobs(SIZE, seed=3)
    y[0], g[0] = 0, 3.0 * np.eye(3, 4)[2]
    found = detector.explain(state, batch(g, y, 3), np.array([0]))[0]
    assert "'class0'" in found.text and "'class2'" in found.text
    assert found.data["towards"] == "class2"


def test_classes_beyond_the_limit_are_left_out() -> None:
    detector, state = warm(UndoParams(max_classes=2))
    g, y = blobs(SIZE, seed=4)
    ready = detector.score(state, batch(g, y, 3)).ready
    assert len(set(y[ready])) == 2


def test_one_class_is_silent() -> None:
    detector, state = warm(classes=1)
    g, _ = blobs(SIZE)
    assert not detector.score(state, batch(g, np.zeros(SIZE, dtype=int), 1)).ready.any()
