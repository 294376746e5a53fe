"""Events that were here before: ids that come twice, and feature vectors copied under new ids.

A repeated id is a fact: the second arrival, also inside one batch, scores :data:`CERTAIN`. A
repeated feature vector with the same label is evidence only where such repeats are rare: its score
is −ln of the share of ordinary events whose vector and label had come at least as often before (a
running tail). Where more than ``common`` of ordinary events repeat, as with a few discrete
features, copies say nothing and score 0.

One copy among a few thousand events is no more than rare, and an attack would soon be a part of
what is usual. So copies are counted too: when far more came lately than the stream's own rate
explains (:data:`SURGE` nats, by Chernoff's bound for a Poisson count), each further one scores
:data:`CERTAIN`, until hardly more come than usual (:data:`STAYS`). Those that double the number of
their vector's copies count fully, others a third, so that a client that stutters weighs less than
many vectors. What is usual is learned from what has become old, and during a surge it doubles in
``pace_events`` at most: a campaign is not believed at once, and a stream that begins to repeat
itself for good is believed after a while.

Ids and vectors are remembered from every valid event, also from those held back: they did arrive.
So whoever can guess ids can send them first, and the owner's later event is then the repeat ("id
squatting"). Ids should be unguessable, or carry the source; the evidence names the id, and a
reviewer can release what was held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from monitor.core.types import (
    BoolArray,
    EventBatch,
    Family,
    FloatArray,
    HashArray,
    IntArray,
)
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.recent import RecentKeys, Sorted
from monitor.sketches.tails import tail_nats

CERTAIN = 50.0
SURGE, STAYS = 12.0, 4.0
STUTTER = 1.0 / 3.0
"""What a copy weighs that does not double the number of its vector's copies."""
PRIOR, FEWEST = 0.5, 0.1
"""Copies that might have come beside those that did; and the least that is ever expected."""
LEVELS = 16
MOST_DOUBLINGS = 64.0
_MIX = np.uint64(0x9E3779B97F4A7C15)


class ReplayParams(Params):
    """Parameters of :class:`Replay`."""

    ids: int = Field(default=1 << 17, ge=8, le=1 << 20, description="Ids remembered.")
    vectors: int = Field(default=1 << 16, ge=8, le=1 << 20, description="Vectors remembered.")
    common: float = Field(
        default=0.05, gt=0.0, le=1.0, description="Share of repeats above which they say nothing."
    )
    rate_events: float = Field(
        default=20_000.0, gt=0.0, description="Half-life, in accepted events, of the repeat rates."
    )
    least_events: int = Field(
        default=512, ge=1, description="Accepted events before copied vectors are scored."
    )
    surge_events: int = Field(
        default=1_024, ge=1, description="Accepted events before copies are counted as a surge."
    )
    recent_events: float = Field(
        default=256.0, gt=0.0, description="Half-life, in events, of the count of recent copies."
    )
    pace_events: float = Field(
        default=4_096.0, gt=0.0, description="Events in which the usual rate may double at most."
    )


@dataclass(frozen=True, slots=True)
class Tally:
    """Events that repeated something, and those that could have; all counts fade.

    ``levels`` is float64[LEVELS]: events by level, the bit length of the number of earlier
    occurrences (0, 1, 2-3, 4-7, …); ``counted`` the weights of the copies among them; ``depth`` the
    sum of how many vectors were remembered when each event came.
    """

    levels: FloatArray
    counted: float
    depth: float

    @classmethod
    def empty(cls) -> Tally:
        """Nothing counted."""
        return cls(np.zeros(LEVELS), 0.0, 0.0)

    @classmethod
    def of(cls, copies: IntArray, remembered: int) -> Tally:
        """Of events with so many earlier copies, int64[n], from a memory of so many vectors."""
        levels = np.bincount(_level(copies), minlength=LEVELS).astype(np.float64)
        n = len(copies)
        return cls(levels, float(_weight(copies).sum()), n * (remembered + 0.5 * (n - 1)))

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.levels + other.levels, self.counted + other.counted, self.depth + other.depth
        )

    def times(self, factor: float, copies: float = 1.0) -> Tally:
        """So much of it, and of the copies in it that share of so much."""
        levels = factor * self.levels
        levels[1:] *= copies
        return Tally(levels, factor * copies * self.counted, factor * self.depth)

    def expected(self, events: FloatArray | float, depth: FloatArray | float) -> FloatArray:
        """Weights of copies among so many events, at this tally's rates.

        The larger of what comes at a constant rate, and of what a world of finitely many vectors
        brings, where the chance grows with what is remembered.
        """
        steady = (self.counted + PRIOR) / max(float(self.levels.sum()), 1.0)
        birthdays = self.counted / max(self.depth, 1.0)
        usual: FloatArray = np.maximum(np.maximum(steady * events, birthdays * depth), FEWEST)
        return usual


