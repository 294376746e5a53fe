"""Sources whose events all push the model one way.

Each event's influence on a surrogate model (:mod:`monitor.sketches.surrogate`) is compared with
that of the other sources' events of the same minutes (:mod:`monitor.sketches.crowd`), and the
differences are summed by source. For an ordinary source they cancel, and the squared length of
the whitened sum over the number of events is a χ² variable (Hotelling 1931). For a source with a
purpose they add up, whatever the purpose is: flipped labels, a trigger, moved features, scaled
gradients, a slow drift. This is gradient coherence by source, the opposite of what FoolsGold
(Fung et al. 2020) compares, which needs two colluders; here one is enough.

Two corrections keep honest sources out of it: bursts count for fewer events than they hold, and
where sources differ by nature (every user has a taste) the variance between them, estimated from
all of them, is part of the expectation (DerSimonian and Laird 1986).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.arrays import quantiles, starts
from monitor.sketches.crowd import WINDOW_EVENTS, differences
from monitor.sketches.keyed import KeyedTable
from monitor.sketches.refresh import OFTEN_EVENTS, due
from monitor.sketches.shared import sources
from monitor.sketches.surrogate import ERROR, SHAPE, Surrogate, projection, unprojection, width
from monitor.sketches.tastes import Tastes

EVENTS, SENT, LAST_SEEN = range(3)
EXTRA = 3
RING = 256
IDLE = 3e-3
START_RHO = 0.25
RHO_QUANTILE = 0.6
SHOWN = 3


class CoherenceParams(Params):
    """Parameters of :class:`Coherence`."""

    half_life_events: float = Field(default=10_000.0, gt=0.0, description="Memory of the models.")
    memory_events: float = Field(
        default=230.0, gt=0.0, description="Half-life of a source's sum, in its own events."
    )
    suspect_at: float = Field(
        default=0.01, gt=0.0, lt=1.0, description="p below which a source leaves the reference."
    )
    least_events: int = Field(default=256, ge=1, description="Events before anyone is.")
    capacity: int = Field(default=131_072, ge=16, description="Sources remembered.")


@dataclass(frozen=True, slots=True)
class CoherenceState:
    """What is known.

    Attributes
    ----------
    surrogate
        The model that stands for the guarded one.
    spread, mass
        float64[D, D] decayed sum of outer products of vectors about their window's mean; events.
    whiten
        float64[D, D], from vectors to unit variance.
    alive
        Number of directions that are not idle: the degrees of freedom.
    table
        By source: the sum float32[D], the independent events in it, events sent, last seen.
    tail, tail_source
        float64[t, D] and uint64[t]: the last events, for reference.
    ring, measured
        Estimates of ρ, and how many there have been.
    tastes
        How ordinary sources differ from each other.
    """

    surrogate: Surrogate
    spread: FloatArray
    mass: float
    whiten: FloatArray
    alive: int
    table: KeyedTable
    tail: FloatArray
    tail_source: npt.NDArray[np.uint64]
    ring: FloatArray
    measured: int
    tastes: Tastes
    seen: int


@dataclass(frozen=True, slots=True)
class _Judged:
    """A batch's sources (sorted), each event's index into them, their rows, χ² tails in nats."""

    keys: npt.NDArray[np.uint64]
    inverse: IntArray
    rows: npt.NDArray[np.float32]
    nats: FloatArray
    before: FloatArray
    vectors: FloatArray
    correlation: FloatArray


class Coherence:
    """How unlikely it is that an ordinary source's events agree as much as this one's."""

    name: ClassVar[str] = "coherence"
    family: ClassVar[Family] = Family.SYBIL
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    robust: ClassVar[bool] = True
    # The score is −ln of a tail probability, so its own tail has the scale 1 as far as the
    # normal approximation and the two corrections hold.
    scale_bounds: ClassVar[tuple[float, float]] = (1.0, 2.5)

    def __init__(self, params: CoherenceParams | None = None) -> None:
        self.params = params or CoherenceParams()

    def empty(self, n_columns: int) -> CoherenceState:
        """No event seen."""
        size = width(n_columns)
        return CoherenceState(
            surrogate=Surrogate.empty(n_columns),
            spread=np.zeros((size, size)),
            mass=0.0,
            whiten=np.zeros((size, size)),
            alive=0,
            table=KeyedTable.empty(size + EXTRA),
            tail=np.empty((0, size)),
            tail_source=np.empty(0, dtype=np.uint64),
            ring=np.zeros(RING),
            measured=0,
            tastes=Tastes.empty(size),
            seen=0,
        )

    def score(self, view: CoherenceState, batch: EventBatch) -> Scores:
        """−ln of the χ² tail of each event's source, this batch included."""
        if not len(batch) or batch.n_classes < 2 or view.seen < self.params.least_events:
            return Scores.silent(len(batch))
        found = self._judge(view, batch)
        return Scores(
            found.nats[found.inverse], np.ones(len(batch), dtype=bool), found.before[found.inverse]
        )

    def observe(
        self, state: CoherenceState, batch: EventBatch, accepted: BoolArray
    ) -> CoherenceState:
        """Sources are judged by all their events; the models learn from accepted ones."""
        if not len(batch):
            return state
        p = self.params
        found = self._judge(state, batch)
        seen = state.seen + len(batch)
        ring, measured = state.ring.copy(), state.measured
        for value in found.correlation:
            ring[measured % RING] = value
            measured += 1
        spread, mass = self._spread(state, found.vectors, accepted)
        # Under a drift an old whitening makes honest sources stand out; tastes stay for longer.
        moves = state.mass < OFTEN_EVENTS or due(state.seen, seen, always_often=True)
        fits = state.mass < OFTEN_EVENTS or due(state.seen, seen)
        whiten, alive = _whitening(spread, mass) if moves else (state.whiten, state.alive)
        size = state.spread.shape[0]
        sums = found.rows[:, :size].astype(np.float64)
        tastes = state.tastes.put(found.keys, sums, found.rows[:, size + EVENTS].astype(np.float64))
        tail = np.concatenate([state.tail, found.vectors])[-WINDOW_EVENTS:]
        learned = accepted.any() and batch.n_classes >= 2
        return CoherenceState(
            surrogate=state.surrogate.learn(batch, accepted, p.half_life_events)
            if learned
            else state.surrogate,
            spread=spread,
            mass=mass,
            whiten=whiten,
            alive=alive,
            table=state.table.put(
                found.keys,
                found.rows,
                capacity=p.capacity,
                keep_by=state.spread.shape[0] + LAST_SEEN,
            ),
            tail=tail,
            tail_source=np.concatenate([state.tail_source, batch.source])[-WINDOW_EVENTS:],
            ring=ring,
            measured=measured,
            tastes=tastes.fitted(alive) if fits else tastes,
            seen=seen,
        )

    def rescaled(self, state: CoherenceState, columns: IntArray) -> CoherenceState:
        """A column that came alive counts as having had unit variance all along."""
        base = projection(state.surrogate.total.shape[1])[columns]
        off = base.shape[1]
        spread = state.spread.copy()
        own = state.mass * (base.T @ base)
        spread[:off, :off] += own
        spread[-off:, -off:] += own
        reached = (base**2).sum(axis=0)[np.arange(SHAPE) % off]
        place = off + ERROR + np.arange(SHAPE)
        spread[place, place] += state.mass * reached
        whiten, alive = _whitening(spread, state.mass)
        return replace(state, spread=spread, whiten=whiten, alive=alive)

    def merge(self, a: CoherenceState, b: CoherenceState) -> CoherenceState:
        """Sums of the same source add up; models are averaged by events seen."""
        if not b.seen:
            return a
        if not a.seen:
            return b
        share = a.seen / (a.seen + b.seen)
        union = np.union1d(a.table.items()[0], b.table.items()[0])
        left, right = a.table.get(union), b.table.get(union)
        rows = left + right
        rows[:, -EXTRA + LAST_SEEN] = np.maximum(left, right)[:, -EXTRA + LAST_SEEN]
        size = a.spread.shape[0]
        spread, mass = a.spread + b.spread, a.mass + b.mass
        whiten, alive = _whitening(spread, mass)
        return CoherenceState(
            surrogate=a.surrogate.merge(b.surrogate, share),
            spread=spread,
            mass=mass,
            whiten=whiten,
            alive=alive,
            table=KeyedTable.empty(size + EXTRA).put(
                union, rows, capacity=self.params.capacity, keep_by=size + LAST_SEEN
            ),
            tail=a.tail,
            tail_source=a.tail_source,
            ring=share * a.ring + (1.0 - share) * b.ring,
            measured=max(a.measured, b.measured),
            tastes=a.tastes.merge(b.tastes, alive),
            seen=a.seen + b.seen,
        )

    def explain(
        self, view: CoherenceState, batch: EventBatch, rows: IntArray
    ) -> Sequence[Evidence]:
        """In which features, and towards which labels, the source differs from the others."""
        if not len(rows):
            return []
        found = self._judge(view, batch)
        size = view.spread.shape[0]
        # Where no direction is idle this is the plain inverse, at a fraction of the cost.
        idle = view.alive < size
        back: FloatArray = np.asarray(
            np.linalg.pinv(view.whiten, rcond=1e-9) if idle else np.linalg.inv(view.whiten),
            dtype=np.float64,
        )
        # Several events of one source have the same to tell, but for the label.
        account: dict[int, tuple[str, dict[str, Any]]] = {}
        told = []
        for row, who in zip(rows.tolist(), found.inverse[rows].tolist(), strict=True):
            if who not in account:
                account[who] = self._account(batch, row, found.rows[who], back, size)
            text, data = account[who]
            label = batch.label_names[int(batch.y[row])][:64]
            told.append(Evidence(f"{text}; this one says {label!r}", data))
        return told

    def _account(
        self,
        batch: EventBatch,
        row: int,
        stored: npt.NDArray[np.float32],
        back: FloatArray,
        size: int,
    ) -> tuple[str, dict[str, Any]]:
        """What is said of the source of ``row``: a sentence, and figures."""
        base = projection(batch.z.shape[1])
        sent, events = int(stored[size + SENT]), float(stored[size + EVENTS])
        mean = (stored[:size].astype(np.float64) / max(events, 1e-9)) @ back
        shift = mean[: base.shape[1]] @ unprojection(batch.z.shape[1])
        push = float(np.abs(mean[base.shape[1] : base.shape[1] + ERROR]).max())
        worst = np.argsort(-np.abs(shift), kind="stable")[:SHOWN]
        off = [(batch.columns[int(j)], float(shift[j])) for j in worst]
        told = ", ".join(f"{name[:64]} by {by:+.2f}" for name, by in off)
        source = batch.sources[row]
        text = (
            f"source {source[:64]!r} has sent {sent} events that pull the model one way: compared "
            f"with what others sent at the same time, its features are off by {told} "
            f"(standard deviations, same label), and its labels lean away from what the features "
            f"say by {push:.2f}"
        )
        data = {
            "source": source,
            "events": sent,
            "independent_events": round(events, 2),
            "shift": {name: round(by, 3) for name, by in off},
            "label_lean": round(push, 3),
        }
        return text, data

    def _judge(self, state: CoherenceState, batch: EventBatch) -> _Judged:
        """The batch's sources after it, computed once for a state."""
        return batch.once(self.name, state, lambda: self._computed(state, batch))

    def _computed(self, state: CoherenceState, batch: EventBatch) -> _Judged:
        vectors = state.surrogate.vectors(batch)
        here, inverse = sources(batch)
        keys = np.sort(np.concatenate([state.tail_source, here]))
        keys = keys[starts(keys)]
        who = np.concatenate(
            [np.searchsorted(keys, state.tail_source), np.searchsorted(keys, here)[inverse]]
        )
        held = state.table.get(keys)
        size = state.spread.shape[0]
        before = self._nats(held, state)
        suspect = before > -np.log(self.params.suspect_at)
        closes = (state.seen + len(batch)) // WINDOW_EVENTS != state.seen // WINDOW_EVENTS
        before_rows = len(state.tail)
        whitened = np.empty((before_rows + len(vectors), size))
        np.matmul(state.tail, state.whiten, out=whitened[:before_rows])
        np.matmul(vectors, state.whiten, out=whitened[before_rows:])
        found = differences(
            whitened,
            who,
            len(batch),
            suspect,
            self._rho(state),
            dimensions=state.alive,
            closes=closes,
        )
        fresh = who[len(state.tail_source) :]
        sent = np.bincount(fresh, minlength=len(keys))
        keep = 0.5 ** (sent / self.params.memory_events)
        rows = held.copy()
        rows[:, :size] = held[:, :size] * keep[:, None] + found.total
        rows[:, size + EVENTS] = held[:, size + EVENTS] * keep * keep + found.events
        rows[:, size + SENT] += sent
        rows[:, size + LAST_SEEN] = np.where(
            sent > 0, state.seen + len(batch), held[:, size + LAST_SEEN]
        )
        present = np.flatnonzero(sent)
        place = np.full(len(keys), -1)
        place[present] = np.arange(len(present))
        after = self._nats(rows[present], state)
        return _Judged(
            keys[present],
            place[fresh],
            rows[present],
            after,
            before[present],
            vectors,
            found.correlation,
        )

    def _nats(self, rows: npt.NDArray[np.float32], state: CoherenceState) -> FloatArray:
        """float64[u]: how unlikely the sources' sums are for ordinary ones."""
        size = state.spread.shape[0]
        own = rows.astype(np.float64)
        return state.tastes.nats(own[:, :size], own[:, size + EVENTS], state.alive)

    def _rho(self, state: CoherenceState) -> float:
        held = state.ring[: min(state.measured, RING)]
        return max(0.0, float(quantiles(held, RHO_QUANTILE)[0])) if len(held) >= 8 else START_RHO

    def _spread(
        self, state: CoherenceState, vectors: FloatArray, accepted: BoolArray
    ) -> tuple[FloatArray, float]:
        """Outer products about the mean of each window's rows, accepted rows only."""
        spread, mass = state.spread, state.mass
        if accepted.sum() < 2:
            return spread, mass
        keep = 0.5 ** (int(accepted.sum()) / self.params.half_life_events)
        spread, mass = spread * keep, mass * keep
        part = vectors[accepted]
        first = starts(np.flatnonzero(accepted) // WINDOW_EVENTS)
        size = np.diff(np.append(first, len(part)))
        # Centred before it is squared: what never varies must come out as nothing.
        part -= np.repeat(np.add.reduceat(part, first, axis=0) / size[:, None], size, axis=0)
        spread = spread + part.T @ part
        mass += float(len(part) - len(first))
        return spread, mass


def _whitening(spread: FloatArray, mass: float) -> tuple[FloatArray, int]:
    """float64[D, D]: symmetric scaling to unit variance, idle directions to 0; the others' number.

    Symmetric, since it must move smoothly with ``spread``: sums made under an earlier one stay.
    """
    if mass <= 1.0:
        return np.zeros_like(spread), 0
    covariance = spread / mass
    scale = np.sqrt(np.diagonal(covariance))
    usable = scale > 1e-9
    inverse = np.where(usable, 1.0 / np.where(usable, scale, 1.0), 0.0)
    values, axes = np.linalg.eigh(covariance * inverse[:, None] * inverse[None, :])
    root = np.where(values > IDLE, 1.0 / np.sqrt(np.maximum(values, IDLE)), 0.0)
    whiten: FloatArray = inverse[:, None] * ((axes * root) @ axes.T)
    return whiten, int((values > IDLE).sum())
