"""Backdoor triggers: a few values that lately come together, with one label, out of nowhere.

The key is (cell of column i, cell of column j, label) on a grid of normal scores. Each key's
recent count, *this batch included*, is held against what was to be expected: the larger of its
long-run rate (learned from accepted events), and of what the two columns' recent values with
the label give when they are independent, so that one column drifting, or one popular value, is
no surprise, and a combination is. Seven choices carry the detector; each was measured on real
streams with honest seasons and regimes, with the poison spread over ordinary sources:

* An occurrence counts by how little the rest of the event and the events before it call for the
  two values (:class:`~monitor.sketches.context.LinearContext`): honest clusters explain
  themselves, written-in values do not.
* The surprise is a negative-binomial log-likelihood ratio, not a ratio: small counts cannot shout,
  and large counts must be off by a factor, since honest rates are not constant.
* The score is the mean over an event's three most surprising pairs: three columns, three pairs.
* What the baseline learns from a pair is bounded by what the baseline expected of it, and what the
  context learns from an event by how well it fits, so that a trigger which nobody stopped does not
  become the new normal. Without these two bounds half of the recall is lost within a day.
* The most surprising events are reviewed: a drift brings a combination with every label that
  belongs to it, a trigger with one (:mod:`~monitor.sketches.review`).
* One grid of .28 standard deviations, wide enough for values that jitter, narrow enough
  that honest changes of rate do not add up. Two grids, .15 and .4,
  were measured: more false alarms in drifts, no more recall, and 3 µs an event.
* On wide streams each event is counted in the pairs of its most suspicious columns only
  (:mod:`~monitor.sketches.picks`). A fixed choice of 96 pairs, which was here before, saw none of a
  trigger's pairs in most streams of 30 and more columns.

Needs no source: a trigger spread over ordinary accounts counts the same. The premise is that of
activation clustering (Chen et al. 2018), without a model: backdoored rows agree with each other in
a way that their class does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.context import Called, LinearContext
from monitor.sketches.lift import (
    Added,
    LiftTable,
    Plan,
    cells_of,
    padded,
    pair_slots,
    plan,
    single_slots,
    value_keys,
)
from monitor.sketches.picks import Picked, pick, wide_table
from monitor.sketches.review import Events, Pairs, reviewed
from monitor.sketches.shared import sources_in_order
from monitor.sketches.surprise import TOP, Float32Array, Scale, among, surprises

NAMED_COLUMNS = 4
READY_SHARE = 0.9


class TriggerParams(Params):
    """Parameters of :class:`Trigger`. Half-lives are in events."""

    cell: float = Field(default=0.28, gt=0.0, description="Grid width in normal scores.")
    wide_cell: float = Field(
        default=0.6, gt=0.0, description="Width of the two grids by which columns are picked."
    )
    recent_events: float = Field(default=3000.0, gt=0.0, description="Half-life of recent counts.")
    anchor_events: float = Field(default=50_000.0, gt=0.0, description="Half-life of the baseline.")
    context_events: float = Field(default=20_000.0, gt=0.0, description="Half-life of relations.")
    bits: int = Field(default=18, ge=4, le=24, description="log2 of the slots of all pairs.")
    single_bits: int = Field(default=10, ge=4, le=16, description="log2 of the slots a column.")
    max_columns: int = Field(default=256, ge=1, description="Columns watched.")
    picked: int = Field(default=12, ge=2, description="Columns of an event whose pairs count.")
    lag: int = Field(default=4, ge=1, description="Events before that count as context.")
    called_for: float = Field(
        default=1.0, ge=0.0, description="Nats of weight lost per nat by which context predicts."
    )
    smooth: float = Field(default=0.5, gt=0.0, description="Count added to both sides.")
    dispersion: float = Field(default=4.0, gt=0.0, description="Negative-binomial size.")
    log_from: float = Field(
        default=0.5, gt=0.0, description="Surprise in nats above which the score is logarithmic."
    )
    least_events: int = Field(default=512, ge=1, description="Accepted events before it speaks.")
    seed: int = Field(default=1, ge=0, description="Chooses hashes, and pairs beyond the limits.")


@dataclass(frozen=True, slots=True)
class TriggerState:
    """Counts of keys, the context model, and the number of accepted events ``seen``.

    ``single``, ``wide``, ``pair``: counts of values (recent ones only), of values on the wide
    grids, and of pairs.
    ``recent_mass``, ``anchor_mass`` float64[w]: decayed number of events counted in each column;
    ``generation`` int64[w]: how often a column has started anew; ``labels`` float64[C]: decayed
    recent events by label, padded as labels appear.
    """

    single: LiftTable
    wide: LiftTable
    pair: LiftTable
    recent_mass: FloatArray
    anchor_mass: FloatArray
    generation: IntArray
    labels: FloatArray
    context: LinearContext
    n_columns: int
    seen: int


@dataclass(frozen=True, slots=True)
class _Look:
    """A batch held against the state.

    ``learned`` float32[p, n]: the weight by which the baseline learns each pair.
    """

    called: Called
    single: Added
    picked: Picked
    pairs: Pairs
    learned: Float32Array
    score: FloatArray
    labels: FloatArray


class Trigger:
    """Batch-inclusive lift of value pairs with a label (see the module's text)."""

    name: ClassVar[str] = "trigger"
    family: ClassVar[Family] = Family.BACKDOOR
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 2
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    # A trigger spread over ordinary sources fills the top of its own reference, so the tail is
    # extrapolated from below it; the logarithm makes the tail of honest streams exponential.
    robust: ClassVar[bool] = True

    def __init__(self, params: TriggerParams | None = None) -> None:
        self.params = params or TriggerParams()

    def one_in(self, partitions: int) -> Trigger:
        """With recent counts that last as many events of the stream.

        Else the recent past of several partitions together reaches several times as far back, and
        values of two seasons, each of which has its own, seem to come together. Measured on
        electricity in four partitions: false flags halved, recall of stray backdoors .80 → .89.
        """
        recent = self.params.recent_events / partitions
        return Trigger(self.params.model_copy(update={"recent_events": recent}))

    def _plan(self, n_columns: int) -> Plan:
        return plan(n_columns, self.params.max_columns, self.params.seed)

    def empty(self, n_columns: int) -> TriggerState:
        """No event seen."""
        p = self.params
        w = len(self._plan(n_columns).columns)
        return TriggerState(
            LiftTable.empty(w << p.single_bits),
            wide_table(w, p.picked, p.single_bits),
            LiftTable.empty(1 << p.bits),
            np.zeros(w),
            np.zeros(w),
            np.zeros(w, dtype=np.int64),
            np.zeros(0),
            LinearContext.empty(w, p.lag),
            n_columns,
            0,
        )

    def score(self, view: TriggerState, batch: EventBatch) -> Scores:
        """ln(1 + s / ``log_from``), s the mean surprise of the three most surprising pairs."""
        n = len(batch)
        if view.seen < self.params.least_events or not n or len(view.recent_mass) < 2:
            return Scores.silent(n)
        surprise = self._look(view, batch).score
        return Scores(np.log1p(surprise / self.params.log_from), np.ones(n, dtype=bool))

    def observe(self, state: TriggerState, batch: EventBatch, accepted: BoolArray) -> TriggerState:
        """Counts take every event, the baseline within its bound; the context accepted ones only.

        Were the baseline to learn accepted events only, an honest change that was once held back
        would be held back for ever.
        """
        n = len(batch)
        if not n:
            return state
        p, look = self.params, self._look(state, batch)
        keep, keep_anchor = 0.5 ** (n / p.recent_events), 0.5 ** (n / p.anchor_events)
        wide = look.picked.added
        return TriggerState(
            replace(state.single, recent=look.single.recent),
            state.wide if wide is None else state.wide.learned(wide, wide.weight, keep_anchor),
            state.pair.learned(look.pairs.counted, look.learned, keep_anchor),
            keep * state.recent_mass + n,
            keep_anchor * state.anchor_mass + n,
            state.generation,
            look.labels,
            state.context.learn(look.called, accepted, p.context_events),
            state.n_columns,
            state.seen + int(accepted.sum()),
        )

    def rescaled(self, state: TriggerState, columns: IntArray) -> TriggerState:
        """Pairs with a column that came alive have no expectation yet, and start anew."""
        fresh = np.isin(self._plan(state.n_columns).columns, columns)
        return replace(
            state,
            single=state.single.without(fresh),
            wide=state.wide.without(np.concatenate([fresh, fresh])),
            recent_mass=np.where(fresh, 0.0, state.recent_mass),
            anchor_mass=np.where(fresh, 0.0, state.anchor_mass),
            generation=state.generation + fresh,
            context=state.context.with_unit_variance(np.flatnonzero(fresh)),
        )

    def merge(self, a: TriggerState, b: TriggerState) -> TriggerState:
        """Counts and moments add; each side's decay stays as it was."""
        if a.seen == 0 and not a.recent_mass.any():
            return b
        if b.seen == 0 and not b.recent_mass.any():
            return a
        size = max(len(a.labels), len(b.labels))
        return TriggerState(
            a.single.merge(b.single),
            a.wide.merge(b.wide),
            a.pair.merge(b.pair),
            a.recent_mass + b.recent_mass,
            a.anchor_mass + b.anchor_mass,
            np.maximum(a.generation, b.generation),
            padded(a.labels, size) + padded(b.labels, size),
            a.context.merge(b.context),
            a.n_columns,
            a.seen + b.seen,
        )

    def explain(self, view: TriggerState, batch: EventBatch, rows: IntArray) -> Sequence[Evidence]:
        """The values that came together, how often, and how often they were expected."""
        if not len(rows):
            return []
        if len(view.recent_mass) < 2:
            return [Evidence("too few columns for a trigger") for _ in rows]
        pairs = self._look(view, batch).pairs
        by_event = np.negative(pairs.surprise.take(rows, axis=1).T, order="C")
        order = np.argsort(by_event, axis=1, kind="stable")[:, :TOP]
        best = order[:, 0]
        telling = np.take_along_axis(by_event, order, axis=1) <= 0.3 * by_event.min(axis=1)[:, None]
        sides = pairs.place[pairs.pairs[order], rows[:, None, None]]
        columns = self._plan(view.n_columns).columns[sides]
        counts = pairs.counted.count[best, rows], pairs.expected(best[None], rows)[0]
        inside = (
            dict.fromkeys(c for tells, both in zip(*told, strict=True) if tells for c in both)
            for told in zip(telling.tolist(), columns.tolist(), strict=True)
        )
        recent = float(view.recent_mass.max()) + len(batch)
        return [
            self._sentence(batch, row, list(those)[:NAMED_COLUMNS], (count, expected, recent))
            for row, those, count, expected in zip(
                *(rows.tolist(), inside, counts[0].tolist(), counts[1].tolist()), strict=True
            )
        ]

    def _sentence(
        self, batch: EventBatch, row: int, columns: list[int], told: tuple[float, float, float]
    ) -> Evidence:
        count, expected, recent = told
        names = [batch.columns[c] for c in columns]
        values = batch.x[row, columns].tolist()
        label = batch.label_names[int(batch.y[row])]
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

    def _weight(self, called: Called) -> Float32Array:
        """float32[w, n] in (0, 1]: how little the context calls for each value."""
        weight: Float32Array = np.clip(called.gain, 0.0, 30.0)
        weight *= np.float32(-self.params.called_for)
        return np.exp(weight, out=weight)

    def _look(self, view: TriggerState, batch: EventBatch) -> _Look:
        """Counts, expectations and surprises, computed once for a view and a batch."""
        return batch.once(self.name, view, lambda: self._computed(view, batch))

    def _computed(self, view: TriggerState, batch: EventBatch) -> _Look:
        p, chosen, n = self.params, self._plan(view.n_columns), len(batch)
        # A column a row; every number here is a count, a weight or a grid cell, none needs doubles.
        with np.errstate(over="ignore"):  # what overflows is at the edge of every grid
            across = batch.g.T.take(chosen.columns, axis=0).astype(np.float32, order="C")
        called = view.context.read(across)
        weight = self._weight(called)
        keep = 0.5 ** (n / p.recent_events)
        labels = keep * padded(view.labels, batch.n_classes)
        labels += np.bincount(batch.y, minlength=len(labels))
        ratio = (keep * view.recent_mass + n) / np.maximum(view.anchor_mass, 1.0)
        cells = cells_of(across, p.cell)
        slot = single_slots(cells, batch.y, chosen, p.single_bits)
        single = view.single.added(slot, weight, keep)
        picked = pick(
            view.wide,
            across,
            weight,
            (batch.y, chosen, ratio.astype(np.float32), keep),
            picked=p.picked,
            cell=p.wide_cell,
            bits=p.single_bits,
            size=p.dispersion,
        )
        keys = value_keys(cells, chosen, view.generation)
        events = Events(cells, keys, weight, batch.y, sources_in_order(batch), labels)
        scale = self._scale(view, picked, labels[batch.y], ratio)
        pairs, learned = self._pairs(
            view, events, (picked, single.recent.take(slot, mode="clip"), scale), keep
        )
        score = reviewed(pairs, events, chosen, p.bits)
        return _Look(called, single, picked, pairs, learned, score, labels)

    def _scale(
        self, view: TriggerState, picked: Picked, of_label: FloatArray, ratio: FloatArray
    ) -> Scale:
        """A pair has been counted since the later one of its columns began."""
        p = self.params
        if not len(ratio) or np.ptp(view.anchor_mass) == 0.0:
            ratio, mass = ratio[:1, None], view.anchor_mass[:1, None]
        else:
            i, j = among(len(picked.place)).T
            by_event = ratio[picked.place], view.anchor_mass[picked.place]
            ratio = np.maximum(by_event[0][i], by_event[0][j])
            mass = np.minimum(by_event[1][i], by_event[1][j])
        return Scale(
            ratio.astype(np.float32),
            of_label.astype(np.float32),
            mass >= READY_SHARE * p.least_events,
            np.float32(p.smooth),
            np.float32(p.dispersion),
        )

    def _pairs(
        self,
        view: TriggerState,
        events: Events,
        held: tuple[Picked, Float32Array, Scale],
        keep: float,
    ) -> tuple[Pairs, Float32Array]:
        picked, counts, scale = held
        place, chosen = picked.place, self._plan(view.n_columns)
        pairs = among(len(place))
        if len(place) < len(events.weight):
            flat = place * place.shape[1] + np.arange(place.shape[1])
            keys, weight, single = (a.take(flat) for a in (events.keys, events.weight, counts))
        else:
            keys, weight, single = events.keys, events.weight, counts
        i, j = pairs.T
        said = events.y.astype(np.uint32)
        slot = pair_slots(keys.take(i, 0), keys.take(j, 0), said, chosen, self.params.bits)
        counted = view.pair.count(slot, weight.take(i, 0) * weight.take(j, 0), keep)
        surprise, learned, score = surprises(counted, single, pairs, scale)
        return Pairs(place, single, pairs, counted, surprise, score, scale), learned
