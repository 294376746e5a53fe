"""Online softmax regression, one preconditioned step a batch.

The step is θ += k·(A + λI)⁻¹ Φᵀ(O − P) with A the decayed sum of ΦᵀΦ: a damped Newton step whose
Hessian bound (Böhning 1992) needs one matrix for all classes. Features are the values, their
clipped squares and a constant, so that an interior region can be told from both its sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.core.types import FloatArray, Int32Array
from monitor.sketches.arrays import capacity_for, log_normalised, pad_axis

SQUARED_COLUMNS = 128
MAX_COLUMNS = 384
STEP = 2.0
RIDGE = 20.0


def feature_map(z: FloatArray) -> FloatArray:
    """float64[n, p] from float64[n, d]: [z, 0.3·min(z², 9), 1], p bounded.

    Beyond ``SQUARED_COLUMNS`` columns the squares are left out; beyond ``MAX_COLUMNS`` columns are
    folded onto each other with alternating signs (feature hashing, Weinberger et al. 2009).
    """
    n, d = z.shape
    one = np.ones((n, 1))
    if d <= SQUARED_COLUMNS:
        return np.concatenate([z, 0.3 * np.minimum(z * z, 9.0), one], axis=1)
    if d > MAX_COLUMNS:
        folds = -(-d // MAX_COLUMNS)
        sign = 1.0 - 2.0 * ((np.arange(folds * MAX_COLUMNS) * 2654435761 >> 16) & 1)
        padded = np.zeros((n, folds * MAX_COLUMNS))
        padded[:, :d] = z
        z = (padded * sign).reshape(n, folds, MAX_COLUMNS).sum(axis=1) / np.sqrt(folds)
    return np.concatenate([z, one], axis=1)


@dataclass(frozen=True, slots=True)
class Softmax:
    """``theta`` float64[p, C] weights, ``gram`` float64[p, p] decayed sum of ΦᵀΦ."""

    theta: FloatArray
    gram: FloatArray

    @classmethod
    def empty(cls, n_columns: int, extra: int = 0) -> Softmax:
        """No weights, two classes; ``extra`` columns behind those of :func:`feature_map`."""
        p = feature_map(np.zeros((1, n_columns))).shape[1] + extra
        return cls(np.zeros((p, 2)), np.zeros((p, p)))

    def log_proba(self, phi: FloatArray, n_classes: int) -> FloatArray:
        """float64[n, n_classes] log probabilities of mapped events float64[n, p]."""
        return log_normalised(phi @ pad_axis(self.theta, n_classes, axis=1)[:, :n_classes])

    def learn(
        self,
        phi: FloatArray,
        y: Int32Array,
        n_classes: int,
        half_life: float,
        *,
        log_proba: FloatArray | None = None,
    ) -> Softmax:
        """One step on mapped events float64[n, p] with classes int32[n].

        ``log_proba`` is what :meth:`log_proba` said of them, where that is known.
        """
        theta = pad_axis(self.theta, capacity_for(n_classes), axis=1)
        said = self.log_proba(phi, n_classes) if log_proba is None else log_proba
        residual = -np.exp(said)
        residual[np.arange(len(y)), y] += 1.0
        gram = self.gram * 0.5 ** (len(y) / half_life) + phi.T @ phi
        damped = gram + RIDGE * np.eye(len(gram))
        step = np.zeros_like(theta)
        step[:, :n_classes] = STEP * np.linalg.solve(damped, phi.T @ residual)
        return Softmax(theta + step, gram)

    def average(self, other: Softmax, share: float) -> Softmax:
        """Weights averaged, ``share`` of this one; evidence added."""
        size = max(self.theta.shape[1], other.theta.shape[1])
        a, b = pad_axis(self.theta, size, axis=1), pad_axis(other.theta, size, axis=1)
        return Softmax(share * a + (1.0 - share) * b, self.gram + other.gram)
