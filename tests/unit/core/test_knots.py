"""Interpolation of many columns at once: to the bit what np.interp gives."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.core.knots import MOST_STEPS, Knots


@pytest.mark.parametrize("tail", [0.0, 3.0])
def test_it_gives_what_np_interp_gives_to_the_bit(tail: float) -> None:
    rng = np.random.default_rng(7)
    count = np.array([1, 2, 64, 17])
    knots, heights = np.empty((4, 64)), np.empty((4, 64))
    for j, n in enumerate(count.tolist()):
        mine = np.sort(np.exp(tail * rng.normal(size=n)) + rng.normal(size=n))
        knots[j], heights[j] = mine[-1], rng.normal()
        knots[j, :n], heights[j, :n] = mine, np.sort(rng.normal(size=n))
    found = Knots.of(knots, heights, count)
    # A long tail crowds the knots; both ways of looking them up are met in one of the two cases.
    assert (found.steps > MOST_STEPS).any() == (tail > 0.0)
    low, high = knots[:, :1], knots[np.arange(4), count - 1][:, None]
    inside = low + (high - low) * rng.random((4, 500))
    inside[:, :64] = np.clip(knots, low, high)  # on the knots themselves
    inside[:, 64] = np.nextafter(high[:, 0], low[:, 0])
    got = found.heights(np.clip(inside, low, high), 0)
    for j, n in enumerate(count.tolist()):
        wanted = np.interp(inside[j], knots[j, :n], heights[j, :n])
        assert got[j].tobytes() == wanted.tobytes()
    np.testing.assert_array_equal(found.heights(inside[2:3], 2), got[2:3])
