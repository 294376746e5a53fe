"""Which way ordinary vectors point, for each label and given an event's features.

Every vector counts by its direction alone, so that none can weigh more than another. Two things
are kept: the mean direction of each label, in all coordinates, with their variance, and a ridge
regression of the (projected) direction on the event's own features, since the gradient of a model
follows from features and label: one that was made up, scaled coordinate by coordinate, copied from
another event or turned round does not fit the event it came with. Where vectors have nothing to do
with features, as with updates of whole clients, the regression falls back to the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.core.types import EventBatch, FloatArray, Int32Array, IntArray
from monitor.sketches.surrogate import projection

KINDS = 8
LEAST_OF_KIND = 20.0
HALF_LIFE_ROWS = 1000.0
RIDGE = 2.0
FITS = 0.02
TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Directions:
    """Decayed sums over ordinary events; index 0 is of all labels, 1 to KINDS of the first ones.

    Attributes
    ----------
    weight
        float64[1 + KINDS], events.
    total
        float64[1 + KINDS, p], unit vectors.
    square
        float64[p], squares of their coordinates.
    gram
        float64[1 + KINDS, q, q], products of unit inputs (features and a one).
    cross
        float64[1 + KINDS, q, k], products of inputs and projected unit vectors.
    """

    weight: FloatArray
    total: FloatArray
    square: FloatArray
    gram: FloatArray
    cross: FloatArray

    @classmethod
    def empty(cls, columns: int, dimension: int, size: int) -> Directions:
        """Nothing seen, for ``columns`` features and vectors of ``dimension`` numbers."""
        q = projection(columns).shape[1] + 1
        return cls(
            np.zeros(1 + KINDS),
            np.zeros((1 + KINDS, dimension)),
            np.zeros(dimension),
            np.zeros((1 + KINDS, q, q)),
            np.zeros((1 + KINDS, q, size)),
        )

    def agreement(self, unit: FloatArray, y: Int32Array) -> FloatArray:
        """float64[m]: cosine of unit vectors float64[m, p] with their label's mean direction.

        In units of the coordinates' spread about the means, so that quiet coordinates count.
        """
        if not self.weight[0]:
            return np.zeros(len(unit))
        mean = self.total / np.maximum(self.weight, TINY)[:, None]
        share = self.weight[1:] / max(float(self.weight[1:].sum()), TINY)
        between = (share[:, None] * np.square(mean[1:])).sum(axis=0)
        variance = np.maximum(self.square / self.weight[0] - between, 0.0)
        scale = np.sqrt(variance + 0.01 * float(variance.mean()) + TINY)
        usual, own = mean / scale, unit / scale
        usual /= np.maximum(np.sqrt(np.square(usual).sum(axis=1, keepdims=True)), TINY)
        length = np.maximum(np.sqrt(np.square(own).sum(axis=1)), TINY)
        along = (own @ usual.T)[np.arange(len(unit)), self._place(y)]
        return np.asarray(along / length)

    def misfit(self, batch: EventBatch, way: FloatArray) -> FloatArray:
        """float64[m]: log squared distance of projected unit vectors from what features call for.

        ``way`` is float64[m, k].
        """
        q = self.gram.shape[1]
        ridge = RIDGE / q * np.eye(q)
        maps = np.linalg.solve(self.gram + ridge, self.cross)
        called = np.matmul(_inputs(batch.z)[:, None, :], maps[self._place(batch.y)])[:, 0]
        return np.asarray(np.log(np.square(way - called).sum(axis=1) + FITS))

    def learned(self, batch: EventBatch, unit: FloatArray, way: FloatArray) -> Directions:
        """After ordinary events with vectors ``unit`` float64[m, p], projected ``way``."""
        fade = 0.5 ** (len(unit) / HALF_LIFE_ROWS)
        member = np.zeros((1 + KINDS, len(unit)))
        member[0] = 1.0
        member[_kind(batch.y), np.arange(len(unit))] = 1.0
        inputs = _inputs(batch.z)
        weighted = (member[:, :, None] * inputs[None]).transpose(0, 2, 1)
        return Directions(
            fade * self.weight + member.sum(axis=1),
            fade * self.total + member @ unit,
            fade * self.square + np.square(unit).sum(axis=0),
            fade * self.gram + weighted @ inputs,
            fade * self.cross + weighted @ way,
        )

    def merge(self, other: Directions) -> Directions:
        """Sums add up; each side keeps its own forgetting."""
        return Directions(
            self.weight + other.weight,
            self.total + other.total,
            self.square + other.square,
            self.gram + other.gram,
            self.cross + other.cross,
        )

    def _place(self, y: Int32Array) -> IntArray:
        kind = _kind(y)
        return np.asarray(np.where(self.weight[kind] >= LEAST_OF_KIND, kind, 0), dtype=np.int64)


def _kind(y: Int32Array) -> IntArray:
    return np.asarray(np.where(y < KINDS, y + 1, 0), dtype=np.int64)


def _inputs(z: FloatArray) -> FloatArray:
    """float64[m, q]: features (projected) and a one, scaled to length one."""
    joined = np.column_stack([z @ projection(z.shape[1]), np.ones(len(z))])
    return np.asarray(joined / np.sqrt(np.square(joined).sum(axis=1, keepdims=True)))
