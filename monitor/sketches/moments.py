"""Weighted first and second moments of each class, forgotten slowly, with a shrunk covariance.

The covariance of a class with few events is unreliable, so it is shrunk towards the classes'
pooled covariance and that one's diagonal, in the spirit of Ledoit and Wolf (2004), with a weight
that falls with the class's size (Friedman 1989, regularised discriminant analysis).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.core.types import FloatArray, Int32Array, IntArray
from monitor.sketches.arrays import capacity_for, pad_axis

FLOOR = 0.05
MIN_SHRINK = 0.05
FULL_COLUMNS = 64
FULL_CLASSES = 32
DENSE_COLUMNS = 512
STUDENT_DF = 5.0


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over the events of each class.

    Attributes
    ----------
    weight
        float64[C], decayed number of events.
    total
        float64[C, d], decayed sum.
    outer
        float64[C or 1, d, d], decayed sum of outer products; one shared matrix beyond
        ``FULL_COLUMNS`` columns, and float64[1, d, 1] (a diagonal) beyond ``DENSE_COLUMNS``.
    """

    weight: FloatArray
    total: FloatArray
    outer: FloatArray

    @classmethod
    def empty(cls, n_columns: int) -> Moments:
        """No events."""
        d = n_columns
        first = 2 if d <= FULL_COLUMNS else 1
        width = d if d <= DENSE_COLUMNS else 1
        return cls(np.zeros(2), np.zeros((2, d)), np.zeros((first, d, width)))

    @property
    def shared(self) -> bool:
        """Whether the classes share one second moment."""
        return bool(self.outer.shape[1] > FULL_COLUMNS)

    def grown(self, n_classes: int) -> Moments:
        """With room for ``n_classes`` classes."""
        size = capacity_for(n_classes)
        if size <= len(self.weight):
            return self
        outer = self.outer if self.shared else pad_axis(self.outer, size)
        return Moments(pad_axis(self.weight, size), pad_axis(self.total, size), outer)

    def add(self, z: FloatArray, y: Int32Array, n_classes: int, half_life: float) -> Moments:
        """With the events float64[n, d] of classes int32[n] counted.

        What a class knew is halved after ``half_life`` of its own events.
        """
        grown = self.grown(n_classes)
        weight, total, outer = grown.weight.copy(), grown.total.copy(), grown.outer.copy()
        counts = np.bincount(y, minlength=len(weight))
        keep = 0.5 ** (counts / half_life)
        weight = weight * keep + counts
        total *= keep[:, None]
        if self.shared:
            outer = grown._faded(keep)
            outer[0] += _second(z, outer.shape[2])
        # Classes side by side: one sort, where a mask for each would go through all rows C times.
        ordered = z[np.argsort(y, kind="stable")]
        ends = np.cumsum(counts)
        for c in np.flatnonzero(counts):
            rows = ordered[ends[c] - counts[c] : ends[c]]
            total[c] += rows.sum(axis=0)
            if not self.shared:
                outer[c] *= keep[c]
                outer[c] += _second(rows, outer.shape[2])
        return Moments(weight, total, outer)

    def _faded(self, keep: FloatArray) -> FloatArray:
        """:attr:`outer`, where it is shared, when of each class ``keep`` float64[C] is left.

        What lies between the classes fades with each of them: less of it than of their means would
        leave no covariance. What lies within them has no class, and fades as all do on average.
        """
        mean, left = self.means(), float(keep @ self.weight)
        left /= max(float(self.weight.sum()), 1e-300)
        more = ((keep - left) * self.weight)[:, None] * mean
        if self.outer.shape[2] == 1:
            return np.asarray(left * self.outer + (more * mean).sum(axis=0)[None, :, None])
        return np.asarray(left * self.outer + more.T @ mean)

    def with_unit_variance(self, columns: IntArray) -> Moments:
        """As if ``columns``, constant so far, had had unit variance in every class."""
        outer = self.outer.copy()
        if outer.shape[2] == 1 and outer.shape[1] > 1:
            outer[0, columns, 0] += self.weight.sum()
        elif self.shared:
            outer[0, columns, columns] += self.weight.sum()
        else:
            outer[:, columns, columns] += self.weight[:, None]
        return Moments(self.weight, self.total, outer)

    def plus(self, other: Moments) -> Moments:
        """Both sets of events as one."""
        size = max(len(self.weight), len(other.weight))
        a, b = self.grown(size), other.grown(size)
        return Moments(a.weight + b.weight, a.total + b.total, a.outer + b.outer)

    def means(self) -> FloatArray:
        """float64[C, d]; zeros for classes without events."""
        return np.asarray(self.total / np.maximum(self.weight, 1.0)[:, None])


def _second(z: FloatArray, width: int) -> FloatArray:
    return z.T @ z if width > 1 or z.shape[1] == 1 else (z * z).sum(axis=0)[:, None]


