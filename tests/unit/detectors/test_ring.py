"""The ring detector: several sources with one label count, one odd source does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import betaln

from monitor.core.types import EventBatch
from monitor.detectors.ring import SHOWN_NATS, Ring, RingParams, RingState
from monitor.sketches.label_mix import BUCKETS, LEAST_SHARE, PUSHED, RECENT, RHO, LabelMix
from tests.checks.detector_laws import Shape, batch_of

SIZE = 256
SOURCES = 60


def batch(source: np.ndarray, y: np.ndarray, start: int = 0) -> EventBatch:
    made = batch_of(Shape(len(y), seed=start, classes=2, table=2), start=start)
    return replace(
        made,
        source=source.astype(np.uint64),
        sources=[f"acct-{s}" for s in source],
        y=y.astype(np.int32),
        labels=[int(v) for v in y],
        memo={},
    )


def honest(rng: np.random.Generator, n: int, taste: float) -> tuple[np.ndarray, np.ndarray]:
    """Sources that differ: each has its own share of label 1."""
    source = rng.integers(1, SOURCES + 1, n)
    own = np.random.default_rng(5).beta(taste, taste, SOURCES + 1)
    return source, (rng.random(n) < own[source]).astype(int)


def warm(taste: float = 5.0, batches: int = 24) -> tuple[Ring, RingState]:
    rng = np.random.default_rng(0)
    detector, state = Ring(), Ring().empty(5)
    for i in range(batches):
        events = batch(*honest(rng, SIZE, taste), start=i * SIZE)
        state = detector.observe(state, events, np.ones(SIZE, dtype=bool))
    return detector, state


def attacked(accounts: int, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    source, y = honest(np.random.default_rng(9), SIZE, 5.0)
    rows = np.arange(0, 2 * accounts * each, 2)
    source[rows] = 1000 + np.arange(len(rows)) % accounts
    y[rows] = 1
    return source, y, rows


def test_a_ring_is_found_by_what_its_members_have_in_common() -> None:
    detector, state = warm()
    source, y, rows = attacked(accounts=10, each=10)
    value = detector.score(state, batch(source, y, 10_000)).value
    honest_rows = np.setdiff1d(np.arange(SIZE), rows)
    assert value[rows].min() > 5.0
    assert np.quantile(value[honest_rows], 0.95) < 1.0


def test_one_odd_source_alone_is_no_ring() -> None:
    detector, state = warm()
    source, y, rows = attacked(accounts=1, each=80)
    value = detector.score(state, batch(source, y, 10_000)).value
    assert value[rows].max() < 1.0


def test_where_sources_say_one_label_by_nature_nothing_is_a_ring() -> None:
    # Half of the sources say hardly anything but 0, the others hardly anything but 1.
    detector, state = warm(taste=0.05)
    source, y, rows = attacked(accounts=10, each=10)
    value = detector.score(state, batch(source, y, 10_000)).value
    assert value[rows].max() < 5.0


def test_what_was_held_does_not_become_usual() -> None:
    detector, state = warm()
    source, y, rows = attacked(accounts=10, each=10)
    events = batch(source, y, 10_000)
    accepted = np.ones(SIZE, dtype=bool)
    accepted[rows] = False
    admitted = detector.observe(state, events, np.ones(SIZE, dtype=bool))
    held = detector.observe(state, events, accepted)
    assert held.usual[1] < admitted.usual[1] - 8.0


def test_the_reason_names_share_label_and_company() -> None:
    detector, state = warm()
    source, y, rows = attacked(accounts=10, each=10)
    found = detector.explain(state, batch(source, y, 10_000), rows[:1])
    assert found[0].data["others_alike"] >= 9
    assert found[0].data["share"] == 1.0
    assert "'acct-1000'" in found[0].text
    assert "other active sources push that label" in found[0].text


def test_memory_is_bounded() -> None:
    detector = Ring(RingParams(sources=64))
    state = detector.empty(5)
    rng = np.random.default_rng(1)
    for i in range(60):
        source = np.arange(i * SIZE, (i + 1) * SIZE) + 1
        events = batch(source, rng.integers(0, 2, SIZE), i * SIZE)
        state = detector.observe(state, events, np.ones(SIZE, dtype=bool))
    assert len(state.table) <= 64 + SIZE
    assert len(state.mix.keys) <= 512


def test_the_law_of_the_mix_is_told_from_the_many() -> None:
    rng = np.random.default_rng(2)
    share = rng.beta(8.0, 12.0, 400)
    counts = np.zeros((400, 16))
    counts[:, 1] = rng.binomial(40, share)
    counts[:, 0] = 40 - counts[:, 1]
    keys = np.arange(400, dtype=np.uint64)
    mix = LabelMix.empty().put(keys, counts, 1.0).fitted()
    counts[:30, :2] = (0.0, 40.0)
    hostile = LabelMix.empty().put(keys, counts, 1.0).fitted()
    assert abs(mix.share[1] - 0.4) < 0.03
    assert 15.0 < mix.precision[1] < 45.0
    assert hostile.precision[1] > 5.0
    evidence = hostile.nats(counts)
    assert evidence[:30, 1].min() > 8.0
    assert np.quantile(evidence[30:, 1], 0.99) < 2.0


def test_what_two_partitions_saw_lately_is_active_in_both() -> None:
    detector = Ring()
    sides = []
    for side in range(2):
        rng = np.random.default_rng(side)
        state = detector.empty(5)
        for i in range(24 + 8 * side):
            source, y = honest(rng, SIZE, 5.0)
            if i >= 22 + 8 * side:
                rows = np.arange(0, 80, 2)
                source[rows], y[rows] = 1000 * (side + 1) + np.arange(40) % 4, 1
            events = batch(source, y, i * SIZE)
            state = detector.observe(state, events, np.ones(SIZE, dtype=bool))
        sides.append(state)
    merged = detector.merge(*sides)
    assert merged.seen == sum(state.seen for state in sides)
    source, y = honest(np.random.default_rng(9), SIZE, 5.0)
    source[:40:4], y[:40:4] = 1001, 1
    events = batch(source, y, 50_000)
    alone = detector.score(sides[0], events).value[:40:4]
    together = detector.score(merged, replace(events, memo={})).value[:40:4]
    assert together.min() > 1.5 * alone.max()


def test_of_a_flood_of_sources_not_always_the_same_are_kept() -> None:
    keys = np.sort(np.random.default_rng(3).integers(0, 2**63, 2000).astype(np.uint64) * 2)
    counts = np.ones((2000, 16))
    kept = [set(LabelMix.empty().put(keys, counts, now).keys.tolist()) for now in (10.0, 20.0)]
    assert all(len(some) == 512 for some in kept)
    assert len(kept[0] & kept[1]) < 256


def test_labels_that_a_source_never_gave_need_no_beta_function() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        share = np.clip(rng.beta(0.3, 1.0, BUCKETS), LEAST_SHARE, 1.0 - LEAST_SHARE)
        precision = 1.0 / rng.uniform(*RHO, BUCKETS) ** rng.integers(1, 3) - 1.0 + 1e-3
        mix = replace(LabelMix.empty(), share=share, precision=precision)
        counts = rng.gamma(0.5, 10.0, (40, BUCKETS)) * (rng.random((40, BUCKETS)) < 0.3)
        counts[0], counts[1, 1:] = 0.0, 0.0
        rest = counts.sum(axis=1, keepdims=True) - counts
        a, b = share * precision, (1.0 - share) * precision
        pushed = betaln(counts + PUSHED[0], rest + PUSHED[1]) - betaln(*PUSHED)
        usual = betaln(counts + a, rest + b) - betaln(a, b)
        assert np.array_equal(mix.nats(counts), np.maximum(pushed - usual, 0.0))


def test_sources_beyond_those_remembered_are_judged_by_what_they_show() -> None:
    rng = np.random.default_rng(4)
    detector, state = warm()
    n = 3 * RECENT
    source, y = np.arange(n) + 1000, rng.integers(0, 2, n)
    many = detector._look(state, batch(source, y, start=9000))
    assert len(many.mix.keys) == RECENT < len(many.keys)
    assert np.array_equal(many.own, many.mix.nats(many.counts))
    kept = np.isin(many.keys, many.mix.keys)
    alike = (many.own[kept] > SHOWN_NATS).sum(axis=0)
    assert np.array_equal(many.alike, np.maximum(alike - (many.own > SHOWN_NATS), 0))