@dataclass(frozen=True, slots=True)
class ReplayState:
    """Recent ids and (vector, label) keys, and how often vectors repeat: usually, and lately.

    ``surging`` while far more do than usually.
    """

    ids: RecentKeys
    vectors: RecentKeys
    usual: Tally
    recent: Tally
    surging: bool
    seen: int


class Surge(NamedTuple):
    """float64[n] each: nats, copies counted lately, and how many would be usual."""

    nats: FloatArray
    lately: FloatArray
    usual: FloatArray


class Replay:
    """Repeated ids and copied feature vectors (see the module's text)."""

    name: ClassVar[str] = "replay"
    family: ClassVar[Family] = Family.REPLAY
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 2
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = True
    certain: ClassVar[float] = CERTAIN

    def __init__(self, params: ReplayParams | None = None) -> None:
        self.params = params or ReplayParams()

    def empty(self, n_columns: int) -> ReplayState:
        """Nothing seen."""
        p = self.params
        memories = RecentKeys.empty(p.ids), RecentKeys.empty(p.vectors)
        return ReplayState(*memories, Tally.empty(), Tally.empty(), False, 0)

    def score(self, view: ReplayState, batch: EventBatch) -> Scores:
        """:data:`CERTAIN` for a repeated id or one copy too many, else the rarity of repeats."""
        again = _repeated_ids(view, batch)
        copies = _copies(view, batch, again)
        value = self._rarity(view)[_level(copies)]
        value[again | (self._surge(view, copies, again).nats >= _bar(view))] = CERTAIN
        ready = again | (view.seen >= self.params.least_events)
        return Scores(np.where(ready, value, 0.0), ready)

    def observe(self, state: ReplayState, batch: EventBatch, accepted: BoolArray) -> ReplayState:
        """Every event is remembered and counted, or what is held would stay unusual for ever."""
        if not len(batch):
            return state
        again = _repeated_ids(state, batch)
        new = Tally.of(_copies(state, batch, again)[~again], len(state.vectors))
        surging, usual, recent = self._counted(state, new, len(batch))
        return ReplayState(
            state.ids.add_sorted(_ids(batch)),
            state.vectors.add_sorted(_vectors(batch, again)),
            usual,
            recent,
            surging,
            state.seen + int((accepted & ~again).sum()),
        )

    def _counted(self, state: ReplayState, new: Tally, events: int) -> tuple[bool, Tally, Tally]:
        """Whether it surges, what is usual and what is recent after so many events."""
        p, recent = self.params, state.recent
        usual = state.usual.times(0.5 ** (events / p.rate_events))
        if state.seen < p.surge_events:
            return False, usual + new, recent
        fades = 0.5 ** (events / p.recent_events)
        old, after = recent.times(1.0 - fades), recent.times(fades) + new
        surging = _nats(state.usual, after) >= _bar(state)
        if surging:
            doublings = min(events / p.pace_events, MOST_DOUBLINGS)
            most = max(state.usual.counted, PRIOR) * 2.0**doublings
            room = most - usual.counted
            old = old.times(1.0, float(np.clip(room / max(old.counted, 1e-9), 0.0, 1.0)))
        return surging, usual + old, after

    def merge(self, a: ReplayState, b: ReplayState) -> ReplayState:
        """Memories are united up to their capacity, counts added."""
        return ReplayState(
            a.ids.merge(b.ids),
            a.vectors.merge(b.vectors),
            a.usual + b.usual,
            a.recent + b.recent,
            a.surging or b.surging,
            a.seen + b.seen,
        )

    def since(self, state: ReplayState, events: int) -> ReplayState:
        """See :class:`~monitor.detectors.base.Lasting`."""
        recent = state.recent.times(1.0 - 0.5 ** (events / self.params.recent_events))
        surging = state.surging and _nats(state.usual, recent) >= STAYS
        return replace(state, recent=recent, surging=surging)

    def explain(self, view: ReplayState, batch: EventBatch, rows: IntArray) -> Sequence[Evidence]:
        """Which id came again, or how often the vector came under other ids."""
        again = _repeated_ids(view, batch)
        copies = _copies(view, batch, again)
        surge, usual = self._surge(view, copies, again), _share(view)
        found = []
        for r in rows.tolist():
            if again[r]:
                found.append(self._repeated(view, batch, r))
            elif surge.nats[r] >= _bar(view):
                found.append(_surged(batch, r, copies, surge))
            else:
                found.append(_copied(batch, r, copies, usual))
        return found

    def _repeated(self, view: ReplayState, batch: EventBatch, row: int) -> Evidence:
        shown = batch.ids[row][:64]
        times = int(view.ids.count(batch.id_hash[row : row + 1])[0])
        within = int((batch.id_hash[:row] == batch.id_hash[row]).sum())
        reach = len(view.ids) + len(batch)
        text = (
            f"id {shown!r} was already seen in the last {reach} events "
            f"({times + within} times before this one); an id may come once"
        )
        return Evidence(text, {"id": shown, "before": times + within, "reach": reach})

    def _surge(self, view: ReplayState, copies: IntArray, again: BoolArray) -> Surge:
        """How many more copies came lately than usual, as each event sees it.

        Those whose id came ``again`` are no events here, or they would make copies look fewer.
        """
        n = len(copies)
        young = view.seen < self.params.surge_events
        if young or not copies.any() or _share(view) > self.params.common:
            return Surge(np.zeros(n), np.zeros(n), np.zeros(n))
        lately: FloatArray = np.cumsum(_weight(copies)) + view.recent.counted
        came = np.cumsum(~again, dtype=np.float64)
        events: FloatArray = came + float(view.recent.levels.sum())
        remembered = np.where(again, 0.0, came - 1.0 + len(view.vectors))
        depth: FloatArray = np.cumsum(remembered) + view.recent.depth
        usual = view.usual.expected(events, depth)
        nats = tail_nats(lately, usual)  # 0 where no more came than usual
        return Surge(np.where(copies > 0, nats, 0.0), lately, usual)

    def _rarity(self, view: ReplayState) -> FloatArray:
        """float64[LEVELS]: −ln of the share of ordinary events at each level or above."""
        tail = np.cumsum(view.usual.levels[::-1])[::-1]
        share = (tail + 0.5) / (tail[0] + 1.0)
        rarity: FloatArray = np.maximum(-np.log(share), 0.0)
        rarity[0] = 0.0
        return rarity if share[1] <= self.params.common else np.zeros(LEVELS)


