"""Values that do not lie where a column's values lie.

Moving features somewhere, by a perturbation (Shafahi et al. 2018), along a gradient or a little
further every day, is arithmetic, and its results fall between the values that the column takes. A
value counts when it needs more decimals than its column's values do, or never came before in a
column that repeats its values; by −ln of the share of ordinary values that do the same, estimated
after Good (1953) from what was new lately. Columns where more than ``common`` are new have no grid
and do not count, nor do new values of columns that have shown more than can be remembered.

The score leaves out an event's most telling column: a record price is one new value, a point that
was moved is new in several. An attacker who snaps to values that came before is not seen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.grid import Grid

SHOWN = 4


class NoveltyParams(Params):
    """Parameters of :class:`Novelty`."""

    half_life_events: float = Field(default=5_000.0, gt=0.0, description="Memory of the shares.")
    common: float = Field(
        default=0.05, gt=0.0, lt=1.0, description="Share of new values that makes a column silent."
    )
    upheaval: float = Field(
        default=0.3, gt=0.0, lt=1.0, description="Recent off-grid share that silences a column."
    )
    max_columns: int = Field(default=64, ge=1, description="Columns watched, the first ones.")
    least_events: int = Field(default=256, ge=1, description="Accepted events before it speaks.")


@dataclass(frozen=True, slots=True)
class NoveltyState:
    """What the columns have shown, and ``seen`` accepted events."""

    grid: Grid
    seen: int


@dataclass(frozen=True, slots=True)
class _Looked:
    """A batch's columns float64[w, n], and what the grid says of them.

    ``surprise`` float64[k, n] is that of ``columns`` int64[k]; the others have none.
    """

    across: FloatArray
    looked: tuple[IntArray, BoolArray, BoolArray]
    columns: IntArray
    surprise: FloatArray


class Novelty:
    """Nats of surprise over new and off-grid values, all but the most surprising one."""

    name: ClassVar[str] = "novelty"
    part: ClassVar[float] = 1.5
    family: ClassVar[Family] = Family.CLEAN_LABEL
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    robust: ClassVar[bool] = True

    def __init__(self, params: NoveltyParams | None = None) -> None:
        self.params = params or NoveltyParams()

    def empty(self, n_columns: int) -> NoveltyState:
        """No event seen."""
        return NoveltyState(Grid.empty(min(n_columns, self.params.max_columns)), 0)

    def score(self, view: NoveltyState, batch: EventBatch) -> Scores:
        """Summed surprise of the new values but the most surprising, float64[n]."""
        n = len(batch)
        if not n or view.seen < self.params.least_events:
            return Scores.silent(n)
        surprise = self._look(view, batch).surprise
        value = surprise.sum(axis=0) - surprise.max(axis=0, initial=0.0)
        return Scores(value, np.ones(n, dtype=bool))

    def observe(self, state: NoveltyState, batch: EventBatch, accepted: BoolArray) -> NoveltyState:
        """Values are remembered from every event, their shares learned from accepted ones."""
        if not accepted.any():
            return state
        found = self._look(state, batch)
        grid = state.grid.learn(found.across, found.looked, accepted, self.params.half_life_events)
        return NoveltyState(grid, state.seen + int(accepted.sum()))

    def rescaled(self, state: NoveltyState, columns: IntArray) -> NoveltyState:
        """Columns that came alive start anew."""
        watched = columns[columns < len(state.grid.unseen)]
        return NoveltyState(state.grid.without(watched), state.seen)

    def merge(self, a: NoveltyState, b: NoveltyState) -> NoveltyState:
        """Values are united, counts added; each side keeps its own forgetting."""
        return NoveltyState(a.grid.merge(b.grid), a.seen + b.seen)

    def explain(self, view: NoveltyState, batch: EventBatch, rows: IntArray) -> Sequence[Evidence]:
        """Which values are new or off the grid, and how rare that is."""
        if not len(rows):
            return []
        found = self._look(view, batch)
        usual = view.grid.usual()
        return [self._sentence(batch, found, usual, int(row)) for row in rows]

    def _sentence(self, batch: EventBatch, found: _Looked, usual: IntArray, row: int) -> Evidence:
        surprise = np.zeros(len(found.across))
        surprise[found.columns] = found.surprise[:, row]
        order = [int(j) for j in np.argsort(-surprise, kind="stable")[:SHOWN] if surprise[j] > 0.0]
        off = found.looked[2][:, row]
        told = [
            f"{batch.columns[j][:64]}={batch.x[row, j]:.10g} "
            + (
                f"(its values have at most {usual[j]} decimals)"
                if off[j]
                else "(never came before)"
            )
            for j in order
        ]
        many = int((surprise > 0.0).sum())
        text = (
            f"{many} values lie where their columns' values do not: {', '.join(told)}; all of them "
            f"together have {surprise.sum():.1f} nats of surprise, as left by moving features"
        )
        data = {
            "values": {batch.columns[j]: float(batch.x[row, j]) for j in order},
            "columns": many,
            "nats": round(float(surprise.sum()), 3),
        }
        return Evidence(text, data)

    def _look(self, view: NoveltyState, batch: EventBatch) -> _Looked:
        return batch.once(self.name, view, lambda: self._computed(view, batch))

    def _computed(self, view: NoveltyState, batch: EventBatch) -> _Looked:
        grid = view.grid
        across = np.ascontiguousarray(batch.x[:, : len(grid.unseen)].T)
        looked = grid.look(across)
        _, unseen, off = looked
        lately = grid.lately_with(unseen, off)
        # What many events do at the same time is a change of the world: new units, a new sensor.
        new = self._nats(np.maximum(grid.unseen / max(grid.mass, 1.0), lately[0]), grid.mass)
        new[grid.crowded()] = 0.0
        between = self._nats(grid.off / max(grid.mass, 1.0), grid.mass)
        between[lately[1] > self.params.upheaval] = 0.0
        # Most columns have nothing that is rare to say of any event.
        telling = (new[:, 0] > 0.0) & unseen.any(axis=1) | (between[:, 0] > 0.0) & off.any(axis=1)
        columns = np.flatnonzero(telling)
        surprise = np.maximum(unseen[columns] * new[columns], off[columns] * between[columns])
        return _Looked(across, looked, columns, surprise)

    def _nats(self, share: FloatArray, mass: float) -> FloatArray:
        """float64[w, 1]: −ln of each column's share, 0 where it is common."""
        share = (share * mass + 0.5) / (mass + 1.0)
        return np.where(share < self.params.common, -np.log(share), 0.0)[:, None]
