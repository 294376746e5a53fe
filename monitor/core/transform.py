"""A transform per column, frozen after warm-up, that makes any scale comparable.

Two views of a value: its normal score (the normal quantile of its mid-rank in the warm-up sample,
as in van der Waerden 1952, with linear tails so that nothing saturates at the edge of the sample)
and its standardised value. The first forgives skew, the second keeps distances; detectors use
their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np

from monitor.core.knots import Knots
from monitor.core.types import BoolArray, FloatArray, IntArray

MAX_KNOTS = 64
TOGETHER = 8
G_LIMIT = 32.0
Z_LIMIT = 8.0
# Knots stay in a range in which differences, squares and slopes cannot overflow.
LARGEST = 1e150
SMALLEST_GAP = 1e-290
# Keeps the slope of a column that never varied finite; such columns are muted until their scale is
# known (see ``Transform.dead``).
CONSTANT_SCALE = 1e-6
# So many times as far from the median as the 5th and 95th percentiles is beyond belief, however
# heavy the tails; where those do not differ, so many times the value itself.
ABSURD_REACH, ABSURD_CONSTANT = 1e9, 1e24


def _score_table(n: int) -> FloatArray:
    """Normal quantiles of k / 2n for k = 0 … 2n; the ends, never used, are 0."""
    inv = NormalDist().inv_cdf
    return np.array([0.0] + [inv(k / (2 * n)) for k in range(1, 2 * n)] + [0.0])


def _targets(n: int) -> FloatArray:
    """Mid-ranks (in 2n-ths) at which knots are wanted: even in probability and in score."""
    half = MAX_KNOTS // 2
    even = (np.arange(half) + 0.5) / half
    cdf = NormalDist().cdf
    edge = -NormalDist().inv_cdf(0.5 / n)
    tails = np.array([cdf(float(s)) for s in np.linspace(-edge, edge, half)])
    return np.sort(np.concatenate([even, tails])) * (2 * n)


def _spaced(values: FloatArray) -> IntArray:
    """Indices of sorted ``values`` that differ enough for a finite slope between them."""
    keep = np.concatenate([[True], np.diff(values) > SMALLEST_GAP])
    return np.flatnonzero(keep)


def _spread(sample: FloatArray) -> float:
    """A robust standard deviation that copes with heavy ties; 0 for a constant sample."""
    q05, q25, q75, q95 = np.quantile(sample, [0.05, 0.25, 0.75, 0.95])
    for scale in ((q75 - q25) / 1.349, (q95 - q05) / 3.29, float(np.std(sample))):
        if scale > SMALLEST_GAP:
            return float(scale)
    return 0.0


def _moments(sample: FloatArray) -> tuple[float, float]:
    """Mean and standard deviation; a single absurd value must not swallow the column."""
    low, high = np.quantile(sample, [0.01, 0.99])
    if high > low:
        reach = 3.0 * (high - low)
        sample = np.clip(sample, low - reach, high + reach)
    return float(np.mean(sample)), float(np.std(sample))


def plausible(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest value, float64[d] each, that a sample float64[n, d] makes believable.

    Ordinary tails, however heavy, lie well within. A few absurd values (1e300, the largest float)
    do not widen it, as long as they are less than 5 % of the sample.

    Examples
    --------
    >>> low, high = plausible(np.append(np.arange(100.0), 1e300)[:, None])
    >>> float(low[0]), float(high[0])
    (-44999999950.0, 45000000050.0)
    """
    if not len(x):
        return np.full(x.shape[1], -LARGEST), np.full(x.shape[1], LARGEST)
    sample = np.clip(x, -LARGEST, LARGEST)
    q05, middle, q95 = np.quantile(sample, [0.05, 0.5, 0.95], axis=0, method="inverted_cdf")
    reach = ABSURD_REACH * np.maximum(middle - q05, q95 - middle)
    constant = q95 - q05 <= SMALLEST_GAP
    reach[constant] = ABSURD_CONSTANT * np.maximum(1.0, np.abs(middle[constant]))
    return middle - reach, middle + reach


def is_plausible(x: FloatArray, low: FloatArray, high: FloatArray) -> BoolArray:
    """bool[n]: rows of float64[n, d] with every value between ``low`` and ``high``."""
    inside: BoolArray = np.logical_and.reduce((x >= low) & (x <= high), axis=1)
    return inside


