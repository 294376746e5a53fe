"""One reference from several partitions' scores."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.detectors.calibration import YOUNG_WINDOWS, Reference
from monitor.detectors.pooling import admitted, pooled

WINDOW = 512


def filled(seed: int, n: int, *, shift: float = 0.0, robust: bool = False) -> Reference:
    scores = np.random.default_rng(seed).exponential(size=n) + shift
    reference = Reference.empty(WINDOW, robust=robust)
    for first in range(0, n, 64):
        reference = reference.put(scores[first : first + 64], {})
    return reference


@pytest.mark.parametrize("robust", [False, True])
def test_the_tail_is_that_of_all(robust: bool) -> None:
    parts = [filled(i, 700, robust=robust) for i in range(4)]
    whole = pooled(parts[0], parts[0], parts[1:], discrete=False)
    assert (whole.seen, whole.young) == (2800, False)
    assert parts[0].young
    p = whole.p_value(np.array([-np.log(0.01)]))[0]
    assert 0.004 < p < 0.025


def test_each_gives_in_proportion_to_what_it_has_seen() -> None:
    big, small = filled(0, 900), filled(1, 100, shift=100.0)
    whole = pooled(big, big, [small], discrete=False)
    assert 50 <= (whole.ring > 99.0).sum() <= 53
    # The latest: of the large one the last scores are all there but the oldest.
    assert np.isin(big.ring, whole.ring).sum() >= WINDOW - 53
    assert pooled(small, small, [big], discrete=False).seen == 1000


def test_little_is_kept_whole_and_nothing_stays_nothing() -> None:
    a, b = filled(0, 100), filled(1, 64)
    both = pooled(a, a, [b, Reference.empty(WINDOW)], discrete=False)
    assert both.seen == 164
    held = np.concatenate([a.ring[:100], b.ring[:64]])
    assert sorted(both.ring[:164]) == sorted(held)
    assert not both.ready
    nothing = Reference.empty(WINDOW)
    assert pooled(nothing, nothing, [nothing], discrete=False) is nothing


def test_the_own_reference_learns_what_the_views_admits() -> None:
    view = pooled(filled(0, 4000), filled(0, 4000), [filled(1, 4000)], discrete=False)
    own = Reference.empty(WINDOW)
    met = np.random.default_rng(9).exponential(size=200)
    met[::10] = 50.0
    assert (own.admit(met).ring > 40.0).sum() == 20
    after, mine = admitted(view, own, met, discrete=False, read=None)
    assert mine.seen == after.seen - view.seen < 190
    assert (mine.ring > 40.0).sum() <= 2


def test_youth_after_a_change_goes_on() -> None:
    parts = [filled(i, 2000) for i in range(2)]
    changed = parts[0].rejuvenated()
    whole = pooled(changed, parts[0], parts[1:], discrete=False)
    assert whole.young_until == 4000 + YOUNG_WINDOWS * WINDOW
