"""How ordinary sources differ from each other by nature: every user has a taste.

The sum of k whitened vectors of one source has the variance k·(1 + k·h) along a direction in which
sources differ by h: the random-effects model of DerSimonian and Laird (1986), here one h a
direction, along the axes in which the sums of the sources vary most. Each h is told from the middle
source, so that a few hostile ones set neither the axes' lengths nor what counts as a usual taste.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_ndtr

from monitor.core.types import BoolArray, FloatArray, HashArray
from monitor.sketches.arrays import quantiles

RECENT = 512
LEAST_SOURCES, LEAST_EVENTS = 8, 4.0
MEDIAN_CHI2 = 0.4549
LONGEST = 3.0
LARGEST, MUCH_TASTE = 600.0, 0.25
HEAVY_QUANTILES, HEAVY_NATS = (0.6, 0.8), 0.6931


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
    heaviness
        How many times farther than under a normal law the tastes reach, ≥ 1.
    """

    keys: HashArray
    sums: FloatArray
    events: FloatArray
    axes: FloatArray
    variance: FloatArray
    heaviness: float

    @classmethod
    def empty(cls, size: int) -> Tastes:
        """No source seen; nobody differs."""
        none = np.empty(0, dtype=np.uint64)
        return cls(none, np.empty((0, size)), np.empty(0), np.eye(size), np.zeros(size), 1.0)

    def put(self, keys: HashArray, sums: FloatArray, events: FloatArray) -> Tastes:
        """With the sources ``keys`` uint64[u] as they are now."""
        room = max(0, RECENT - len(keys))
        stay = np.flatnonzero(~np.isin(self.keys, keys, kind="sort"))
        stay = stay[max(0, len(stay) - room) :]
        return replace(
            self,
            keys=np.concatenate([self.keys[stay], keys[-RECENT:]]),
            sums=np.concatenate([self.sums[stay], sums[-RECENT:]]),
            events=np.concatenate([self.events[stay], events[-RECENT:]]),
        )

    def fitted(self, directions: int) -> Tastes:
        """With axes, variances and heaviness estimated anew from the sources held."""
        rows: BoolArray = self.events >= LEAST_EVENTS
        if rows.sum() < LEAST_SOURCES:
            return self
        events = self.events[rows, None]
        unit = self.sums[rows] / np.sqrt(events)
        length = np.sqrt(np.einsum("ij,ij->i", unit, unit))
        # One source, however much it sent, is one voice about which way sources differ.
        most = LONGEST * np.sqrt(unit.shape[1])
        short = unit * np.minimum(1.0, most / np.maximum(length, 1e-9))[:, None]
        axes = np.linalg.eigh(short.T @ short)[1]
        along = np.square(unit @ axes)
        each = (along / MEDIAN_CHI2 - 1.0) / events
        low, middle, high = quantiles(each, 0.25, 0.5, 0.75)
        # Less about two standard errors of the median: where sources are alike, h is nothing.
        variance = np.maximum(middle - 2.0 * (high - low) / np.sqrt(len(each)), 0.0)
        if not directions:
            return replace(self, axes=axes, variance=variance, heaviness=1.0)
        nats = _chi_nats((along / (1.0 + events * variance)).sum(axis=1), directions)
        reach = float(np.diff(quantiles(nats, *HEAVY_QUANTILES))[0]) / HEAVY_NATS
        # Where sources are alike, whatever reaches far is no taste.
        taste = float(variance.sum() * quantiles(events[:, 0], 0.5)[0])
        share = min(1.0, taste / (MUCH_TASTE * max(directions, 1)))
        heaviness = float(max(1.0, reach) ** share)
        return replace(self, axes=axes, variance=variance, heaviness=heaviness)

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
        along = np.square(sums @ self.axes)
        n = np.maximum(events, 1e-9)[:, None]
        statistic = (along / (n * (1.0 + n * self.variance))).sum(axis=1)
        return np.asarray(_chi_nats(statistic, directions) / self.heaviness)

    def merge(self, other: Tastes, directions: int) -> Tastes:
        """The sources of both, each as the side knows it that has seen more of it, fitted anew."""
        if not len(self.keys) or not len(other.keys):
            return self if len(self.keys) else other
        keys = np.concatenate([self.keys, other.keys])
        sums = np.concatenate([self.sums, other.sums])
        events = np.concatenate([self.events, other.events])
        order = np.lexsort((*sums.T, events, keys))
        last = np.append(keys[order][1:] != keys[order][:-1], True)
        kept = order[last]
        kept = kept[np.lexsort((keys[kept], events[kept]))][-RECENT:]
        fresh = Tastes.empty(self.sums.shape[1])
        both = replace(fresh, keys=keys[kept], sums=sums[kept], events=events[kept])
        return both.fitted(directions)


def _chi_nats(statistic: FloatArray, directions: int) -> FloatArray:
    """float64[u]: −ln P(χ² ≥ ``statistic``) for ``directions`` degrees of freedom, at least 1.

    Wilson and Hilferty (1931): the cube root of χ²/k is nearly normal, far into the tail.
    """
    spread = 2.0 / (9.0 * directions)
    root = np.cbrt(np.minimum(statistic, LARGEST) / directions)
    return np.asarray(-log_ndtr((1.0 - spread - root) / np.sqrt(spread)), dtype=np.float64)
