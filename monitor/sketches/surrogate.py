"""What one event would do to a model that learns from it, as a short vector.

A surrogate, a softmax regression that learns beside the guarded model, stands for it. An event's
vector joins its displacement from the mean of its class, the same with a sign by class, the
surrogate's error on it (label minus prediction), and products of error and features, which are
the surrogate's gradient in a random sketch. Honest events push in all directions, a campaign
pushes in one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from monitor.core.types import BoolArray, EventBatch, FloatArray
from monitor.sketches.arrays import capacity_for, pad_axis
from monitor.sketches.shared import empty_softmax, softmax_learned, softmax_log_proba
from monitor.sketches.softmax import Softmax

SHAPE = 12
ERROR = 4
CLIP_FEATURE = 4.0
CLIP_GRADIENT = 3.0
PRIOR_EVENTS = 5.0
SEED = 20_261


@dataclass(frozen=True, slots=True)
class Surrogate:
    """``softmax``; by class, decayed event count float64[C] and feature sums float64[C, d]."""

    softmax: Softmax
    weight: FloatArray
    total: FloatArray

    @classmethod
    def empty(cls, n_columns: int) -> Surrogate:
        """Untrained."""
        return cls(empty_softmax(n_columns), np.zeros(2), np.zeros((2, n_columns)))

    @property
    def width(self) -> int:
        """Length of an event's vector."""
        return width(self.total.shape[1])

    def vectors(self, batch: EventBatch) -> FloatArray:
        """float64[n, width]: displacement, error, gradient, own error, signed displacement."""
        z, y = batch.z, batch.y
        classes = max(2, batch.n_classes)
        base = projection(z.shape[1])
        error = -np.exp(softmax_log_proba(self.softmax, batch))
        error[np.arange(len(y)), y] += 1.0
        coded = error @ codes(classes)
        off = np.clip(z, -CLIP_FEATURE, CLIP_FEATURE) @ base
        off -= (self._means(classes) @ base)[y]
        flat = np.clip(z, -CLIP_GRADIENT, CLIP_GRADIENT) @ base
        wide = flat if flat.shape[1] == SHAPE else flat[:, np.arange(SHAPE) % flat.shape[1]]
        gradient = coded[:, ERROR:] * wide
        # A displacement away from one's own label has opposite signs in opposite classes, and only
        # adds up when it is told by class; the error alone adds up whatever the class.
        signs = np.where(codes(classes)[:, ERROR : ERROR + off.shape[1]] > 0.0, 1.0, -1.0)[y]
        own = error[np.arange(len(y)), y][:, None]
        parts = [off, coded[:, :ERROR], gradient, own, off * signs]
        joined: FloatArray = np.concatenate(parts, axis=1)
        return joined

    def learn(self, batch: EventBatch, accepted: BoolArray, half_life: float) -> Surrogate:
        """After the ``accepted`` events of the batch."""
        z, y = batch.z[accepted], batch.y[accepted]
        size = capacity_for(max(2, batch.n_classes))
        keep = 0.5 ** (len(y) / half_life)
        weight = keep * pad_axis(self.weight, size)
        total = keep * pad_axis(self.total, size)
        weight += np.bincount(y, minlength=len(weight))
        member = np.zeros((len(weight), len(y)))
        member[y, np.arange(len(y))] = 1.0
        total += member @ np.clip(z, -CLIP_FEATURE, CLIP_FEATURE)
        return Surrogate(softmax_learned(self.softmax, batch, accepted, half_life), weight, total)

    def merge(self, other: Surrogate, share: float) -> Surrogate:
        """Softmax weights averaged, ``share`` of this one; sums added."""
        size = max(len(self.weight), len(other.weight))
        return Surrogate(
            self.softmax.average(other.softmax, share),
            pad_axis(self.weight, size) + pad_axis(other.weight, size),
            pad_axis(self.total, size) + pad_axis(other.total, size),
        )

    def _means(self, classes: int) -> FloatArray:
        """float64[C, d]: class means, those of small classes drawn to the mean of all."""
        weight, total = pad_axis(self.weight, classes), pad_axis(self.total, classes)
        overall = total.sum(axis=0) / max(float(weight.sum()), 1.0)
        means: FloatArray = (total + PRIOR_EVENTS * overall) / (weight + PRIOR_EVENTS)[:, None]
        return means


def width(n_columns: int) -> int:
    """Length of the vectors of events with ``n_columns`` columns."""
    return 2 * min(n_columns, SHAPE) + ERROR + SHAPE + 1


@lru_cache(maxsize=64)
def projection(n_columns: int) -> FloatArray:
    """float64[d, min(d, SHAPE)]: the identity where the columns fit, else random directions."""
    if n_columns <= SHAPE:
        return np.eye(n_columns)
    rng = np.random.default_rng([SEED, n_columns])
    directions: FloatArray = rng.normal(size=(n_columns, SHAPE)) / np.sqrt(n_columns)
    return directions


@lru_cache(maxsize=64)
def unprojection(n_columns: int) -> FloatArray:
    """float64[min(d, SHAPE), d]: back from :func:`projection`, by least squares."""
    back: FloatArray = np.asarray(np.linalg.pinv(projection(n_columns)), dtype=np.float64)
    return back


@lru_cache(maxsize=64)
def codes(n_classes: int) -> FloatArray:
    """float64[C, ERROR + SHAPE]: a fixed random code for each class, the same for every C."""
    rows = [np.random.default_rng([SEED, c]).normal(size=ERROR + SHAPE) for c in range(n_classes)]
    stacked: FloatArray = np.stack(rows)
    return stacked
