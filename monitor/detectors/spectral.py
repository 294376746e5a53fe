"""A direction in which a class has lately begun to spread: spectral signatures, for streams.

Poison with one purpose adds variance to its class along few directions, and lies far out along
them (Tran, Li and Madry 2018). On the plain covariance honest structure hides that, so the class
is whitened by its long-run covariance first (SPECTRE, Hayase et al. 2021): what counts is how a
decayed recent covariance, *this batch included*, differs from the long-run one, which learns
accepted events only. The score is the sum of an event's squared projections on the top
generalised eigenvectors, each weighed by 1 − 1/e, with e the eigenvalue in units of

* the edge (1 + √(d/n))², above which sampling noise alone gives no eigenvalue (Marchenko and
  Pastur 1967; Johnstone 2001), n the effective number of recent events; and
* the variance of the bulk of the batch along that direction, by its median absolute deviation. A
  drift widens the whole class, poison adds a minority far out. Projections are in units of the
  same bulk: without that, 7 % of electricity's honest events fell below 1 %, with it 2 %.

Beyond 64 columns a seeded choice of 64 is watched.

Not in the default set. Measured on seven real streams, 3 % poison by ordinary sources, recall at
1 % false positives by the detector's own p-value (in brackets the trigger detector's): backdoor .24
(.55), jittered .17 (.37), additive .36 (.25), snapped gradient .17 (.36). It sees what pair lift
does not where a trigger is an added amount, and is nearly blind where classes are small. Added to
the gate, the mean recall over seven attacks fell from .32 to .28, seeds 0 and 1, most of it on
streams of a thousand or two events (phishing .44 to .30, segments .41 to .29), since a second
member halves what the backdoor channel may say; no stream of many events changed by more than .02.
Clean streams: 2.0 % flagged with and without it, phishing 1.4 % to 4.2 %. Cost: 3 to 4 % of the
gate's at 16 columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, Int32Array, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.arrays import capacity_for, pad_axis
from monitor.sketches.moments import FULL_COLUMNS, Moments
from monitor.sketches.shared import empty_moments, gaussians, moments_added

Float32Array = npt.NDArray[np.float32]
SHOWN_FEATURES = 3
# So many last events join the batch in saying how wide the bulk of a class is.
TAIL = 1024
# Medians are taken of about so many.
ENOUGH = 512
# Of these many events is the prior that it is as wide as in the long run.
PRIOR_EVENTS = 30.0
LEAST_BULK = 0.25
MAD_TO_DEVIATION = 0.6745


class SpectralParams(Params):
    """Parameters of :class:`Spectral`. Half-lives are in events of a class."""

    recent_events: float = Field(default=1_000.0, gt=0.0, description="Half-life of the recent.")
    half_life_events: float = Field(
        default=20_000.0, gt=0.0, description="Half-life of the long run."
    )
    least_events: float = Field(
        default=64.0, ge=2.0, description="Events of a class before it is judged."
    )
    directions: int = Field(default=8, ge=1, description="Leading directions of a class.")
    max_classes: int = Field(
        default=16, ge=1, description="Classes judged in a batch, those with most events in it."
    )
    seed: int = Field(default=1, ge=0, description="Chooses columns beyond 64.")


@dataclass(frozen=True, slots=True)
class SpectralState:
    """Long-run and recent moments of each class.

    ``square`` float64[C]: decayed sum of squared weights behind the recent ones, which give their
    effective number of events. ``tail`` float32[t, d] and ``tail_y`` int32[t] are the last events.
    """

    slow: Moments
    fast: Moments
    square: FloatArray
    tail: Float32Array
    tail_y: Int32Array
    n_columns: int


@dataclass(frozen=True, slots=True)
class _Class:
    """One class's events in a batch.

    ``rows`` int64[m]; ``along`` float64[m, k], projections in bulk deviations; ``weight`` and
    ``spread`` float64[k]: weight, and variance against the long run, of each direction; ``edge``:
    the largest such variance that chance explains; ``axes`` float64[d, k]; ``centre`` float64[d].
    """

    rows: IntArray
    along: FloatArray
    weight: FloatArray
    spread: FloatArray
    edge: float
    axes: FloatArray
    centre: FloatArray


class Spectral:
    """ln(1 + weighted squared projection on where the class has lately begun to spread)."""

    name: ClassVar[str] = "spectral"
    family: ClassVar[Family] = Family.BACKDOOR
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False

    def __init__(self, params: SpectralParams | None = None) -> None:
        self.params = params or SpectralParams()

    def empty(self, n_columns: int) -> SpectralState:
        """No events."""
        width = min(n_columns, FULL_COLUMNS)
        nothing, no_rows = empty_moments(width), np.zeros((0, width), dtype=np.float32)
        nobody = np.zeros(0, dtype=np.int32)
        return SpectralState(nothing, nothing, np.zeros(2), no_rows, nobody, n_columns)

    def score(self, view: SpectralState, batch: EventBatch) -> Scores:
        """The score float64[n]; silent for classes with little past, or few events here."""
        value, ready = np.zeros(len(batch)), np.zeros(len(batch), dtype=bool)
        for found in self._look(view, batch).values():
            value[found.rows] = np.log1p(np.square(found.along) @ found.weight)
            ready[found.rows] = True
        return Scores(value, ready)

    def observe(
        self, state: SpectralState, batch: EventBatch, accepted: BoolArray
    ) -> SpectralState:
        """The recent past is made of all events, the long run of accepted ones."""
        if not len(batch):
            return state
        slow, seen = state.slow, self._watched(state, batch)
        if accepted.any():
            slow = moments_added(slow, seen, accepted, self.params.half_life_events)
        fast, square = self._recent(state, batch)
        tail = np.concatenate([state.tail, seen.z[-TAIL:].astype(np.float32)])[-TAIL:]
        tail_y = np.concatenate([state.tail_y, batch.y[-TAIL:]])[-TAIL:]
        return SpectralState(slow, fast, square, tail, tail_y, state.n_columns)

    def rescaled(self, state: SpectralState, columns: IntArray) -> SpectralState:
        """Columns that came alive count as having had unit variance all along."""
        alive = np.flatnonzero(np.isin(_columns(state.n_columns, self.params.seed), columns))
        slow, fast = (held.with_unit_variance(alive) for held in (state.slow, state.fast))
        return replace(state, slow=slow, fast=fast)

    def merge(self, a: SpectralState, b: SpectralState) -> SpectralState:
        """Sums add up, each side keeps its own forgetting; the last events of both, evenly."""
        size = max(len(a.square), len(b.square))
        keep = [max(TAIL // 2, TAIL - len(other.tail)) for other in (b, a)]
        return SpectralState(
            a.slow.plus(b.slow),
            a.fast.plus(b.fast),
            pad_axis(a.square, size) + pad_axis(b.square, size),
            np.concatenate([a.tail[-keep[0] :], b.tail[-keep[1] :]]),
            np.concatenate([a.tail_y[-keep[0] :], b.tail_y[-keep[1] :]]),
            a.n_columns,
        )

    def explain(self, view: SpectralState, batch: EventBatch, rows: IntArray) -> Sequence[Evidence]:
        """Along which features the class spreads, how much, and how far out the event is."""
        found = self._look(view, batch)
        return [self._sentence(batch, found.get(int(batch.y[row])), int(row)) for row in rows]

    def _sentence(self, batch: EventBatch, found: _Class | None, row: int) -> Evidence:
        label = batch.label_names[int(batch.y[row])][:64]
        if found is None:
            return Evidence(f"too few events with label {label!r} to say where they spread")
        own = found.along[np.searchsorted(found.rows, row)]
        k = int((found.weight * own * own).argmax())
        if found.weight[k] <= 0.0:
            return Evidence(f"events with label {label!r} spread as they did in the long run")
        columns = _columns(len(batch.columns), self.params.seed)
        off = (batch.z[row, columns] - found.centre) * found.axes[:, k] * np.sign(own[k])
        mostly = columns[np.argsort(-off, kind="stable")[:SHOWN_FEATURES]]
        shown = {batch.columns[int(j)][:64]: float(batch.x[row, j]) for j in mostly}
        told = ", ".join(f"{name}={value:.4g}" for name, value in shown.items())
        text = (
            f"events with label {label!r} have lately {found.spread[k]:.1f} times their usual "
            f"variance in one direction (chance explains {found.edge:.1f}), made by a few far out; "
            f"this one lies {abs(own[k]):.1f} deviations out, mostly by {told}, as events with a "
            "common trigger do"
        )
        data = {
            "label": label,
            "variance_ratio": round(float(found.spread[k]), 3),
            "by_chance": round(found.edge, 3),
            "deviations": round(float(abs(own[k])), 3),
            "features": shown,
        }
        return Evidence(text, data)

    def _watched(self, state: SpectralState, batch: EventBatch) -> EventBatch:
        """The batch with the columns that are watched."""
        if state.n_columns <= FULL_COLUMNS:
            return batch
        columns = _columns(state.n_columns, self.params.seed)
        # Remembered, so that what is remembered with it is found again.
        return batch.once(
            "spectral columns", None, lambda: replace(batch, z=batch.z[:, columns], memo={})
        )

    def _recent(self, state: SpectralState, batch: EventBatch) -> tuple[Moments, FloatArray]:
        """The recent moments and their squared weights, this batch included."""

        def compute() -> tuple[Moments, FloatArray]:
            half_life, classes = self.params.recent_events, max(2, batch.n_classes)
            z = self._watched(state, batch).z
            square = pad_axis(state.square, capacity_for(classes))
            came = np.bincount(batch.y, minlength=len(square))
            fast = state.fast.add(z, batch.y, classes, half_life)
            return fast, square * 0.25 ** (came / half_life) + came

        return batch.once("spectral recent", state, compute)

    def _look(self, view: SpectralState, batch: EventBatch) -> dict[int, _Class]:
        """By class that can be judged, what was found; computed once for a view."""
        return batch.once(self.name, view, lambda: self._computed(view, batch))

    def _computed(self, view: SpectralState, batch: EventBatch) -> dict[int, _Class]:
        classes = max(2, batch.n_classes)
        came = np.bincount(batch.y, minlength=classes)
        known = view.slow.grown(classes).weight[: len(came)] >= self.params.least_events
        most = np.argsort(-came, kind="stable")[: self.params.max_classes]
        judged = most[(came[most] > 0) & known[most]]
        if not len(judged):
            return {}
        fast, square = self._recent(view, batch)
        slow, seen = view.slow.grown(classes), self._watched(view, batch)
        inverse = gaussians(view.slow, seen).inverse
        found = {}
        for c in judged.tolist():
            whiten = np.linalg.cholesky(inverse[c if len(inverse) > 1 else 0])
            change = whiten.T @ (_covariance(fast, c) - _covariance(slow, c)) @ whiten
            values, vectors = np.linalg.eigh(change)
            top = slice(-1, -1 - self.params.directions, -1)
            # The whitened long run, whose covariance is shrunk, has unit variance by definition.
            spread, axes = 1.0 + values[top], whiten @ vectors[:, top]
            effective = fast.weight[c] ** 2 / square[c]
            edge = float((1.0 + np.sqrt(len(values) / effective)) ** 2)
            rows, centre = np.flatnonzero(batch.y == c), fast.total[c] / fast.weight[c]
            before = (view.tail[view.tail_y == c] - centre) @ axes
            along, bulk = _in_deviations((seen.z[rows] - centre) @ axes, before)
            weight = np.maximum(1.0 - edge * bulk / np.maximum(spread, 1e-9), 0.0)
            found[c] = _Class(rows, along, weight, spread, edge, axes, centre)
        return found


def _in_deviations(along: FloatArray, before: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Projections float64[m, k] about the bulk's median in its deviations, and its variances.

    ``before`` float64[t, k] are projections of the events before.
    """
    everything = np.concatenate([before, along])
    # Contiguous by direction, which is what numpy is fast at, and no more than are needed.
    some = np.ascontiguousarray(everything[:: max(1, len(everything) // ENOUGH)].T)
    m, middle = len(everything), np.median(some, axis=1)
    deviation = np.median(np.abs(some - middle[:, None]), axis=1) / MAD_TO_DEVIATION
    bulk = (m * np.square(deviation) + PRIOR_EVENTS) / (m + PRIOR_EVENTS)
    bulk = np.maximum(bulk, LEAST_BULK)
    return (along - middle * (m / (m + PRIOR_EVENTS))) / np.sqrt(bulk), bulk


def _covariance(moments: Moments, c: int) -> FloatArray:
    """float64[d, d]: of class ``c``, which has events."""
    mean = moments.total[c] / moments.weight[c]
    return np.asarray(moments.outer[c] / moments.weight[c] - np.outer(mean, mean))


@lru_cache(maxsize=64)
def _columns(n_columns: int, seed: int) -> IntArray:
    """int64[min(d, 64)], sorted: the columns watched."""
    if n_columns <= FULL_COLUMNS:
        return np.arange(n_columns)
    chosen = np.random.default_rng([seed, n_columns]).permutation(n_columns)[:FULL_COLUMNS]
    return np.sort(chosen)
