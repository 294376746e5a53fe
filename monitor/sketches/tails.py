"""Laws of upper tails: fitted to scores, and of counts."""

from __future__ import annotations

import numpy as np

from monitor.core.types import FloatArray, IntArray

ROBUST_QUANTILES = np.array([0.60, 0.85, 0.90])
MAX_SHAPE = 0.5
SMALLEST_P = 1e-12


def weibull(ordered: FloatArray, largest: float) -> tuple[float, float, float]:
    """Threshold, scale and exponent in [1, largest] of −ln S(x) = ((x − threshold)/scale)^exponent.

    ``ordered`` is float64[m], ascending; the law goes through the robust quantiles or above them.
    """
    knots = ordered[(ROBUST_QUANTILES * (len(ordered) - 1)).astype(np.int64)]
    hazard = np.log1p(-ROBUST_QUANTILES[0]) - np.log1p(-ROBUST_QUANTILES[1:])
    excess = np.maximum(knots[1:] - knots[0], 1e-9)
    bend = np.log(hazard[-1] / hazard[0]) / max(float(np.log(excess[-1] / excess[0])), 1e-9)
    exponent = float(np.clip(bend, 1.0, largest))
    if largest == 1.0:
        steps = np.diff(knots) / np.diff(np.concatenate([[0.0], hazard]))
        return float(knots[0]), float(steps.max()), 1.0
    return float(knots[0]), float((excess / hazard ** (1.0 / exponent)).max()), exponent


def pareto(excess: FloatArray) -> tuple[float, float]:
    """Scale and shape by probability-weighted moments; exponential when the data are too few.

    ``excess`` is float64[k], ascending, positive.
    """
    k = len(excess)
    if k == 0:
        return 0.0, 0.0
    mean = float(excess.mean())
    second = float(((1.0 - (np.arange(1, k + 1) - 0.35) / k) * excess).mean())
    spread = mean - 2.0 * second
    if k < 20:
        return mean, 0.0
    shape = MAX_SHAPE if spread <= 1e-12 else min(MAX_SHAPE, 2.0 - mean / spread)
    return (mean, 0.0) if shape <= 0.0 else (mean * (1.0 - shape), shape)


def bounded(p: FloatArray, most: float) -> FloatArray:
    """``p`` within [SMALLEST_P, ``most``]; ``np.clip`` has several times the overhead."""
    return np.minimum(np.maximum(p, SMALLEST_P), most)


def shares_below(p: FloatArray, levels: FloatArray) -> FloatArray:
    """float64[k]: the share of p-values float64[n], n ≥ 1, at or below each of falling levels."""
    common, *rare = (float(level) for level in levels)
    low = p[p <= common]
    n = len(p)
    return np.array([len(low) / n, *(np.count_nonzero(low <= level) / n for level in rare)])


def tail_nats(count: FloatArray | IntArray | float, expected: FloatArray | float) -> FloatArray:
    """At most −ln of the chance that a Poisson count with this mean is so large (Chernoff)."""
    m, rate = np.asarray(count, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    above = np.maximum(m, rate)
    nats: FloatArray = above * np.log(above / rate) - above + rate
    return nats