@dataclass(frozen=True, eq=False)
class Transform:
    """Frozen column transforms of d encoded columns.

    Attributes
    ----------
    knots, scores
        float64[d, K], K ≤ 64: increasing sample values and their normal scores; only the first
        ``count[j]`` of row j are used.
    count
        int64[d], knots in use.
    slope
        float64[d] > 0, rise of the normal score beyond the outermost knots.
    mean, rate
        float64[d], centre and 1 / standard deviation of the sample.
    """

    knots: FloatArray
    scores: FloatArray
    count: IntArray
    slope: FloatArray
    mean: FloatArray
    rate: FloatArray

    @classmethod
    def learn(cls, x: FloatArray) -> Transform:
        """Learn from a finite sample float64[n, d]; no rows give the identity, clipped.

        Examples
        --------
        >>> t = Transform.learn(np.array([[1.0], [2.0], [4.0]]))
        >>> g, z = t.apply(np.array([[2.0], [1e300]]))
        >>> g.ravel().tolist(), float(z[1, 0])
        ([0.0, 32.0], 8.0)
        """
        n, d = x.shape
        if n == 0:
            one, zero = np.ones(d), np.zeros(d)
            grid = np.zeros((d, 1))
            return cls(grid, grid.copy(), np.ones(d, dtype=np.int64), one, zero, one.copy())
        table, targets = _score_table(n), _targets(n)
        columns = [
            _learn_column(np.clip(x[:, j], -LARGEST, LARGEST), table, targets) for j in range(d)
        ]
        width = max((len(c[0]) for c in columns), default=1)
        knots, scores = np.empty((d, width)), np.empty((d, width))
        for j, (knot, score, *_) in enumerate(columns):
            knots[j], scores[j] = knot[-1], score[-1]
            knots[j, : len(knot)], scores[j, : len(knot)] = knot, score
        count = np.array([len(c[0]) for c in columns], dtype=np.int64)
        slope, mean, rate = (np.array([c[i] for c in columns], dtype=np.float64) for i in (2, 3, 4))
        return cls(knots, scores, count, slope, mean, rate)

    @property
    def dead(self) -> IntArray:
        """Columns that never varied in the sample: their scale is unknown."""
        return np.flatnonzero(self.count == 1)

    def relearn(self, columns: IntArray, x: FloatArray) -> Transform:
        """With ``columns`` int64[k] learned anew from their values float64[n, k]."""
        return self.taking(columns, Transform.learn(x), np.arange(len(columns)))

    def taking(self, columns: IntArray, other: Transform, rows: IntArray) -> Transform:
        """With ``columns`` int64[k] transformed as ``other`` does its columns ``rows`` int64[k]."""
        width = max(self.knots.shape[1], other.knots.shape[1])
        parts = {}
        for name in ("knots", "scores"):
            # Behind its knots a row repeats the last one.
            mine, theirs = (
                np.pad(a, ((0, 0), (0, width - a.shape[1])), mode="edge")
                for a in (getattr(self, name), getattr(other, name))
            )
            mine[columns] = theirs[rows]
            parts[name] = mine
        for name in ("count", "slope", "mean", "rate"):
            parts[name] = getattr(self, name).copy()
            parts[name][columns] = getattr(other, name)[rows]
        return Transform(**parts)

    def apply(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Normal scores ``g`` (within ±32) and ``z`` (within ±8) of finite float64[n, d].

        Both are float64[n, d], finite, and do not fall where ``x`` rises.
        """
        n, d = x.shape
        g, z = np.empty((n, d)), np.empty((n, d))
        # A few columns at a time, which stay in the cache meanwhile.
        for first in range(0, d, TOGETHER):
            some = slice(first, first + TOGETHER)
            columns = np.array(x.T[some], order="C", copy=True)
            g[:, some], z[:, some] = self._some(columns, first)
        dead = self.dead
        if len(dead):
            g[:, dead] = z[:, dead] = 0.0
        return g, z

    def _some(self, columns: FloatArray, first: int) -> tuple[FloatArray, FloatArray]:
        """``g`` and ``z`` of columns from ``first`` on, a column a row, before any are muted."""
        some = slice(first, first + len(columns))
        low, high = self.knots[some, :1], self._highest[some]
        inside = np.minimum(np.maximum(columns, low), high)
        g = self._between.heights(inside, first)
        with np.errstate(over="ignore"):
            beyond = np.subtract(columns, inside, out=inside)
            beyond *= self.slope[some, None]
            g += beyond
            np.clip(g, -G_LIMIT, G_LIMIT, out=g)
            z = columns
            z -= self.mean[some, None]
            z *= self.rate[some, None]
            z += g
            z *= 0.5
        np.clip(z, -Z_LIMIT, Z_LIMIT, out=z)
        return g.T, z.T

    @cached_property
    def _between(self) -> Knots:
        return Knots.of(self.knots, self.scores, self.count)

    @cached_property
    def _highest(self) -> FloatArray:
        """float64[d, 1], the last knot of each column."""
        return self.knots[np.arange(len(self.count)), self.count - 1][:, None]

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping; values are arrays."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Transform:
        """Inverse of :meth:`to_dict`; lists are accepted for arrays."""
        floats = {
            f.name: np.asarray(data[f.name], dtype=np.float64)
            for f in fields(cls)
            if f.name != "count"
        }
        return cls(count=np.asarray(data["count"], dtype=np.int64), **floats)


def _learn_column(
    sample: FloatArray, table: FloatArray, targets: FloatArray
) -> tuple[FloatArray, FloatArray, float, float, float]:
    """Knots, scores, tail slope, mean and rate of one column."""
    values, counts = np.unique(sample + 0.0, return_counts=True)
    # Mid-ranks in 2n-ths are whole numbers, so equal samples give equal scores to the last bit.
    mid = 2 * (np.cumsum(counts) - counts) + counts
    if len(values) > MAX_KNOTS:
        wanted = np.clip(np.searchsorted(mid, targets[1:-1]), 0, len(values) - 1)
        pick = np.unique(np.concatenate([[0], wanted, [len(values) - 1]]))
        values, mid = values[pick], mid[pick]
    keep = _spaced(values)
    knots, scores = values[keep], table[mid[keep]]
    mean, std = _moments(sample)
    floor = CONSTANT_SCALE * max(1.0, abs(mean)) if len(knots) == 1 else SMALLEST_GAP
    if len(knots) == 1:
        # Rounding must not move the only value off the centre.
        mean = float(knots[0])
    return knots, scores, 1.0 / max(_spread(sample), floor), mean, 1.0 / max(std, floor)
