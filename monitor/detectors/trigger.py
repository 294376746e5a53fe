"""Backdoor triggers: a few values that lately come together, with one label, out of nowhere.

The key is (cell of column i, cell of column j, label) on a grid of normal scores. Each key's
recent count, *this batch included*, is held against what was to be expected: the larger of its
long-run rate (learned from accepted events), and of what the two columns' own recent rates with
the label give when they are independent, so that one column drifting, or one popular value, is
no surprise, and a combination is. Three choices carry the detector; all were measured on real
streams with honest seasons and regimes, see the README:

* An occurrence counts by how little the rest of the event and the events before it call for the
  two values (:class:`~monitor.sketches.context.LinearContext`): honest clusters explain
  themselves, written-in values do not.
* The surprise is a negative-binomial log-likelihood ratio, not a ratio: small counts cannot shout,
  and large counts must be off by a factor, since honest rates are not constant.
* The score is the mean over an event's three most surprising pairs: three columns, three pairs.

Needs no source: a trigger spread over ordinary accounts counts the same. The premise is that of
activation clustering (Chen et al. 2018), without a model: backdoored rows agree with each other in
a way that their class does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.context import LinearContext
from monitor.sketches.lift import ALL_ROWS, LiftTable, Plan, padded, plan, slots_by_group

Float32Array = npt.NDArray[np.float32]
NAMED_COLUMNS = 4


class TriggerParams(Params):
    """Parameters of :class:`Trigger`. Half-lives are in events."""

    cell: float = Field(default=0.15, gt=0.0, description="Grid width in normal scores.")
    recent_events: float = Field(default=1500.0, gt=0.0, description="Half-life of recent counts.")
    anchor_events: float = Field(default=50_000.0, gt=0.0, description="Half-life of the baseline.")
    context_events: float = Field(default=20_000.0, gt=0.0, description="Half-life of relations.")
    bits: int = Field(default=11, ge=4, le=20, description="log2 of the slots a pattern.")
    max_columns: int = Field(default=64, ge=1, description="Columns watched.")
    max_pairs: int = Field(default=128, ge=1, description="Pairs of columns watched.")
    lag: int = Field(default=4, ge=1, description="Events before that count as context.")
    called_for: float = Field(
        default=2.0, ge=0.0, description="Nats of weight lost per nat by which context predicts."
    )
    own: float = Field(default=0.1, ge=0.0, description="Power of the event's own weight.")
    smooth: float = Field(default=0.5, gt=0.0, description="Count added to both sides.")
    dispersion: float = Field(default=4.0, gt=0.0, description="Negative-binomial size.")
    top: int = Field(default=3, ge=1, description="Pairs averaged into the score.")
    log_from: float = Field(
        default=0.5, gt=0.0, description="Surprise in nats above which the score is logarithmic."
    )
    least_events: int = Field(default=512, ge=1, description="Accepted events before it speaks.")
    seed: int = Field(default=1, ge=0, description="Chooses hashes, and pairs beyond the limits.")


@dataclass(frozen=True, slots=True)
class TriggerState:
    """Counts by key, the context model, and the number of accepted events ``seen``."""

    table: LiftTable
    context: LinearContext
    n_columns: int
    seen: int


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Per pair and event: surprise in nats, and the counts behind it (float32[p, n])."""

    surprise: Float32Array
    count: Float32Array
    expected: Float32Array


