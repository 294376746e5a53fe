"""Rows of whatever tables models take: arrays, sparse matrices, and frames of any library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np

from monitor.core.errors import UsageError
from monitor.core.types import IntArray


@dataclass(frozen=True, slots=True)
class Table:
    """n rows to learn from: ``frame`` (rows with names) or ``array`` (rows of numbers)."""

    frame: nw.DataFrame[Any] | None
    array: Any
    labels: list[Any]

    def __len__(self) -> int:
        return len(self.labels)

    def features(self, span: range) -> list[Any]:
        """Fresh feature values of some rows: dicts where columns have names, else lists."""
        if self.frame is not None:
            return list(self.frame[span.start : span.stop].rows(named=True))
        part = self.array[span.start : span.stop]
        part = part.toarray() if hasattr(part, "toarray") else part
        return list(part.tolist())


def table_of(X: Any, y: Any) -> Table:
    """A table of features and labels.

    Parameters
    ----------
    X
        A frame known to narwhals, a scipy sparse matrix with rows, or anything numpy reads as
        float64[n, d].
    y
        n labels.

    Raises
    ------
    UsageError
        When they are not one table.
    """
    labels = _labels(y)
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        table, n = Table(frame, None, labels), len(frame)
    else:
        array = X.tocsr() if hasattr(X, "tocsr") else np.asarray(X)
        if array.ndim != 2:
            raise UsageError(f"X must be a table of rows and columns, not {array.ndim}-dimensional")
        table, n = Table(None, array, labels), array.shape[0]
    if n != len(labels):
        raise UsageError(f"X has {n} rows but y has {len(labels)} labels")
    return table


def _labels(y: Any) -> list[Any]:
    series = nw.from_native(y, allow_series=True, eager_only=True, pass_through=True)
    if isinstance(series, nw.Series):
        return list(series.to_list())
    values = np.asarray(y, dtype=None if hasattr(y, "dtype") else object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise UsageError("y must be one label a row; several outputs are not supported")
    return list(values.tolist())


def column(value: Any, n: int) -> Sequence[Any]:
    """n values from one for all rows, or from one a row.

    Raises
    ------
    UsageError
        When there are several, but not n.
    """
    if value is None or np.ndim(value) == 0 or isinstance(value, str):
        return [value] * n
    values = value.to_list() if hasattr(value, "to_list") else list(value)
    if len(values) != n:
        raise UsageError(f"{len(values)} values were given for {n} rows; give one, or {n}")
    return values


def pick(value: Any, rows: IntArray, n: int) -> Any:
    """The given rows of a table, series, array or list; anything else, and all rows, as it is."""
    if len(rows) == n or value is None or isinstance(value, str):
        return value
    native = nw.from_native(value, allow_series=True, eager_only=True, pass_through=True)
    if isinstance(native, nw.DataFrame | nw.Series):
        return native[rows.tolist()].to_native() if len(native) == n else value
    if hasattr(value, "tocsr"):
        return value.tocsr()[rows]
    if isinstance(value, np.ndarray):
        return value[rows] if value.ndim and len(value) == n else value
    if isinstance(value, list | tuple):
        return [value[row] for row in rows] if len(value) == n else value
    return value