@dataclass(frozen=True, slots=True)
class Gaussians:
    """Inverse covariances and log determinants fitted to moments, for C classes.

    ``mean`` float64[C, d]; ``inverse`` float64[C or 1, d, d], or float64[1, d, 1] for a diagonal;
    ``log_det`` float64[C]; ``log_prior`` float64[C].
    """

    mean: FloatArray
    inverse: FloatArray
    log_det: FloatArray
    log_prior: FloatArray

    @classmethod
    def fit(cls, moments: Moments, n_classes: int) -> Gaussians:
        """Shrunk covariances of the first ``n_classes`` classes."""
        m = moments.grown(n_classes)
        weight, mean = m.weight[:n_classes], m.means()[:n_classes]
        d = mean.shape[1]
        everything = max(float(weight.sum()), 1.0)
        log_prior = np.log((weight + 1.0) / (everything + n_classes))
        if m.outer.shape[2] == 1 and d > 1:
            between = (weight[:, None] * mean**2).sum(axis=0) / everything
            variance = np.maximum(m.outer[0, :, 0] / everything - between, 0.0) + FLOOR
            log_det = np.full(n_classes, np.log(variance).sum())
            return cls(mean, (1.0 / variance)[None, :, None], log_det, log_prior)
        pooled = (m.outer.sum(axis=0) - (mean * weight[:, None]).T @ mean) / everything
        target = 0.5 * pooled + 0.5 * np.diag(np.diag(pooled)) + FLOOR * np.eye(d)
        if m.shared or n_classes > FULL_CLASSES:
            log_det = np.full(n_classes, np.linalg.slogdet(target)[1])
            return cls(mean, np.linalg.inv(target)[None], log_det, log_prior)
        own = m.outer[:n_classes] / np.maximum(weight, 1.0)[:, None, None]
        own = own - mean[:, :, None] * mean[:, None, :]
        shrink = np.minimum(1.0, (d + 1.0) / (weight + d + 1.0) + MIN_SHRINK)[:, None, None]
        covariance = (1.0 - shrink) * (own + FLOOR * np.eye(d)) + shrink * target
        return cls(mean, np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1], log_prior)

    def squared_distances(
        self, z: FloatArray, across: npt.NDArray[np.float32] | None = None
    ) -> FloatArray:
        """float64[n, C]: squared Mahalanobis distance of each event to each class.

        ``across`` is ``z`` as float32[d, n], where that is at hand.
        """
        if self.inverse.shape[2] == 1 and z.shape[1] > 1:
            scale = np.sqrt(self.inverse[0, :, 0])
            return _euclidean(z * scale, self.mean * scale)
        if len(self.inverse) == 1:
            root = np.linalg.cholesky(self.inverse[0])
            return _euclidean(z @ root, self.mean @ root)
        across = z.T.astype(np.float32, order="C") if across is None else across
        # |Rᵀ(z − mean)|² with RRᵀ the inverse covariance, in single precision: sums of squares lose
        # nothing there. The mean goes in as one more column.
        root = np.linalg.cholesky(self.inverse).transpose(0, 2, 1)
        shift = -np.matmul(root, self.mean[:, :, None])
        affine = np.concatenate([root, shift], axis=2, dtype=np.float32)
        with_one = np.concatenate([across, np.ones((1, len(z)), dtype=np.float32)])
        out = np.empty((len(affine), len(z)), dtype=np.float32)
        white = np.empty_like(across)
        for c, matrix in enumerate(affine):
            np.matmul(matrix, with_one, out=white)
            np.square(white, out=white)
            np.add.reduce(white, axis=0, out=out[c])
        return out.astype(np.float64).T

    def own_distances(self, z: FloatArray, y: Int32Array) -> FloatArray:
        """float64[n]: squared Mahalanobis distance of each event to its own class int32[n]."""
        off = z - self.mean[y]
        if self.inverse.shape[2] == 1 and z.shape[1] > 1:
            return np.asarray((off * off) @ self.inverse[0, :, 0])
        if len(self.inverse) == 1:
            return np.asarray(np.maximum(np.einsum("ij,ij->i", off @ self.inverse[0], off), 0.0))
        out = np.empty(len(z))
        for c in np.flatnonzero(np.bincount(y, minlength=len(self.mean))):
            rows = np.flatnonzero(y == c)
            out[rows] = np.einsum("ij,ij->i", off[rows] @ self.inverse[c], off[rows])
        return np.asarray(np.maximum(out, 0.0))

    def scaled(self, gap: FloatArray, own: int) -> FloatArray:
        """float64[k, d]: differences ``gap`` float64[k, d] times a class's inverse covariance."""
        if self.inverse.shape[2] == 1 and gap.shape[1] > 1:
            return np.asarray(gap * self.inverse[0, :, 0])
        return np.asarray(gap @ self.inverse[own if len(self.inverse) > 1 else 0])

    def log_joint(self, squared: FloatArray) -> FloatArray:
        """float64[n, C]: log prior plus log density (a Student t, so outliers do not shout)."""
        d = self.mean.shape[1]
        density = -0.5 * (STUDENT_DF + d) * np.log1p(squared / STUDENT_DF) - 0.5 * self.log_det
        return np.asarray(density + self.log_prior)


def _euclidean(a: FloatArray, b: FloatArray) -> FloatArray:
    squared = (a * a).sum(axis=1)[:, None] - 2.0 * a @ b.T + (b * b).sum(axis=1)[None, :]
    return np.asarray(np.maximum(squared, 0.0))
