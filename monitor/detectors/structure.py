"""Values that break what the columns have to do with each other.

Many records are redundant: a sum beside its parts, a ratio beside both numbers, readings of sensors
that stand side by side. Whoever changes features one by one, or moves them somewhere and then
snaps each to a value that its column has shown (the careful form of clean-label and boiling-frog
poisoning; Shafahi et al. 2018, Rubinstein et al. 2009), leaves every column plausible and the
relations between them broken. A column counts when a linear regression on the other ones leaves at
most ``relation`` of its standard deviation, in a bounded sample of accepted events; all these
regressions are read off one inverse covariance matrix (Lauritzen 1996, section 5.1). The score adds
up, over an event's three worst columns, ln(1 + (residual / its usual size)²). Where fewer than
three columns follow from the others, nothing is said.

The raw values are used: ranks, clipping and quantiles bend straight relations. An attacker who
keeps to the relations when snapping is not seen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.arrays import quantiles
from monitor.sketches.reference_rows import shared_out

WORST = 3
RIDGE = 1e-6
USUAL = 0.95
LEAST_USUAL = 1e-5
"""Residuals below this, in standard deviations of their column, are rounding."""
PER_BATCH = 64
FAR = 50.0
LARGEST = 1e100
POWER = 0.75
"""Sums of logarithms have a heavier tail than the calibration extrapolates."""
SEED = 11
FREE = 1e12
"""Stands for no bound: states hold finite numbers, so that a failure is told from them."""


class StructureParams(Params):
    """Parameters of :class:`Structure`."""

    rows: int = Field(default=512, ge=64, description="Accepted events that are kept.")
    least_rows: int = Field(
        default=128, ge=32, description="Events kept before it speaks, or three a column."
    )
    relation: float = Field(
        default=0.1,
        gt=0.0,
        lt=1.0,
        description="Largest share of a column's deviation that the others leave unexplained.",
    )
    max_columns: int = Field(default=128, ge=2, description="Columns watched, the first ones.")


@dataclass(frozen=True, slots=True)
class StructureState:
    """Recent accepted events, and the regressions fitted to them.

    Attributes
    ----------
    rows
        float64[m, w], the first columns of events, oldest first.
    count
        Rows ever added.
    centre, spread
        float64[w], mean and standard deviation of ``rows``; a spread of 0 for dead columns.
    residual
        float64[w, w]: standardised rows times this are residuals, in standard deviations.
    usual
        float64[w], the 95 % quantile of each residual's size, ``FREE`` for columns that the others
        do not determine.
    """

    rows: FloatArray
    count: int
    centre: FloatArray
    spread: FloatArray
    residual: FloatArray
    usual: FloatArray


class Structure:
    """How badly an event's columns fit each other, in nats over the three worst ones."""

    name: ClassVar[str] = "structure"
    family: ClassVar[Family] = Family.CLEAN_LABEL
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    robust: ClassVar[bool] = True

    def __init__(self, params: StructureParams | None = None) -> None:
        self.params = params or StructureParams()

    def empty(self, n_columns: int) -> StructureState:
        """No events."""
        w = min(n_columns, self.params.max_columns)
        return StructureState(
            np.zeros((0, w)), 0, np.zeros(w), np.zeros(w), np.zeros((w, w)), np.full(w, FREE)
        )

    def score(self, view: StructureState, batch: EventBatch) -> Scores:
        """float64[n]; silent while too little is known, and where nothing determines anything."""
        n = len(batch)
        enough = max(self.params.least_rows, 3 * view.rows.shape[1])
        if not n or len(view.rows) < enough or np.count_nonzero(view.usual < FREE) < WORST:
            return Scores.silent(n)
        nats = self._nats(view, batch)
        worst = np.partition(nats, -WORST, axis=1)[:, -WORST:] if nats.shape[1] > WORST else nats
        return Scores(worst.sum(axis=1) ** POWER, np.ones(n, dtype=bool))

    def observe(
        self, state: StructureState, batch: EventBatch, accepted: BoolArray
    ) -> StructureState:
        """Learns from a few accepted events, as many from each source."""
        keep = shared_out(batch, accepted, PER_BATCH, SEED)
        if not len(keep):
            return state
        fresh = np.clip(batch.x[keep, : state.rows.shape[1]], -LARGEST, LARGEST)
        rows = np.concatenate([state.rows, fresh])[-self._capacity(state) :]
        return self._fitted(rows, state.count + len(keep))

    def merge(self, a: StructureState, b: StructureState) -> StructureState:
        """The newest rows of both, evenly; which comes first makes no difference."""
        if not a.count or not b.count:
            return a if a.count else b
        first, second = sorted((a, b), key=lambda held: (held.count, held.rows.tobytes()))
        most = self._capacity(a)
        half = most // 2
        spare = [max(0, half - len(held.rows)) for held in (first, second)]
        rows = np.concatenate([first.rows[-(half + spare[1]) :], second.rows[-(half + spare[0]) :]])
        return self._fitted(rows, a.count + b.count)

    def explain(
        self, view: StructureState, batch: EventBatch, rows: IntArray
    ) -> Sequence[Evidence]:
        """Which columns are not what the others imply, what those imply, and the usual error."""
        if not len(rows):
            return []
        events = batch.select(rows)
        off = self._off(view, events)
        order = np.argsort(-self._nats(view, events), axis=1, kind="stable")[:, :WORST]
        return [
            self._sentence(view, batch, int(row), off[i], order[i]) for i, row in enumerate(rows)
        ]

    def _sentence(
        self, view: StructureState, batch: EventBatch, row: int, off: FloatArray, order: IntArray
    ) -> Evidence:
        told, data = [], []
        for j in order.tolist():
            if view.usual[j] >= FREE:
                continue
            name, value = batch.columns[j][:64], float(batch.x[row, j])
            implied = value - float(off[j] * view.spread[j])
            usual = float(view.usual[j] * view.spread[j])
            told.append(f"{name}={value:.5g} where {implied:.5g} ± {usual:.2g} was to be expected")
            data.append({"name": name, "value": value, "expected": implied, "usual_error": usual})
        text = (
            "its features do not fit each other as they do in ordinary events, by which each of "
            f"these follows from the others: {'; '.join(told) or 'none yet'}; so it looks as if "
            "features had been changed one by one"
        )
        return Evidence(text, {"columns": data})

    def _capacity(self, state: StructureState) -> int:
        return max(self.params.rows, 4 * len(state.centre))

    def _off(self, view: StructureState, batch: EventBatch) -> FloatArray:
        """float64[n, w]: residuals, in standard deviations of their column."""
        return _standardised(batch.x[:, : len(view.centre)], view.centre, view.spread) @ (
            view.residual
        )

    def _nats(self, view: StructureState, batch: EventBatch) -> FloatArray:
        ratio = self._off(view, batch) / view.usual
        return np.asarray(np.log1p(ratio * ratio))

    def _fitted(self, rows: FloatArray, count: int) -> StructureState:
        w = rows.shape[1]
        centre = rows.mean(axis=0)
        spread = rows.std(axis=0)
        spread[spread <= 1e-12 * np.maximum(np.abs(centre), 1e-200)] = 0.0
        standard = _standardised(rows, centre, spread)
        middle = standard.mean(axis=0)
        inverse = np.linalg.inv(
            (standard - middle).T @ (standard - middle) / len(rows) + RIDGE * np.eye(w)
        )
        residual = inverse / np.diag(inverse)
        # A regression fits the rows it was fitted to better than others.
        optimism = max(0.25, 1.0 - w / len(rows))
        size = np.abs(standard @ residual) / optimism
        usual = np.maximum(quantiles(size, USUAL)[0], LEAST_USUAL)
        determined = (np.diag(inverse) > self.params.relation**-2) & (spread > 0.0)
        usual[~determined] = FREE
        return StructureState(rows, count, centre, spread, residual, usual)


def _standardised(x: FloatArray, centre: FloatArray, spread: FloatArray) -> FloatArray:
    """float64[n, w]: in standard deviations from the mean, clipped; 0 in dead columns."""
    rate = np.where(spread > 0.0, 1.0 / np.where(spread > 0.0, spread, 1.0), 0.0)
    with np.errstate(over="ignore"):
        off = (np.clip(x, -LARGEST, LARGEST) - centre) * rate
    return np.clip(off, -FAR, FAR)
