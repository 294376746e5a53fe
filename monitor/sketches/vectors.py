"""Lengths, directions, neighbours and company of vectors."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from monitor.core.types import FloatArray, HashArray, IntArray

Rows32 = npt.NDArray[np.float32]
DIMENSIONS = 32
LARGEST, SMALLEST = 1e30, 1e-30
OTHERS = 256
CLEARLY_ALIKE = 0.8
NO_COMPANY = 0.05


@lru_cache(maxsize=8)
def _projection(dimension: int, seed: int) -> FloatArray:
    rng = np.random.default_rng([seed, dimension])
    matrix: FloatArray = rng.normal(size=(dimension, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    matrix.setflags(write=False)
    return matrix


def unit_and_log_length(given: FloatArray) -> tuple[FloatArray, FloatArray]:
    """float64[m, p] directions and float64[m] log lengths, whatever the size of the numbers."""
    largest = np.maximum(np.abs(given).max(axis=1, initial=0.0), SMALLEST)
    unit = given / largest[:, None]
    length = np.sqrt(np.square(unit).sum(axis=1))
    log_length = np.log(largest) + np.log(np.maximum(length, SMALLEST))
    return unit / np.maximum(length, 1e-12)[:, None], log_length


def projected(unit: FloatArray, seed: int) -> FloatArray:
    """float64[m, k], k = min(p, DIMENSIONS): themselves, or in a fixed random projection."""
    if unit.shape[1] <= DIMENSIONS:
        return unit
    return np.asarray(unit @ _projection(unit.shape[1], seed))


def lengths(log_length: FloatArray) -> FloatArray:
    """float64[m, 1]: lengths, kept within what single precision can square."""
    return np.exp(np.clip(log_length, np.log(SMALLEST), 0.5 * np.log(LARGEST)))[:, None]


def units(rows: FloatArray) -> FloatArray:
    """``rows`` float64[m, k] at length one, zeros staying zeros."""
    length = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.maximum(length, 1e-12))


def krum(off: FloatArray, landmarks: FloatArray) -> FloatArray:
    """float64[m]: log mean squared distance to the nearer half of the others.

    The others are this batch's ``off`` float64[m, k], thinned, and ``landmarks`` float64[l, k].
    """
    if not len(off):
        return np.zeros(0)
    step = max(1, -(-len(off) // (OTHERS // 2)))
    others = np.concatenate([off[::step], landmarks])
    square = np.square(off).sum(axis=1)[:, None] + np.square(others).sum(axis=1)[None]
    square = np.maximum(square - 2.0 * (off @ others.T), 0.0)
    near = max(1, len(others) // 2)
    nearest = np.partition(square, near - 1, axis=1)[:, :near]
    return np.asarray(np.log(nearest.mean(axis=1) / off.shape[1] + SMALLEST))


def chi_nats(total: FloatArray, events: FloatArray, excess: float) -> FloatArray:
    """float64[u]: −ln P(χ² ≥ what sums ``total`` float64[u, k] of ``events`` vectors show).

    Vectors have unit variance, and each sum's mean one of ``excess``. The tail is that of Wilson
    and Hilferty (1931): the cube root of χ²/k is nearly normal.
    """
    size = total.shape[1]
    statistic = np.square(total).sum(axis=1) / np.maximum(events, 1e-9)
    root = np.cbrt(statistic / (1.0 + max(0.0, excess) * events) / size)
    spread = 2.0 / (9.0 * size)
    return np.asarray(-log_ndtr((1.0 - spread - root) / np.sqrt(spread)), dtype=np.float64)


def summed(held: Rows32, vectors: FloatArray, inverse: IntArray, half_life: float) -> Rows32:
    """float32[u, w]: each key's sum (first k numbers) and count (the next) after ``vectors``.

    ``held`` float32[u, w] is what they were; ``inverse`` int64[m] says whose each vector is.
    Sums and counts fade with a key's own events.
    """
    size = vectors.shape[1]
    sent = np.bincount(inverse, minlength=len(held))
    rows = held * (0.5 ** (sent / half_life))[:, None].astype(np.float32)
    if len(held):
        order = np.argsort(inverse, kind="stable")
        first = np.searchsorted(inverse[order], np.arange(len(held)))
        rows[:, :size] += np.add.reduceat(vectors[order], first, axis=0)
    rows[:, size] += sent
    return rows


def followed(excess: float, total: FloatArray, events: FloatArray, half_lives: float) -> float:
    """``excess`` moved to what sums ``total`` float64[u, k] of ``events`` vectors show.

    The variance between keys follows the middle one, so that few cannot set it.
    """
    size = total.shape[1]
    several = events >= 3.0
    if several.sum() < 4:
        return excess
    # The median of χ²_k is about k·(1 − 2/(9k))³.
    middle = size * (1.0 - 2.0 / (9.0 * size)) ** 3
    statistic = np.square(total[several]).sum(axis=1) / events[several]
    each = float(np.median((statistic / middle - 1.0) / events[several]))
    return float(excess + (1.0 - 0.5**half_lives) * (each - excess))


def company(
    keys: HashArray, way: Rows32, before_keys: HashArray, before: Rows32
) -> tuple[FloatArray, IntArray]:
    """How many others point the same way: log of the sum of cos¹², and how many clearly do.

    ``way`` float32[m, k] are directions with distinct ``keys``; ``before`` are earlier ones, of
    which those with one of these keys are passed over.
    """
    step = max(1, -(-len(way) // OTHERS))
    own = np.maximum(way @ way[::step].T, 0.0)
    mine = np.arange(0, len(way), step)
    own[mine, np.arange(len(mine))] = 0.0
    past = np.maximum(way @ before[~np.isin(before_keys, keys)].T, 0.0)
    total = step * _powered(own).sum(axis=1) + _powered(past).sum(axis=1)
    alike = step * (own > CLEARLY_ALIKE).sum(axis=1) + (past > CLEARLY_ALIKE).sum(axis=1)
    return np.log(total + NO_COMPANY).astype(np.float64), alike.astype(np.int64)


def remember(
    keys: HashArray, way: Rows32, before_keys: HashArray, before: Rows32
) -> tuple[HashArray, Rows32]:
    """The OTHERS latest directions, each key once, the latest first."""
    step = max(1, -(-len(way) // OTHERS))
    stay = ~np.isin(before_keys, keys)
    return (
        np.concatenate([keys[::step], before_keys[stay]])[:OTHERS],
        np.concatenate([way[::step], before[stay]])[:OTHERS],
    )


def remember_both(
    a_keys: HashArray, a: Rows32, b_keys: HashArray, b: Rows32
) -> tuple[HashArray, Rows32]:
    """Two memories as one, the latest of both; a key of both gets the mean. Commutative."""
    joined = np.concatenate([a_keys, b_keys])
    age = np.concatenate([np.arange(len(a)), np.arange(len(b))])
    keys, place = np.unique(joined, return_inverse=True)
    total = np.zeros((len(keys), a.shape[1]))
    np.add.at(total, place, np.concatenate([a, b]))
    youngest = np.full(len(keys), len(joined))
    np.minimum.at(youngest, place, age)
    keep = np.argsort(youngest, kind="stable")[:OTHERS]
    return keys[keep], units(total[keep]).astype(np.float32)


def _powered(cosine: Rows32) -> Rows32:
    cube = cosine * cosine * cosine
    square = cube * cube
    return np.asarray(square * square)
