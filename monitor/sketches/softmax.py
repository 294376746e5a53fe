"""Online softmax regression, one preconditioned step a batch.

The step is θ += k·(A + λI)⁻¹ Φᵀ(O − P) with A the decayed sum of ΦᵀΦ: a damped Newton step whose
Hessian bound (Böhning 1992) needs one matrix for all classes. Features are the values, their
clipped squares and a constant, so that an interior region can be told from both its sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.core.types import BoolArray, FloatArray, Int32Array
from monitor.sketches.arrays import capacity_for, log_normalised, pad_axis

Float32Array = npt.NDArray[np.float32]
SQUARED_COLUMNS = 128
MAX_COLUMNS = 384
STEP = 2.0
RIDGE = 20.0


def feature_map(across: Float32Array, extra: int = 0) -> Float32Array:
    """float32[p + extra, n] from float32[d, n]: z, 0.3·min(z², 9) and 1, p bounded.

    Beyond ``SQUARED_COLUMNS`` columns the squares are left out; beyond ``MAX_COLUMNS`` columns are
    folded onto each other with alternating signs (feature hashing, Weinberger et al. 2009). The
    ``extra`` rows at the end are for the caller to fill. A feature a row, in single precision:
    half of the bytes, and sums over events go through contiguous ones.
    """
    d, n = across.shape
    if d > MAX_COLUMNS:
        folds = -(-d // MAX_COLUMNS)
        sign = 1.0 - 2.0 * ((np.arange(folds * MAX_COLUMNS) * 2654435761 >> 16) & 1)
        padded = np.zeros((folds * MAX_COLUMNS, n), dtype=np.float32)
        padded[:d] = across
        padded *= sign.astype(np.float32)[:, None]
        folded = padded.reshape(folds, MAX_COLUMNS, n).sum(axis=0)
        across, d = folded / np.float32(np.sqrt(folds)), MAX_COLUMNS
    squared = d if d <= SQUARED_COLUMNS else 0
    out = np.empty((d + squared + 1 + extra, n), dtype=np.float32)
    out[:d] = across
    if squared:
        half = out[d : 2 * d]
        np.square(across, out=half)
        np.minimum(half, np.full(n, 9.0, dtype=np.float32), out=half)
        half *= np.float32(0.3)
    out[d + squared] = 1.0
    return out


@dataclass(frozen=True, slots=True)
class Softmax:
    """``theta`` float64[p, C] weights, ``gram`` float64[p, p] decayed sum of ΦᵀΦ."""

    theta: FloatArray
    gram: FloatArray

    @classmethod
    def empty(cls, n_columns: int, extra: int = 0) -> Softmax:
        """No weights, two classes; ``extra`` columns behind those of :func:`feature_map`."""
        p = len(feature_map(np.zeros((n_columns, 1), dtype=np.float32), extra))
        return cls(np.zeros((p, 2)), np.zeros((p, p)))

    def log_proba(self, phi: Float32Array, n_classes: int) -> FloatArray:
        """float64[n, n_classes] log probabilities of mapped events float32[p, n]."""
        theta = pad_axis(self.theta, n_classes, axis=1)[:, :n_classes]
        return log_normalised((theta.T.astype(np.float32) @ phi).T)

    def learn(
        self,
        phi: Float32Array,
        y: Int32Array,
        log_proba: FloatArray,
        accepted: BoolArray,
        half_life: float,
    ) -> Softmax:
        """One step on the ``accepted`` rows bool[n] of a batch.

        ``phi`` float32[p, n] are its mapped events, ``y`` int32[n] their classes, and ``log_proba``
        float64[n, C] is what :meth:`log_proba` said of them.
        """
        n_classes, count = log_proba.shape[1], int(np.count_nonzero(accepted))
        theta = pad_axis(self.theta, capacity_for(n_classes), axis=1)
        residual = np.exp(log_proba.T, dtype=np.float32)
        np.negative(residual, out=residual)
        residual[y, np.arange(len(y))] += np.float32(1.0)
        if count < len(y):
            # Rows of nothing add nothing, and are quicker made than rows are picked.
            phi = phi * accepted
        gram = self.gram * 0.5 ** (count / half_life) + phi @ phi.T
        damped = gram + RIDGE * np.eye(len(gram))
        step = np.zeros_like(theta)
        step[:, :n_classes] = STEP * np.linalg.solve(damped, phi @ residual.T)
        return Softmax(theta + step, gram)

    def average(self, other: Softmax, share: float) -> Softmax:
        """Weights averaged, ``share`` of this one; evidence added."""
        size = max(self.theta.shape[1], other.theta.shape[1])
        a, b = pad_axis(self.theta, size, axis=1), pad_axis(other.theta, size, axis=1)
        return Softmax(share * a + (1.0 - share) * b, self.gram + other.gram)
