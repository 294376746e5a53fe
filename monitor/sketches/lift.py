"""Hashed, decayed counts of keys, recent against long-run: single values, and pairs of them.

A key is a cell of a column's grid, or the cells of two columns, with the label; it is hashed by
multiply-add-shift (Dietzfelbinger et al. 1996) to a slot. Every statement is about a slot, for the
recent and the long-run count alike, so a collision dilutes a lift and never invents one. Counts are
weighted.

Single values have rows of slots of their own, a row a column. Pairs share one row: which pairs an
event is counted in is chosen by event (see :mod:`monitor.sketches.picks`), so that every pair of a
wide stream can be counted and only those that matter are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from monitor.core.types import BoolArray, FloatArray, Int32Array, IntArray

MAX_CELL = 2000.0
CountTable = npt.NDArray[np.float32]
KeyArray = npt.NDArray[np.uint32]
_SINGLE, _LEFT, _MIX, _SLOT = (
    np.uint32(v) for v in (0x9E3779B1, 0x27D4EB2F, 0x2C1B3C6D, 0x85EBCA6B)
)


@dataclass(frozen=True, slots=True)
class Added:
    """A batch added to a table: p keys of each of n events.

    Attributes
    ----------
    slot, weight
        int64[p, n] and float32[p, n].
    recent
        float32[s], the recent counts after this batch.
    """

    slot: IntArray
    weight: CountTable
    recent: CountTable


@dataclass(frozen=True, slots=True)
class Counted(Added):
    """The same, held against the table.

    Attributes
    ----------
    count, anchor
        float32[p, n]: each key's recent count, this batch included, and its baseline count.
    """

    count: CountTable
    anchor: CountTable


@dataclass(frozen=True, slots=True)
class LiftTable:
    """Counts by slot.

    Attributes
    ----------
    recent, anchor
        float32[s]: weighted counts of recent events, and of the long-run baseline.
    """

    recent: CountTable
    anchor: CountTable

    @classmethod
    def empty(cls, slots: int) -> LiftTable:
        """Nothing counted."""
        return cls(np.zeros(slots, dtype=np.float32), np.zeros(slots, dtype=np.float32))

    def added(self, slot: IntArray, weight: CountTable, keep: float) -> Added:
        """Recent counts with the batch in them.

        Parameters
        ----------
        slot, weight
            The batch's slots int64[p, n] and weights float32[p, n].
        keep
            What is left of the recent counts after this batch.
        """
        recent = self.recent * np.float32(keep)
        np.add.at(recent, slot.ravel(), weight.ravel())
        return Added(slot, weight, recent)

    def count(self, slot: IntArray, weight: CountTable, keep: float) -> Counted:
        """The same, and what the table then says of the batch's slots."""
        recent = self.added(slot, weight, keep).recent
        count, anchor = recent.take(slot, mode="clip"), self.anchor.take(slot, mode="clip")
        return Counted(slot, weight, recent, count, anchor)

    def learned(self, added: Added, weight: CountTable, keep: float) -> LiftTable:
        """After the batch: the baseline decayed by ``keep``, and ``weight`` float32[p, n] added."""
        anchor = self.anchor * np.float32(keep)
        np.add.at(anchor, added.slot.ravel(), weight.ravel())
        return LiftTable(added.recent, anchor)

    def without(self, rows: BoolArray) -> LiftTable:
        """With nothing counted in ``rows`` bool[r], the table being r equal rows of slots."""
        keep = np.repeat((~rows).astype(np.float32), len(self.recent) // max(1, len(rows)))
        return LiftTable(self.recent * keep, self.anchor * keep)

    def merge(self, other: LiftTable) -> LiftTable:
        """Sums: exact, commutative, with :meth:`empty` as the neutral element."""
        return LiftTable(self.recent + other.recent, self.anchor + other.anchor)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which columns are watched, and the hash multipliers. Fixed by (columns, seed).

    ``columns`` int64[w]; ``factor``, ``offset`` uint32[w], the multiplier of a column's cells and
    what tells the column from others; ``label`` an odd multiplier of labels.
    """

    columns: IntArray
    factor: KeyArray
    offset: KeyArray
    label: np.uint32


@lru_cache(maxsize=64)
def plan(n_columns: int, max_columns: int, seed: int) -> Plan:
    """All columns while they fit the limit, else a fixed pseudo-random choice."""
    order = np.argsort(_mixed(np.arange(n_columns), seed), kind="stable")
    columns = np.sort(order[:max_columns])
    w = len(columns)
    drawn = (_mixed(np.arange(2 * w + 1), seed + 2) >> np.uint64(32)).astype(np.uint32)
    return Plan(columns, drawn[:w] | np.uint32(1), drawn[w : 2 * w], drawn[-1] | np.uint32(1))


def cells_of(g: CountTable, cell: float, offset: float = 0.0) -> Int32Array:
    """int32 of the shape of float32 ``g``: grid cells of width ``cell``, shifted by ``offset``."""
    scaled = g * np.float32(1.0 / cell)
    if offset:
        scaled += np.float32(offset)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -MAX_CELL, MAX_CELL, out=scaled)
    return scaled.astype(np.int32)


def single_slots(cells: Int32Array, y: Int32Array, chosen: Plan, bits: int) -> IntArray:
    """int64[w, n]: slots of single values, ``cells`` int32[w, n], in rows of 2^bits slots."""
    key = cells.view(np.uint32) * chosen.factor[:, None]
    key += y.astype(np.uint32) * chosen.label
    key *= _SINGLE
    key >>= np.uint32(32 - bits)
    key += (np.arange(len(key), dtype=np.uint32) << np.uint32(bits))[:, None]
    return key.astype(np.int64)


def value_keys(cells: Int32Array, chosen: Plan, generation: IntArray) -> KeyArray:
    """uint32[w, n]: what stands for a column's cell in the key of a pair.

    ``generation`` int64[w] rises when a column starts anew, so that its old pairs are others.
    """
    key = cells.view(np.uint32) * chosen.factor[:, None]
    key += (chosen.offset + generation.astype(np.uint32) * _SINGLE)[:, None]
    key ^= key >> np.uint32(15)
    key *= _MIX
    return key


def pair_slots(
    first: KeyArray, second: KeyArray, label: KeyArray, chosen: Plan, bits: int
) -> IntArray:
    """int64 slots of pairs with a label, for arrays of :func:`value_keys` that broadcast.

    ``first`` is of the earlier column; the shape is theirs.
    """
    key = first * _LEFT
    key += second
    key += label * chosen.label
    key ^= key >> np.uint32(13)
    key *= _SLOT
    key >>= np.uint32(32 - bits)
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
