"""Estimates that several detectors keep of the same events, computed once.

Detectors know nothing of each other, and each owns its whole state. But two that start from the
same empty sketch and learn the same events hold equal sketches, and here they hold the same object:
what is computed from it for a batch is remembered with the batch under its identity. After a state
was loaded they are equal objects, no longer the same: slower, with the same results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from monitor.core.types import BoolArray, EventBatch, FloatArray, HashArray, IntArray
from monitor.sketches.arrays import starts
from monitor.sketches.moments import Gaussians, Moments
from monitor.sketches.softmax import Softmax, feature_map

NO_VIEW = None
AROUND_EVENTS, AROUND_LABELS = 6, 8


@lru_cache(maxsize=64)
def empty_softmax(n_columns: int) -> Softmax:
    """An untrained softmax regression."""
    return Softmax.empty(n_columns, AROUND_LABELS)


@lru_cache(maxsize=64)
def empty_moments(n_columns: int) -> Moments:
    """Moments of no events."""
    return Moments.empty(n_columns)


def mapped(batch: EventBatch) -> FloatArray:
    """float64[n, p]: the softmax regression's features of the batch, and of what stands around."""

    def compute() -> FloatArray:
        return np.concatenate([feature_map(batch.z), said_around(batch)], axis=1)

    return batch.once("softmax features", NO_VIEW, compute)


def said_around(batch: EventBatch) -> FloatArray:
    """float64[n, AROUND_LABELS]: how much more often than usual each label stands around an event.

    Counted among the events just before and behind it in the batch that other sources sent. Where
    labels come in runs (a market, a season), a model that learns event by event profits from that,
    and one that learns by batches would not: recall at 1 % of stray flips on electricity .12 → .30.
    Labels beyond the first few share a column.
    """
    n, y = len(batch), batch.y
    # A label a row, and counts in bytes: there are at most 2 · AROUND_EVENTS.
    member = np.minimum(y, AROUND_LABELS - 1) == np.arange(AROUND_LABELS)[:, None]
    count = np.zeros((AROUND_LABELS, n), dtype=np.uint8)
    for k in range(1, AROUND_EVENTS + 1):
        other = batch.source[k:] != batch.source[:-k]
        count[:, k:] += other & member[:, :-k]
        count[:, :-k] += other & member[:, k:]
    weight = count.sum(axis=0, dtype=np.float64)
    usual = member.sum(axis=1) / max(n, 1)
    out = count - weight * usual[:, None]
    out /= weight + 2.0
    return np.ascontiguousarray(out.T)


def softmax_log_proba(softmax: Softmax, batch: EventBatch) -> FloatArray:
    """float64[n, C]: log probabilities of the batch, for at least two classes."""
    classes = max(2, batch.n_classes)
    return batch.once(
        "softmax probabilities", softmax, lambda: softmax.log_proba(mapped(batch), classes)
    )


def softmax_learned(
    softmax: Softmax, batch: EventBatch, accepted: BoolArray, half_life: float
) -> Softmax:
    """The regression after the ``accepted`` events of the batch."""
    classes = max(2, batch.n_classes)

    def compute() -> tuple[BoolArray, Softmax]:
        phi, said = mapped(batch), softmax_log_proba(softmax, batch)
        rows = slice(None) if accepted.all() else accepted
        return accepted, softmax.learn(
            phi[rows], batch.y[rows], classes, half_life, log_proba=said[rows]
        )

    held = batch.once(f"softmax learned {half_life}", softmax, compute)
    return held[1] if held[0] is accepted else compute()[1]


def sources(batch: EventBatch) -> tuple[HashArray, IntArray]:
    """The batch's sources, sorted, each once, and int64[n] each event's place among them."""

    def compute() -> tuple[HashArray, IntArray]:
        order = np.argsort(batch.source)
        ordered = batch.source[order]
        first = starts(ordered)
        inverse = np.empty(len(order), dtype=np.int64)
        inverse[order] = np.repeat(np.arange(len(first)), np.diff(first, append=len(order)))
        return ordered[first], inverse

    return batch.once("sources", NO_VIEW, compute)


def gaussians(moments: Moments, batch: EventBatch) -> Gaussians:
    """Densities fitted to ``moments``, for the batch's classes, at least two."""
    classes = max(2, batch.n_classes)
    return batch.once("gaussians", moments, lambda: Gaussians.fit(moments, classes))


def squared_distances(moments: Moments, batch: EventBatch) -> FloatArray:
    """float64[n, C]: squared Mahalanobis distance of each event to each class."""
    return batch.once(
        "squared distances",
        moments,
        lambda: gaussians(moments, batch).squared_distances(batch.z),
    )


def moments_added(
    moments: Moments, batch: EventBatch, accepted: BoolArray, half_life: float
) -> Moments:
    """The moments after the ``accepted`` events of the batch."""
    classes = max(2, batch.n_classes)

    def compute() -> tuple[BoolArray, Moments]:
        return accepted, moments.add(batch.z[accepted], batch.y[accepted], classes, half_life)

    held = batch.once(f"moments added {half_life}", moments, compute)
    return held[1] if held[0] is accepted else compute()[1]


def alike(states: Mapping[str, Any]) -> dict[str, Any]:
    """``states`` with equal sketches in them made the same objects, so that they are shared again.

    Merged and loaded states lose that.
    """
    pool: list[Any] = []
    return {name: _pooled(state, pool) for name, state in states.items()}


def _pooled(value: Any, pool: list[Any]) -> Any:
    if isinstance(value, Softmax | Moments):
        for other in pool:
            if type(other) is type(value) and _equal(other, value):
                return other
        pool.append(value)
        return value
    if not is_dataclass(value):
        return value
    parts = {f.name: getattr(value, f.name) for f in fields(value)}
    changed = {
        name: new for name, part in parts.items() if (new := _pooled(part, pool)) is not part
    }
    return replace(value, **changed) if changed else value  # type: ignore[type-var]


def _equal(a: Any, b: Any) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
