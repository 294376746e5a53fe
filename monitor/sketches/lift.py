"""Hashed, decayed counts of keys, recent against long-run, in tables that fit the cache.

One row of slots per *pattern* (a pair of columns, or one column); a key is a pattern's cells with
the label, hashed by multiply-add-shift (Dietzfelbinger et al. 1996) into the pattern's slots.
Every statement is about a slot, for the recent and the long-run count alike, so a collision
dilutes a lift and never invents one. Counts are weighted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from monitor.core.types import FloatArray, Int32Array, IntArray

GROUP = 16
MAX_CELL = 2000.0
ALL_ROWS = slice(None)
CountTable = npt.NDArray[np.float32]
KeyArray = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Group:
    """A batch's slots for consecutive patterns.

    ``first`` pattern; ``slot`` int64[r, n], flat in the group's own r tables; ``weight``
    float32[r, n]; ``left``, ``right`` int64[r], the watched columns of each pattern.
    """

    first: int
    slot: IntArray
    weight: CountTable
    left: IntArray
    right: IntArray


@dataclass(frozen=True, slots=True)
class LiftTable:
    """Counts by pattern and slot.

    Attributes
    ----------
    recent, anchor
        float32[p, 2^bits]: weighted counts of recent events, and of the long-run baseline.
    recent_mass, anchor_mass
        Decayed number of events counted in each.
    labels
        float64[C], decayed recent events by label, padded as labels appear.
    """

    recent: CountTable
    anchor: CountTable
    recent_mass: float
    anchor_mass: float
    labels: FloatArray

    @classmethod
    def empty(cls, patterns: int, bits: int) -> LiftTable:
        """Nothing counted."""
        shape = (patterns, 1 << bits)
        none = np.zeros(shape, dtype=np.float32)
        return cls(none, none.copy(), 0.0, 0.0, np.zeros(0))

    def look(
        self, group: Group, keep: float, rows: IntArray | slice = ALL_ROWS
    ) -> tuple[CountTable, CountTable]:
        """Recent counts with the batch itself in them, and baseline counts, by pattern and row.

        Parameters
        ----------
        group
            The whole batch's slots for some patterns.
        keep
            What is left of the recent counts after this batch.
        rows
            Which events of the batch to look up.

        Returns
        -------
        recent, anchor
            New float32[r, n] weighted counts.
        """
        part = slice(group.first, group.first + len(group.slot))
        table = self.recent[part] * np.float32(keep)
        table += _counts(group.slot, group.weight, table.shape)
        slot = group.slot[:, rows]
        return table.ravel().take(slot), self.anchor[part].ravel().take(slot)

    def add(
        self,
        groups: Iterator[Group],
        y: Int32Array,
        n_classes: int,
        taken: int,
        half_lives: tuple[float, float],
    ) -> LiftTable:
        """After a batch: recent counts from all rows, the baseline from the first ``taken``.

        Parameters
        ----------
        groups
            The batch's slots, accepted rows first.
        y, n_classes
            Labels of the batch, and the size of the label table.
        half_lives
            In events, of the recent counts and of the baseline.
        """
        n = len(y)
        keep, keep_anchor = 0.5 ** (n / half_lives[0]), 0.5 ** (taken / half_lives[1])
        recent, anchor = np.empty_like(self.recent), np.empty_like(self.anchor)
        for group in groups:
            slot, weight = group.slot, group.weight
            part = slice(group.first, group.first + len(slot))
            counts = _counts(slot[:, :taken], weight[:, :taken], recent[part].shape)
            np.multiply(self.anchor[part], np.float32(keep_anchor), out=anchor[part])
            anchor[part] += counts
            if taken < n:
                counts += _counts(slot[:, taken:], weight[:, taken:], counts.shape)
            np.multiply(self.recent[part], np.float32(keep), out=recent[part])
            recent[part] += counts
        labels = keep * padded(self.labels, n_classes) + np.bincount(y, minlength=n_classes)
        return LiftTable(
            recent,
            anchor,
            keep * self.recent_mass + n,
            keep_anchor * self.anchor_mass + taken,
            labels,
        )

    def merge(self, other: LiftTable) -> LiftTable:
        """Sums: exact, commutative, with :meth:`empty` as the neutral element."""
        size = max(len(self.labels), len(other.labels))
        return LiftTable(
            self.recent + other.recent,
            self.anchor + other.anchor,
            self.recent_mass + other.recent_mass,
            self.anchor_mass + other.anchor_mass,
            padded(self.labels, size) + padded(other.labels, size),
        )


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


def slots_by_group(
    g: FloatArray, y: Int32Array, weight: CountTable, chosen: Plan, *, cell: float, bits: int
) -> Iterator[Group]:
    """The batch's slots and weights by groups of patterns: single columns first, then pairs.

    Parameters
    ----------
    g, weight
        float64[w, n] normal scores and float32[w, n] weights of the watched columns, a column
        a row.
    cell
        Width of a grid cell in normal scores.
    """
    grid = np.clip(np.rint(g * (1.0 / cell)), -MAX_CELL, MAX_CELL).astype(np.int32)
    cells = grid.view(np.uint32)
    left = cells * chosen.left[:, None] + y.astype(np.uint32) * chosen.label
    right = cells * chosen.right[:, None]
    shift, w = np.uint32(32 - bits), len(g)
    base = (np.arange(GROUP, dtype=np.uint32) << np.uint32(bits))[:, None]
    every = np.arange(w)
    for start in range(0, w, GROUP):
        i = every[start : start + GROUP]
        slot = ((left[i] * chosen.single) >> shift) + base[: len(i)]
        yield Group(start, slot.astype(np.int64), weight[i], i, i)
    for start in range(0, len(chosen.pairs), GROUP):
        i, j = chosen.pairs[start : start + GROUP].T
        slot = ((left[i] + right[j]) >> shift) + base[: len(i)]
        yield Group(w + start, slot.astype(np.int64), weight[i] * weight[j], i, j)


def padded(values: FloatArray, size: int) -> FloatArray:
    """``values`` with zeros behind, at least ``size`` long."""
    return np.concatenate([values, np.zeros(max(0, size - len(values)))])


def _counts(slot: IntArray, weight: CountTable, shape: tuple[int, ...]) -> FloatArray:
    """float64 of ``shape`` (patterns, slots): summed weights by slot."""
    counts: FloatArray = np.bincount(
        slot.ravel(), weights=weight.ravel(), minlength=shape[0] * shape[1]
    ).astype(np.float64, copy=False)
    return counts.reshape(shape)


def _mixed(values: IntArray, seed: int) -> npt.NDArray[np.uint64]:
    """SplitMix64 of ``values`` under ``seed``: fixed for all time, unlike library generators."""
    v = values.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 1) & (2**64 - 1))
    v = v * np.uint64(0x9E3779B97F4A7C15)
    v = (v ^ (v >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    v = (v ^ (v >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return v ^ (v >> np.uint64(31))
