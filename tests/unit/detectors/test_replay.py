"""The replay detector and its memory of recent keys."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.types import BoolArray, EventBatch, IntArray
from monitor.detectors.replay import CERTAIN, Replay, ReplayParams, ReplayState
from monitor.sketches.recent import GENERATIONS, RecentKeys, earlier

NONE = np.zeros(256, dtype=bool)


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


def test_copied_vectors_score_by_their_number_and_many_of_one_are_too_many() -> None:
    detector, state = warm()
    value = detector.score(state, batch(list(range(5000, 5020)), [77] * 20)).value
    assert value[0] == 0.0
    assert value[1] > 5.0
    assert (np.diff(value) >= 0).all()
    assert value[5] < CERTAIN
    assert value[-1] == CERTAIN
    assert (detector.score(state, batch([5000, 5001], [77, 77], [0, 1])).value == 0.0).all()


def test_copies_say_nothing_where_repeats_are_common() -> None:
    detector, state = warm(distinct=50)
    assert (detector.score(state, batch([5000, 5001, 5002], [3, 3, 3])).value == 0.0).all()


def test_a_held_back_campaign_does_not_become_usual() -> None:
    detector, state = warm()
    campaign = batch(list(range(5000, 5400)), [77] * 400)
    state = detector.observe(state, campaign, np.zeros(400, dtype=bool))
    assert detector.score(state, batch([6000], [77])).value[0] > 5.0


def held(content: IntArray, batch_size: int = 256) -> tuple[IntArray, Replay, ReplayState]:
    """Which of the events are certain copies, none of which is accepted, and the state after."""
    detector = Replay()
    state, found = detector.empty(2), []
    for at in range(0, len(content), batch_size):
        ids = range(at, min(at + batch_size, len(content)))
        events = batch(list(ids), content[at : at + batch_size].tolist())
        certain = detector.score(state, events).value >= CERTAIN
        found += (np.flatnonzero(certain) + at).tolist()
        state = detector.observe(state, events, ~certain)
    return np.array(found, dtype=np.int64), detector, state


def replayed(rate: float, events: int = 8_000, prefix: int = 1_500) -> tuple[IntArray, BoolArray]:
    """Fresh vectors, of which some behind the prefix are copies of a few dozen early ones."""
    rng = np.random.default_rng(0)
    content = np.arange(events, dtype=np.int64)
    copy = (rng.random(events) < rate) & (content >= prefix)
    content[copy] = rng.choice(rng.choice(prefix, 40), copy.sum())
    return content, copy


@pytest.mark.parametrize("batch_size", [64, 1024])
def test_copies_that_come_in_numbers_are_certain_and_stay_so(batch_size: int) -> None:
    content, copy = replayed(0.03)
    found, _, _ = held(content, batch_size)
    assert copy[found].all()
    assert len(found) > 0.8 * copy.sum()
    assert set(found[-5:]) == set(np.flatnonzero(copy)[-5:])


@pytest.mark.parametrize("pool", [5_000, 50_000, 500_000])
def test_a_finite_world_that_repeats_itself_is_no_surge(pool: int) -> None:
    """Birthdays: with a longer memory more is found again."""
    found, _, _ = held(np.random.default_rng(1).integers(0, pool, 20_000))
    assert len(found) == 0


@pytest.mark.parametrize("stutter", [2, 4, 6])
def test_a_client_that_stutters_is_no_surge(stutter: int) -> None:
    content = np.arange(20_000)
    for at in np.random.default_rng(2).integers(0, 19_000, 20):
        content[at : at + stutter] = content[at]
    found, _, _ = held(content)
    assert len(found) == 0


def test_a_stream_that_repeats_itself_for_good_is_believed_though_all_was_held() -> None:
    rng, content = np.random.default_rng(3), np.arange(80_000)
    for at in np.flatnonzero(rng.random(80_000) < 0.02):
        content[at] = content[at - rng.integers(1, 1_000)] if at > 2_000 else content[at]
    found, _, _ = held(content, 1_024)
    assert len(found)
    assert found.max() < 60_000


def test_partitions_add_up_to_one_surge() -> None:
    detector = Replay()
    parts = []
    for part in range(2):
        state = detector.empty(2)
        for at in range(0, 2_000, 500):
            ids = [part * 10_000 + i for i in range(at, at + 500)]
            copied = [at == 1_500 and i % 200 == 0 for i in range(500)]
            content = [i - 1_000 if c else i for i, c in zip(ids, copied, strict=True)]
            state = detector.observe(state, batch(ids, content), np.ones(500, dtype=bool))
        parts.append(state)
    one = batch([90_000], [1_400])
    assert detector.score(parts[0], one).value[0] < CERTAIN
    assert detector.score(detector.merge(*parts), one).value[0] == CERTAIN


def test_what_another_partition_counted_long_ago_is_no_more_counted_lately() -> None:
    """To one in a surge nothing comes any more: by its own clock all of that is new for ever."""
    idle, busy = warm(events=2_048)[1], warm(events=2_048)[1]
    detector = Replay()
    ids = list(range(5_000, 5_256))
    idle = detector.observe(idle, batch(ids, [10_000 + i // 2 for i in range(256)]), NONE)
    assert idle.surging
    one = batch([90_000], [10_400])
    assert detector.score(detector.merge(busy, idle), one).value[0] == CERTAIN
    rested = detector.since(idle, 0)
    assert not rested.surging
    assert detector.score(detector.merge(busy, rested), one).value[0] < CERTAIN
    assert detector.score(detector.merge(busy, detector.since(idle, 256)), one).value[0] == CERTAIN
    assert detector.since(idle, 1 << 40).recent.counted == idle.recent.counted


def test_repeated_ids_do_not_hide_copies() -> None:
    detector, state = warm(distinct=100_000, events=2_048)
    copied = batch(list(range(5_000, 5_080)), list(range(30_000, 30_040)) * 2)
    assert detector.score(state, copied).value[-1] == CERTAIN
    hidden = batch([1] * 4_000 + list(range(5_000, 5_080)), [7] * 4_000 + copied.content.tolist())
    assert detector.score(state, hidden).value[-1] == CERTAIN


@pytest.mark.parametrize("name", ["pace_events", "recent_events", "rate_events"])
@pytest.mark.parametrize("value", [1e-300, 1.0, 1e300])
def test_parameters_at_their_limits(name: str, value: float) -> None:
    detector = Replay(ReplayParams(surge_events=1, least_events=1, **{name: value}))
    state = detector.empty(2)
    for first in range(0, 12_288, 4_096):
        content = np.arange(4_096) % (2_000 if first else 4_096)
        events = batch(list(range(first, first + 4_096)), content.tolist())
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            assert np.isfinite(detector.score(state, events).value).all()
            state = detector.observe(state, events, np.ones(4_096, dtype=bool))
    assert np.isfinite([state.usual.counted, state.recent.counted]).all()


def test_explanations() -> None:
    detector, state = warm()
    events = batch([5000, 5001, 5002, 7], [77, 77, 77, 1])
    copied, repeated = detector.explain(state, events, np.array([2, 3]))
    assert "already came 2 times under other ids; 0.00% of ordinary events" in copied.text
    assert "'legit'" in copied.text
    assert "id 'e7' was already seen in the last 1028 events" in repeated.text
    assert repeated.data["before"] == 1


def test_a_surge_is_explained_by_what_came_lately() -> None:
    detector, state = warm(events=2_048)
    events = batch(list(range(5000, 5020)), [*range(10_000, 10_010)] * 2)
    assert detector.score(state, events).value[-1] == CERTAIN
    (surged,) = detector.explain(state, events, np.array([19]))
    assert "such copies come in numbers: 20 lately, where 0.1 would be usual" in surged.text
    assert surged.data == {"copies": 2, "label": "legit", "lately": 20.0, "usual": 0.1}


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
