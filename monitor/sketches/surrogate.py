"""What one event would do to a model that learns from it, as a short vector.

A surrogate, a softmax regression that learns beside the guarded model, stands for it. An event's
vector joins three parts: its displacement from the mean of its class, the surrogate's error on it
(label minus prediction), and products of error and features, which are the surrogate's gradient
in a random sketch. Honest events push in all directions, a campaign pushes in one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from monitor.core.types import FloatArray, Int32Array
from monitor.sketches.arrays import capacity_for, pad_axis
from monitor.sketches.softmax import Softmax, feature_map

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
        return cls(Softmax.empty(n_columns), np.zeros(2), np.zeros((2, n_columns)))

    @property
    def width(self) -> int:
        """Length of an event's vector."""
        return width(self.total.shape[1])

    def vectors(self, z: FloatArray, y: Int32Array, n_classes: int) -> FloatArray:
        """float64[n, width]: displacement, error, gradient, of events float64[n, d], int32[n]."""
        classes = max(2, n_classes)
        base = projection(z.shape[1])
        error = -np.exp(self.softmax.log_proba(feature_map(z), classes))
        error[np.arange(len(y)), y] += 1.0
        coded = error @ codes(classes)
        off = (np.clip(z, -CLIP_FEATURE, CLIP_FEATURE) - self._means(classes)[y]) @ base
        flat = np.clip(z, -CLIP_GRADIENT, CLIP_GRADIENT) @ base
        gradient = coded[:, ERROR:] * flat[:, np.arange(SHAPE) % flat.shape[1]]
        joined: FloatArray = np.concatenate([off, coded[:, :ERROR], gradient], axis=1)
        return joined

    def learn(self, z: FloatArray, y: Int32Array, n_classes: int, half_life: float) -> Surrogate:
        """After events float64[n, d] of classes int32[n]."""
        classes = max(2, n_classes)
        size = capacity_for(classes)
        keep = 0.5 ** (len(y) / half_life)
        weight = keep * pad_axis(self.weight, size)
        total = keep * pad_axis(self.total, size)
        weight += np.bincount(y, minlength=len(weight))
        member = np.zeros((len(weight), len(y)))
        member[y, np.arange(len(y))] = 1.0
        total += member @ np.clip(z, -CLIP_FEATURE, CLIP_FEATURE)
        return Surrogate(self.softmax.learn(feature_map(z), y, classes, half_life), weight, total)

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
    return min(n_columns, SHAPE) + ERROR + SHAPE


@lru_cache(maxsize=64)
def projection(n_columns: int) -> FloatArray:
    """float64[d, min(d, SHAPE)]: the identity where the columns fit, else random directions."""
    if n_columns <= SHAPE:
        return np.eye(n_columns)
    rng = np.random.default_rng([SEED, n_columns])
    directions: FloatArray = rng.normal(size=(n_columns, SHAPE)) / np.sqrt(n_columns)
    return directions


@lru_cache(maxsize=64)
def codes(n_classes: int) -> FloatArray:
    """float64[C, ERROR + SHAPE]: a fixed random code for each class, the same for every C."""
    rows = [np.random.default_rng([SEED, c]).normal(size=ERROR + SHAPE) for c in range(n_classes)]
    stacked: FloatArray = np.stack(rows)
    return stacked
