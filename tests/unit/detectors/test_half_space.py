"""Half-space trees: mass by class, splits as the paper has them."""

from __future__ import annotations

import numpy as np

from monitor.detectors.half_space import HalfSpace, HalfSpaceParams, HalfSpaceState
from tests.checks.detector_laws import taught
from tests.unit.detectors.test_trigger import batch, batches

SIZE = 256


def blobs(events: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, events)
    return np.where(y[:, None] == 1, 1.5, -1.5) + rng.normal(size=(events, 4)), y


def warm(params: HalfSpaceParams | None = None) -> tuple[HalfSpace, HalfSpaceState]:
    detector = HalfSpace(params)
    return detector, taught(detector, batches(*blobs(4096)), 4)


def test_a_point_of_one_class_among_the_other_stands_out() -> None:
    detector, state = warm()
    g, y = blobs(SIZE, seed=1)
    g[:20] = np.where(y[:20, None] == 1, -1.5, 1.5)
    score = detector.score(state, batch(g, y, 2)).value
    assert score[:20].min() > np.quantile(score[20:], 0.99)


def test_a_leaf_is_what_walking_down_the_nodes_one_by_one_gives() -> None:
    detector, state = warm(HalfSpaceParams(trees=5, depth=6))
    g, y = blobs(40, seed=2)
    leaf = detector._leaves(state, batch(g, y, 2))
    for tree in range(5):
        for event in range(40):
            node = tree
            start = 0
            for level in range(6):
                at = start + node
                right = np.float32(g[event, state.column[at]]) > state.cut[at]
                node = 2 * node + int(right)
                start += 5 << level
            assert leaf[tree, event] == node


def test_every_tree_counts_every_event_once() -> None:
    _, state = warm()
    counted = state.mass.sum(axis=2)
    np.testing.assert_allclose(counted, np.repeat(state.weight[:, None], 16, axis=1), rtol=1e-3)


def test_a_split_halves_what_is_left_of_its_column() -> None:
    _, state = warm(HalfSpaceParams(trees=4, depth=3))
    # One column only: the children's cuts lie evenly to both sides of the root's.
    lone = HalfSpace(HalfSpaceParams(trees=4, depth=3)).empty(1)
    root, children = lone.cut[:4], lone.cut[4:12].reshape(4, 2)
    np.testing.assert_allclose(root - children[:, 0], children[:, 1] - root, rtol=1e-5)
    assert (np.abs(root) < 4.0).all()
    assert len(state.cut) == 4 * 7


def test_many_classes_make_do_with_fewer_trees() -> None:
    detector = HalfSpace()
    state = detector.empty(4)
    rng = np.random.default_rng(3)
    g, y = rng.normal(size=(600, 4)), np.arange(600)
    state = detector.observe(state, batch(g, y, 600), np.ones(600, dtype=bool))
    assert state.mass.shape[:2] == (1024, 4)
    assert detector.score(state, batch(g, y, 600)).value.shape == (600,)


def test_the_explanation_names_both_classes() -> None:
    detector, state = warm()
    g, y = blobs(SIZE, seed=4)
    y[0], g[0] = 0, 1.5
    found = detector.explain(state, batch(g, y, 2), np.array([0]))[0]
    assert "'class0'" in found.text and "'class1'" in found.text
    assert found.data["other_share"] > found.data["own_share"]
