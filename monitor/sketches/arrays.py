"""Small helpers for arrays with one row a class, whose number grows."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from monitor.core.types import FloatArray

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


def log_normalised(log_weight: FloatArray) -> FloatArray:
    """float64[n, C]: each row shifted so that its exponentials sum to one."""
    shifted = log_weight - log_weight.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
