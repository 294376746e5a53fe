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

from monitor.core.types import BoolArray, FloatArray, IntArray

BLOCK = 16
RIDGE = 0.02
PRIOR_EVENTS = 5.0
FREEDOM = 4.0
ROBUST_FREEDOM = 10.0
# However badly rows fit, they teach: an honest change of regime must be learned in the end.
WORST_FIT = 90.0
CLIP = 8.0


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

    def gain(self, g: FloatArray, rows: FloatArray | None = None) -> FloatArray:
        """How much the context calls for each value: ln p(value | context) − ln p(value).

        Parameters
        ----------
        g
            float64[n, w] normal scores.
        rows
            What :meth:`rows` made of them, where that is known.

        Returns
        -------
        gain
            float64[n, w] in nats, under Student laws with ``FREEDOM`` degrees: 0 where nothing
            is related, positive for a value that the rest of the event and the events before
            predict, negative for one they contradict.
        """
        rows = self.rows(g) if rows is None else rows
        blocks, width = self.first.shape
        size = width // 2
        mean = self.first / self.mass
        centred = rows - mean[:, None, :]
        residual = np.matmul(centred, self.precision)
        second = np.diagonal(self.second, axis1=1, axis2=2) / self.mass
        variance = (second - mean * mean + RIDGE)[:, :size]
        sharpness = np.diagonal(self.precision, axis1=1, axis2=2)
        plain = 1.0 + np.square(centred[:, :, :size]) / (FREEDOM * variance[:, None])
        gain = np.log(plain / (1.0 + np.square(residual) / FREEDOM)) * (0.5 * (FREEDOM + 1.0))
        gain += np.log(sharpness * np.sqrt(variance))[:, None]
        both: FloatArray = gain.transpose(1, 0, 2).reshape(len(g), blocks * size)
        return both[:, : g.shape[1]]

    def learn(
        self,
        g: FloatArray,
        accepted: BoolArray,
        half_life: float,
        rows: FloatArray | None = None,
    ) -> LinearContext:
        """After the rows ``g``: moments from the accepted ones only, the tail from all.

        A row weighs less the worse its worst value fits (the weights of a Student likelihood,
        Lange, Little and Taylor 1989), or a trigger would teach the context to call for it.
        """
        if not len(g):
            return self
        tail = np.concatenate([self.tail, self._padded(g)])[-len(self.tail) :].copy()
        count = int(accepted.sum())
        if not count:
            return LinearContext(self.first, self.second, self.mass, self.precision, tail)
        rows = self.rows(g) if rows is None else rows
        if count < len(g):
            rows = rows[:, accepted]
        residual = np.matmul(rows - (self.first / self.mass)[:, None, :], self.precision)
        # The columns one after the other: numpy is slow at reducing many short rows.
        squared = np.square(residual.transpose(0, 2, 1), order="C")
        worst = np.minimum(squared.max(axis=(0, 1)), WORST_FIT)
        fit = np.minimum(1.0, (ROBUST_FREEDOM + 1.0) / (ROBUST_FREEDOM + worst))
        weighted = rows * fit[:, None]
        keep = 0.5 ** (count / half_life)
        first = keep * self.first + weighted.sum(axis=1)
        second = keep * self.second + np.matmul(weighted.transpose(0, 2, 1), rows)
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

    def _padded(self, g: FloatArray) -> FloatArray:
        padded = np.zeros((len(g), self.tail.shape[1]))
        np.clip(g, -CLIP, CLIP, out=padded[:, : g.shape[1]])
        return padded

    def rows(self, g: FloatArray) -> FloatArray:
        """float64[b, n, 2s]: present values and the mean of the ``lag`` rows before, by block."""
        now = self._padded(g)
        n, lag = len(now), len(self.tail)
        total = np.zeros((n + lag, now.shape[1]))
        np.cumsum(np.concatenate([self.tail, now])[: n + lag - 1], axis=0, out=total[1:])
        before = (total[lag:] - total[:n]) / lag
        blocks, size = self.first.shape[0], self.first.shape[1] // 2
        both = np.concatenate([now.reshape(n, blocks, size), before.reshape(n, blocks, size)], 2)
        return np.ascontiguousarray(both.transpose(1, 0, 2))


def _precision(first: FloatArray, second: FloatArray, mass: float) -> FloatArray:
    mean = first / mass
    covariance = second / mass - mean[:, :, None] * mean[:, None, :]
    covariance = covariance + RIDGE * np.eye(first.shape[1])
    inverse = np.linalg.inv(covariance)
    diagonal = np.sqrt(np.diagonal(inverse, axis1=1, axis2=2))
    size = first.shape[1] // 2
    return np.ascontiguousarray((inverse / diagonal[:, None, :])[:, :, :size])
