"""How far an ordinary source's events lie from the others' by nature, told from the sources.

Evidence against a source that only grows with its events says no more than that it differs from
the rest, and of a population that differs by nature, somebody always does. How unusual a source is
*among sources* is told by their own distribution, the empirical null of Efron (2004): each
source's sum in standard deviations of a random-effects model (DerSimonian and Laird 1986), and the
upper half of them continued as a Student law of ten degrees of freedom, whose tail lies between
the normal and the exponential one as far as it matters here (p from 1e-2 to 1e-5). Only quantiles
that a fifth of hostile traffic cannot reach are used, and sources count by their events, as false
positives do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_ndtr, stdtrit

from monitor.core.types import BoolArray, FloatArray, HashArray, IntArray
from monitor.sketches.arrays import last_of_each, staying, weighted_quantiles

RECENT = 512
LEAST_SOURCES = 8
MIDDLE, LOW, HIGH = 0.5, 0.6, 0.8
MEDIAN_CHI2 = 0.4549
LARGEST_SHARE = 0.05
FREEDOM = 10.0
T_LOW, T_HIGH = stdtrit(FREEDOM, LOW), stdtrit(FREEDOM, HIGH)
NARROWER = (8.0 * FREEDOM + 1.0) / (8.0 * FREEDOM + 3.0)
TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Sums:
    """Of u sources: ``total`` float64[u], faded sums of a variable of mean 0 and variance 1.

    ``weight`` float64[u] is the sum of what its events still count for, ``noise`` that of squares.
    """

    total: FloatArray
    weight: FloatArray
    noise: FloatArray

    def rows(self, rows: BoolArray | IntArray | slice) -> Sums:
        """Those of ``rows``."""
        return Sums(self.total[rows], self.weight[rows], self.noise[rows])

    def followed_by(self, other: Sums) -> Sums:
        """Both."""
        return Sums(
            np.concatenate([self.total, other.total]),
            np.concatenate([self.weight, other.weight]),
            np.concatenate([self.noise, other.noise]),
        )


@dataclass(frozen=True, slots=True)
class Habits:
    """The last sources, and how they differ.

    Attributes
    ----------
    keys, sums
        uint64[r] and r sums: the last r sources.
    middle, variance
        The middle source's mean, and the variance of the sources' means about it.
    start, scale
        Of the law of the sources' places, in standard deviations; ``scale`` is infinite while too
        few are known.
    """

    keys: HashArray
    sums: Sums
    middle: float
    variance: float
    start: float
    scale: float

    @classmethod
    def empty(cls) -> Habits:
        """No source seen."""
        none = Sums(np.empty(0), np.empty(0), np.empty(0))
        return cls(np.empty(0, dtype=np.uint64), none, 0.0, 0.0, 0.0, np.inf)

    def put(self, keys: HashArray, sums: Sums) -> Habits:
        """With the sources ``keys`` uint64[u], rising, as they are now."""
        stay, latest = staying(self.keys, keys, RECENT), slice(-RECENT, None)
        return replace(
            self,
            keys=np.concatenate([self.keys[stay], keys[latest]]),
            sums=self.sums.rows(stay).followed_by(sums.rows(latest)),
        )

    def fitted(self) -> Habits:
        """With the law estimated anew from the sources held."""
        sums = self.sums
        if len(self.keys) < LEAST_SOURCES:
            return self
        events = sums.weight
        count = np.minimum(events, LARGEST_SHARE * float(events.sum()))
        each = np.maximum(events, TINY)
        (middle,) = weighted_quantiles(sums.total / each, count, MIDDLE).tolist()
        off = sums.total - middle * events
        between = (np.square(off) / MEDIAN_CHI2 - sums.noise) / np.square(each)
        (variance,) = np.maximum(weighted_quantiles(between, count, MIDDLE), 0.0).tolist()
        placed = replace(self, middle=middle, variance=variance)
        place = placed._places(sums)
        low, high = weighted_quantiles(place, count, LOW, HIGH).tolist()
        scale = max((high - low) / (T_HIGH - T_LOW), TINY)
        return replace(placed, start=low - scale * T_LOW, scale=scale)

    def nats(self, sums: Sums) -> FloatArray:
        """float64[u]: −ln of the share of ordinary sources that lie as high or higher."""
        place = (self._places(sums) - self.start) / self.scale
        # Wallace (1959): the normal deviate of a Student variable, right to 1 % of its nats.
        normal = np.sqrt(FREEDOM * np.log1p(np.square(place) / FREEDOM)) * NARROWER
        return np.asarray(-log_ndtr(-np.copysign(normal, place)), dtype=np.float64)

    def _places(self, sums: Sums) -> FloatArray:
        """float64[u]: standard deviations from the middle source."""
        spread = np.sqrt(sums.noise + self.variance * np.square(sums.weight))
        off = sums.total - self.middle * sums.weight
        return np.asarray(off / np.maximum(spread, TINY))

    def merge(self, other: Habits) -> Habits:
        """The sources of both, each as the side knows it that has seen more of it, fitted anew."""
        if not len(self.keys) or not len(other.keys):
            return self if len(self.keys) else other
        keys = np.concatenate([self.keys, other.keys])
        sums = self.sums.followed_by(other.sums)
        kept = last_of_each(keys, sums.total, sums.noise, sums.weight)
        kept = kept[np.lexsort((keys[kept], sums.weight[kept]))][-RECENT:]
        return replace(Habits.empty(), keys=keys[kept], sums=sums.rows(kept)).fitted()
