"""How far an event lies from the class it claims.

Squared Mahalanobis distance to the own class under a shrunk covariance (Mahalanobis 1936; as an
outlier score for poisoning Steinhardt, Koh and Liang 2017, the sphere defence). It speaks for
clean-label poisoning and crude feature manipulation: the label is right, the features are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.moments import Moments
from monitor.sketches.shared import empty_moments, gaussians, moments_added, squared_distances

SHOWN_FEATURES = 3


class ClassMomentsParams(Params):
    """Parameters of :class:`ClassMoments`."""

    half_life_events: float = Field(
        default=20_000.0, gt=0.0, description="Events of a class after which it has half forgotten."
    )
    least_events: float = Field(
        default=30.0, ge=1.0, description="Events of a class before its distances mean anything."
    )


@dataclass(frozen=True, slots=True)
class ClassMomentsState:
    """The moments of each class."""

    moments: Moments


class ClassMoments:
    """log(1 + squared Mahalanobis distance to the own class)."""

    name: ClassVar[str] = "class_moments"
    family: ClassVar[Family] = Family.CLEAN_LABEL
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False

    def __init__(self, params: ClassMomentsParams | None = None) -> None:
        self.params = params or ClassMomentsParams()

    def empty(self, n_columns: int) -> ClassMomentsState:
        """No events."""
        return ClassMomentsState(empty_moments(n_columns))

    def score(self, view: ClassMomentsState, batch: EventBatch) -> Scores:
        """Distance to the own class; silent for classes with too few events."""
        if not len(batch):
            return Scores.silent(0)
        moments = view.moments.grown(batch.n_classes)
        # Those to the other classes are known already where label conflict has the same moments.
        own = squared_distances(view.moments, batch)[np.arange(len(batch)), batch.y]
        return Scores(np.log1p(own), moments.weight[batch.y] >= self.params.least_events)

    def observe(
        self, state: ClassMomentsState, batch: EventBatch, accepted: BoolArray
    ) -> ClassMomentsState:
        """Learns from accepted events."""
        if not accepted.any():
            return state
        half_life = self.params.half_life_events
        return ClassMomentsState(moments_added(state.moments, batch, accepted, half_life))

    def rescaled(self, state: ClassMomentsState, columns: IntArray) -> ClassMomentsState:
        """Columns that came alive count as having had unit variance all along."""
        return replace(state, moments=state.moments.with_unit_variance(columns))

    def merge(self, a: ClassMomentsState, b: ClassMomentsState) -> ClassMomentsState:
        """Sums add up; each side keeps its own forgetting."""
        return ClassMomentsState(a.moments.plus(b.moments))

    def explain(
        self, view: ClassMomentsState, batch: EventBatch, rows: IntArray
    ) -> Sequence[Evidence]:
        """The features that lie farthest from the class's usual values."""
        fitted = gaussians(view.moments, batch)
        y = batch.y[rows]
        squared = fitted.own_distances(batch.z[rows], y)
        off = (batch.z[rows] - fitted.mean[y]) / _spreads(view.moments, batch.n_classes)[y]
        return [
            self._sentence(batch, int(row), off[i], float(squared[i])) for i, row in enumerate(rows)
        ]

    def _sentence(self, batch: EventBatch, row: int, off: FloatArray, squared: float) -> Evidence:
        c = int(batch.y[row])
        worst = np.argsort(-np.abs(off), kind="stable")[:SHOWN_FEATURES]
        label = batch.label_names[c][:64]
        names = [batch.columns[int(j)][:64] for j in worst]
        told = ", ".join(
            f"{name} {off[j]:+.1f} standard deviations"
            for name, j in zip(names, worst, strict=True)
        )
        text = (
            f"features lie {np.sqrt(squared):.1f} (Mahalanobis) from what label {label!r} "
            f"usually has, most of all {told}"
        )
        data = {
            "label": label,
            "mahalanobis": round(float(np.sqrt(squared)), 3),
            "features": [
                {
                    "name": name,
                    "deviations": round(float(off[j]), 2),
                    "value": float(batch.x[row, j]),
                }
                for name, j in zip(names, worst, strict=True)
            ],
        }
        return Evidence(text, data)


def _spreads(moments: Moments, n_classes: int) -> FloatArray:
    """float64[C, d]: standard deviation by class and column (pooled where classes share)."""
    grown = moments.grown(n_classes)
    weight = np.maximum(grown.weight[:n_classes], 1.0)
    mean = grown.means()[:n_classes]
    if grown.shared:
        diagonal = (
            grown.outer[0, :, 0] if grown.outer.shape[2] == 1 else np.diag(grown.outer[0])
        ) / weight.sum()
        variance = np.broadcast_to(diagonal - mean.mean(axis=0) ** 2, mean.shape)
    else:
        variance = np.einsum("cii->ci", grown.outer[:n_classes]) / weight[:, None] - mean**2
    return np.asarray(np.sqrt(np.maximum(variance, 0.0) + 0.01))