class Trigger:
    """Batch-inclusive lift of value pairs with a label (see the module's text)."""

    name: ClassVar[str] = "trigger"
    family: ClassVar[Family] = Family.BACKDOOR
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    # A trigger spread over ordinary sources fills the top of its own reference, so the tail is
    # extrapolated from below it; the logarithm makes the tail of honest streams exponential.
    robust: ClassVar[bool] = True

    def __init__(self, params: TriggerParams | None = None) -> None:
        self.params = params or TriggerParams()

    def _plan(self, n_columns: int) -> Plan:
        p = self.params
        return plan(n_columns, p.max_columns, p.max_pairs, p.seed)

    def empty(self, n_columns: int) -> TriggerState:
        """No event seen."""
        chosen = self._plan(n_columns)
        patterns = len(chosen.columns) + len(chosen.pairs)
        context = LinearContext.empty(len(chosen.columns), self.params.lag)
        return TriggerState(LiftTable.empty(patterns, self.params.bits), context, n_columns, 0)

    def score(self, view: TriggerState, batch: EventBatch) -> Scores:
        """ln(1 + s / ``log_from``), s the mean surprise of the ``top`` most surprising pairs."""
        n = len(batch)
        if view.seen < self.params.least_events or not n or not len(self._pairs_of(view)):
            return Scores.silent(n)
        best = _highest(self._pairs(view, batch).surprise, self.params.top)
        surprise = best.mean(axis=0, dtype=np.float64)
        return Scores(np.log1p(surprise / self.params.log_from), np.ones(n, dtype=bool))

    def observe(self, state: TriggerState, batch: EventBatch, accepted: BoolArray) -> TriggerState:
        """Recent counts take every event; the baseline and the context accepted ones only."""
        if not len(batch):
            return state
        p, chosen = self.params, self._plan(state.n_columns)
        g = batch.g[:, chosen.columns]
        weight = self._weight(state, g)
        order = np.concatenate([np.flatnonzero(accepted), np.flatnonzero(~accepted)])
        taken = int(accepted.sum())
        groups = slots_by_group(
            g[order].T, batch.y[order], weight[:, order], chosen, cell=p.cell, bits=p.bits
        )
        half_lives = (p.recent_events, p.anchor_events)
        return TriggerState(
            state.table.add(groups, batch.y, batch.n_classes, taken, half_lives),
            state.context.learn(g, accepted, p.context_events),
            state.n_columns,
            state.seen + taken,
        )

    def rescaled(self, state: TriggerState, columns: IntArray) -> TriggerState:
        """Starts anew: pairs with a column that came alive have no expectation yet."""
        return self.empty(state.n_columns)

    def merge(self, a: TriggerState, b: TriggerState) -> TriggerState:
        """Counts and moments add; each side's decay stays as it was."""
        if a.seen == 0 and a.table.recent_mass == 0.0:
            return b
        if b.seen == 0 and b.table.recent_mass == 0.0:
            return a
        return TriggerState(
            a.table.merge(b.table), a.context.merge(b.context), a.n_columns, a.seen + b.seen
        )

    def explain(self, view: TriggerState, batch: EventBatch, rows: IntArray) -> Sequence[Evidence]:
        """The values that came together, how often, and how often they were expected."""
        if not len(rows):
            return []
        if not len(self._pairs_of(view)):
            return [Evidence("too few columns for a trigger") for _ in rows]
        found = self._pairs(view, batch, rows)
        recent = view.table.recent_mass + len(batch)
        return [
            self._sentence(view, batch, found, (int(row), place), recent)
            for place, row in enumerate(rows)
        ]

    def _sentence(
        self,
        view: TriggerState,
        batch: EventBatch,
        found: _Pairs,
        at: tuple[int, int],
        recent: float,
    ) -> Evidence:
        chosen = self._plan(view.n_columns)
        row, place = at
        order = np.argsort(-found.surprise[:, place], kind="stable")[: self.params.top]
        best = int(order[0])
        telling = [
            r for r in order if found.surprise[r, place] >= 0.3 * found.surprise[best, place]
        ]
        inside = dict.fromkeys(int(i) for r in telling for i in chosen.pairs[r])
        columns = [int(chosen.columns[i]) for i in inside][:NAMED_COLUMNS]
        names = [batch.columns[c] for c in columns]
        values = [float(batch.x[row, c]) for c in columns]
        label = batch.label_names[int(batch.y[row])]
        count, expected = float(found.count[best, place]), float(found.expected[best, place])
        shown = [f"{name[:64]}≈{value:.4g}" for name, value in zip(names, values, strict=True)]
        text = (
            f"{', '.join(shown[:-1])} and {shown[-1]} together with label {label[:64]!r} came "
            f"about {count:.1f} times in the last ~{recent:.0f} events where {expected:.1f} were "
            "expected (counting only values that the rest of the event does not call for)"
        )
        data = {
            "columns": names,
            "values": values,
            "label": label,
            "count": round(count, 2),
            "expected": round(expected, 2),
            "lift": round((count + self.params.smooth) / (expected + self.params.smooth), 2),
        }
        return Evidence(text, data)

    def _pairs_of(self, view: TriggerState) -> IntArray:
        return self._plan(view.n_columns).pairs

    def _weight(self, state: TriggerState, g: FloatArray) -> Float32Array:
        """float32[w, n] in (0, 1]: how little the context calls for each value."""
        gain = np.clip(state.context.gain(g).T, 0.0, 30.0)
        weight: Float32Array = np.exp(-self.params.called_for * gain).astype(np.float32)
        return weight

    def _pairs(
        self, view: TriggerState, batch: EventBatch, rows: IntArray | slice = ALL_ROWS
    ) -> _Pairs:
        """Every pair's surprise at ``rows``, given the whole batch."""
        p, table, chosen = self.params, view.table, self._plan(view.n_columns)
        w, n = len(chosen.columns), len(batch)
        g = batch.g[:, chosen.columns]
        weight = self._weight(view, g)
        own = weight[:, rows] ** np.float32(p.own)
        keep = 0.5 ** (n / p.recent_events)
        ratio = np.float32((keep * table.recent_mass + n) / max(table.anchor_mass, 1.0))
        labels = keep * padded(table.labels, batch.n_classes)
        labels = labels + np.bincount(batch.y, minlength=len(labels))
        of_label = labels[batch.y[rows]].astype(np.float32)
        single = np.empty(own.shape, dtype=np.float32)
        shape = (len(chosen.pairs), own.shape[1])
        found = _Pairs(*(np.empty(shape, dtype=np.float32) for _ in range(3)))
        for group in slots_by_group(g.T, batch.y, weight, chosen, cell=p.cell, bits=p.bits):
            count, expected = table.look(group, keep, rows)
            if group.first < w:
                single[group.left] = count
                continue
            expected *= ratio
            independent = single[group.left] * single[group.right]
            independent /= of_label
            np.maximum(expected, independent, out=expected)
            part = slice(group.first - w, group.first - w + len(count))
            found.count[part], found.expected[part] = count, expected
            surprise = _surprise(count, expected, p.smooth, p.dispersion)
            surprise *= own[group.left]
            np.multiply(surprise, own[group.right], out=found.surprise[part])
        return found


def _surprise(
    count: Float32Array, expected: Float32Array, smooth: float, size: float
) -> Float32Array:
    """Negative-binomial log-likelihood ratio of too many, in nats; 0 for too few.

    Works in place: both arguments are used up.
    """
    a, b, k = count, expected, np.float32(size)
    a += np.float32(smooth)
    b += np.float32(smooth)
    np.maximum(a, b, out=a)
    gain: Float32Array = a / b
    np.log(gain, out=gain)
    gain *= a
    a += k
    b += k
    loss = a / b
    np.log(loss, out=loss)
    loss *= a
    gain -= loss
    return np.maximum(gain, np.float32(0.0), out=gain)


def _highest(values: Float32Array, top: int) -> Float32Array:
    """The ``top`` highest of each column of float32[p, n], p ≥ 1, highest first.

    A running insertion over rows: many times faster than partitioning along the first axis.
    """
    best = [values[0].copy()]
    for row in values[1:]:
        left = row
        for held in best:
            lower = np.minimum(held, left)
            np.maximum(held, left, out=held)
            left = lower
        if len(best) < top:
            best.append(left.copy())
    return np.stack(best)
