"""How ordinary sources differ from each other by nature: every user has a taste.

The sum of k whitened vectors of one source has the variance k·(1 + k·h) along a direction in which
sources differ by h: the random-effects model of DerSimonian and Laird (1986), here one h a
direction, along the axes in which the sums of the sources vary most. Each h is told from the middle
source, so that a few hostile ones set neither the axes' lengths nor what counts as a usual taste.

Tastes have heavy tails: some users are unlike all others and still honest. So the squared length
follows a multivariate Student law, which makes it an F variable (Lange, Little and Taylor 1989),
with degrees of freedom from quantiles in which a source counts by its events, as false positives
do. Whether sources differ at all is tested first, and where they do not the law is the normal one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import fdtri, log_ndtr

from monitor.core.types import BoolArray, FloatArray, HashArray
from monitor.sketches.arrays import last_of_each, quantiles, staying, weighted_quantiles

RECENT = 512
LEAST_SOURCES, LEAST_EVENTS = 8, 4.0
MEDIAN_CHI2 = 0.4549
LONGEST = 3.0
MUCH_TASTE = 0.25
BEYOND = 0.01
# By so much calibration may lower p-values after quiet traffic, and traffic of few sources that
# differ is quiet until the next unusual one comes.
QUIET_FACTOR, QUIET_POWER = 2.0, 1.15
FEWEST, MEDIAN_EFFICIENCY = 2.0, 0.37
MIDDLE, HIGH = 0.5, 0.9
FREEDOMS = np.array([2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 25.0, 50.0, 100.0, 1000.0])


@dataclass(frozen=True, slots=True)
class Tastes:
    """The last sources seen, and how sources differ.

    Attributes
    ----------
    keys, sums, events
        uint64[r], float64[r, D] and float64[r]: the last r sources, their sums of whitened
        vectors, and the independent events in them.
    axes, variance
        float64[D, D], orthonormal columns, and float64[D]: h along each.
    lightness, reach
        The degrees of freedom of the tastes' multivariate Student law, infinite where sources are
        alike, and by how much its statistic is longer than expected, ≥ 1.
    longest
        The nats at which the sources held say no more, since none of them can be rarer than one
        in all; infinite where they are alike.
    """

    keys: HashArray
    sums: FloatArray
    events: FloatArray
    axes: FloatArray
    variance: FloatArray
    lightness: float
    reach: float
    longest: float

    @classmethod
    def empty(cls, size: int) -> Tastes:
        """No source seen; nobody differs."""
        none = np.empty(0, dtype=np.uint64)
        return cls(
            none,
            np.empty((0, size)),
            np.empty(0),
            np.eye(size),
            np.zeros(size),
            FEWEST,
            1.0,
            np.inf,
        )

    def put(self, keys: HashArray, sums: FloatArray, events: FloatArray) -> Tastes:
        """With the sources ``keys`` uint64[u], rising, as they are now."""
        stay = staying(self.keys, keys, RECENT)
        return replace(
            self,
            keys=np.concatenate([self.keys[stay], keys[-RECENT:]]),
            sums=np.concatenate([self.sums[stay], sums[-RECENT:]]),
            events=np.concatenate([self.events[stay], events[-RECENT:]]),
        )

    def fitted(self, directions: int) -> Tastes:
        """With axes, variances and heaviness estimated anew from the sources held."""
        rows: BoolArray = self.events >= LEAST_EVENTS
        held = int(rows.sum())
        if held < LEAST_SOURCES:
            return self
        events = self.events[rows, None]
        unit = self.sums[rows] / np.sqrt(events)
        length = np.sqrt(np.einsum("ij,ij->i", unit, unit))
        # One source, however much it sent, is one voice about which way sources differ.
        most = LONGEST * np.sqrt(unit.shape[1])
        short = unit * np.minimum(1.0, most / np.maximum(length, 1e-9))[:, None]
        axes = np.linalg.eigh(short.T @ short)[1]
        each = (np.square(unit @ axes) / MEDIAN_CHI2 - 1.0) / events
        low, middle, high = quantiles(each, 0.25, 0.5, 0.75)
        # Less about two standard errors of the median, unless it is clear from all directions
        # together that sources differ: where they are alike, h is nothing.
        differ = self._differ(unit, directions)
        variance = np.maximum(middle - (1.0 - differ) * 2.0 * (high - low) / np.sqrt(held), 0.0)
        known = MEDIAN_EFFICIENCY * held * max(directions, 1)
        fitted = replace(self, axes=axes, variance=variance)
        fitted = replace(fitted, lightness=known, reach=1.0, longest=np.inf)
        # Where sources are alike, whatever reaches far is no taste.
        if not differ:
            return fitted
        statistic = fitted._statistic(self.sums[rows], self.events[rows])
        middle, high = weighted_quantiles(statistic, self.events[rows], MIDDLE, HIGH)
        expected = fdtri(max(directions, 1), FREEDOMS, MIDDLE)
        ratio = fdtri(max(directions, 1), FREEDOMS, HIGH) / expected
        light = float(np.interp(-high / max(middle, 1e-9), -ratio, 1.0 / FREEDOMS))
        usual = float(fdtri(max(directions, 1), 1.0 / light, MIDDLE)) * max(directions, 1)
        reach = max(1.0, middle / usual) ** differ
        return replace(
            fitted,
            lightness=1.0 / (differ * light + 1.0 / known),
            reach=reach,
            longest=float(np.log((held + 1.0) / QUIET_FACTOR)) / (QUIET_POWER * differ),
        )

    @staticmethod
    def _differ(unit: FloatArray, directions: int) -> float:
        """In [0, 1]: how clearly scaled sums float64[r, D] are longer than those of one law.

        Cochran's (1954) homogeneity test on the middle source, two standard errors apart.
        """
        k = max(directions, 1)
        middle = float(np.median(np.square(unit).sum(axis=1))) / k
        doubt = 2.0 * np.sqrt(2.0 / k / (0.64 * len(unit)))
        return float(np.clip((middle - 1.0 - doubt) / MUCH_TASTE, 0.0, 1.0))

    def nats(self, sums: FloatArray, events: FloatArray, directions: int) -> FloatArray:
        """How unlikely the sums are for an ordinary source.

        Parameters
        ----------
        sums, events
            float64[u, D] and float64[u].
        directions
            How many of the D directions vary: the degrees of freedom.

        Returns
        -------
        FloatArray
            float64[u], −ln P(χ² ≥ statistic), over the heaviness of the tastes' tail.
        """
        if not directions:
            return np.zeros(len(sums))
        statistic = self._statistic(sums, events) / self.reach
        # The cube root of an F variable is nearly a ratio of normal ones (Paulson 1942), to a few
        # per cent of the nats far into the tail.
        root = np.cbrt(statistic / directions)
        own, taste = 2.0 / (9.0 * directions), 2.0 / (9.0 * self.lightness)
        spread = np.sqrt(taste * np.square(root) + own)
        nats = -log_ndtr((1.0 - own - (1.0 - taste) * root) / spread)
        # A conformal p-value is no smaller than one in all that it was told from (Bates et al.
        # 2023). What is beyond keeps its order.
        beyond = np.maximum(nats - self.longest, 0.0)
        return np.asarray(nats - (1.0 - BEYOND) * beyond, dtype=np.float64)

    def _statistic(self, sums: FloatArray, events: FloatArray) -> FloatArray:
        """float64[u]: squared lengths of the sums, in their standard deviations."""
        along = np.square(sums @ self.axes)
        n = np.maximum(events, 1e-9)[:, None]
        return np.asarray((along / (n * (1.0 + n * self.variance))).sum(axis=1))

    def merge(self, other: Tastes, directions: int) -> Tastes:
        """The sources of both, each as the side knows it that has seen more of it, fitted anew."""
        if not len(self.keys) or not len(other.keys):
            return self if len(self.keys) else other
        keys = np.concatenate([self.keys, other.keys])
        sums = np.concatenate([self.sums, other.sums])
        events = np.concatenate([self.events, other.events])
        kept = last_of_each(keys, *sums.T, events)
        kept = kept[np.lexsort((keys[kept], events[kept]))][-RECENT:]
        fresh = Tastes.empty(self.sums.shape[1])
        both = replace(fresh, keys=keys[kept], sums=sums[kept], events=events[kept])
        return both.fitted(directions)
