"""The given label against what the features say.

Three online classifiers that err differently: a softmax regression (linear borders), random ferns
(any border, coarse) and class-conditional Student densities (ellipsoids). Their log probabilities
are pooled with weights that follow their recent loss on accepted events, which is exponential
weighting in the sense of Vovk (1990) with forgetting (Herbster and Warmuth 1998). The score is
−log p(given label | features), the self-confidence of confident learning (Northcutt et al. 2021)
made online.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.arrays import log_normalised
from monitor.sketches.ferns import Ferns
from monitor.sketches.moments import Moments
from monitor.sketches.shared import (
    columns_across,
    empty_moments,
    empty_softmax,
    gaussians,
    moments_added,
    softmax_learned,
    softmax_log_proba,
    squared_distances,
)
from monitor.sketches.softmax import Softmax

EXPERTS = ("softmax", "ferns", "densities")
LEAST_LOG_P = -9.0
LARGEST_LOSS = 5.0


class LabelConflictParams(Params):
    """Parameters of :class:`LabelConflict`."""

    half_life_events: float = Field(default=10_000.0, gt=0.0, description="Memory of the models.")
    trees: int = Field(default=16, ge=1, le=512, description="Number of ferns.")
    seed: int = Field(default=7, ge=0, description="Seed of the ferns' splits.")
    trust: float = Field(
        default=30.0, ge=0.0, description="How strongly the pool follows the better models."
    )
    trust_half_life_events: float = Field(
        default=2_000.0, gt=0.0, description="Memory of how well each model did."
    )
    least_events: int = Field(default=128, ge=1, description="Events before it speaks.")


@dataclass(frozen=True, slots=True)
class LabelConflictState:
    """Three models, ``loss`` float64[3] (their recent mean loss) and ``seen`` accepted events."""

    softmax: Softmax
    ferns: Ferns
    moments: Moments
    loss: FloatArray
    seen: int


@dataclass(frozen=True, slots=True)
class _Read:
    """Leaves int64[T, n], and log probabilities float64[n, C]: by model, and pooled."""

    leaves: IntArray
    experts: tuple[FloatArray, ...]
    pooled: FloatArray


class LabelConflict:
    """−log of the pooled probability of the given label."""

    name: ClassVar[str] = "label_conflict"
    family: ClassVar[Family] = Family.LABEL_FLIP
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False

    def __init__(self, params: LabelConflictParams | None = None) -> None:
        self.params = params or LabelConflictParams()

    def empty(self, n_columns: int) -> LabelConflictState:
        """Untrained models."""
        return LabelConflictState(
            empty_softmax(n_columns),
            Ferns.empty(n_columns, self.params.trees, self.params.seed),
            empty_moments(n_columns),
            np.zeros(len(EXPERTS)),
            0,
        )

    def score(self, view: LabelConflictState, batch: EventBatch) -> Scores:
        """−log p(y|x), float64[n]."""
        n = len(batch)
        if not n or batch.n_classes < 2:
            return Scores.silent(n)
        pooled = self._read(view, batch).pooled
        ready = np.full(n, view.seen >= self.params.least_events)
        return Scores(-pooled[np.arange(n), batch.y], ready)

    def observe(
        self, state: LabelConflictState, batch: EventBatch, accepted: BoolArray
    ) -> LabelConflictState:
        """Learns from accepted events, which also weigh the models."""
        if not accepted.any():
            return state
        p = self.params
        y = batch.y[accepted]
        classes = max(2, batch.n_classes)
        read = self._read(state, batch)
        rows = np.flatnonzero(accepted)
        leaves = read.leaves if len(rows) == len(batch) else read.leaves.take(rows, axis=1)
        loss = state.loss
        if batch.n_classes >= 2:
            own = -np.stack([expert[rows, y] for expert in read.experts])
            gain = 1.0 - 0.5 ** (len(y) / p.trust_half_life_events)
            loss = loss + gain * (np.minimum(own, LARGEST_LOSS).mean(axis=1) - loss)
        return LabelConflictState(
            softmax_learned(state.softmax, batch, accepted, p.half_life_events),
            state.ferns.learn(leaves, y, classes, p.half_life_events),
            moments_added(state.moments, batch, accepted, 2.0 * p.half_life_events),
            loss,
            state.seen + len(y),
        )

    def rescaled(self, state: LabelConflictState, columns: IntArray) -> LabelConflictState:
        """Columns that came alive count as having had unit variance all along."""
        return replace(state, moments=state.moments.with_unit_variance(columns))

    def merge(self, a: LabelConflictState, b: LabelConflictState) -> LabelConflictState:
        """Counts and sums add up; softmax weights and losses are averaged by events seen."""
        seen = a.seen + b.seen
        share = a.seen / seen if seen else 0.5
        return LabelConflictState(
            a.softmax.average(b.softmax, share),
            a.ferns.plus(b.ferns),
            a.moments.plus(b.moments),
            share * a.loss + (1.0 - share) * b.loss,
            seen,
        )

    def explain(
        self, view: LabelConflictState, batch: EventBatch, rows: IntArray
    ) -> Sequence[Evidence]:
        """Which label the features speak for, and how clearly."""
        pooled = np.exp(self._read(view, batch).pooled[rows])
        names = [name[:64] for name in batch.label_names]
        likeliest, given = pooled.argmax(axis=1).tolist(), batch.y[rows].tolist()
        return [
            self._sentence(names, p, said, expected)
            for p, said, expected in zip(pooled.tolist(), given, likeliest, strict=True)
        ]

    def _sentence(self, names: list[str], p: list[float], given: int, expected: int) -> Evidence:
        if given == expected:
            text = f"label {names[given]!r} is the likeliest here, but only at {p[given]:.1%}"
        else:
            text = (
                f"label {names[given]!r}, but events with such features are "
                f"{names[expected]!r} in {p[expected]:.0%} of cases and {names[given]!r} "
                f"in {p[given]:.1%}"
            )
        data = {
            "given": names[given],
            "given_probability": round(p[given], 6),
            "expected": names[expected],
            "expected_probability": round(p[expected], 6),
        }
        return Evidence(text, data)

    def _read(self, view: LabelConflictState, batch: EventBatch) -> _Read:
        """What the models say of a batch, computed once for a view."""
        return batch.once(self.name, view, lambda: self._computed(view, batch))

    def _computed(self, view: LabelConflictState, batch: EventBatch) -> _Read:
        classes = max(2, batch.n_classes)
        squared = squared_distances(view.moments, batch)
        densities = log_normalised(gaussians(view.moments, batch).log_joint(squared))
        leaves = view.ferns.leaves(columns_across(batch))
        experts = (
            softmax_log_proba(view.softmax, batch),
            view.ferns.log_proba(leaves, classes),
            densities,
        )
        return _Read(leaves, experts, self._pooled(view, experts))

    def _pooled(self, view: LabelConflictState, experts: tuple[FloatArray, ...]) -> FloatArray:
        """float64[n, C]: the logarithmic pool."""
        weight = np.exp(-self.params.trust * (view.loss - view.loss.min()))
        weight /= weight.sum()
        total = np.zeros_like(experts[0])
        for share, expert in zip(weight.tolist(), experts, strict=True):
            total += share * np.maximum(expert, LEAST_LOG_P)
        return log_normalised(total)
