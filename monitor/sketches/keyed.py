"""A bounded map from 64-bit keys to rows of numbers, as an immutable value.

A large sorted base and a small sorted overlay, as in a log-structured merge tree (O'Neil et al.
1996): an update rebuilds only the overlay, so successive states share the base and the cost of a
batch does not grow with the number of keys; the overlay is folded into the base now and then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.core.types import BoolArray, HashArray

Rows = npt.NDArray[np.float32]
OVERLAY_ROWS = 8192


@dataclass(frozen=True, slots=True)
class KeyedTable:
    """Sorted unique ``keys`` uint64[m] with ``values`` float32[m, w]; the overlay wins."""

    keys: HashArray
    values: Rows
    new_keys: HashArray
    new_values: Rows

    @classmethod
    def empty(cls, width: int) -> KeyedTable:
        """A table of no keys and ``width`` numbers a key."""
        none = np.empty(0, dtype=np.uint64)
        rows = np.empty((0, width), dtype=np.float32)
        return cls(none, rows, none, rows)

    def __len__(self) -> int:
        return len(self.keys) + int((~_found(self.keys, self.new_keys)[0]).sum())

    def get(self, keys: HashArray) -> Rows:
        """float32[n, w]: the rows of ``keys``, zeros for unknown ones."""
        out = np.zeros((len(keys), self.values.shape[1]), dtype=np.float32)
        for stored, rows in ((self.keys, self.values), (self.new_keys, self.new_values)):
            hit, at = _found(stored, keys)
            out[hit] = rows[at[hit]]
        return out

    def put(self, keys: HashArray, rows: Rows, *, capacity: int, keep_by: int) -> KeyedTable:
        """The table with ``rows`` float32[n, w] stored under sorted unique ``keys`` uint64[n].

        Beyond ``capacity`` keys, those with the smallest value in column ``keep_by`` go.
        """
        hit, at = _found(self.new_keys, keys)
        stay = np.ones(len(self.new_keys), dtype=bool)
        stay[at[hit]] = False
        merged, values = _merge(self.new_keys[stay], self.new_values[stay], keys, rows)
        if len(merged) <= min(OVERLAY_ROWS, capacity):
            return KeyedTable(self.keys, self.values, merged, values)
        return KeyedTable(self.keys, self.values, merged, values)._fold(capacity, keep_by)

    def items(self) -> tuple[HashArray, Rows]:
        """All keys, sorted, with their rows."""
        hit, at = _found(self.keys, self.new_keys)
        stay = np.ones(len(self.keys), dtype=bool)
        stay[at[hit]] = False
        return _merge(self.keys[stay], self.values[stay], self.new_keys, self.new_values)

    def _fold(self, capacity: int, keep_by: int) -> KeyedTable:
        keys, values = self.items()
        if len(keys) > capacity:
            # A tenth more is dropped than needed, so that a full table is not sorted every time.
            keep = max(1, capacity - capacity // 10)
            order = np.lexsort((keys, -values[:, keep_by]))[:keep]
            order.sort()
            keys, values = keys[order], values[order]
        fresh = KeyedTable.empty(values.shape[1])
        return KeyedTable(keys, values, fresh.new_keys, fresh.new_values)


def _found(stored: HashArray, keys: HashArray) -> tuple[BoolArray, npt.NDArray[np.intp]]:
    if not len(stored):
        return np.zeros(len(keys), dtype=bool), np.zeros(len(keys), dtype=np.intp)
    at = np.minimum(np.searchsorted(stored, keys), len(stored) - 1)
    return stored[at] == keys, at


def _merge(a: HashArray, av: Rows, b: HashArray, bv: Rows) -> tuple[HashArray, Rows]:
    keys = np.concatenate([a, b])
    order = np.argsort(keys, kind="stable")
    return keys[order], np.concatenate([av, bv])[order]
