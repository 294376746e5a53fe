"""Collision: neighbours of the own class against the others', as brute force has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from monitor.detectors.collision import FARTHEST, PARTS, Collision, CollisionParams, CollisionState
from tests.checks.detector_laws import taught
from tests.unit.detectors.test_trigger import batch, batches

SIZE = 256


def blobs(events: int, seed: int = 0, rare: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(events) < rare).astype(np.int64)
    return np.where(y[:, None] == 1, 1.5, -1.5) + rng.normal(size=(events, 4)), y


def warm(rare: float = 0.5) -> tuple[Collision, CollisionState]:
    detector = Collision(CollisionParams(rows=256))
    return detector, taught(detector, batches(*blobs(4096, rare=rare)), 4)


def test_a_near_duplicate_of_another_class_stands_out() -> None:
    detector, state = warm()
    g, y = blobs(SIZE, seed=1)
    victims = state.rows[state.label == 1][:20].astype(np.float64)
    g[:20], y[:20] = victims + 0.01, 0
    score = detector.score(state, batch(g, y, 2)).value
    assert np.median(score[:20]) > np.quantile(score[20:], 0.97)


def test_distances_are_those_of_brute_force() -> None:
    detector, state = warm()
    g, y = blobs(50, seed=2)
    near = detector._look(state, batch(g, y, 2))
    asked, held = g @ state.whiten, state.rows @ state.whiten
    distance = np.linalg.norm(asked[:, None] - held[None], axis=2)
    for part in range(PARTS):
        for own in (True, False):
            mask = (state.part == part)[None] & ((state.label[None] == y[:, None]) == own)
            expected = np.where(mask, distance, FARTHEST).min(axis=1)
            found = (near.own if own else near.other)[part]
            np.testing.assert_allclose(found, expected, atol=5e-3)


def test_a_rare_class_keeps_its_share_of_the_sample() -> None:
    _, state = warm(rare=0.1)
    counts = np.bincount(state.label)
    assert len(state.label) <= 256
    assert counts.min() >= 100


def test_a_class_with_a_small_sample_is_silent() -> None:
    detector, state = warm()
    g, y = blobs(SIZE, seed=3)
    y[:5] = 2
    state = detector.observe(state, batch(g[:5], y[:5], 3), np.ones(5, dtype=bool))
    ready = detector.score(state, batch(g, y, 3)).ready
    assert not ready[:5].any() and ready[5:].all()


def test_no_source_fills_the_sample() -> None:
    detector = Collision()
    g, y = blobs(400)
    source = np.where(np.arange(400) < 390, 1, np.arange(400))
    crowd = replace(batch(g, y, 2), source=source.astype(np.uint64))
    state = detector.observe(detector.empty(4), crowd, np.ones(400, dtype=bool))
    assert state.count <= 128 // 11 + 10


def test_the_explanation_names_the_class_it_collides_with() -> None:
    detector, state = warm()
    g, y = blobs(SIZE, seed=4)
    y[0], g[0] = 0, 1.5
    found = detector.explain(state, batch(g, y, 2), np.array([0]))[0]
    assert "'class0'" in found.text and "'class1'" in found.text
    assert found.data["other_distance"] < found.data["own"]
