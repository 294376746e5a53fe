"""Sources that differ by nature: what the model of their tastes says of them."""

from __future__ import annotations

import numpy as np

from monitor.core.types import FloatArray
from monitor.sketches.tastes import Tastes


def fitted(taste: float, seed: int = 0, sources: int = 300, size: int = 6) -> Tastes:
    sums, events = drawn(taste, seed, sources, size)
    keys = np.arange(sources, dtype=np.uint64)
    return Tastes.empty(size).put(keys, sums, events).fitted(size)


def drawn(taste: float, seed: int, sources: int, size: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    events = rng.integers(4, 60, sources).astype(float)
    nature = np.zeros((sources, size))
    nature[:, 0] = rng.normal(0.0, np.sqrt(taste), sources)
    noise = rng.normal(size=(sources, size)) * np.sqrt(events)[:, None]
    return nature * events[:, None] + noise, events


def test_alike_sources_have_no_taste() -> None:
    assert fitted(0.0).variance.max() < 0.02
    assert fitted(0.0).heaviness < 1.05


def test_the_variance_of_a_taste_is_found() -> None:
    found = fitted(0.5)
    assert 0.2 < found.variance.max() < 0.8
    assert np.sort(found.variance)[-2] < 0.1


def test_tastes_are_granted_and_a_campaign_is_not() -> None:
    tastes = fitted(0.5)
    sums, events = drawn(0.5, 9, 300, 6)
    honest = tastes.nats(sums, events, 6)
    assert (honest > -np.log(0.01)).mean() < 0.04
    hostile = np.zeros((1, 6))
    hostile[0, 3] = 0.9 * 40.0
    assert tastes.nats(hostile, np.array([40.0]), 6)[0] > 9.0


def test_few_hostile_sources_do_not_set_the_taste() -> None:
    sums, events = drawn(0.0, 3, 300, 6)
    sums[:15, 2] += 2.0 * events[:15]
    keys = np.arange(300, dtype=np.uint64)
    tastes = Tastes.empty(6).put(keys, sums, events).fitted(6)
    assert tastes.variance.max() < 0.05
    assert tastes.nats(sums[:15], events[:15], 6).min() > 5.0
