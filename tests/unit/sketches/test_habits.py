"""How unusual a source is among sources, by one number."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.sketches.habits import Habits, Sums


def _habits(differ: float, sources: int, seed: int, hostile: int = 0) -> tuple[Sums, Habits]:
    rng = np.random.default_rng(seed)
    weight = rng.integers(5, 80, sources).astype(np.float64)
    own = differ * rng.standard_t(10.0, sources)
    own[:hostile] = 1.8
    total = weight * own + np.sqrt(weight) * rng.normal(size=sources)
    sums = Sums(total, weight, weight)
    keys = np.arange(1, sources + 1).astype(np.uint64)
    return sums, Habits.empty().put(keys, sums).fitted()


@pytest.mark.parametrize("differ", [0.0, 0.1, 0.5])
def test_habits_keep_the_promise_for_unseen_sources(differ: float) -> None:
    _, habits = _habits(differ, 400, 0)
    sums, _ = _habits(differ, 20_000, 1)
    nats = habits.nats(sums)
    for level, most in ((0.05, 0.08), (0.01, 0.02), (0.001, 0.003)):
        assert (nats > -np.log(level)).mean() < most


def test_one_hostile_source_in_seven_still_stands_out() -> None:
    sums, habits = _habits(0.1, 200, 3, hostile=30)
    nats = habits.nats(sums)[:30]
    assert nats[sums.weight[:30] >= 20.0].min() > 7.0


def test_too_few_habits_say_nothing() -> None:
    sums, habits = _habits(1.0, 6, 4)
    np.testing.assert_allclose(habits.nats(sums), np.log(2.0))


def test_habits_merge_is_the_same_whichever_side_comes_first() -> None:
    (_, a), (_, b) = _habits(0.3, 40, 5), _habits(0.3, 60, 6)
    one, other = a.merge(b), b.merge(a)
    assert one.scale == pytest.approx(other.scale)
    assert one.variance == pytest.approx(other.variance)
    assert a.merge(Habits.empty()) is a
