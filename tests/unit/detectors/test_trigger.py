"""The trigger detector: what it catches, what it leaves alone, and that it is pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from monitor.core.types import EventBatch
from monitor.detectors.trigger import Trigger, TriggerParams, TriggerState
from monitor.sketches.context import LinearContext
from monitor.sketches.lift import LiftTable, plan

SIZE = 256


def batch(g: np.ndarray, y: np.ndarray, n_classes: int = 2) -> EventBatch:
    n, d = g.shape
    key = np.arange(n, dtype=np.uint64)
    return EventBatch(
        offset=np.arange(n),
        x=g * 10.0,
        g=g,
        z=np.clip(g, -8, 8),
        y=y.astype(np.int32),
        n_classes=n_classes,
        source=key,
        subject=key * np.uint64(0),
        id_hash=key,
        content=key,
        time_ns=np.arange(n),
        weight=np.ones(n),
        ids=[f"e{i}" for i in range(n)],
        sources=["s"] * n,
        labels=[int(v) for v in y],
        columns=tuple(f"f{i}" for i in range(d)),
        label_names=tuple(f"class{i}" for i in range(n_classes)),
    )


def batches(g: np.ndarray, y: np.ndarray, n_classes: int = 2) -> Iterator[EventBatch]:
    """The events in batches of ``SIZE``."""
    for first in range(0, len(y), SIZE):
        yield batch(g[first : first + SIZE], y[first : first + SIZE], n_classes)


def stream(events: int, d: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((events, d))
    g[:, 1] = 0.8 * g[:, 0] + 0.6 * g[:, 1]
    y = (g[:, 0] + 0.5 * rng.standard_normal(events) > 0).astype(int)
    return g, y


def run(g: np.ndarray, y: np.ndarray, params: TriggerParams | None = None) -> np.ndarray:
    detector = Trigger(params)
    state = detector.empty(g.shape[1])
    out = np.zeros(len(y))
    for start in range(0, len(y), SIZE):
        part = slice(start, start + SIZE)
        events = batch(g[part], y[part], int(y.max()) + 1)
        scores = detector.score(state, events)
        assert np.isfinite(scores.value).all()
        out[part] = scores.value
        # What a gate would hold back must not become the baseline.
        state = detector.observe(state, events, scores.value < 2.0)
    return out


def warm(d: int = 6, events: int = 2048) -> tuple[Trigger, TriggerState]:
    g, y = stream(events, d)
    detector = Trigger()
    state = detector.empty(d)
    for start in range(0, events, SIZE):
        part = batch(g[start : start + SIZE], y[start : start + SIZE])
        state = detector.observe(state, part, np.ones(SIZE, dtype=bool))
    return detector, state


@pytest.mark.parametrize("burst", [True, False])
@pytest.mark.parametrize("values", [(1.2, -0.3, 0.6), (3.4, 3.6, -3.5)])
def test_a_trigger_is_found_whatever_its_values_and_timing(burst: bool, values: tuple) -> None:
    g, y = stream(8192)
    rng = np.random.default_rng(1)
    late = np.arange(4096, 8192)
    if burst:
        bad = np.concatenate([np.arange(s, s + 60, 2) for s in (4500, 6100, 7500)])
    else:
        bad = rng.choice(late, 120, replace=False)
    g[np.ix_(bad, [2, 3, 5])] = values
    y[bad] = 1
    score = run(g, y)
    clean = np.setdiff1d(late, bad)
    threshold = np.quantile(score[clean], 0.99)
    # The very first occurrences of a spread trigger have nothing to agree with yet.
    assert (score[bad] > threshold).mean() > (0.9 if burst else 0.8)


def test_the_baseline_learns_no_more_of_a_pattern_than_it_expected() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=4)
    stamped, label = g.copy(), y.copy()
    stamped[:100, [2, 3, 5]] = (3.4, 3.6, -3.5)
    label[:100] = 1
    everyone = np.ones(SIZE, dtype=bool)
    honest = detector.observe(state, batch(g, y), everyone)
    attacked = detector.observe(state, batch(stamped, label), everyone)
    learned = (attacked.pair.anchor - honest.pair.anchor).max()
    counted = (attacked.pair.recent - honest.pair.recent).max()
    assert counted > 50.0
    assert learned < counted / 5.0


def test_the_batch_itself_is_counted_before_anything_is_admitted() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=3)
    g[:30, [2, 3, 5]] = (1.2, -0.3, 0.6)
    y[:30] = 1
    score = detector.score(state, batch(g, y)).value
    assert score[:30].min() > np.quantile(score[30:], 0.98)


def test_constant_and_one_hot_columns_do_not_alarm() -> None:
    g, y = stream(6144, d=4)
    kind = np.random.default_rng(2).choice(4, size=len(y), p=[0.7, 0.2, 0.08, 0.02])
    one_hot = 5.0 * (kind[:, None] == np.arange(4))
    score = run(np.hstack([g, one_hot, np.zeros((len(y), 2))]), y)
    before, after = score[2048:4096], score[4096:]
    assert (after > np.quantile(before, 0.99)).mean() < 0.04


def test_a_popular_value_alone_is_no_trigger() -> None:
    g, y = stream(6144)
    hot = np.random.default_rng(5).choice(np.arange(4096, 6144), 400, replace=False)
    g[hot, 2] = 2.9
    score = run(g, y)
    assert (score[hot] > np.quantile(score[2048:4096], 0.99)).mean() < 0.2


def test_it_is_silent_before_it_has_learned() -> None:
    g, y = stream(SIZE)
    detector = Trigger()
    assert not detector.score(detector.empty(6), batch(g, y)).ready.any()
    assert not detector.score(detector.empty(1), batch(g[:, :1], y)).ready.any()


def test_rejected_events_count_as_recent_and_never_reach_the_context() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=4)
    other = g.copy()
    other[-40:] += 1.0
    accepted = np.arange(SIZE) < SIZE - 40
    one = detector.observe(state, batch(g, y), accepted)
    two = detector.observe(state, batch(other, y), accepted)
    assert np.array_equal(one.context.second, two.context.second)
    assert not np.array_equal(one.pair.recent, two.pair.recent)
    assert one.seen == state.seen + accepted.sum()


def test_observe_and_score_change_nothing_and_repeat_exactly() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=6)
    events = batch(g, y)
    before = [
        state.pair.recent.copy(),
        state.pair.anchor.copy(),
        state.context.second.copy(),
    ]
    accepted = np.arange(SIZE) % 3 > 0
    one, two = (detector.observe(state, events, accepted) for _ in range(2))
    assert np.array_equal(one.pair.recent, two.pair.recent)
    first, second = (detector.score(state, events).value for _ in range(2))
    assert np.array_equal(first, second)
    after = [state.pair.recent, state.pair.anchor, state.context.second]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert not np.shares_memory(one.pair.recent, state.pair.recent)


def test_merge_is_commutative_and_empty_is_neutral() -> None:
    detector, a = warm()
    g, y = stream(SIZE, seed=7)
    b = detector.observe(a, batch(g, y), np.ones(SIZE, dtype=bool))
    ab, ba = detector.merge(a, b), detector.merge(b, a)
    assert np.array_equal(ab.pair.anchor, ba.pair.anchor)
    assert np.allclose(ab.context.precision, ba.context.precision)
    same = detector.merge(detector.empty(6), b)
    assert np.array_equal(same.pair.recent, b.pair.recent)
    assert np.array_equal(same.context.tail, b.context.tail)


def test_new_labels_may_appear() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=8)
    y[:5] = 4
    events = batch(g, y, n_classes=5)
    assert np.isfinite(detector.score(state, events).value).all()
    grown = detector.observe(state, events, np.ones(SIZE, dtype=bool))
    assert len(grown.labels) == 5
    assert np.isfinite(detector.score(grown, events).value).all()


def test_the_explanation_names_columns_values_and_label() -> None:
    detector, state = warm()
    g, y = stream(SIZE, seed=9)
    g[:40, [2, 3, 5]] = (1.2, -0.3, 0.6)
    y[:40] = 1
    evidence = detector.explain(state, batch(g, y), np.array([3, 7]))
    assert len(evidence) == 2
    assert set(evidence[0].data["columns"]) == {"f2", "f3", "f5"}
    assert "class1" in evidence[0].text
    assert "≈12" in evidence[0].text
    assert evidence[0].data["lift"] > 5.0


def test_wide_streams_stay_bounded() -> None:
    assert len(plan(1000, 64, 1).columns) == 64
    detector = Trigger(TriggerParams(bits=10, single_bits=6, max_columns=64))
    state = detector.empty(1000)
    rng = np.random.default_rng(0)
    events = batch(rng.standard_normal((600, 1000)), rng.integers(0, 2, 600))
    grown = detector.observe(state, events, np.ones(600, dtype=bool))
    assert detector.score(grown, events).ready.all()
    for tables in (state, grown):
        assert tables.pair.recent.nbytes == 4 << 10
        assert tables.single.recent.nbytes == 64 * (4 << 6)
        assert tables.wide.recent.nbytes == 2 * 64 * (4 << 6)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_trigger_is_found_in_any_three_of_many_columns(noise: float) -> None:
    g, y = stream(8192, d=40)
    rng = np.random.default_rng(3)
    late = np.arange(4096, 8192)
    bad = rng.choice(late, 160, replace=False)
    for column, value in zip(rng.choice(40, 3, replace=False), (1.4, -0.9, 1.8), strict=True):
        g[bad, column] = value + noise * rng.standard_normal(len(bad))
    y[bad] = 1
    score = run(g, y)
    clean = np.setdiff1d(late, bad)
    assert (score[bad[bad > 4600]] > np.quantile(score[clean], 0.99)).mean() > 0.8


def test_pairs_of_a_column_that_came_alive_start_anew() -> None:
    detector, state = warm()
    fresh = detector.rescaled(state, np.array([2]))
    assert fresh.anchor_mass[2] == 0.0
    assert fresh.anchor_mass[3] == state.anchor_mass[3]
    g, y = stream(SIZE, seed=3)
    g[:30, [2, 3, 5]] = (1.2, -0.3, 0.6)
    y[:30] = 1
    events = batch(g, y)
    before, after = (
        detector.explain(state, events, np.arange(2)),
        detector.explain(fresh, events, np.arange(2)),
    )
    assert "f2" in before[0].data["columns"]
    assert "f2" not in after[0].data["columns"]


def test_the_context_explains_related_values_only() -> None:
    rng = np.random.default_rng(0)
    g = rng.standard_normal((3, 4000)).astype(np.float32)
    g[1] = g[0] + 0.1 * g[1]
    context = LinearContext.empty(3, lag=4)
    context = context.learn(context.read(g), np.ones(4000, dtype=bool), 20_000.0)
    gain = context.read(np.array([[2.0, 2.0], [2.0, -2.0], [0.0, 0.0]], dtype=np.float32)).gain
    assert gain[:2, 0].min() > 1.0
    assert gain[:2, 1].max() < -1.0
    assert np.abs(context.read(g).gain[2]).max() < 0.3


def test_table_merge_adds_counts() -> None:
    slot = np.array([[3, 3, 5], [16 + 1, 16 + 2, 16 + 1]])
    weight = np.ones((2, 3), dtype=np.float32)
    counted = LiftTable.empty(32).count(slot, weight, 1.0)
    table = LiftTable.empty(32).learned(counted, weight, 1.0)
    merged = table.merge(table)
    assert merged.recent[3] == merged.anchor[3] == 4.0
    assert merged.recent[17] == merged.anchor[17] == 4.0
    assert merged.recent.sum() == merged.anchor.sum() == 12.0
    assert merged.without(np.array([True, False])).recent.nonzero()[0].tolist() == [17, 18]


def _stamped(seed: int, label: int = 1) -> tuple[np.ndarray, np.ndarray]:
    g, y = stream(SIZE, seed=seed)
    g[:14, [2, 3, 5]] = (3.4, 3.6, -3.5)
    y[:14] = label
    return g, y


def test_a_pattern_with_every_label_is_a_change_of_the_world() -> None:
    detector, state = warm()
    g, y = _stamped(11)
    one_label = detector.score(state, batch(g, y)).value[:14]
    y[:14] = np.arange(14) % 2
    every_label = detector.score(state, batch(g, y)).value[:14]
    assert np.median(every_label) < 0.5 * np.median(one_label)


def test_what_one_account_repeats_is_left_to_the_channels_that_judge_sources() -> None:
    detector, state = warm()
    g, y = _stamped(12)
    events = batch(g, y)
    alone = replace(events, source=np.where(np.arange(SIZE) < 14, 7, events.source), memo={})
    many = detector.score(state, events).value[:14]
    one = detector.score(state, alone).value[:14]
    assert np.median(one) < 0.5 * np.median(many)
    # Where everything comes from one source, that says nothing.
    only = replace(events, source=np.zeros(SIZE, dtype=np.uint64), memo={})
    assert np.array_equal(detector.score(state, only).value[:14], many)
