"""Points that have been moved from their own class towards another.

A clean-label point keeps its right label and moves (Shafahi et al. 2018); so does a boiling frog, a
little further every day (Rubinstein et al. 2009). If an event of class a was moved by some share α
of the way to class c, then taking α(μ_c − μ_a) back makes it likelier under its own class. For
Gaussian classes the best gain over α ≥ 0 is t²/2, with t = (x − μ_a)ᵀ Σ_a⁻¹ (μ_c − μ_a) / ‖μ_c −
μ_a‖_Σ, Fisher's (1936) discriminant read as a score: the one direction in which that attack goes,
where the Mahalanobis distance adds up all of them. The score is the largest t over the other
classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.moments import Gaussians, Moments
from monitor.sketches.shared import empty_moments, gaussians, moments_added

LEAST_T = -6.0
SHOWN_FEATURES = 3


class UndoParams(Params):
    """Parameters of :class:`Undo`."""

    half_life_events: float = Field(
        default=20_000.0, gt=0.0, description="Events of a class after which it has half forgotten."
    )
    least_events: float = Field(
        default=30.0, ge=1.0, description="Events of a class before it counts."
    )
    max_classes: int = Field(
        default=16, ge=2, description="Classes towards which a move is looked for, the largest."
    )


@dataclass(frozen=True, slots=True)
class UndoState:
    """The moments of each class."""

    moments: Moments


@dataclass(frozen=True, slots=True)
class _Moved:
    """By event, float64[n] and int64[n]: the largest t, and the class it points to."""

    t: FloatArray
    towards: IntArray


class Undo:
    """How far an event lies from its class in the direction of another, in standard deviations."""

    name: ClassVar[str] = "undo"
    family: ClassVar[Family] = Family.CLEAN_LABEL
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False

    def __init__(self, params: UndoParams | None = None) -> None:
        self.params = params or UndoParams()

    def empty(self, n_columns: int) -> UndoState:
        """No events."""
        return UndoState(empty_moments(n_columns))

    def score(self, view: UndoState, batch: EventBatch) -> Scores:
        """The largest t, float64[n]; silent while fewer than two classes are known."""
        if not len(batch):
            return Scores.silent(0)
        known = self._known(view, batch)
        if known.sum() < 2:
            return Scores.silent(len(batch))
        return Scores(self._look(view, batch).t, known[batch.y])

    def observe(self, state: UndoState, batch: EventBatch, accepted: BoolArray) -> UndoState:
        """Learns from accepted events."""
        if not accepted.any():
            return state
        half_life = self.params.half_life_events
        return UndoState(moments_added(state.moments, batch, accepted, half_life))

    def rescaled(self, state: UndoState, columns: IntArray) -> UndoState:
        """Columns that came alive count as having had unit variance all along."""
        return replace(state, moments=state.moments.with_unit_variance(columns))

    def merge(self, a: UndoState, b: UndoState) -> UndoState:
        """Sums add up; each side keeps its own forgetting."""
        return UndoState(a.moments.plus(b.moments))

    def explain(self, view: UndoState, batch: EventBatch, rows: IntArray) -> Sequence[Evidence]:
        """Which class it was moved towards, how far, and in which features."""
        if not len(rows):
            return []
        found, fitted = self._look(view, batch), gaussians(view.moments, batch)
        return [self._sentence(batch, found, fitted, int(row)) for row in rows]

    def _sentence(self, batch: EventBatch, found: _Moved, fitted: Gaussians, row: int) -> Evidence:
        own, other = int(batch.y[row]), int(found.towards[row])
        t = float(found.t[row])
        gap = fitted.mean[other] - fitted.mean[own]
        moved = (batch.z[row] - fitted.mean[own]) * gap
        order = np.argsort(-moved, kind="stable")[:SHOWN_FEATURES]
        names = [name[:64] for name in batch.label_names]
        told = ", ".join(f"{batch.columns[int(j)][:64]}={batch.x[row, j]:.4g}" for j in order)
        text = (
            f"label {names[own]!r}, but it lies {t:.1f} standard deviations from that class in the "
            f"direction of {names[other]!r}, mostly by {told}, as a point that was moved there"
        )
        data = {
            "label": names[own],
            "towards": names[other],
            "standard_deviations": round(t, 3),
            "features": {batch.columns[int(j)]: float(batch.x[row, j]) for j in order},
        }
        return Evidence(text, data)

    def _known(self, view: UndoState, batch: EventBatch) -> BoolArray:
        """bool[C]: classes with enough events, the largest ones of them."""
        weight = view.moments.grown(max(2, batch.n_classes)).weight
        known = np.zeros(len(weight), dtype=bool)
        known[np.argsort(-weight, kind="stable")[: self.params.max_classes]] = True
        return np.asarray(known & (weight >= self.params.least_events))

    def _look(self, view: UndoState, batch: EventBatch) -> _Moved:
        return batch.once(self.name, view, lambda: self._computed(view, batch))

    def _computed(self, view: UndoState, batch: EventBatch) -> _Moved:
        fitted, known = gaussians(view.moments, batch), self._known(view, batch)
        t = np.full(len(batch), LEAST_T)
        towards = batch.y.astype(np.int64)
        classes, order = np.flatnonzero(known), np.argsort(batch.y, kind="stable")
        first = np.searchsorted(batch.y, np.arange(len(known) + 1), sorter=order).tolist()
        for own in classes.tolist():
            others, rows = classes[classes != own], order[first[own] : first[own + 1]]
            if not len(others) or not len(rows):
                continue
            gap = fitted.mean[others] - fitted.mean[own]
            weight = fitted.scaled(gap, own)
            length = np.sqrt(np.maximum(np.einsum("ij,ij->i", weight, gap), 1e-9))
            along = (batch.z[rows] - fitted.mean[own]) @ (weight / length[:, None]).T
            best = along.argmax(axis=1)
            t[rows], towards[rows] = along[np.arange(len(rows)), best], others[best]
        return _Moved(np.maximum(t, LEAST_T), towards)
