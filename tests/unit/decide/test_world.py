"""A change that most sources show is no attack; what a minority does, or a small share, may be."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.core.types import BoolArray, FloatArray, HashArray, RawBatch, Verdict
from monitor.decide.world import ATTACK, DEVIATIONS, KEPT, LOW, SPANS, Recent, based_anew
from monitor.gate import Gate
from monitor.state import codec

N, SOURCES = 1024, 200


def _traffic(seed: int, n: int = N) -> tuple[HashArray, FloatArray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    weight = rng.gamma(2.0, size=SOURCES)
    source = rng.choice(SOURCES, size=n, p=weight / weight.sum()).astype(np.uint64)
    return source, rng.random(n), rng


def _surprised(p: FloatArray, who: BoolArray) -> FloatArray:
    return np.where(who, 1e-6 * p, p)


@pytest.mark.parametrize("seed", range(5))
def test_a_shift_of_everybody_is_a_change_of_the_world(seed: int) -> None:
    source, p, rng = _traffic(seed)
    shifted = _surprised(p, rng.random(N) < 0.4)
    rows = Recent.empty().changed("d", source, shifted)
    assert len(rows) > 0.9 * N
    anew = based_anew(shifted, rows)
    assert (anew <= 0.001).mean() <= 0.001
    assert (anew <= 0.01).mean() <= 0.011


@pytest.mark.parametrize("seed", range(5))
def test_the_same_surprise_by_a_minority_of_sources_is_not(seed: int) -> None:
    source, p, _ = _traffic(seed)
    # Two fifths of the accounts, everything they send.
    assert not len(Recent.empty().changed("d", source, _surprised(p, source < 0.4 * SOURCES)))


def test_many_accounts_do_not_make_a_majority_of_the_traffic() -> None:
    _, p, rng = _traffic(3)
    hostile = rng.random(N) < 0.4
    # Every hostile event from an account of its own, beside twenty busy honest ones.
    source = np.where(hostile, 1000 + np.arange(N), rng.integers(0, 20, N)).astype(np.uint64)
    assert not len(Recent.empty().changed("d", source, _surprised(p, hostile)))


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_attack_by_ordinary_sources_is_not(seed: int) -> None:
    source, p, rng = _traffic(seed, 4 * N)
    attacked = _surprised(p, rng.random(4 * N) < ATTACK)
    assert not len(Recent.empty().changed("d", source, attacked))


def test_clean_traffic_is_left_alone() -> None:
    source, p, _ = _traffic(1, 20_000)
    assert not len(Recent.empty().changed("d", source, p))


def test_a_change_is_placed_within_its_batch() -> None:
    source, p, rng = _traffic(2, 2 * N)
    late = np.arange(2 * N) >= N
    rows = Recent.empty().changed("d", source, _surprised(p, late & (rng.random(2 * N) < 0.7)))
    assert rows[-1] == 2 * N - 1
    # Spans that begin before it hold enough of what comes after it.
    assert N - SPANS[-1] < rows[0] <= N


def test_small_batches_find_it_too_and_what_is_remembered_is_bounded() -> None:
    source, p, rng = _traffic(4, 3 * N)
    p = _surprised(p, (np.arange(3 * N) >= N) & (rng.random(3 * N) < 0.5))
    recent, found = Recent.empty(), np.zeros(3 * N, dtype=bool)
    for first in range(0, 3 * N, 16):
        part = slice(first, first + 16)
        rows = recent.changed("d", source[part], p[part])
        found[first + rows] = True
        recent = recent.put(source[part], {"d": p[part]})
        assert len(recent.source) == len(recent.low["d"]) <= KEPT
    assert not found[:N].any()
    assert found[N + 500 :].all()


def test_a_detector_that_was_silent_counts_as_unsurprised() -> None:
    source, p, _ = _traffic(5, 300)
    recent = Recent.empty().put(source, {"a": p}).put(source, {"a": p, "b": p})
    assert recent.low["b"].shape == recent.low["a"].shape
    assert not recent.low["b"][:300].any()
    assert not len(recent.changed("c", source[:10], np.full(10, 1e-9)))


def test_based_anew_keeps_the_order_and_lowers_nothing() -> None:
    _, p, rng = _traffic(6)
    p = _surprised(p, rng.random(N) < 0.5)
    rows = np.arange(100, N)
    anew = based_anew(p, rows)
    assert (anew >= p).all()
    np.testing.assert_array_equal(anew[:100], p[:100])
    order = np.argsort(p[100:], kind="stable")
    assert (np.diff(anew[100:][order]) >= 0.0).all()
    assert anew.max() <= 1.0


@pytest.mark.parametrize("events", SPANS)
def test_the_bound_is_three_deviations_above_the_attack(events: int) -> None:
    source = np.arange(events).astype(np.uint64) % np.uint64(2)
    expected = (ATTACK + LOW) * events
    least = next(k for k in range(events) if k - DEVIATIONS * np.sqrt(k) > expected)
    for count, changed in ((least, True), (least - 1, False)):
        p = np.ones(events)
        p[np.linspace(0, events - 1, count).astype(int)] = 1e-9
        found = Recent.empty().changed("d", source, p)
        if events == SPANS[0]:
            assert bool(len(found)) is changed
        else:
            assert bool(len(found)) >= changed


def test_what_is_remembered_is_stored_exactly() -> None:
    source, p, _ = _traffic(7)
    recent = Recent.empty().put(source, {"a": p, "b": p * 0.01})
    again = codec.load(Recent, codec.dump(recent))
    np.testing.assert_array_equal(again.source, recent.source)
    assert again.low.keys() == recent.low.keys()
    for name, low in recent.low.items():
        np.testing.assert_array_equal(again.low[name], low)


def _held(turned_sources: float, batch: int) -> tuple[float, float]:
    """Shares held of the events that follow the turned rule, and of all the others."""
    n, start = 9_000, 6_000
    rng = np.random.default_rng(8)
    x = rng.normal(size=(n, 3))
    source = rng.integers(0, 100, n)
    turned = (np.arange(n) >= start) & (source < 100 * turned_sources)
    label = (x[:, 0] + x[:, 1] > 0) ^ turned
    gate = Gate()
    state = gate.start()
    verdict = []
    for first in range(0, n, batch):
        events = [
            b'{"id":"%d","ts":%d,"source":"s%d","label":"%d","features":[%.6f,%.6f,%.6f]}'
            % (i, i, source[i], label[i], *x[i])
            for i in range(first, min(first + batch, n))
        ]
        decided, state = gate.step(state, RawBatch.of(events, start=first))
        verdict.append(decided.verdict)
    held = np.concatenate(verdict) == Verdict.QUARANTINE
    return float(held[turned].mean()), float(held[~turned].mean())


@pytest.mark.parametrize("batch", [256, 2048])
def test_the_gate_lets_everybody_change_but_not_a_few(batch: int) -> None:
    everybody, _ = _held(1.0, batch)
    few, others = _held(0.15, batch)
    assert everybody < 0.1
    assert few > 0.9
    assert others < 0.01