def _nats(usual: Tally, recent: Tally) -> float:
    """How unlikely it is that so many copies come where so many are usual."""
    expected = float(usual.expected(float(recent.levels.sum()), recent.depth))
    return float(tail_nats(recent.counted, expected))


def _bar(state: ReplayState) -> float:
    """Nats from which on a copy is one too many."""
    return STAYS if state.surging else SURGE


def _share(state: ReplayState) -> float:
    """Share of ordinary events that repeat an earlier one."""
    levels = state.usual.levels
    return float(levels[1:].sum() / max(levels.sum(), 1.0))


def _surged(batch: EventBatch, row: int, copies: IntArray, surge: Surge) -> Evidence:
    count, label = int(copies[row]), batch.label_names[int(batch.y[row])][:64]
    lately, usual = round(float(surge.lately[row]), 1), round(float(surge.usual[row]), 2)
    text = (
        f"the same feature values with label {label!r} already came {count} times under other "
        f"ids, and such copies come in numbers: {lately:g} lately, where {usual:g} would be usual"
    )
    return Evidence(text, {"copies": count, "label": label, "lately": lately, "usual": usual})


def _copied(batch: EventBatch, row: int, copies: IntArray, usual: float) -> Evidence:
    count, label = int(copies[row]), batch.label_names[int(batch.y[row])][:64]
    text = (
        f"the same feature values with label {label!r} already came {count} times under other "
        f"ids; {usual:.2%} of ordinary events repeat an earlier one"
    )
    return Evidence(text, {"copies": count, "label": label, "usual_share": round(usual, 5)})


def _ids(batch: EventBatch) -> Sorted:
    return batch.once("replay sorted ids", None, lambda: Sorted.of(batch.id_hash))


def _vectors(batch: EventBatch, again: BoolArray) -> Sorted:
    """One key for feature values and label, without those of events whose id came ``again``."""

    def compute() -> Sorted:
        keys: HashArray = batch.content ^ ((batch.y.astype(np.uint64) + np.uint64(1)) * _MIX)
        return Sorted.of(keys[~again])

    return batch.once("replay sorted vectors", again, compute)


def _repeated_ids(state: ReplayState, batch: EventBatch) -> BoolArray:
    def compute() -> BoolArray:
        ids = _ids(batch)
        # Every further one of a key, and the first one too where the memory has it.
        first = ids.order[ids.first]
        repeated = np.ones(len(batch), dtype=bool)
        repeated[first] = state.ids.count_sorted(ids.keys) > 0
        return repeated

    return batch.once("replay ids", state, compute)


def _copies(state: ReplayState, batch: EventBatch, again: BoolArray) -> IntArray:
    """int64[n]: earlier events with this vector and label and another id; 0 for repeated ids."""

    def compute() -> IntArray:
        vectors = _vectors(batch, again)
        before = np.zeros(len(batch), dtype=np.int64)
        held = state.vectors.count_sorted(vectors.keys)
        if held.any() or len(vectors.keys) < len(vectors.order):
            before[~again] = vectors.spread(held) + vectors.earlier()
        return before

    return batch.once("replay copies", state, compute)


def _weight(copies: IntArray) -> FloatArray:
    """float64[n]: 0 for no copy, 1 where there were 1, 2, 4, 8, … before, else less."""
    doubled = copies & (copies - 1) == 0
    weight: FloatArray = np.where(copies > 0, np.where(doubled, 1.0, STUTTER), 0.0)
    return weight


def _level(copies: IntArray) -> IntArray:
    """The bit length of each count, at most LEVELS − 1."""
    level: IntArray = np.minimum(np.frexp(copies.astype(np.float64))[1], LEVELS - 1)
    return level.astype(np.int64)
