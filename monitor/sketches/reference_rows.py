"""Robust centre, scale and whitening of vectors, from a bounded ring of recent ordinary rows.

Medians by class and coordinate (Yin et al. 2018 show that they, and trimmed means, bound what a
minority can do), scales from the median absolute deviation, and a symmetric whitening of the
clipped, scaled rows. No source fills the ring: a batch adds at most ``PER_BATCH`` rows, divided
among its sources.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.core.types import BoolArray, EventBatch, FloatArray, HashArray, Int32Array, IntArray
from monitor.sketches.recent import Sorted, earlier
from monitor.sketches.shared import sources

RING = 1024
PER_BATCH = 64
PER_CLASS = 48
REFRESH_ROWS = 64
CLIP, LEAST_SPREAD = 8.0, 0.1
TEACHES = 4.0
SHRINK = 0.05
QUANTILES = np.array([0.5, 0.8, 0.95])
HAZARD = -np.log1p(-QUANTILES)
EXPONENTS = np.linspace(0.4, 2.5, 43)


@dataclass(frozen=True, slots=True)
class ReferenceRows:
    """Recent rows and what was made of them at the last refresh.

    Attributes
    ----------
    rows
        float32[m, w], m ≤ RING, in no order.
    label
        int32[m].
    aside
        float32[m, q], signals of the same events, whose quantiles are wanted.
    count
        Rows ever added.
    centre
        float64[c, w]: coordinate-wise medians, of everybody and of each class with enough rows.
    classes
        int32[c], the class of each centre, −1 (everybody) first.
    scale
        float64[w], about the rows' own class.
    whiten
        float64[w, w], from scaled and clipped rows to unit covariance.
    quantiles
        float64[3, q], QUANTILES of ``aside``.
    """

    rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    label: Int32Array
    aside: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    count: int
    centre: FloatArray
    classes: Int32Array
    scale: FloatArray
    whiten: FloatArray
    quantiles: FloatArray

    @classmethod
    def empty(cls, width: int, signals: int) -> ReferenceRows:
        """Nothing seen."""
        return cls(
            np.zeros((0, width), dtype=np.float32),
            np.zeros(0, dtype=np.int32),
            np.zeros((0, signals), dtype=np.float32),
            0,
            np.zeros((1, width)),
            np.full(1, -1, dtype=np.int32),
            np.ones(width),
            np.eye(width),
            np.outer([0.0, 0.5, 1.0], np.ones(signals)),
        )

    def centre_of(self, y: Int32Array) -> FloatArray:
        """float64[n, w]: the centre of each event's class, or everybody's."""
        return np.asarray(self.centre[self._place(y)])

    def scaled(self, rows: FloatArray, y: Int32Array) -> FloatArray:
        """float64[n, w]: distance from the centre in robust units, clipped."""
        with np.errstate(over="ignore"):
            off = (rows - self.centre_of(y)) / self.scale
        return np.clip(off, -CLIP, CLIP)

    def nats(self, signals: FloatArray) -> FloatArray:
        """float64[n, q]: −ln of the tail of Weibull's law through the three quantiles."""
        low, _, high = self.quantiles
        exponent = self._exponents()
        start = HAZARD[0] ** (1.0 / exponent)
        span = HAZARD[2] ** (1.0 / exponent) - start
        spread = np.maximum(high - low, LEAST_SPREAD)
        place = np.maximum(start + span * (signals - low) / spread, 0.0)
        return np.asarray(place**exponent)

    def _exponents(self) -> FloatArray:
        """float64[q]: which of EXPONENTS puts the middle quantile where it is, by signal."""
        low, middle, high = self.quantiles
        knots = HAZARD[:, None] ** (1.0 / EXPONENTS)
        expected = (knots[1] - knots[0]) / (knots[2] - knots[0])
        measured = (middle - low) / np.maximum(high - low, 1e-12)
        at = np.abs(measured[:, None] - expected).argmin(axis=1)
        return np.asarray(EXPONENTS[at])

    def added(
        self,
        rows: FloatArray,
        y: Int32Array,
        aside: FloatArray,
        keep: IntArray,
    ) -> ReferenceRows:
        """With rows ``keep`` of a batch, whose ``aside`` may be without rows while unknown."""
        if not len(keep):
            return self
        grown = ReferenceRows(
            np.concatenate([self.rows, rows[keep].astype(np.float32)])[-RING:],
            np.concatenate([self.label, y[keep]])[-RING:],
            np.concatenate([self.aside, aside[keep].astype(np.float32)])[-RING:]
            if len(aside)
            else self.aside,
            self.count + len(keep),
            self.centre,
            self.classes,
            self.scale,
            self.whiten,
            self.quantiles,
        )
        due = grown.count // REFRESH_ROWS != self.count // REFRESH_ROWS
        return grown.refreshed() if due else grown

    def merge(self, other: ReferenceRows) -> ReferenceRows:
        """The newest rows of both, evenly; which comes first makes no difference."""
        if not other.count:
            return self
        if not self.count:
            return other
        first, second = sorted((self, other), key=lambda held: (held.count, held.rows.tobytes()))
        take = RING // 2
        spare = [max(0, take - len(held.rows)) for held in (first, second)]
        parts = (first._newest(take + spare[1]), second._newest(take + spare[0]))
        return ReferenceRows(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.aside for part in parts]),
            self.count + other.count,
            first.centre,
            first.classes,
            first.scale,
            first.whiten,
            first.quantiles,
        ).refreshed()

    def _newest(self, count: int) -> ReferenceRows:
        if count >= len(self.rows):
            return self
        return ReferenceRows(
            self.rows[-count:],
            self.label[-count:],
            self.aside[-count:],
            self.count,
            self.centre,
            self.classes,
            self.scale,
            self.whiten,
            self.quantiles,
        )

    def refreshed(self) -> ReferenceRows:
        """With centres, scales, whitening and quantiles of the rows held."""
        rows = self.rows.astype(np.float64)
        held, sizes = np.unique(self.label, return_counts=True)
        several = held[sizes >= PER_CLASS]
        centres = [np.median(rows, axis=0)]
        centres += [np.median(rows[self.label == c], axis=0) for c in several]
        classes = np.concatenate([[-1], several]).astype(np.int32)
        centre = np.stack(centres)
        off = rows - centre[_place(classes, self.label)]
        scale = _scale(off)
        clipped = np.clip(off / scale, -TEACHES, TEACHES)
        quantiles = self.quantiles
        if len(self.aside) >= PER_CLASS:
            quantiles = np.quantile(self.aside.astype(np.float64), QUANTILES, axis=0)
        return ReferenceRows(
            self.rows,
            self.label,
            self.aside,
            self.count,
            centre,
            classes,
            scale,
            _whitening(clipped),
            quantiles,
        )

    def _place(self, y: Int32Array) -> IntArray:
        return _place(self.classes, y)


