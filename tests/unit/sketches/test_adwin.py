"""ADWIN forgets what lies before a change, keeps what does not, and stays small."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.core.types import FloatArray
from monitor.sketches.adwin import BUCKETS, LEVELS, Adwin
from monitor.state import codec


def _fed(window: Adwin, values: FloatArray, events: int = 10) -> Adwin:
    """``values`` float64[t, k], all series present."""
    for row in values:
        window = window.put(row, np.ones(len(row), dtype=bool), events)
    return window


def test_a_steady_series_keeps_its_whole_window() -> None:
    values = np.random.default_rng(1).normal(size=(2_000, 8))
    window = _fed(Adwin.empty(8), values)
    # A false cut in one of the eight would be bad luck at this confidence.
    assert np.sum(window.length == 20_000) >= 7
    np.testing.assert_allclose(
        window.mean[window.length == 20_000],
        values.mean(axis=0)[window.length == 20_000],
        atol=1e-12,
    )


@pytest.mark.parametrize("jump", [1.0, -3.0])
def test_a_jump_is_dated(jump: float) -> None:
    values = np.random.default_rng(2).normal(size=(600, 4))
    values[500:, :2] += jump
    window = _fed(Adwin.empty(4), values)
    # Buckets of a changed series' past are cut away whole.
    assert (np.abs(window.length[:2] - 1_000) <= 400).all()
    assert (window.length[2:] == 6_000).all()
    np.testing.assert_allclose(window.mean[:2], jump, atol=0.4)


def test_a_slow_ramp_is_followed() -> None:
    rng = np.random.default_rng(3)
    values = np.where(np.arange(1_000) < 500, 0.0, (np.arange(1_000) - 500) / 100.0)
    window = _fed(Adwin.empty(1), (values + 0.3 * rng.normal(size=1_000))[:, None])
    assert window.length[0] < 4_000
    assert window.mean[0] > 3.0


def test_series_that_are_absent_wait_and_their_events_count() -> None:
    window = Adwin.empty(2)
    for i in range(40):
        window = window.put(np.zeros(2), np.array([True, i % 4 == 3]), 5)
    np.testing.assert_array_equal(window.length, [200.0, 200.0])
    np.testing.assert_array_equal(window.count[:, 0] > 0, [True, True])
    assert window.put(np.zeros(2), np.zeros(2, dtype=bool), 7).length.tolist() == [207.0, 207.0]


def test_the_sums_are_those_of_the_values_it_holds() -> None:
    values = np.random.default_rng(4).normal(size=(137, 3))
    window = _fed(Adwin.empty(3), values, events=1)
    held = (window.count * 2 ** np.arange(LEVELS)).sum(axis=1)
    for k in range(3):
        np.testing.assert_allclose(window.mean[k], values[-held[k] :, k].mean(), atol=1e-12)


def test_memory_is_bounded_however_long_it_lasts() -> None:
    window = _fed(Adwin.empty(1), np.zeros((12_000, 1)), events=1)
    assert (window.count <= BUCKETS).all()
    assert window.length[0] <= BUCKETS * (2**LEVELS - 1)
    assert len(codec.dump(window)) == len(codec.dump(Adwin.empty(1)))


def test_grown_and_merged() -> None:
    rng = np.random.default_rng(5)
    a = _fed(Adwin.empty(2), rng.normal(size=(50, 2)))
    b = _fed(Adwin.empty(4), rng.normal(size=(20, 4)))
    one, other = a.merge(b), b.merge(a)
    assert codec.dump(one) == codec.dump(other)
    assert one.length.tolist() == [500.0, 500.0, 200.0, 200.0]
    assert codec.dump(a.merge(Adwin.empty(2))) == codec.dump(a)
