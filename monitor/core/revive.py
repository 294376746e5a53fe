"""Columns that were constant during the warm-up, and came alive later.

Their scale is unknown until they vary: an upstream feed that was not connected yet, a rare flag.
Their recent values are kept, and once enough of them differ the column's transform is learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from monitor.core.schema import Schema
from monitor.core.types import FloatArray, IntArray

WINDOW_EVENTS = 2048
CHECK_EVENTS = 256
LEAST_DIFFERENT = 64
MAX_WATCHED = 256


@dataclass(frozen=True, slots=True)
class DeadColumns:
    """The dead columns of a schema and their latest accepted values.

    ``columns`` int64[k]; ``ring`` float64[w, k], oldest overwritten first; ``seen`` rows put in.
    """

    columns: IntArray
    ring: FloatArray
    seen: int

    @classmethod
    def watch(cls, schema: Schema) -> DeadColumns:
        """Watch the dead columns of ``schema``, at most ``MAX_WATCHED`` of them."""
        columns = schema.scales.dead[:MAX_WATCHED]
        return cls(columns, np.zeros((WINDOW_EVENTS, len(columns))), 0)

    def add(self, x: FloatArray) -> DeadColumns:
        """With accepted events float64[n, d] remembered."""
        if not len(self.columns) or not len(x):
            return self
        kept = x[-WINDOW_EVENTS:, self.columns]
        ring = self.ring.copy()
        at = (self.seen + len(x) - len(kept) + np.arange(len(kept))) % WINDOW_EVENTS
        ring[at] = kept
        return replace(self, ring=ring, seen=self.seen + len(x))

    def due(self, before: DeadColumns) -> bool:
        """Whether a check falls between ``before`` and now."""
        return self.seen // CHECK_EVENTS != before.seen // CHECK_EVENTS

    def alive(self, schema: Schema) -> IntArray:
        """int64[j]: watched columns of which enough values differ from the constant."""
        rows = self.ring[: min(self.seen, WINDOW_EVENTS)]
        constant = schema.scales.knots[self.columns, 0]
        different = (rows != constant).sum(axis=0)
        alive: IntArray = self.columns[different >= LEAST_DIFFERENT]
        return alive

    def revive(self, schema: Schema, columns: IntArray) -> tuple[Schema, DeadColumns]:
        """The schema with ``columns`` learned anew, and what is left to watch."""
        among = np.isin(self.columns, columns)
        rows = self.ring[: min(self.seen, WINDOW_EVENTS), among]
        # The most recent change counts, not the long constant past before it.
        differs = (rows != schema.scales.knots[columns, 0]).any(axis=1)
        sample = rows[differs] if differs.mean() < 0.5 and self.seen > WINDOW_EVENTS else rows
        schema = replace(schema, scales=schema.scales.relearn(columns, sample))
        return schema, self.without(columns)

    def without(self, columns: IntArray) -> DeadColumns:
        """With ``columns`` int64[k] watched no more."""
        stay = ~np.isin(self.columns, columns)
        return replace(self, columns=self.columns[stay], ring=self.ring[:, stay])
