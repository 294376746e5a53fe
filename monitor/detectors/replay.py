"""Events that were here before: ids that come twice, and feature vectors copied under new ids.

A repeated id is a fact: the second arrival, also inside one batch, scores :data:`CERTAIN`. A
repeated feature vector with the same label is evidence only where such repeats are rare: its score
is −ln of the share of ordinary events whose vector and label had come at least as often before
(a running tail, learned from accepted events). Where more than ``common`` of ordinary events
repeat, as with a few discrete features, copies say nothing and score 0.

Ids and vectors are remembered from every valid event, also from those held back: they did arrive.
So whoever can guess ids can send them first, and the owner's later event is then the repeat ("id
squatting"). Ids should be unguessable, or carry the source; the evidence names the id, and a
reviewer can release what was held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

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

CERTAIN = 50.0
LEVELS = 16
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


@dataclass(frozen=True, slots=True)
class ReplayState:
    """Recent ids and (vector, label) keys, and how often ordinary vectors repeat.

    ``repeats`` is float64[LEVELS]: decayed accepted events by level, the bit length of the number
    of earlier occurrences (0, 1, 2-3, 4-7, …).
    """

    ids: RecentKeys
    vectors: RecentKeys
    repeats: FloatArray
    seen: int


class Replay:
    """Repeated ids and copied feature vectors (see the module's text)."""

    name: ClassVar[str] = "replay"
    family: ClassVar[Family] = Family.REPLAY
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = True
    certain: ClassVar[float] = CERTAIN

    def __init__(self, params: ReplayParams | None = None) -> None:
        self.params = params or ReplayParams()

    def empty(self, n_columns: int) -> ReplayState:
        """Nothing seen."""
        p = self.params
        return ReplayState(
            RecentKeys.empty(p.ids), RecentKeys.empty(p.vectors), np.zeros(LEVELS), 0
        )

    def score(self, view: ReplayState, batch: EventBatch) -> Scores:
        """:data:`CERTAIN` for a repeated id, else the graded rarity of the vector's repeats."""
        again = _repeated_ids(view, batch)
        value = self._rarity(view)[_level(_copies(view, batch, again))]
        value[again] = CERTAIN
        ready = again | (view.seen >= self.params.least_events)
        return Scores(np.where(ready, value, 0.0), ready)

    def observe(self, state: ReplayState, batch: EventBatch, accepted: BoolArray) -> ReplayState:
        """Every event is remembered; the repeat rates learn from accepted ones only."""
        if not len(batch):
            return state
        again = _repeated_ids(state, batch)
        learned = accepted & ~again
        count = int(learned.sum())
        keep = 0.5 ** (count / self.params.rate_events)
        level = _level(_copies(state, batch, again))[learned]
        return ReplayState(
            state.ids.add_sorted(_ids(batch)),
            state.vectors.add_sorted(_vectors(batch, again)),
            keep * state.repeats + np.bincount(level, minlength=LEVELS),
            state.seen + count,
        )

    def merge(self, a: ReplayState, b: ReplayState) -> ReplayState:
        """Memories are united up to their capacity, rates added."""
        return ReplayState(
            a.ids.merge(b.ids), a.vectors.merge(b.vectors), a.repeats + b.repeats, a.seen + b.seen
        )

    def explain(self, view: ReplayState, batch: EventBatch, rows: IntArray) -> Sequence[Evidence]:
        """Which id came again, or how often the vector came under other ids."""
        again = _repeated_ids(view, batch)
        copies = _copies(view, batch, again)
        total = max(float(view.repeats.sum()), 1.0)
        usual = float(view.repeats[1:].sum()) / total
        return [
            self._repeated(view, batch, int(r)) if again[r] else _copied(batch, r, copies, usual)
            for r in rows.tolist()
        ]

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

    def _rarity(self, view: ReplayState) -> FloatArray:
        """float64[LEVELS]: −ln of the share of ordinary events at each level or above."""
        tail = np.cumsum(view.repeats[::-1])[::-1]
        share = (tail + 0.5) / (tail[0] + 1.0)
        rarity: FloatArray = np.maximum(-np.log(share), 0.0)
        rarity[0] = 0.0
        return rarity if share[1] <= self.params.common else np.zeros(LEVELS)


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


def _level(copies: IntArray) -> IntArray:
    """The bit length of each count, at most LEVELS − 1."""
    level: IntArray = np.minimum(np.frexp(copies.astype(np.float64))[1], LEVELS - 1)
    return level.astype(np.int64)
