"""Hashed, decayed counts of keys, recent against long-run, in tables that fit the cache.

One row of slots per *pattern* (a pair of columns, or one column); a key is a pattern's cells with
the label, hashed by multiply-add-shift (Dietzfelbinger et al. 1996) into the pattern's slots.
Every statement is about a slot, for the recent and the long-run count alike, so a collision
dilutes a lift and never invents one. Counts are weighted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from monitor.core.types import BoolArray, FloatArray, Int32Array, IntArray

GROUP = 32
MAX_CELL = 2000.0
CountTable = npt.NDArray[np.float32]
KeyArray = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Counted:
    """A batch held against a table, for p patterns and n events.

    Attributes
    ----------
    slot, weight
        int64[p, n], flat inside each group of ``GROUP`` patterns; float32[p, n].
    recent
        float32[p, 2^bits], the recent counts after this batch.
    count, anchor
        float32[p, n]: each event's recent count, this batch included, and its baseline count.
    """

    slot: IntArray
    weight: CountTable
    recent: CountTable
    count: CountTable
    anchor: CountTable


@dataclass(frozen=True, slots=True)
class LiftTable:
    """Counts by pattern and slot.

    Attributes
    ----------
    recent, anchor
        float32[p, 2^bits]: weighted counts of recent events, and of the long-run baseline.
    """

    recent: CountTable
    anchor: CountTable

    @classmethod
    def empty(cls, patterns: int, bits: int) -> LiftTable:
        """Nothing counted."""
        shape = (patterns, 1 << bits)
        return cls(np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32))

    def count(self, slot: IntArray, weight: CountTable, keep: float) -> Counted:
        """Recent counts with the batch in them, and baseline counts.

        Parameters
        ----------
        slot, weight
            The batch's slots int64[p, n] and weights float32[p, n], see :func:`slots`.
        keep
            What is left of the recent counts after this batch.
        """
        recent = np.empty_like(self.recent)
        count, anchor = np.empty_like(weight), np.empty_like(weight)
        for first in range(0, len(slot), GROUP):
            part = slice(first, first + GROUP)
            np.multiply(self.recent[part], np.float32(keep), out=recent[part])
            flat = recent[part].reshape(-1)
            np.add.at(flat, slot[part].ravel(), weight[part].ravel())
            flat.take(slot[part], out=count[part], mode="clip")
            self.anchor[part].reshape(-1).take(slot[part], out=anchor[part], mode="clip")
        return Counted(slot, weight, recent, count, anchor)

    def learned(self, counted: Counted, weight: CountTable, keep: float) -> LiftTable:
        """After the batch: the baseline decayed by ``keep``, and ``weight`` float32[p, n] added."""
        anchor = np.empty_like(self.anchor)
        for first in range(0, len(anchor), GROUP):
            part = slice(first, first + GROUP)
            np.multiply(self.anchor[part], np.float32(keep), out=anchor[part])
            np.add.at(anchor[part].reshape(-1), counted.slot[part].ravel(), weight[part].ravel())
        return LiftTable(counted.recent, anchor)

    def without(self, patterns: BoolArray) -> LiftTable:
        """With nothing counted for ``patterns`` bool[p]."""
        keep = (~patterns).astype(np.float32)[:, None]
        return LiftTable(self.recent * keep, self.anchor * keep)

    def merge(self, other: LiftTable) -> LiftTable:
        """Sums: exact, commutative, with :meth:`empty` as the neutral element."""
        return LiftTable(self.recent + other.recent, self.anchor + other.anchor)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which columns and pairs are watched, and the hash multipliers. Fixed by (columns, seed).

    ``columns`` int64[w]; ``pairs`` int64[p, 2], indices into ``columns``; ``left``, ``right``
    uint32[w] multipliers of a cell as first and second of a pair; ``label``, ``single`` odd
    multipliers.
    """

    columns: IntArray
    pairs: IntArray
    left: KeyArray
    right: KeyArray
    label: np.uint32
    single: np.uint32


@lru_cache(maxsize=64)
def plan(n_columns: int, max_columns: int, max_pairs: int, seed: int) -> Plan:
    """All columns and pairs while they fit the limits, else a fixed pseudo-random choice."""
    order = np.argsort(_mixed(np.arange(n_columns), seed), kind="stable")
    columns = np.sort(order[:max_columns])
    w = len(columns)
    pairs = np.array([(i, j) for i in range(w) for j in range(i + 1, w)], dtype=np.int64)
    pairs = pairs.reshape(-1, 2)
    chosen = np.argsort(_mixed(np.arange(len(pairs)), seed + 1), kind="stable")[:max_pairs]
    odd = (_mixed(np.arange(2 * w + 2), seed + 2) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    return Plan(columns, pairs[np.sort(chosen)], odd[:w], odd[w : 2 * w], odd[-2], odd[-1])


def cells_of(g: FloatArray, cell: float) -> Int32Array:
    """int32 of the same shape: grid cells of width ``cell`` in normal scores."""
    grid = np.clip(np.rint(g * (1.0 / cell)), -MAX_CELL, MAX_CELL)
    return np.asarray(grid, dtype=np.int32)


def pair_slots(cells: Int32Array, label: int, pair: IntArray, chosen: Plan, bits: int) -> IntArray:
    """int64[k, m]: where ``pair`` int64[k, m] of events with ``cells`` int32[w, m] count ``label``.

    Not flat: the place within the pair's own row of a table.
    """
    i, j = chosen.pairs[pair, 0], chosen.pairs[pair, 1]
    event = np.arange(cells.shape[1])
    whole = cells.view(np.uint32)
    said = np.full(1, label, dtype=np.uint32) * chosen.label
    key = whole[i, event] * chosen.left[i] + said
    key += whole[j, event] * chosen.right[j]
    return np.asarray(key >> np.uint32(32 - bits), dtype=np.int64)


def slots(g: FloatArray, y: Int32Array, chosen: Plan, *, cell: float, bits: int) -> IntArray:
    """int64[p, n]: the batch's slots, single columns first, then pairs.

    Parameters
    ----------
    g
        float64[w, n] normal scores of the watched columns, a column a row.
    y
        int32[n] labels.
    cell
        Width of a grid cell in normal scores.
    """
    cells = cells_of(g, cell).view(np.uint32)
    left = cells * chosen.left[:, None] + y.astype(np.uint32) * chosen.label
    right = cells * chosen.right[:, None]
    i, j = chosen.pairs.T
    w = len(left)
    key = np.empty((w + len(i), len(y)), dtype=np.uint32)
    np.multiply(left, chosen.single, out=key[:w])
    left.take(i, axis=0, out=key[w:], mode="clip")
    key[w:] += right.take(j, axis=0)
    key >>= np.uint32(32 - bits)
    base = (np.arange(len(key), dtype=np.uint32) % np.uint32(GROUP)) << np.uint32(bits)
    key += base[:, None]
    return key.astype(np.int64)


def padded(values: FloatArray, size: int) -> FloatArray:
    """``values`` with zeros behind, at least ``size`` long."""
    return np.concatenate([values, np.zeros(max(0, size - len(values)))])


def _mixed(values: IntArray, seed: int) -> npt.NDArray[np.uint64]:
    """SplitMix64 of ``values`` under ``seed``: fixed for all time, unlike library generators."""
    v = values.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 1) & (2**64 - 1))
    v = v * np.uint64(0x9E3779B97F4A7C15)
    v = (v ^ (v >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    v = (v ^ (v >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return v ^ (v >> np.uint64(31))
