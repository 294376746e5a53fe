"""Events that lie where their class has lately been moving.

A boiling frog moves a class a little every day, so that no event is far from what came before it
(Rubinstein et al. 2009). Two baselines of different speed see it: each class's fast mean, this
batch included, against its slow, anchored one. An event scores by its place along the line between
the two, in standard deviations and without its own part in the movement, times what its source's
events of the batch show along that line together, since a drift is carried by all sources and a
frog by some, and times how far the movement is out of the usual: a CUSUM (Page 1954) of the
logarithm of the squared Mahalanobis length over its running mean. ADWIN (Bifet and Gavaldà 2007)
dates the movement, for the explanation.

It does not run by default. Measured on nine streams, 3 % poison, seven attacks: its recall at 1 %
false positives alone is .11 on snapped boiling frogs, from five colluders and from ordinary sources
alike (.31 and .11 without it, by everything else), and .16 and .14 on snapped clean-label points.
In the gate it changed the mean recall of all 126 cells by −.025, nearly all of it on MovieLens,
whose users each go along with something by nature (−.185; elsewhere −.016 to +.004), and held .0013
more of the honest events. Class means of real streams move more, and in more directions, than 3 %
of moved points make them: the direction is then the stream's and not the frog's, and where it is
the frog's, the way towards the other class (``undo``) is known without waiting for a movement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, Int32Array, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.adwin import Adwin
from monitor.sketches.arrays import capacity_for, pad_axis
from monitor.sketches.moments import Gaussians, Moments
from monitor.sketches.shared import (
    NO_VIEW,
    empty_moments,
    gaussians,
    moments_added,
    sources,
    squared_distances,
)

BATCH_EVENTS, SLACK, CUSUM_CAP = 256.0, 0.3, 8.0
SHOWN_FEATURES, FEW_CLASSES = 3, 32
TINY = 1e-9


class SlowDriftParams(Params):
    """Parameters of :class:`SlowDrift`."""

    slow_half_life_events: float = Field(
        default=20_000.0,
        gt=0.0,
        description="Memory of the anchored baseline, in a class's events.",
    )
    fast_half_life_events: float = Field(
        default=300.0, gt=0.0, description="Memory of the fast baseline, in a class's events."
    )
    usual_half_life_events: float = Field(
        default=4_000.0, gt=0.0, description="Memory of how far a class usually moves."
    )
    least_events: float = Field(
        default=100.0, ge=1.0, description="Events of a class before it counts."
    )
    max_classes: int = Field(default=16, ge=1, description="Classes watched, the largest.")


@dataclass(frozen=True, slots=True)
class SlowDriftState:
    """By class: ``anchored`` moments; fast sums, ``weight`` float64[C] and ``total`` float64[C, d].

    ``usual`` float64[C] is the running mean of the squared length of the movement, ``cusum``
    float64[C] the evidence that it is longer now, ``dated`` the windows since when it is as it is.
    """

    anchored: Moments
    weight: FloatArray
    total: FloatArray
    usual: FloatArray
    cusum: FloatArray
    dated: Adwin

    def grown(self, classes: int) -> SlowDriftState:
        """With room for ``classes``."""
        size = capacity_for(classes)
        if size <= len(self.weight):
            return self
        return SlowDriftState(
            self.anchored.grown(classes),
            pad_axis(self.weight, size),
            pad_axis(self.total, size),
            pad_axis(self.usual, size),
            pad_axis(self.cusum, size),
            self.dated.grown(size),
        )


@dataclass(frozen=True, slots=True)
class _Moved:
    """``score`` float64[n]; by class, the ``gap`` float64[C, d] between the baselines.

    ``t`` float64[n] is each event's place along the gap, ``shown`` float64[n] its source's.
    """

    score: FloatArray
    t: FloatArray
    shown: FloatArray
    gap: FloatArray


class SlowDrift:
    """How far an event goes along with its class's latest movement, and whether its source does."""

    name: ClassVar[str] = "slow_drift"
    family: ClassVar[Family] = Family.BOILING_FROG
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False

    def __init__(self, params: SlowDriftParams | None = None) -> None:
        self.params = params or SlowDriftParams()

    def empty(self, n_columns: int) -> SlowDriftState:
        """No events."""
        none = np.zeros(2)
        total = np.zeros((2, n_columns))
        return SlowDriftState(empty_moments(n_columns), none, total, none, none, Adwin.empty(2))

    def score(self, view: SlowDriftState, batch: EventBatch) -> Scores:
        """Place along the movement × the source's × how unusual it is; float64[n], at least 0."""
        if not len(batch):
            return Scores.silent(0)
        known = self._known(view, batch)
        if not known.any():
            return Scores.silent(len(batch))
        return Scores(self._look(view, batch).score.copy(), known[batch.y])

    def observe(
        self, state: SlowDriftState, batch: EventBatch, accepted: BoolArray
    ) -> SlowDriftState:
        """Both baselines, and what is usual, learn from accepted events."""
        if not accepted.any():
            return state
        p, grown = self.params, state.grown(max(2, batch.n_classes))
        count, weight, total = self._faster(grown, batch, np.flatnonzero(~accepted))
        fitted, classes = gaussians(state.anchored, batch), max(2, batch.n_classes)
        length, side = grown.usual.copy(), np.zeros(len(weight))
        known = np.zeros(len(weight), dtype=bool)
        known[:classes] = self._known(state, batch)
        moved = known & (count > 0)
        for c in np.flatnonzero(moved).tolist():
            gap = total[c] / weight[c] - fitted.mean[c]
            length[c] = float(gap @ fitted.scaled(gap[None], c)[0])
            side[c] = self._side(fitted, known, c, gap)
        young = grown.usual <= 0.0
        gain = np.where(young, 1.0, 1.0 - 0.5 ** (count / p.usual_half_life_events)) * moved
        least = fitted.mean.shape[1] / np.maximum(weight, 1.0)
        ratio = np.maximum(length, least) / np.maximum(grown.usual, least)
        step = count / BATCH_EVENTS * (np.log(ratio) - SLACK) * (moved & ~young)
        return SlowDriftState(
            moments_added(state.anchored, batch, accepted, p.slow_half_life_events),
            weight,
            total,
            grown.usual + gain * (length - grown.usual),
            np.clip(grown.cusum + step, 0.0, CUSUM_CAP),
            grown.dated.put(side, moved, len(batch)),
        )

    def rescaled(self, state: SlowDriftState, columns: IntArray) -> SlowDriftState:
        """Columns that came alive count as having had unit variance all along."""
        return replace(state, anchored=state.anchored.with_unit_variance(columns))

    def merge(self, a: SlowDriftState, b: SlowDriftState) -> SlowDriftState:
        """Sums add up; running means are averaged by fast weight, the longer window stays."""
        classes = max(len(a.weight), len(b.weight))
        a, b = a.grown(classes), b.grown(classes)
        weight = a.weight + b.weight
        share = np.where(weight > 0.0, a.weight / np.maximum(weight, TINY), 0.5)
        return SlowDriftState(
            a.anchored.plus(b.anchored),
            weight,
            a.total + b.total,
            share * a.usual + (1.0 - share) * b.usual,
            share * a.cusum + (1.0 - share) * b.cusum,
            a.dated.merge(b.dated),
        )

    def explain(
        self, view: SlowDriftState, batch: EventBatch, rows: IntArray
    ) -> Sequence[Evidence]:
        """Where the class is moving, since when, and how far the event and its source go along."""
        if not len(rows):
            return []
        if not self._known(view, batch).any():
            return [Evidence("too few events of this label to know where it moves") for _ in rows]
        found, view = self._look(view, batch), view.grown(max(2, batch.n_classes))
        since = view.dated.length
        return [self._sentence(batch, found, since, int(row)) for row in rows]

    def _sentence(self, batch: EventBatch, found: _Moved, since: FloatArray, row: int) -> Evidence:
        c = int(batch.y[row])
        order = np.argsort(-np.abs(found.gap[c]), kind="stable")[:SHOWN_FEATURES]
        label, events = batch.label_names[c][:64], int(since[c])
        told = ", ".join(
            f"{batch.columns[int(j)][:64]} {found.gap[c, j]:+.2f} standard deviations"
            for j in order
        )
        text = (
            f"label {label!r} has been moving for about {events} events ({told}), and this event "
            f"lies {found.t[row]:.1f} standard deviations along that way; its source's events of "
            f"that label together {found.shown[row]:.1f}"
        )
        data = {
            "label": label,
            "standard_deviations": round(float(found.t[row]), 3),
            "source_standard_deviations": round(float(found.shown[row]), 3),
            "events": events,
            "moved": {batch.columns[int(j)]: round(float(found.gap[c, j]), 4) for j in order},
        }
        return Evidence(text, data)

    def _known(self, view: SlowDriftState, batch: EventBatch) -> BoolArray:
        """bool[C]: classes with enough events, the largest ones of them."""
        weight = view.anchored.grown(max(2, batch.n_classes)).weight[: max(2, batch.n_classes)]
        known = np.zeros(len(weight), dtype=bool)
        known[np.argsort(-weight, kind="stable")[: self.params.max_classes]] = True
        return np.asarray(known & (weight >= self.params.least_events))

    def _faster(
        self, state: SlowDriftState, batch: EventBatch, left_out: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Counts float64[C] and the fast sums with the batch, less the rows ``left_out``."""
        size = len(state.weight)
        count, total = batch.once(
            f"sums by class {size}", NO_VIEW, lambda: _sums(batch.z, batch.y, size)
        )
        if len(left_out):
            less, part = _sums(batch.z[left_out], batch.y[left_out], size)
            count, total = count - less, total - part
        keep = 0.5 ** (count / self.params.fast_half_life_events)
        return count, state.weight * keep + count, state.total * keep[:, None] + total

    @staticmethod
    def _side(fitted: Gaussians, known: BoolArray, own: int, gap: FloatArray) -> float:
        """The movement's part towards the nearest other class, in standard deviations."""
        others = np.flatnonzero(known)
        others = others[others != own]
        if not len(others):
            return float(np.sqrt(max(gap @ fitted.scaled(gap[None], own)[0], 0.0)))
        between = fitted.mean[others] - fitted.mean[own]
        weight = fitted.scaled(between, own)
        squared = np.maximum(np.einsum("ij,ij->i", weight, between), TINY)
        nearest = int(squared.argmin())
        return float(gap @ weight[nearest] / np.sqrt(squared[nearest]))

    def _look(self, view: SlowDriftState, batch: EventBatch) -> _Moved:
        return batch.once(self.name, view, lambda: self._computed(view, batch))

    def _computed(self, view: SlowDriftState, batch: EventBatch) -> _Moved:
        grown = view.grown(max(2, batch.n_classes))
        fitted, known = gaussians(view.anchored, batch), self._known(view, batch)
        count, weight, total = self._faster(grown, batch, np.empty(0, dtype=np.int64))
        t, shown = np.zeros(len(batch)), np.zeros(len(batch))
        gaps = np.zeros_like(fitted.mean)
        squared = squared_distances(view.anchored, batch)
        keys, inverse = sources(batch)
        for c in np.flatnonzero(known & (count[: len(known)] > 0)).tolist():
            rows = np.flatnonzero(batch.y == c)
            gap = gaps[c] = total[c] / weight[c] - fitted.mean[c]
            along = fitted.scaled(gap[None], c)[0]
            place = batch.z[rows] @ along - fitted.mean[c] @ along
            # Every event has moved the fast mean a little towards itself.
            own = squared[rows, c] / weight[c]
            t[rows] = (place - own) / np.sqrt(max(float(gap @ along), TINY))
            sent = np.bincount(inverse[rows], minlength=len(keys))
            sums = np.bincount(inverse[rows], weights=t[rows], minlength=len(keys))
            shown[rows] = (sums / np.sqrt(np.maximum(sent, 1)))[inverse[rows]]
        unusual = 0.5 + 0.5 * grown.cusum[batch.y] / CUSUM_CAP
        score = np.maximum(t, 0.0) * (1.0 + np.maximum(shown, 0.0)) * unusual
        return _Moved(score, t, shown, gaps)


def _sums(z: FloatArray, y: Int32Array, size: int) -> tuple[FloatArray, FloatArray]:
    """By class, float64[size] and float64[size, d]: the number of events, and the sum of them."""
    count = np.bincount(y, minlength=size)
    if size <= FEW_CLASSES:
        member: Any = np.zeros((size, len(y)))
        member[y, np.arange(len(y))] = 1.0
    else:
        order, ends = np.argsort(y, kind="stable"), np.append(0, np.cumsum(count))
        member = csr_array((np.ones(len(y)), order, ends), shape=(size, len(y)))
    return count.astype(np.float64), np.asarray(member @ z)
