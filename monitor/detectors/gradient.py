"""Supplied gradients and client updates that are not like the others'.

For events that carry ``gradient``; all others cost nothing. Long vectors are projected to 32
numbers by a fixed random matrix (Johnson and Lindenstrauss 1984), which keeps lengths and angles.
Eight signals, each the answer to an attack:

- *norm*: longer than usual for its label (scaling, model replacement; Bagdasaryan et al. 2020);
- *distance* to the running coordinate-wise median in robust units (Yin et al. 2018);
- *agreement* with the mean direction of its label, in all coordinates (sign flips);
- *fit* to the event's own features, as far as they call for a direction (made-up vectors);
- *Krum*: mean distance to the nearer half of this batch and of recent ordinary vectors
  (Blanchard et al. 2017);
- *shift*: the χ² tail of the source's summed whitened vectors, for shifts that hide inside the
  spread of single vectors but are always the same ("a little is enough", Baruch et al. 2019);
  what sources differ by nature is expected (DerSimonian and Laird 1986);
- *likeness*: how many other sources' sums point the same way (FoolsGold, Fung et al. 2020), for
  sybils that send little each;
- *company*: the same for single vectors, for copies sent under many ordinary names.

Each is put on a common scale by its running quantiles, and the strongest counts. Centres learn
from accepted events only, no source teaching more than its share; sources are judged by all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, HashArray, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.directions import Directions
from monitor.sketches.keyed import KeyedTable
from monitor.sketches.reference_rows import REFRESH_ROWS, ReferenceRows, shared_out
from monitor.sketches.vectors import (
    DIMENSIONS,
    OTHERS,
    SMALLEST,
    chi_nats,
    company,
    followed,
    krum,
    lengths,
    projected,
    remember,
    remember_both,
    summed,
    unit_and_log_length,
    units,
)

NAMES = ("norm", "distance", "agreement", "fit", "krum", "shift", "likeness", "company")
NORM, DISTANCE, AGREEMENT, FIT, KRUM, SHIFT, LIKENESS, COMPANY = range(len(NAMES))
EVENTS, LAST_SEEN = range(2)
EXTRA = 2
LONGEST = 2.0
LANDMARKS = 128
NOTHING = "the event carries no gradient that could be judged"


class GradientParams(Params):
    """Parameters of :class:`Gradient`."""

    seed: int = Field(default=0, ge=0, description="Of the projection of long vectors.")
    least_rows: int = Field(default=128, ge=8, description="Ordinary vectors before any is judged.")
    memory_events: float = Field(
        default=200.0, gt=0.0, description="Half-life of a source's sum, in its own events."
    )
    half_life_events: float = Field(
        default=500.0, gt=0.0, description="Memory of how much ordinary sources differ."
    )
    capacity: int = Field(default=65_536, ge=16, description="Sources remembered.")


@dataclass(frozen=True, slots=True)
class GradientState:
    """What ordinary vectors look like, and what each source's add up to.

    Attributes
    ----------
    columns, dimension
        Encoded columns, and the length of the supplied vectors, 0 before the first.
    rows
        Recent ordinary vectors (projected), with log length as the last coordinate.
    directions
        Which way they point.
    table
        By source: the sum of whitened vectors float32[k], events in it, when last seen.
    source, source_way
        uint64[r] and float32[r, k]: directions of the sums of the sources seen last.
    event, event_way
        uint64[e] and float32[e, k]: directions of the last events, by id.
    excess
        Variance between ordinary sources, per direction.
    """

    columns: int
    dimension: int
    rows: ReferenceRows
    directions: Directions
    table: KeyedTable
    source: HashArray
    source_way: npt.NDArray[np.float32]
    event: HashArray
    event_way: npt.NDArray[np.float32]
    excess: float
    seen: int

    @property
    def size(self) -> int:
        """k, the length of projected vectors."""
        return int(self.source_way.shape[1])


@dataclass(frozen=True, slots=True)
class _Judged:
    """What was found about the m rows with a vector, and their u sources.

    ``signals`` float64[m, 8]; ``keys`` sorted sources; ``table_rows`` theirs after the batch,
    ``before`` their χ² nats before it; ``alike`` int64[u] sources clearly like each.
    """

    row: IntArray
    events: EventBatch
    unit: FloatArray
    way: FloatArray
    log_length: FloatArray
    signals: FloatArray
    keys: HashArray
    inverse: IntArray
    table_rows: npt.NDArray[np.float32]
    before: FloatArray
    source_way: npt.NDArray[np.float32]
    alike: IntArray
    event: HashArray
    event_way: npt.NDArray[np.float32]


class Gradient:
    """How unlike ordinary vectors an event's is, alone or with its source (see the module)."""

    name: ClassVar[str] = "gradient"
    family: ClassVar[Family] = Family.GRADIENT
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    robust: ClassVar[bool] = True

    def __init__(self, params: GradientParams | None = None) -> None:
        self.params = params or GradientParams()

    def empty(self, n_columns: int) -> GradientState:
        """No vector seen."""
        return self._sized(n_columns, 0)

    def _sized(self, columns: int, dimension: int) -> GradientState:
        size = min(dimension, DIMENSIONS)
        nobody = np.zeros(0, dtype=np.uint64)
        nothing = np.zeros((0, size), dtype=np.float32)
        return GradientState(
            columns=columns,
            dimension=dimension,
            rows=ReferenceRows.empty(size + 1, len(NAMES)),
            directions=Directions.empty(columns, dimension, size),
            table=KeyedTable.empty(size + EXTRA),
            source=nobody,
            source_way=nothing,
            event=nobody,
            event_way=nothing,
            excess=0.0,
            seen=0,
        )

    def score(self, view: GradientState, batch: EventBatch) -> Scores:
        """The strongest signal in nats; silent for events without a vector."""
        n = len(batch)
        if batch.gradient is None or not self._speaks(view):
            return Scores.silent(n)
        found = self._judge(view, batch)
        value, context, ready = np.zeros(n), np.zeros(n), np.zeros(n, dtype=bool)
        # The root: a tail that is not quite exponential is then within what Weibull's law allows.
        value[found.row] = np.sqrt(view.rows.nats(found.signals).max(axis=1, initial=0.0))
        suspected = np.zeros((len(found.before), len(NAMES)))
        suspected[:, SHIFT] = found.before
        context[found.row] = np.sqrt(view.rows.nats(suspected)[found.inverse, SHIFT])
        ready[found.row] = True
        return Scores(value, ready, context)

    def observe(
        self, state: GradientState, batch: EventBatch, accepted: BoolArray
    ) -> GradientState:
        """Sources are judged by all their events; the centres learn from accepted ones."""
        if batch.gradient is None:
            return state
        if not state.dimension:
            state = self._sized(state.columns, batch.gradient.shape[1])
        found = self._judge(state, batch)
        n = len(found.row)
        if not n:
            return state
        keep = shared_out(found.events, accepted[found.row])
        centred = state.rows.count >= self.params.least_rows
        rows = state.rows.added(
            np.column_stack([found.way * lengths(found.log_length), found.log_length]),
            found.events.y,
            found.signals if centred else found.signals[:0],
            keep,
        )
        directions = state.directions
        if len(keep):
            taught = found.events.select(keep)
            directions = directions.learned(taught, found.unit[keep], found.way[keep])
        if not centred:
            return replace(state, rows=rows, directions=directions, seen=state.seen + n)
        source, source_way = remember(found.keys, found.source_way, state.source, state.source_way)
        event, event_way = remember(found.event, found.event_way, state.event, state.event_way)
        p, wide = self.params, found.table_rows.astype(np.float64)
        return GradientState(
            columns=state.columns,
            dimension=state.dimension,
            rows=rows,
            directions=directions,
            table=state.table.put(
                found.keys, found.table_rows, capacity=p.capacity, keep_by=state.size + LAST_SEEN
            ),
            source=source,
            source_way=source_way,
            event=event,
            event_way=event_way,
            excess=followed(
                state.excess, wide[:, :-EXTRA], wide[:, -EXTRA + EVENTS], n / p.half_life_events
            ),
            seen=state.seen + n,
        )

    def merge(self, a: GradientState, b: GradientState) -> GradientState:
        """Sums of the same source add up; memories of recent events are united."""
        if not b.seen:
            return a
        if not a.seen:
            return b
        if a.dimension != b.dimension:
            # Two streams under one name: what most events carry is kept.
            return max((a, b), key=lambda held: (held.seen, held.dimension))
        union = np.union1d(a.table.items()[0], b.table.items()[0])
        left, right = a.table.get(union), b.table.get(union)
        added = left + right
        added[:, a.size + LAST_SEEN] = np.maximum(left, right)[:, a.size + LAST_SEEN]
        share = a.seen / (a.seen + b.seen)
        source, source_way = remember_both(a.source, a.source_way, b.source, b.source_way)
        event, event_way = remember_both(a.event, a.event_way, b.event, b.event_way)
        return GradientState(
            columns=a.columns,
            dimension=a.dimension,
            rows=a.rows.merge(b.rows),
            directions=a.directions.merge(b.directions),
            table=KeyedTable.empty(a.size + EXTRA).put(
                union, added, capacity=self.params.capacity, keep_by=a.size + LAST_SEEN
            ),
            source=source,
            source_way=source_way,
            event=event,
            event_way=event_way,
            excess=share * a.excess + (1.0 - share) * b.excess,
            seen=a.seen + b.seen,
        )

    def explain(self, view: GradientState, batch: EventBatch, rows: IntArray) -> Sequence[Evidence]:
        """Which signal spoke, in words, with the figures of all."""
        if batch.gradient is None or not self._speaks(view) or not len(rows):
            return [Evidence(NOTHING) for _ in rows]
        found = self._judge(view, batch)
        place = np.full(len(batch), -1)
        place[found.row] = np.arange(len(found.row))
        nats = view.rows.nats(found.signals)
        return [
            self._sentence(view, found, int(place[r]), nats) if place[r] >= 0 else Evidence(NOTHING)
            for r in rows.tolist()
        ]

    def _sentence(self, view: GradientState, found: _Judged, at: int, nats: FloatArray) -> Evidence:
        kind = int(nats[at].argmax())
        value, usual = float(found.signals[at, kind]), view.rows.quantiles[:, kind]
        source = found.events.sources[at]
        stored = found.table_rows[found.inverse[at]]
        sent = max(1, round(float(stored[view.size + EVENTS])))
        alike = int(found.alike[found.inverse[at]])
        label = found.events.label_names[int(found.events.y[at])][:64]
        further = _times(0.5 * (value - usual[0]))
        text = {
            NORM: f"the gradient is {_times(value)} as long as usual for label {label!r} "
            f"(one in twenty is longer than {_times(float(usual[2]))})",
            DISTANCE: f"the gradient lies {further} as far from the "
            f"median of recent gradients for label {label!r} as ordinary ones do",
            AGREEMENT: f"the gradient points against the others: its direction agrees with their "
            f"mean for label {label!r} by {-value:+.2f} (usual: {-usual[0]:+.2f}; −1 is "
            "opposite), as after a sign flip",
            FIT: f"the gradient is {further} as far as usual from what the features of the event "
            f"and its label {label!r} call for: it does not belong to this event",
            KRUM: f"the gradient is {further} as far from its nearest "
            "neighbours, in this batch and among recent ones, as ordinary ones are",
            SHIFT: f"the gradients of source {source[:64]!r}, {sent} lately, are each within the "
            "usual spread or not far from it, but together they are shifted one way: an ordinary "
            f"source would show this once in e^{value:.0f} times",
            LIKENESS: f"the gradients of source {source[:64]!r} push the same way as those of "
            f"{alike} other sources of the last {OTHERS}, more than independent sources do "
            "(accounts of one hand)",
            COMPANY: "the gradient points the same way, away from the usual, as many others of the "
            f"last {OTHERS} do (its company is {_times(value - usual[0])} the usual), whoever sent "
            "them",
        }[kind]
        data = {
            "signal": NAMES[kind],
            "source": source,
            "source_events": sent,
            "alike_sources": alike,
            "nats": {name: round(float(v), 3) for name, v in zip(NAMES, nats[at], strict=True)},
        }
        return Evidence(text, data)

    def _judge(self, state: GradientState, batch: EventBatch) -> _Judged:
        """The rows with a vector, computed once for a state."""
        return batch.once(self.name, state, lambda: self._computed(state, batch))

    def _computed(self, state: GradientState, batch: EventBatch) -> _Judged:
        given = batch.gradient
        if given is None or (state.dimension and given.shape[1] != state.dimension):
            given = np.full((len(batch), max(1, state.dimension)), np.nan)
        row = np.flatnonzero(~np.isnan(given[:, 0]))
        events = batch.select(row)
        unit, log_length = unit_and_log_length(given[row])
        way = projected(unit, self.params.seed)
        size = way.shape[1]
        vectors = np.column_stack([way * lengths(log_length), log_length])
        off = state.rows.scaled(vectors, events.y)
        signals = np.zeros((len(row), len(NAMES)))
        signals[:, NORM] = log_length - state.rows.centre_of(events.y)[:, size]
        signals[:, DISTANCE] = np.log(np.square(off[:, :size]).mean(axis=1) + SMALLEST)
        signals[:, AGREEMENT] = -state.directions.agreement(unit, events.y)
        signals[:, FIT] = state.directions.misfit(events, way)
        signals[:, KRUM] = krum(off[:, :size], _landmarks(state.rows, size))
        whitened = (off @ state.rows.whiten)[:, :size]
        direction = units(whitened)
        length = np.sqrt(np.square(whitened).sum(axis=1, keepdims=True))
        bounded = direction * np.minimum(length, LONGEST * np.sqrt(size))
        keys, inverse = np.unique(events.source, return_inverse=True)
        held = state.table.get(keys)
        rows = summed(held, bounded, inverse, self.params.memory_events)
        rows[:, size + LAST_SEEN] = state.seen + len(row)
        signals[:, SHIFT] = _nats(rows, state.excess)[inverse]
        source_way = units(rows[:, :size].astype(np.float64)).astype(np.float32)
        likeness, alike = company(keys, source_way, state.source, state.source_way)
        signals[:, LIKENESS] = likeness[inverse]
        event, first = np.unique(events.id_hash, return_index=True)
        event_way = direction.astype(np.float32)
        found, _ = company(events.id_hash, event_way, state.event, state.event_way)
        signals[:, COMPANY] = found
        return _Judged(
            row=row,
            events=events,
            unit=unit,
            way=way,
            log_length=log_length,
            signals=signals,
            keys=keys,
            inverse=inverse,
            table_rows=rows,
            before=_nats(held, state.excess),
            source_way=source_way,
            alike=alike,
            event=event,
            event_way=event_way[first],
        )

    def _speaks(self, state: GradientState) -> bool:
        """Whether centres are known, and usual signals have been measured against them."""
        return state.rows.count >= self.params.least_rows + 2 * REFRESH_ROWS


def _nats(rows: npt.NDArray[np.float32], excess: float) -> FloatArray:
    wide = rows.astype(np.float64)
    return chi_nats(wide[:, :-EXTRA], wide[:, -EXTRA + EVENTS], excess)


def _landmarks(rows: ReferenceRows, size: int) -> FloatArray:
    step = max(1, -(-len(rows.rows) // LANDMARKS))
    return rows.scaled(rows.rows[::step].astype(np.float64), rows.label[::step])[:, :size]


def _times(log_ratio: float) -> str:
    return f"{np.exp(min(log_ratio, 20.0)):.3g} times"