def shared_out(
    batch: EventBatch, rows: BoolArray, most: int = PER_BATCH, seed: int = 0
) -> IntArray:
    """At most ``most`` of ``rows`` bool[n], in order, about as many from each source.

    Which, follows from the ids' seeded hashes, so that nobody can arrange to be chosen.
    """
    picked = np.flatnonzero(rows)
    if len(picked) <= 1:
        return picked
    mixed: HashArray = batch.id_hash[picked] * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    picked = picked[Sorted.of(mixed).order]
    place = sources(batch)[1][picked]
    # Sorting short integers is a count of them.
    rank = earlier(place.astype(np.uint16) if len(batch) <= 1 << 16 else place)
    each = max(1, most // max(1, int((rank == 0).sum())))
    return np.sort(picked[rank < each][:most])


def _place(classes: Int32Array, y: Int32Array) -> IntArray:
    at = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    return np.asarray(np.where(classes[at] == y, at, 0), dtype=np.int64)


def _scale(off: FloatArray) -> FloatArray:
    """float64[w] > 0: from the median absolute deviation; where that is idle, the bulk's width."""
    near = 1.4826 * np.median(np.abs(off), axis=0)
    wide = np.diff(np.quantile(off, [0.025, 0.975], axis=0), axis=0)[0] / 3.92
    scale = np.maximum(near, 0.5 * wide)
    return np.asarray(np.maximum(scale, max(1e-3 * float(np.median(scale)), 1e-30)))


def _whitening(rows: FloatArray) -> FloatArray:
    width = rows.shape[1]
    covariance = rows.T @ rows / len(rows)
    mean = float(np.trace(covariance)) / width
    covariance = (1.0 - SHRINK) * covariance + max(SHRINK * mean, 1e-6) * np.eye(width)
    values, axes = np.linalg.eigh(covariance)
    return np.asarray((axes / np.sqrt(np.maximum(values, 1e-9))) @ axes.T)
