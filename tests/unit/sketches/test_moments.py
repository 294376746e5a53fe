"""Moments that classes share, beyond so many columns: still those of a law when they fade."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.sketches.moments import DENSE_COLUMNS, FULL_COLUMNS, Gaussians, Moments


@pytest.mark.parametrize("d", [FULL_COLUMNS + 1, DENSE_COLUMNS + 1])
def test_shared_moments_stay_those_of_a_law_while_they_fade(d: int) -> None:
    rng = np.random.default_rng(5)
    # Classes that lie far apart, one of them rare, each of which fades by its own events.
    centre = 5.0 * rng.normal(size=(4, d))
    moments = Moments.empty(d)
    for _ in range(40):
        y = rng.choice(4, 256, p=[0.5, 0.3, 0.19, 0.01]).astype(np.int32)
        moments = moments.add(centre[y] + rng.normal(size=(256, d)), y, 4, 1000.0)
    fitted = Gaussians.fit(moments, 4)
    inverse = fitted.inverse[0]
    within = 1.0 / inverse[:, 0] if inverse.shape[1] == 1 else np.diag(np.linalg.inv(inverse))
    # Of unit variance, but for what is added for safety.
    assert np.all(np.abs(within - 1.0) < 0.35)
    z, y = centre + rng.normal(size=(4, d)), np.arange(4)
    assert fitted.squared_distances(z).argmin(axis=1).tolist() == y.tolist()
