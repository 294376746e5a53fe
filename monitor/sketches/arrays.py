"""Small helpers for arrays: rows by class, whose number grows, by group and by source."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from monitor.core.types import BoolArray, FloatArray, HashArray, IntArray

Scalar = TypeVar("Scalar", bound=np.generic)


def capacity_for(n_classes: int) -> int:
    """The power of two, at least 2, that holds ``n_classes``; shapes then change rarely."""
    return 1 << max(1, (n_classes - 1).bit_length())


def pad_axis(
    array: np.ndarray[tuple[int, ...], np.dtype[Scalar]], size: int, axis: int = 0
) -> np.ndarray[tuple[int, ...], np.dtype[Scalar]]:
    """``array`` with zeros appended along ``axis`` up to ``size``; the array itself if it fits."""
    missing = size - array.shape[axis]
    if missing <= 0:
        return array
    shape = list(array.shape)
    shape[axis] = missing
    return np.concatenate([array, np.zeros(shape, dtype=array.dtype)], axis=axis)


def log_normalised(log_weight: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """float64[n, C]: each row shifted so that its exponentials sum to one."""
    # A class a row: numpy is slow at reducing many short rows.
    across = np.array(log_weight.T, dtype=np.float64, order="C")
    across -= across.max(axis=0)
    across -= np.log(np.exp(across).sum(axis=0))
    return across.T


def quantiles(values: FloatArray, *shares: float) -> FloatArray:
    """float64[k, …]: quantiles of float64[m, …] along the first axis, as ``np.quantile`` has them.

    A plain sort is several times faster than what numpy does for a few quantiles of a few numbers.

    Examples
    --------
    >>> quantiles(np.array([4.0, 1.0, 2.0]), 0.5, 0.75).tolist()
    [2.0, 3.0]
    """
    ordered = np.sort(values.T, axis=-1).T
    place = np.array(shares) * (len(values) - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, len(values) - 1)
    part = (place - below).reshape(-1, *(1,) * (values.ndim - 1))
    return np.asarray(ordered[below] + part * (ordered[above] - ordered[below]))


def contained(
    values: np.ndarray[tuple[int], np.dtype[Any]], ordered: np.ndarray[tuple[int], np.dtype[Any]]
) -> BoolArray:
    """bool[n]: which of ``values`` are in ``ordered``, rising; ``np.isin`` would sort both again.

    Examples
    --------
    >>> contained(np.array([5, 1, 3]), np.array([1, 2, 3])).tolist()
    [False, True, True]
    """
    if not len(ordered):
        return np.zeros(len(values), dtype=bool)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[at] == values)


def starts(ordered: np.ndarray[tuple[int], np.dtype[Any]]) -> IntArray:
    """int64[g]: where each run of equal values begins.

    Examples
    --------
    >>> starts(np.array([3, 3, 5, 7, 7])).tolist()
    [0, 2, 3]
    """
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])


def staying(held: HashArray, fresh: HashArray, most: int) -> IntArray:
    """int64[s]: places in ``held`` uint64[r] that stay when ``fresh`` uint64[u], rising, follows.

    Those that are not among ``fresh``, the latest, as far as both together are at most ``most``.

    Examples
    --------
    >>> held, fresh = np.array([7, 5, 9], dtype=np.uint64), np.array([5], dtype=np.uint64)
    >>> staying(held, fresh, 3).tolist(), staying(held, fresh, 2).tolist()
    ([0, 2], [2])
    """
    stay = np.flatnonzero(~contained(held, fresh))
    return stay[max(0, len(stay) + len(fresh) - most) :]


def last_of_each(keys: HashArray, *by: FloatArray) -> IntArray:
    """int64[g]: of each key in uint64[r] the row that is largest by ``by``, the last one first.

    Examples
    --------
    >>> keys = np.array([4, 2, 4], dtype=np.uint64)
    >>> last_of_each(keys, np.array([3.0, 1.0, 2.0])).tolist()
    [1, 0]
    """
    order = np.lexsort((*by, keys))
    return np.asarray(order[np.append(keys[order][1:] != keys[order][:-1], True)])


def weighted_quantiles(values: FloatArray, weight: FloatArray, *shares: float) -> FloatArray:
    """float64[k]: quantiles of float64[m] in which each value counts by its weight float64[m]."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    place = np.searchsorted(total, np.array(shares) * total[-1])
    return np.asarray(values[order][np.minimum(place, len(values) - 1)])


def sums_by_group(
    rows: FloatArray, order: IntArray, first: IntArray, weight: FloatArray | None = None
) -> FloatArray:
    """float64[g, w]: sums of float64[m, w] over groups of rows.

    As a product with a sparse matrix, which is several times faster than ``np.add.reduceat``.

    Parameters
    ----------
    rows
        What is added up.
    order
        int64[m], the rows' numbers, those of a group side by side.
    first
        int64[g], increasing: where in ``order`` each group begins.
    weight
        float64[m], beside ``order``: what each row counts; one where it is not given.
    """
    weight = np.ones(len(order)) if weight is None else weight
    ends = np.append(first, len(order))
    member = csr_array((weight, order, ends), shape=(len(first), len(rows)))
    return np.asarray(member @ rows)
