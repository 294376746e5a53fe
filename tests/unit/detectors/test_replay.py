"""The replay detector and its memory of recent keys."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.types import EventBatch
from monitor.detectors.replay import CERTAIN, Replay, ReplayParams, ReplayState
from monitor.sketches.recent import GENERATIONS, RecentKeys, earlier


def batch(ids: list[int], content: list[int], label: list[int] | None = None) -> EventBatch:
    n = len(ids)
    zeros = np.zeros((n, 2))
    y = np.zeros(n, dtype=np.int32) if label is None else np.array(label, dtype=np.int32)
    key = np.array(ids, dtype=np.uint64)
    return EventBatch(
        offset=np.arange(n),
        x=zeros,
        g=zeros,
        z=zeros,
        y=y,
        n_classes=2,
        source=key,
        subject=key,
        id_hash=key,
        content=np.array(content, dtype=np.uint64),
        time_ns=np.arange(n),
        weight=np.ones(n),
        ids=[f"e{i}" for i in ids],
        sources=["s"] * n,
        labels=[int(v) for v in y],
        columns=("a", "b"),
        label_names=("legit", "fraud"),
    )


def warm(distinct: int | None = None, events: int = 1024) -> tuple[Replay, ReplayState]:
    detector = Replay()
    content = np.arange(events) + 10_000
    if distinct is not None:
        content = np.random.default_rng(0).integers(0, distinct, events)
    events_ = batch(list(range(events)), content.tolist())
    return detector, detector.observe(detector.empty(2), events_, np.ones(events, dtype=bool))


def test_a_repeated_id_is_certain_across_and_inside_batches() -> None:
    detector, state = warm()
    scores = detector.score(state, batch([5000, 5001, 5000, 7], [1, 2, 3, 4]))
    assert scores.value.tolist() == [0.0, 0.0, CERTAIN, CERTAIN]
    fresh = detector.score(detector.empty(2), batch([1, 1], [1, 2]))
    assert fresh.ready.tolist() == [False, True]
    assert detector.certain == CERTAIN


def test_ids_of_rejected_events_are_remembered_too() -> None:
    detector, state = warm()
    state = detector.observe(state, batch([9000], [1]), np.zeros(1, dtype=bool))
    assert detector.score(state, batch([9000], [2])).value[0] == CERTAIN


def test_copied_vectors_score_by_their_number_and_never_reach_certainty() -> None:
    detector, state = warm()
    value = detector.score(state, batch(list(range(5000, 5020)), [77] * 20)).value
    assert value[0] == 0.0
    assert value[1] > 5.0
    assert (np.diff(value) >= 0).all()
    assert value.max() < CERTAIN
    assert (detector.score(state, batch([5000, 5001], [77, 77], [0, 1])).value == 0.0).all()


def test_copies_say_nothing_where_repeats_are_common() -> None:
    detector, state = warm(distinct=50)
    assert (detector.score(state, batch([5000, 5001, 5002], [3, 3, 3])).value == 0.0).all()


def test_a_held_back_campaign_does_not_become_usual() -> None:
    detector, state = warm()
    campaign = batch(list(range(5000, 5400)), [77] * 400)
    state = detector.observe(state, campaign, np.zeros(400, dtype=bool))
    assert detector.score(state, batch([6000], [77])).value[0] > 5.0


def test_explanations() -> None:
    detector, state = warm()
    events = batch([5000, 5001, 5002, 7], [77, 77, 77, 1])
    copied, repeated = detector.explain(state, events, np.array([2, 3]))
    assert "already came 2 times under other ids" in copied.text
    assert "'legit'" in copied.text
    assert "id 'e7' was already seen in the last 1028 events" in repeated.text
    assert repeated.data["before"] == 1


def test_merge_unites_memories() -> None:
    detector, state = warm()
    other = detector.observe(detector.empty(2), batch([9000], [1]), np.ones(1, dtype=bool))
    for merged in (detector.merge(state, other), detector.merge(other, state)):
        assert (detector.score(merged, batch([9000, 3], [5, 6])).value == CERTAIN).all()
        assert merged.seen == 1025


def test_parameters_bound_the_memory() -> None:
    detector = Replay(ReplayParams(ids=64, vectors=64))
    state = detector.empty(2)
    for start in range(0, 2000, 4):
        ids = list(range(start, start + 4))
        state = detector.observe(state, batch(ids, ids), np.ones(4, dtype=bool))
    assert len(state.ids) <= 64
    assert len(state.vectors) <= 64
    assert detector.score(state, batch([1999], [5])).value[0] == CERTAIN


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=20))
def test_recent_keys_counts_exactly_while_nothing_is_dropped(batches: list[list[int]]) -> None:
    memory, truth = RecentKeys.empty(10_000), np.zeros(41, dtype=np.int64)
    for keys in batches:
        memory = memory.add(np.array(keys, dtype=np.uint64))
        truth += np.bincount(keys, minlength=41)
    assert memory.count(np.arange(41, dtype=np.uint64)).tolist() == truth.tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 200), max_size=80), st.lists(st.integers(0, 200), max_size=80))
def test_recent_keys_merge_is_commutative(a: list[int], b: list[int]) -> None:
    one, two = RecentKeys.empty(64), RecentKeys.empty(64)
    for start in range(0, 80, 8):
        one = one.add(np.array(a[start : start + 8], dtype=np.uint64))
        two = two.add(np.array(b[start : start + 8], dtype=np.uint64))
    every = np.arange(201, dtype=np.uint64)
    ab, ba = one.merge(two), two.merge(one)
    assert ab.count(every).tolist() == ba.count(every).tolist()
    assert one.merge(RecentKeys.empty(64)).count(every).tolist() == one.count(every).tolist()


def test_recent_keys_forget_the_oldest_and_share_old_generations() -> None:
    memory = RecentKeys.empty(64)
    for start in range(0, 640, 4):
        before = memory
        memory = memory.add(np.arange(start, start + 4, dtype=np.uint64))
    assert len(memory.keys) <= GENERATIONS + 1
    assert 64 * (GENERATIONS - 2) // GENERATIONS <= len(memory) <= 64
    assert memory.count(np.array([639, 0], dtype=np.uint64)).tolist() == [1, 0]
    assert memory.keys[-1] is before.keys[-1] or memory.keys[-1] is before.keys[-2]


def test_earlier_counts_within_the_batch() -> None:
    keys = np.array([3, 1, 3, 3, 2, 1], dtype=np.uint64)
    assert earlier(keys).tolist() == [0, 0, 1, 2, 0, 1]
    assert earlier(keys[:0]).tolist() == []
