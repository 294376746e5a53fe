"""The trusted sample: bounded, recent, from sources with a history, and exact to merge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from monitor.core.types import EventBatch
from monitor.sketches.holdout import FULL_HISTORY, Holdout
from tests.unit.detectors.test_trigger import batch

CAPACITY, HALF_LIFE = 200, 2000.0


def events_of(start: int, source: np.ndarray) -> EventBatch:
    n = len(source)
    ids = np.arange(start, start + n, dtype=np.uint64)
    plain = batch(np.full((n, 2), float(start)), np.zeros(n, dtype=int))
    return replace(plain, id_hash=ids, source=source.astype(np.uint64))


def fed(held: Holdout, batches: int, start: int = 0, sources: int = 50) -> Holdout:
    for i in range(batches):
        first = start + 200 * i
        part = events_of(first, np.arange(200) % sources)
        held = held.added(part, part.z, np.ones(200, dtype=bool), CAPACITY, HALF_LIFE)
    return held


def test_it_is_bounded_and_forgets() -> None:
    held = Holdout.empty(1)
    for i in range(60):
        part = events_of(200 * i, np.arange(200) % 50)
        age = np.full((200, 1), float(i))
        held = held.added(part, age, np.ones(200, dtype=bool), CAPACITY, HALF_LIFE)
    assert len(held) == CAPACITY
    # Half-life 10 batches: about as many from the last ten as from all before.
    recent = float((held.rows[:, 0] >= 50).mean())
    assert 0.3 < recent < 0.75


def test_strangers_are_rarely_trusted() -> None:
    held = fed(Holdout.empty(2), 10)
    # As many strangers as there are regular sources, each with one event.
    source = np.r_[np.arange(50), 10_000 + np.arange(50)]
    part = replace(events_of(5000, source), y=np.repeat([1, 2], 50).astype(np.int32))
    after = held.added(part, part.z, np.ones(100, dtype=bool), CAPACITY, HALF_LIFE)
    known, strange = int((after.y == 1).sum()), int((after.y == 2).sum())
    assert known > 4 * strange
    assert after.history.max() == FULL_HISTORY


def test_a_source_has_its_share_of_a_batch_and_no_more() -> None:
    held = fed(Holdout.empty(2), 10)
    source = np.r_[np.arange(50), np.zeros(950)]
    part = replace(events_of(5000, source), y=np.r_[np.zeros(50), np.ones(950)].astype(np.int32))
    after = held.added(part, part.z, np.ones(1000, dtype=bool), CAPACITY, HALF_LIFE)
    assert (after.y == 1).sum() <= 5


def test_rejected_events_leave_no_trace() -> None:
    held = fed(Holdout.empty(2), 2)
    part = events_of(5000, np.arange(100))
    assert held.added(part, part.z, np.zeros(100, dtype=bool), CAPACITY, HALF_LIFE) is held


def test_merging_is_exact_whatever_the_order() -> None:
    a, b = fed(Holdout.empty(2), 6), fed(Holdout.empty(2), 4, start=50_000, sources=30)
    one, other = a.merge(b, CAPACITY), b.merge(a, CAPACITY)
    assert len(one) == CAPACITY
    np.testing.assert_array_equal(np.sort(one.key), np.sort(other.key))
    everything = np.sort(np.concatenate([a.key, b.key]))[:CAPACITY]
    np.testing.assert_array_equal(np.sort(one.key), everything)
    np.testing.assert_array_equal(one.history, other.history)
