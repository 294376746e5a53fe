"""How much of its own class, and how much of the others, lies where an event lies.

Half-space trees (Tan, Ting and Liu 2011, sections 3 and 4.2): trees whose splits are drawn before
any event is seen, each halving the work range of a random column, and counts of events in leaves.
They are scored by mass, not by depth, and by class: the score is the mean over the trees of
ln(share of the other classes' events in the leaf / share of the own class's events there). An
event that was moved from its class towards another gains on one side and loses on the other, also
where neither loss alone stands out.

Splits lie on the normal scores ``g``, so the work range is the same for every column and stream;
counts decay instead of changing windows, so there is no moment at which nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, Int32Array, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.arrays import capacity_for, pad_axis

REACH = 4.0
"""Normal scores between which the work ranges are drawn."""
MAX_CELLS = 1 << 20
FEWEST_TREES = 4
PRIOR_EVENTS = 0.5
SHOWN = 3

Counts = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class HalfSpaceParams(Params):
    """Parameters of :class:`HalfSpace`."""

    trees: int = Field(default=16, ge=FEWEST_TREES, le=256, description="Trees.")
    depth: int = Field(default=8, ge=2, le=12, description="Splits from the root to a leaf.")
    half_life_events: float = Field(
        default=20_000.0, gt=0.0, description="Events after which a count has half forgotten."
    )
    least_events: float = Field(
        default=30.0, ge=1.0, description="Events of a class, and of all others, before it speaks."
    )
    seed: int = Field(default=7, ge=0, description="Of the splits; states of one seed merge.")


@dataclass(frozen=True, slots=True)
class HalfSpaceState:
    """T complete trees of depth D and what fell into their leaves.

    Nodes are in arrays, level by level: those of level l are T · 2^l in a row, tree after tree,
    and the children of the i-th are the 2i-th and the (2i + 1)-th of the next level.

    Attributes
    ----------
    column
        int32[T · (2^D − 1)], the column that a node splits.
    cut
        float32[T · (2^D − 1)], values above it go right.
    mass
        float32[C, T', 2^D], decayed events by class, tree and leaf; T' ≤ T, fewer where there are
        many classes.
    weight
        float64[C], decayed events by class.
    """

    column: np.ndarray[tuple[int, ...], np.dtype[np.int32]]
    cut: Counts
    mass: Counts
    weight: FloatArray


class HalfSpace:
    """Mass of the other classes against that of the own class, around an event."""

    name: ClassVar[str] = "half_space"
    family: ClassVar[Family] = Family.CLEAN_LABEL
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False

    def __init__(self, params: HalfSpaceParams | None = None) -> None:
        self.params = params or HalfSpaceParams()

    def empty(self, n_columns: int) -> HalfSpaceState:
        """No events; splits drawn from the seed."""
        p = self.params
        column, cut = _grown(n_columns, p.trees, p.depth, p.seed)
        mass = np.zeros((2, p.trees, 1 << p.depth), dtype=np.float32)
        return HalfSpaceState(column, cut, mass, np.zeros(2))

    def score(self, view: HalfSpaceState, batch: EventBatch) -> Scores:
        """float64[n]; silent for classes with few events, and while there is only one."""
        if not len(batch):
            return Scores.silent(0)
        weight = pad_axis(view.weight, capacity_for(batch.n_classes))
        least = self.params.least_events
        ready = (weight >= least) & (weight.sum() - weight >= least)
        if not ready.any():
            return Scores.silent(len(batch))
        table = self._conflict(view, batch)
        trees, n = table.shape[1], len(batch)
        leaf = self._leaves(view, batch)[:trees]
        at = leaf + (batch.y * np.int32(trees << self.params.depth))[None, :]
        found = table.ravel().take(at.ravel()).reshape(trees, n)
        return Scores(found.sum(axis=0, dtype=np.float64) / trees, ready[batch.y])

    def observe(
        self, state: HalfSpaceState, batch: EventBatch, accepted: BoolArray
    ) -> HalfSpaceState:
        """Counts accepted events."""
        if not accepted.any():
            return state
        size = capacity_for(max(batch.n_classes, len(state.weight)))
        mass, weight = pad_axis(state.mass, size), pad_axis(state.weight, size)
        trees = min(mass.shape[1], self._trees_for(size))
        y = batch.y[accepted]
        leaf = self._leaves(state, batch)[:trees, accepted]
        cells = (leaf + (y * np.int32(trees << self.params.depth))[None, :]).ravel()
        added = np.bincount(cells, minlength=size * trees << self.params.depth)
        keep = 0.5 ** (len(y) / self.params.half_life_events)
        mass = mass[:, :trees] * np.float32(keep)
        mass += added.reshape(mass.shape).astype(np.float32)
        weight = weight * keep + np.bincount(y, minlength=size)
        return HalfSpaceState(state.column, state.cut, mass, weight)

    def merge(self, a: HalfSpaceState, b: HalfSpaceState) -> HalfSpaceState:
        """Counts add up; each side keeps its own forgetting."""
        size = max(len(a.weight), len(b.weight))
        trees = min(a.mass.shape[1], b.mass.shape[1])
        mass = pad_axis(a.mass[:, :trees], size) + pad_axis(b.mass[:, :trees], size)
        weight = pad_axis(a.weight, size) + pad_axis(b.weight, size)
        return HalfSpaceState(a.column, a.cut, mass, weight)

    def explain(
        self, view: HalfSpaceState, batch: EventBatch, rows: IntArray
    ) -> Sequence[Evidence]:
        """Which class has its events there, and how many of either class the cells hold."""
        if not len(rows):
            return []
        trees, leaves = view.mass.shape[1:]
        leaf = self._leaves(view, batch)[:trees, rows] - (np.arange(trees) * leaves)[:, None]
        here = view.mass[:, np.arange(trees)[:, None], leaf].mean(axis=1, dtype=np.float64)
        weight = np.maximum(view.weight, 1.0)
        return [self._sentence(batch, int(row), here[:, i], weight) for i, row in enumerate(rows)]

    def _sentence(
        self, batch: EventBatch, row: int, here: FloatArray, weight: FloatArray
    ) -> Evidence:
        own = int(batch.y[row])
        known = min(len(here), batch.n_classes)
        share = here[:known] / weight[:known]
        mine = float(share[own]) if own < known else 0.0
        if own < known:
            share[own] = -1.0
        other = int(share.argmax())
        names = [name[:64] for name in batch.label_names]
        text = (
            f"label {names[own]!r}, but the cells of the feature space it lies in hold "
            f"{100.0 * mine:.2g}% of that class's events and {100.0 * max(share[other], 0.0):.2g}% "
            f"of {names[other]!r}'s, as left by a point that was moved there"
        )
        data = {
            "label": names[own],
            "own_share": mine,
            "other": names[other],
            "other_share": max(0.0, float(share[other])),
        }
        return Evidence(text, data)

    def _trees_for(self, classes: int) -> int:
        most = MAX_CELLS // (classes << self.params.depth)
        return max(FEWEST_TREES, min(self.params.trees, most))

    def _leaves(self, view: HalfSpaceState, batch: EventBatch) -> Int32Array:
        """int32[T, n]: each event's leaf in each tree, counted through all trees."""
        # The splits never change, so the leaves of a batch are the same for every state.
        key = f"{self.name} leaves"
        return batch.once(key, view.column, lambda: _walked(view, batch.g, self.params.depth))

    def _conflict(self, view: HalfSpaceState, batch: EventBatch) -> Counts:
        """float32[C, T', 2^D]: the score's summand of an event of a class in a leaf."""
        size = capacity_for(batch.n_classes)
        mass, weight = pad_axis(view.mass, size), pad_axis(view.weight, size)
        prior = np.float32(PRIOR_EVENTS)
        everything = mass.sum(axis=0)
        others = np.log(np.maximum(everything - mass, 0.0) + prior)
        own = np.log(mass + prior)
        level = np.log(weight + 1.0) - np.log(weight.sum() - weight + 1.0)
        out: Counts = others - own + level.astype(np.float32)[:, None, None]
        return out


def _walked(view: HalfSpaceState, g: FloatArray, depth: int) -> Int32Array:
    """Down all trees at once, a level at a time."""
    n = len(g)
    values = np.ascontiguousarray(g.T, dtype=np.float32).ravel()
    trees = len(view.column) // ((1 << depth) - 1)
    node = np.repeat(np.arange(trees, dtype=np.int32), n).reshape(trees, n)
    event = np.arange(n, dtype=np.int32)
    start = 0
    for level in range(depth):
        end = start + (trees << level)
        at = (view.column[start:end] * np.int32(n)).take(node)
        at += event
        right = values.take(at) > view.cut[start:end].take(node)
        node <<= 1
        node |= right
        start = end
    return node


def _grown(
    n_columns: int, trees: int, depth: int, seed: int
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int32]], Counts]:
    """Columns and cuts of all nodes, after Tan et al., algorithm 1 and section 4.2."""
    rng = np.random.default_rng([seed, n_columns])
    d = max(1, n_columns)
    middle = rng.random((trees, d))
    reach = 2.0 * np.maximum(middle, 1.0 - middle)
    low = REACH * (2.0 * (middle - reach) - 1.0)
    high = REACH * (2.0 * (middle + reach) - 1.0)
    columns, cuts = [], []
    for level in range(depth):
        nodes = trees << level
        column = rng.integers(0, d, nodes)
        each = np.arange(nodes)
        cut = 0.5 * (low[each, column] + high[each, column])
        columns.append(column)
        cuts.append(cut)
        low, high = np.repeat(low, 2, axis=0), np.repeat(high, 2, axis=0)
        high[2 * each, column] = cut
        low[2 * each + 1, column] = cut
    return np.concatenate(columns).astype(np.int32), np.concatenate(cuts).astype(np.float32)
