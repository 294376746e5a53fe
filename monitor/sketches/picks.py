"""Which columns of each event may hold a trigger: those with the most surprising single values.

A stream of w columns has w(w − 1)/2 pairs, far too many to count for every event, and a trigger in
two to four of the columns may sit in any. But a value that a trigger wrote also comes more often
*by itself* with its label than it used to, and is not called for by the rest of the event. So each
event's columns are ranked by that, on two wide grids shifted by half a cell, which a noisy value
cannot straddle both, and only pairs among the foremost are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.core.types import Int32Array, IntArray
from monitor.sketches.lift import Added, LiftTable, Plan, cells_of, single_slots

Float32Array = npt.NDArray[np.float32]
GRIDS = 2


@dataclass(frozen=True, slots=True)
class Picked:
    """The foremost columns of each event.

    ``place`` int64[m, n], rising, indices among the watched columns; ``added`` the batch on the
    wide grids, None where all columns are taken.
    """

    place: IntArray
    added: Added | None


def wide_table(columns: int, picked: int, bits: int) -> LiftTable:
    """The empty table of the wide grids; of no slots where nothing has to be chosen."""
    return LiftTable.empty((GRIDS * columns << bits) if columns > picked else 0)


def pick(
    table: LiftTable,
    across: Float32Array,
    weight: Float32Array,
    around: tuple[Int32Array, Plan, Float32Array, float],
    *,
    picked: int,
    cell: float,
    bits: int,
    size: float,
) -> Picked:
    """Choose ``picked`` columns for each event.

    Parameters
    ----------
    table
        Counts of the wide grids, see :func:`wide_table`.
    across, weight
        Normal scores float32[w, n], and how little each is called for, float32[w, n].
    around
        Labels int32[n], the plan, each column's recent over baseline mass float32[w], and what is
        left of recent counts after this batch.
    cell
        Width of the wide grids' cells in normal scores.
    bits
        log2 of the slots a column and grid.
    size
        Negative-binomial size: counts must be off by a factor, not only by chance.
    """
    y, chosen, ratio, keep = around
    w, n = across.shape
    if w <= picked:
        return Picked(np.broadcast_to(np.arange(w)[:, None], (w, n)), None)
    slots = [single_slots(cells_of(across, cell, shift), y, chosen, bits) for shift in (0.0, 0.5)]
    slots[1] += w << bits
    slot = np.concatenate(slots)
    added = table.added(slot, np.concatenate([weight, weight]), keep)
    by_row = np.concatenate([ratio, ratio])[:, None]
    if slot.size > len(table.anchor):
        # Fewer slots than keys: the excess of all slots is worked out first, and then looked up.
        rows = len(by_row), -1
        by_slot = _excess(added.recent.reshape(rows), table.anchor.reshape(rows), by_row, size)
        excess = by_slot.reshape(-1).take(slot, mode="clip")
    else:
        count, anchor = (held.take(slot, mode="clip") for held in (added.recent, table.anchor))
        excess = _excess(count, anchor, by_row, size)
    foremost = np.maximum(excess[:w], excess[w:])
    foremost *= weight
    return Picked(_highest(foremost, picked), added)


def _excess(
    count: Float32Array, anchor: Float32Array, ratio: Float32Array, size: float
) -> Float32Array:
    """``count`` above what was expected, in standard deviations of a negative-binomial count."""
    expected = anchor * ratio
    excess = count - expected
    expected += np.float32(0.5)
    spread = np.float32(1.0 / size) * expected
    spread += np.float32(1.0)
    spread *= expected
    excess /= np.sqrt(spread, out=spread)
    return excess


def _highest(values: Float32Array, most: int) -> IntArray:
    """int64[most, n], rising: in which rows of float32[w, n] each column's highest values are.

    The bits of a float order as integers do; with the row in the lowest of them a plain sort of
    short runs of integers, which is quick, tells what a partition by index, which is not, would.
    """
    w = len(values)
    low = np.int32((1 << max(1, (w - 1).bit_length())) - 1)
    bits = values.view(np.int32)
    key = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
    key &= ~low
    key |= np.arange(w, dtype=np.int32)[:, None]
    ranked = np.ascontiguousarray(key.T)
    ranked.sort(axis=1)
    rows = ranked[:, w - most :] & low
    rows.sort(axis=1)
    return rows.T.astype(np.int64, order="C")
