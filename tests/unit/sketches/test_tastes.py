"""Sources that differ by nature, heavy-tailed, are not accused of it; where all are alike, a
source that is not stands out."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.core.types import FloatArray
from monitor.sketches.tastes import Tastes

WIDTH = 20


def _population(
    differ: float, sources: int = 400, seed: int = 0
) -> tuple[FloatArray, FloatArray, Tastes]:
    """Sums and events of sources whose means are Student(5) about 0, and what was learned."""
    rng = np.random.default_rng(seed)
    events = rng.integers(5, 100, sources).astype(np.float64)
    heavy = np.sqrt(5.0 / rng.chisquare(5.0, sources))[:, None]
    own = differ * heavy * rng.normal(size=(sources, WIDTH))
    sums = events[:, None] * own + np.sqrt(events)[:, None] * rng.normal(size=(sources, WIDTH))
    keys = np.arange(1, sources + 1).astype(np.uint64)
    return sums, events, Tastes.empty(WIDTH).put(keys, sums, events).fitted(WIDTH)


@pytest.mark.parametrize("differ", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sources", [12, 60, 400])
def test_unseen_sources_keep_the_promise(differ: float, sources: int) -> None:
    _, _, tastes = _population(differ, sources)
    sums, events, _ = _population(differ, 4000, seed=1)
    nats = tastes.nats(sums, events, WIDTH)
    assert (nats > -np.log(0.01)).mean() < (0.025 if sources >= 60 else 0.06)
    assert (nats > -np.log(0.0009)).mean() < 0.004


def test_where_sources_are_alike_a_different_one_stands_out() -> None:
    sums, events, tastes = _population(0.0)
    sums[0] = events[0] * 0.9
    assert tastes.lightness > 100.0
    assert tastes.nats(sums[:1], events[:1], WIDTH)[0] > 15.0


def test_where_sources_differ_none_is_rarer_than_one_in_all() -> None:
    sums, events, tastes = _population(1.0)
    sums[0] = events[0] * 30.0
    found = float(tastes.nats(sums[:1], events[:1], WIDTH)[0])
    assert found < np.log(401.0) + 1.0
    assert found >= tastes.nats(sums, events, WIDTH)[1:].max() - 1e-9


def test_hostile_sources_do_not_make_taste_of_their_purpose() -> None:
    rng = np.random.default_rng(2)
    sums, events, _ = _population(0.0, 240)
    hostile = slice(0, 40)
    events[hostile] = 20.0
    sums[hostile] = 20.0 * 1.2 + np.sqrt(20.0) * rng.normal(size=(40, WIDTH))
    keys = np.arange(1, 241).astype(np.uint64)
    tastes = Tastes.empty(WIDTH).put(keys, sums, events).fitted(WIDTH)
    assert tastes.nats(sums[hostile], events[hostile], WIDTH).min() > 7.0


def test_too_few_sources_accuse_nobody() -> None:
    sums, events, tastes = _population(1.0, 6)
    assert tastes.nats(sums, events, WIDTH).max() < 7.0
