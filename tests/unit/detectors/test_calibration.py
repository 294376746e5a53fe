"""The promise of a p-value, on scores whose law is known."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.core.types import FloatArray
from monitor.detectors.calibration import Reference


def _live(reference: Reference, scores: FloatArray, batch: int = 256) -> FloatArray:
    """Prequential p-values of a stream that is all ordinary."""
    out = []
    for first in range(0, len(scores), batch):
        part = scores[first : first + batch]
        out.append(reference.p_value(part) if reference.ready else np.ones(len(part)))
        reference = reference.admit(part)
    return np.concatenate(out)


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("law", ["exponential", "drifting"])
def test_promised_shares_are_kept(law: str, robust: bool) -> None:
    rng = np.random.default_rng(7)
    scores = rng.exponential(size=60_000)
    if law == "drifting":
        scores += np.linspace(0.0, 4.0, len(scores))
    p = _live(Reference.empty(robust=robust), scores)[4_096:]
    assert 0.007 < (p <= 0.01).mean() < 0.014
    assert 0.0005 < (p <= 0.001).mean() < 0.002
    assert (p <= 0.0001).mean() < 0.0005


def test_heavy_tails_do_not_break_the_promise() -> None:
    rng = np.random.default_rng(8)
    p = _live(Reference.empty(), rng.pareto(2.5, size=60_000))[4_096:]
    assert 0.007 < (p <= 0.01).mean() < 0.014
    assert (p <= 0.001).mean() < 0.002


def test_poison_in_the_reference_does_not_hide_itself() -> None:
    rng = np.random.default_rng(9)
    scores = rng.exponential(size=20_000)
    poison = rng.random(len(scores)) < 0.05
    scores[poison] += 25.0
    p = _live(Reference.empty(robust=True), scores)[4_096:]
    assert (p[poison[4_096:]] <= 0.0003).mean() > 0.99
    assert (p[~poison[4_096:]] <= 0.0003).mean() < 0.001


def test_p_falls_with_the_score_and_stays_in_bounds() -> None:
    rng = np.random.default_rng(10)
    reference = Reference.empty().admit(rng.normal(size=3_000))
    grid = np.linspace(-10.0, 1e6, 5_000)
    p = reference.p_value(grid)
    assert (np.diff(p) <= 1e-15).all()
    assert p.min() > 0.0
    assert p.max() <= 1.0


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_scores_are_never_alarming(value: float) -> None:
    reference = Reference.empty().admit(np.full(1_000, value))
    assert reference.p_value(np.array([value]))[0] == 1.0


def test_admit_leaves_the_older_reference_alone() -> None:
    reference = Reference.empty().admit(np.arange(300.0))
    before = reference.ring.copy()
    reference.admit(np.arange(5_000.0))
    np.testing.assert_array_equal(reference.ring, before)


def test_more_scores_than_the_window_keep_the_latest() -> None:
    reference = Reference.empty(window=100).admit(np.arange(1_000.0), least=50)
    assert sorted(reference.ring.tolist()) == list(np.arange(900.0, 1_000.0))


def test_a_change_of_the_world_is_not_an_outage() -> None:
    rng = np.random.default_rng(11)
    scores = rng.exponential(size=30_000)
    scores[15_000:] = 50.0 + 3.0 * rng.exponential(size=15_000)
    p = np.ones(0)
    reference = Reference.empty()
    for first in range(0, len(scores), 256):
        part = scores[first : first + 256]
        p = np.append(p, reference.p_value(part) if reference.ready else np.ones(len(part)))
        reference = reference.admit(part)
    assert (p[15_000:20_000] <= 0.001).mean() < 0.15
    assert (p[21_000:] <= 0.01).mean() < 0.02
    assert not reference.suspended


def test_a_burst_does_not_suspend_the_channel() -> None:
    rng = np.random.default_rng(12)
    reference = Reference.empty().admit(rng.exponential(size=4_096))
    burst = rng.exponential(size=60)
    burst[::3] = burst[1::3] = 30.0
    assert not reference.admit(burst).suspended


def test_a_sparse_score_has_a_tail_that_lasting_poison_cannot_buy() -> None:
    rng = np.random.default_rng(5)
    honest = np.where(rng.random(40_000) < 0.001, rng.exponential(3.0, 40_000), 0.0)
    score = honest.copy()
    poison = rng.random(40_000) < 0.03
    poison[:12_000] = False
    score[poison] = 40.0
    reference, p = Reference.empty(robust=True), np.ones(40_000)
    for first in range(0, 40_000, 500):
        part = slice(first, first + 500)
        if reference.ready:
            p[part] = reference.p_value(score[part])
        reference = reference.admit(score[part])
    assert reference.sparse
    assert (p[poison] < 1e-3).mean() > 0.95
    clean = ~poison & (np.arange(40_000) > 2000)
    assert (p[clean] <= 0.001).mean() < 0.003


def test_the_top_of_a_reference_thickens_at_a_bounded_pace() -> None:
    rng = np.random.default_rng(6)
    score = rng.exponential(size=40_000)
    poison = rng.random(40_000) < 0.03
    poison[:12_000] = False
    score[poison] += 12.0
    reference, p = Reference.empty(), np.ones(40_000)
    for first in range(0, 40_000, 500):
        part = slice(first, first + 500)
        if reference.ready:
            p[part] = reference.p_value(score[part])
        reference = reference.admit(score[part])
    # Unbounded, the poison would be its own 97th percentile.
    assert (p[poison] <= 0.01).mean() > 0.95


def test_a_rejuvenated_reference_is_young_again() -> None:
    reference = Reference.empty(window=64)
    for _ in range(4):
        reference = reference.admit(np.arange(64.0))
    assert not reference.young
    assert reference.rejuvenated().young
