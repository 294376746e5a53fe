"""Events that lie closer to trusted events of another class than to any of their own.

Deep kNN (Peri et al. 2020) against feature collisions (Shafahi et al. 2018), with the transformed
features in place of a network's: a clean-label point is surrounded by the class it is to collide
with, and near-duplicates of a victim come with another label. The neighbours are looked for in a
bounded, class-balanced sample of accepted events, whitened by the classes' pooled covariance, so
that a direction in which no class varies counts most. The sample has three parts, and the score
is the mean over them of ln((distance to the own class's nearest + ε) / (the same for the other
classes)): steadier than one nearest neighbour, and no more work, as everything is one matrix
product and a running maximum.
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
    Int32Array,
    IntArray,
)
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.arrays import starts
from monitor.sketches.recent import earlier
from monitor.sketches.reference_rows import shared_out

PARTS = 3
PER_BATCH = 128
SHRINK = 0.05
NEAR = 0.05
"""Whitened distance below which two events are as good as the same."""
FARTHEST = 1e4
SEED = 13

Rows = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class CollisionParams(Params):
    """Parameters of :class:`Collision`."""

    rows: int = Field(default=256, ge=64, description="Accepted events kept, over all classes.")
    least_rows: int = Field(
        default=12, ge=PARTS, description="Events of a class kept before it is compared with."
    )
    max_columns: int = Field(default=64, ge=1, description="Columns compared, the first ones.")


@dataclass(frozen=True, slots=True)
class CollisionState:
    """The sample, by class and newest last, and its whitening.

    Attributes
    ----------
    rows
        float32[m, w], transformed features.
    label, part
        int32[m], the class (in order), and which third of the sample a row is in.
    count
        Rows ever added.
    whiten
        float32[w, w].
    """

    rows: Rows
    label: Int32Array
    part: Int32Array
    count: int
    whiten: Rows


@dataclass(frozen=True, slots=True)
class _Near:
    """Distances to the nearest rows.

    ``by_class`` float32[C, PARTS, n], infinite to the own class; ``own`` and ``other``
    float32[PARTS, n], to the own class and to the nearest other.
    """

    by_class: Rows
    own: Rows
    other: Rows


class Collision:
    """Distance to the own class over distance to the others, ln, among sampled neighbours."""

    name: ClassVar[str] = "collision"
    family: ClassVar[Family] = Family.CLEAN_LABEL
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False

    def __init__(self, params: CollisionParams | None = None) -> None:
        self.params = params or CollisionParams()

    def empty(self, n_columns: int) -> CollisionState:
        """No events."""
        w = min(n_columns, self.params.max_columns)
        none = np.zeros(0, dtype=np.int32)
        return CollisionState(
            np.zeros((0, w), dtype=np.float32), none, none, 0, np.eye(w, dtype=np.float32)
        )

    def score(self, view: CollisionState, batch: EventBatch) -> Scores:
        """float64[n]; silent for classes with a small sample, and while there is only one."""
        n = len(batch)
        known = self._known(view, batch.n_classes)
        if not n or known.sum() < 2:
            return Scores.silent(n)
        near = self._look(view, batch)
        ratio = np.log((near.own + NEAR) / (near.other + NEAR)).mean(axis=0)
        return Scores(ratio.astype(np.float64), known[batch.y])

    def observe(
        self, state: CollisionState, batch: EventBatch, accepted: BoolArray
    ) -> CollisionState:
        """Samples a few accepted events, as many from each source."""
        keep = shared_out(batch, accepted, PER_BATCH, SEED)
        if not len(keep):
            return state
        fresh = batch.z[keep, : state.rows.shape[1]].astype(np.float32)
        part = (state.count + np.arange(len(keep))) % PARTS
        return self._sampled(
            np.concatenate([state.rows, fresh]),
            np.concatenate([state.label, batch.y[keep]]),
            np.concatenate([state.part, part.astype(np.int32)]),
            state.count + len(keep),
        )

    def merge(self, a: CollisionState, b: CollisionState) -> CollisionState:
        """Both samples, thinned evenly; which comes first makes no difference."""
        if not a.count or not b.count:
            return a if a.count else b
        first, second = sorted((a, b), key=lambda held: (held.count, held.rows.tobytes()))
        # Row by row in turn, from the newest: what is dropped is the oldest of either side.
        place = np.concatenate([np.arange(len(s.label), 0, -1) for s in (first, second)])
        order = np.argsort(-place, kind="stable")
        return self._sampled(
            np.concatenate([first.rows, second.rows])[order],
            np.concatenate([first.label, second.label])[order],
            np.concatenate([first.part, second.part])[order],
            a.count + b.count,
        )

    def explain(
        self, view: CollisionState, batch: EventBatch, rows: IntArray
    ) -> Sequence[Evidence]:
        """Which class it collides with, and how much nearer that is."""
        if not len(rows):
            return []
        if self._known(view, batch.n_classes).sum() < 2:
            return [Evidence("too few events of two classes are known to compare") for _ in rows]
        near = self._look(view, batch)
        return [self._sentence(batch, near, int(row)) for row in rows]

    def _sentence(self, batch: EventBatch, near: _Near, row: int) -> Evidence:
        own, other = float(near.own[:, row].mean()), float(near.other[:, row].mean())
        name = batch.label_names[int(batch.y[row])][:64]
        nearest = int(near.by_class[: len(batch.label_names), :, row].min(axis=1).argmin())
        which = batch.label_names[nearest][:64]
        text = (
            f"label {name!r}, but the nearest trusted events of that class are "
            f"{own:.2f} away (whitened) and those of {which!r} only {other:.2f}"
            if other < own
            else f"label {name!r}; the nearest trusted events of that class are {own:.2f} away "
            f"(whitened), those of {which!r} not much farther, {other:.2f}"
        )
        data = {
            "label": name,
            "own": round(own, 4),
            "other": which,
            "other_distance": round(other, 4),
        }
        return Evidence(text, data)

    def _known(self, view: CollisionState, n_classes: int) -> BoolArray:
        """bool[C]: classes with enough sampled events."""
        size = max(n_classes, int(view.label.max(initial=-1)) + 1)
        return np.asarray(np.bincount(view.label, minlength=size) >= self.params.least_rows)

    def _look(self, view: CollisionState, batch: EventBatch) -> _Near:
        return batch.once(self.name, view, lambda: self._computed(view, batch))

    def _computed(self, view: CollisionState, batch: EventBatch) -> _Near:
        known = self._known(view, batch.n_classes)
        rows = np.flatnonzero(known[view.label])
        # Part by part within a class, so that each group is a run of rows.
        group = view.label[rows].astype(np.int64) * PARTS + view.part[rows]
        rows = rows[np.argsort(group, kind="stable")]
        group = np.sort(group)
        first = starts(group)
        centre = view.rows[rows].mean(axis=0)
        held = (view.rows[rows] - centre) @ view.whiten
        asked = (batch.z[:, : len(centre)].astype(np.float32) - centre) @ view.whiten
        # |a − b|² = |a|² − 2 (a·b − |b|²/2): the nearest is where the bracket is largest.
        closeness = held @ asked.T
        closeness -= (0.5 * np.einsum("ij,ij->i", held, held))[:, None]
        best = np.maximum.reduceat(closeness, first, axis=0)
        squared = np.einsum("ij,ij->i", asked, asked)[None, :] - 2.0 * best
        distance = np.full((len(known) * PARTS, len(batch)), FARTHEST, dtype=np.float32)
        distance[group[first]] = np.sqrt(np.maximum(squared, 0.0))
        cells = batch.y * np.int64(PARTS) + np.arange(PARTS)[:, None]
        places = cells * len(batch) + np.arange(len(batch))
        own = distance.ravel().take(places)
        distance.ravel()[places] = np.inf
        by_class = distance.reshape(len(known), PARTS, len(batch))
        return _Near(by_class, own, np.minimum(by_class.min(axis=0), np.float32(FARTHEST)))

    def _sampled(
        self, rows: Rows, label: Int32Array, part: Int32Array, count: int
    ) -> CollisionState:
        """With the newest rows of each class, as many of each, and the whitening they give."""
        classes = len(np.unique(label))
        each = max(1, self.params.rows // classes)
        newest = earlier(label[::-1].astype(np.uint64))[::-1] < each
        # Where there are more classes than rows, the newest rows of all.
        kept = np.flatnonzero(newest)[-self.params.rows :]
        kept = kept[np.argsort(label[kept], kind="stable")]
        rows, label, part = rows[kept], label[kept], part[kept]
        return CollisionState(rows, label, part, count, _whitening(rows, label))


def _whitening(rows: Rows, label: Int32Array) -> Rows:
    """float32[w, w]: to unit covariance within the classes, shrunk a little; label is sorted."""
    w = rows.shape[1]
    first = starts(label)
    sizes = np.diff(first, append=len(label))
    exact = rows.astype(np.float64)
    means = np.add.reduceat(exact, first, axis=0) / sizes[:, None]
    off = exact - np.repeat(means, sizes, axis=0)
    covariance = off.T @ off / max(1, len(label) - len(first)) + SHRINK * np.eye(w)
    values, axes = np.linalg.eigh(covariance)
    return np.asarray((axes / np.sqrt(values)) @ axes.T, dtype=np.float32)
