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
from monitor.sketches.softmax import Float32Array, Softmax, feature_map

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


def columns_across(batch: EventBatch) -> Float32Array:
    """float32[d, n]: the batch's ``z``, a column a row."""
    return batch.once(
        "columns across", NO_VIEW, lambda: np.ascontiguousarray(batch.z.T, dtype=np.float32)
    )


def mapped(batch: EventBatch) -> Float32Array:
    """float32[p, n]: the softmax regression's features of the batch, and of what stands around."""

    def compute() -> Float32Array:
        features = feature_map(columns_across(batch), AROUND_LABELS)
        features[-AROUND_LABELS:] = said_around(batch)
        return features

    return batch.once("softmax features", NO_VIEW, compute)


def said_around(batch: EventBatch) -> FloatArray:
    """float64[AROUND_LABELS, n]: how much more often than usual a label stands around an event.

    Counted among the events just before and behind it in the batch that other sources sent. Where
    labels come in runs (a market, a season), a model that learns event by event profits from that,
    and one that learns by batches would not: recall at 1 % of stray flips on electricity .12 → .30.
    Labels beyond the first few share a column.
    """
    n, y = len(batch), batch.y
    place = np.minimum(y, AROUND_LABELS - 1).astype(np.uint64)
    # The counts of all labels in one number, a byte each: they are at most 2 · AROUND_EVENTS.
    one = np.uint64(1) << (np.uint64(8) * place)
    packed = np.zeros(n, dtype="<u8")
    for k in range(1, AROUND_EVENTS + 1):
        other = batch.source[k:] != batch.source[:-k]
        packed[k:] += other * one[:-k]
        packed[:-k] += other * one[k:]
    count = packed.view(np.uint8).reshape(n, AROUND_LABELS).T.astype(np.float64, order="C")
    weight = count.sum(axis=0)
    usual = np.bincount(place.astype(np.int64), minlength=AROUND_LABELS) / max(n, 1)
    count -= weight * usual[:, None]
    count /= weight + 2.0
    return count


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

    def compute() -> tuple[BoolArray, Softmax]:
        phi, said = mapped(batch), softmax_log_proba(softmax, batch)
        return accepted, softmax.learn(phi, batch.y, said, accepted, half_life)

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


def sources_in_order(batch: EventBatch) -> tuple[IntArray, IntArray]:
    """int64[n] each event's place among the batch's sources, and int64[n] the events by it."""

    def compute() -> tuple[IntArray, IntArray]:
        place = sources(batch)[1]
        # Sorting short integers is a count of them.
        short = place.astype(np.uint16) if len(place) <= 1 << 16 else place
        return place, np.argsort(short, kind="stable")

    return batch.once("sources in order", NO_VIEW, compute)


def gaussians(moments: Moments, batch: EventBatch) -> Gaussians:
    """Densities fitted to ``moments``, for the batch's classes, at least two."""
    classes = max(2, batch.n_classes)
    return batch.once("gaussians", moments, lambda: Gaussians.fit(moments, classes))


def squared_distances(moments: Moments, batch: EventBatch) -> FloatArray:
    """float64[n, C]: squared Mahalanobis distance of each event to each class."""
    return batch.once(
        "squared distances",
        moments,
        lambda: gaussians(moments, batch).squared_distances(batch.z, columns_across(batch)),
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
