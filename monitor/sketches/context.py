"""How far each value lies from what its own event and the events just before it call for.

A streaming linear context model: the second moments of the columns, and of the mean of the last
few rows beside them, give by one inversion the regression of every column on all the others
(the residual of column i is (Ω v)_i / √Ω_ii with Ω the inverse covariance; Lauritzen 1996, §5.1).
A value that was written into a row from outside breaks these relations, however ordinary it is
by itself; a value that is part of a season, a regime or a busy hour is called for by them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from monitor.core.types import BoolArray, FloatArray, IntArray

Float32Array = npt.NDArray[np.float32]
BLOCK = 16
RIDGE = 0.02
PRIOR_EVENTS = 5.0
FREEDOM = 4.0
ROBUST_FREEDOM = 10.0
# However badly rows fit, they teach: an honest change of regime must be learned in the end.
WORST_FIT = 90.0
CLIP = 8.0


@dataclass(frozen=True, slots=True)
class Called:
    """A batch of n events held against the context.

    Attributes
    ----------
    rows
        float32[b, 2s, n], present values and recent means by block.
    gain
        float32[w, n] in nats, under Student laws with ``FREEDOM`` degrees: 0 where nothing is
        related, positive for a value that the rest of the event and the events before predict,
        negative for one they contradict.
    worst
        float32[n], the largest squared residual of each event.
    """

    rows: Float32Array
    gain: Float32Array
    worst: Float32Array


@dataclass(frozen=True, slots=True)
class LinearContext:
    """Decayed moments of w columns in blocks of at most ``BLOCK``, and the last rows.

    Attributes
    ----------
    first, second
        float64[b, 2s] and float64[b, 2s, 2s]: decayed sums of each block's columns and their
        recent means (s columns a block, the last block padded with zeros), and of products.
    mass
        Decayed number of events in them.
    precision
        float64[b, 2s, s]: the inverse covariance's columns that predict the present values,
        each divided by the root of its diagonal entry, so that residuals have unit variance.
    tail
        float64[lag, b·s], the last rows, whatever became of them.
    """

    first: FloatArray
    second: FloatArray
    mass: float
    precision: FloatArray
    tail: FloatArray

    @classmethod
    def empty(cls, columns: int, lag: int) -> LinearContext:
        """Unit variances and no relations, for ``columns`` columns."""
        size = max(1, min(columns, BLOCK))
        blocks = max(1, -(-columns // size))
        second = np.broadcast_to(np.eye(2 * size), (blocks, 2 * size, 2 * size)) * PRIOR_EVENTS
        first = np.zeros((blocks, 2 * size))
        return cls(
            first,
            second,
            PRIOR_EVENTS,
            _precision(first, second, PRIOR_EVENTS),
            np.zeros((lag, blocks * size)),
        )

    def read(self, across: Float32Array) -> Called:
        """How much the context calls for each value: ln p(value | context) − ln p(value).

        ``across`` float32[w, n] are normal scores, a column a row: everything here is sums over
        columns or over events, and both then go through contiguous ones.
        """
        blocks, width = self.first.shape
        size = width // 2
        rows = self._rows(across)
        mean = self.first / self.mass
        off = rows[:, :size] - mean[:, :size, None].astype(np.float32)
        towards = np.ascontiguousarray(self.precision.transpose(0, 2, 1))
        residual = np.matmul(towards.astype(np.float32), rows)
        residual -= np.matmul(towards, mean[:, :, None]).astype(np.float32)
        np.square(residual, out=residual)
        worst = residual.max(axis=(0, 1))
        second = np.diagonal(self.second, axis1=1, axis2=2) / self.mass
        variance = (second - mean * mean + RIDGE)[:, :size]
        sharpness = np.diagonal(self.precision, axis1=1, axis2=2)
        np.square(off, out=off)
        off *= (1.0 / (FREEDOM * variance)).astype(np.float32)[:, :, None]
        off += np.float32(1.0)
        residual *= np.float32(1.0 / FREEDOM)
        residual += np.float32(1.0)
        off /= residual
        gain = np.log(off, out=off)
        gain *= np.float32(0.5 * (FREEDOM + 1.0))
        gain += np.log(sharpness * np.sqrt(variance)).astype(np.float32)[:, :, None]
        return Called(rows, gain.reshape(blocks * size, -1)[: len(across)], worst)

    def learn(self, called: Called, accepted: BoolArray, half_life: float) -> LinearContext:
        """After the rows that were read: moments from the accepted ones only, the tail from all.

        A row weighs less the worse its worst value fits (the weights of a Student likelihood,
        Lange, Little and Taylor 1989), or a trigger would teach the context to call for it.
        """
        rows = called.rows
        if not rows.shape[2]:
            return self
        size, lag = self.first.shape[1] // 2, len(self.tail)
        latest = rows[:, :size, -lag:].reshape(-1, min(lag, rows.shape[2])).T
        tail = np.concatenate([self.tail, latest])[-lag:].copy()
        count = int(np.count_nonzero(accepted))
        if not count:
            return LinearContext(self.first, self.second, self.mass, self.precision, tail)
        worst = np.minimum(called.worst, WORST_FIT)
        fit = np.minimum(1.0, (ROBUST_FREEDOM + 1.0) / (ROBUST_FREEDOM + worst))
        # Rows of no weight add nothing, and are quicker made than rows are picked.
        fit = (fit * accepted).astype(np.float32)
        weighted = rows * fit
        keep = 0.5 ** (count / half_life)
        first = keep * self.first + weighted.sum(axis=2)
        second = keep * self.second + np.matmul(weighted, rows.transpose(0, 2, 1))
        mass = keep * self.mass + float(fit.sum())
        return LinearContext(first, second, mass, _precision(first, second, mass), tail)

    def with_unit_variance(self, columns: IntArray) -> LinearContext:
        """As if ``columns``, constant so far, had had unit variance, now and before."""
        size = self.first.shape[1] // 2
        second = self.second.copy()
        block, place = columns // size, columns % size
        for offset in (0, size):
            second[block, place + offset, place + offset] += self.mass
        return replace(self, second=second, precision=_precision(self.first, second, self.mass))

    def merge(self, other: LinearContext) -> LinearContext:
        """Sums of the moments; the tails' mean, which the next few rows replace."""
        first, second = self.first + other.first, self.second + other.second
        mass = self.mass + other.mass
        tail = 0.5 * (self.tail + other.tail)
        return LinearContext(first, second, mass, _precision(first, second, mass), tail)

    def _rows(self, across: Float32Array) -> Float32Array:
        """float32[b, 2s, n]: present values and the mean of the ``lag`` rows before, by block."""
        blocks, size = self.first.shape[0], self.first.shape[1] // 2
        lag, (w, n) = len(self.tail), across.shape
        values = np.zeros((blocks * size, lag + n), dtype=np.float32)
        values[:, :lag] = self.tail.T
        np.clip(across, -CLIP, CLIP, out=values[:w, lag:])
        rows = np.empty((blocks, 2 * size, n), dtype=np.float32)
        rows[:, :size] = values[:, lag:].reshape(blocks, size, n)
        before = values[:, :n].copy()
        for back in range(1, lag):
            before += values[:, back : back + n]
        before *= np.float32(1.0 / lag)
        rows[:, size:] = before.reshape(blocks, size, n)
        return rows


def _precision(first: FloatArray, second: FloatArray, mass: float) -> FloatArray:
    mean = first / mass
    covariance = second / mass - mean[:, :, None] * mean[:, None, :]
    covariance = covariance + RIDGE * np.eye(first.shape[1])
    inverse = np.linalg.inv(covariance)
    diagonal = np.sqrt(np.diagonal(inverse, axis1=1, axis2=2))
    size = first.shape[1] // 2
    return np.ascontiguousarray((inverse / diagonal[:, None, :])[:, :, :size])
