"""Evidence about sources: the vectorised walk, conviction, forgiveness, drift."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.types import EventBatch, FloatArray
from monitor.detectors.source_evidence import (
    SourceEvidence,
    SourceEvidenceState,
    _cusum,
)


def _batch(sources: list[int], p: FloatArray) -> EventBatch:
    n = len(sources)
    zeros = np.zeros(n)
    hashes = np.array(sources, dtype=np.uint64)
    return EventBatch(
        offset=np.arange(n),
        x=zeros[:, None],
        g=zeros[:, None],
        z=zeros[:, None],
        y=np.zeros(n, dtype=np.int32),
        n_classes=2,
        source=hashes,
        subject=np.zeros(n, dtype=np.uint64),
        id_hash=np.arange(n, dtype=np.uint64),
        content=np.arange(n, dtype=np.uint64),
        time_ns=np.zeros(n, dtype=np.int64),
        weight=np.ones(n),
        ids=[str(i) for i in range(n)],
        sources=[f"acct-{s}" for s in sources],
        labels=[0] * n,
        columns=("f0",),
        label_names=("0", "1"),
        p_value={"label_flip": p},
    )


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(-2, 4)), min_size=1, max_size=60),
    st.lists(st.floats(0, 29), min_size=5, max_size=5),
)
def test_the_vectorised_walk_is_the_plain_one(
    bets: list[tuple[int, float]], start: list[float]
) -> None:
    groups = sorted({group for group, _ in bets})
    dense = {group: i for i, group in enumerate(groups)}
    ordered = sorted(bets, key=lambda item: item[0])
    walk = _cusum(
        np.array([start[g] for g in groups], dtype=np.float32),
        np.array([bet for _, bet in ordered]),
        np.array([dense[group] for group, _ in ordered]),
        1e6,
    )
    for group, end in zip(groups, walk, strict=True):
        level = float(np.float32(start[group]))
        for other, bet in bets:
            if other == group:
                level = max(0.0, level + bet)
        np.testing.assert_allclose(end, level, atol=1e-6)


def _run(p_bad: float, batches: int) -> tuple[SourceEvidence, SourceEvidenceState, FloatArray]:
    rng = np.random.default_rng(3)
    detector = SourceEvidence()
    state = detector.empty(1)
    value = np.zeros(0)
    for _ in range(batches):
        sources = rng.integers(1, 50, size=200)
        p = rng.random(200)
        sources[:4], p[:4] = 0, p_bad
        batch = _batch([int(s) for s in sources], p)
        value = detector.score(state, batch).value
        state = detector.observe(state, batch, np.ones(200, dtype=bool))
    return detector, state, value


def test_a_source_of_surprises_stands_out_and_others_do_not() -> None:
    _, _, value = _run(0.05, 10)
    assert value[0] > 14.0
    assert np.quantile(value[4:], 0.99) < 7.0


def test_sources_that_are_odd_by_nature_are_no_campaign() -> None:
    """Every source has its own rate of surprises; some are far out, and none is rare among them."""
    rng = np.random.default_rng(6)
    odd = 0.5 * rng.standard_t(5, 300)
    detector = SourceEvidence()
    state = detector.empty(1)
    high = []
    for _ in range(150):
        sources = [int(s) for s in rng.integers(0, 300, size=200)]
        p = rng.random(200) ** np.exp(odd[sources])
        batch = _batch(sources, p)
        high.append(detector.score(state, batch).value > 7.0)
        state = detector.observe(state, batch, np.ones(200, dtype=bool))
    assert np.mean(high[20:]) < 0.02


def test_an_ordinary_source_is_forgiven() -> None:
    detector, state, _ = _run(0.05, 10)
    rng = np.random.default_rng(4)
    for _ in range(80):
        batch = _batch([0] * 4, rng.random(4))
        state = detector.observe(state, batch, np.ones(4, dtype=bool))
    assert detector.score(state, _batch([0], np.array([0.5]))).value[0] < 5.0


def test_a_drift_that_surprises_everywhere_convicts_nobody() -> None:
    rng = np.random.default_rng(5)
    detector = SourceEvidence()
    state = detector.empty(1)
    for _ in range(60):
        sources = [int(s) for s in rng.integers(0, 50, size=200)]
        batch = _batch(sources, rng.random(200) ** 3)
        value = detector.score(state, batch).value
        state = detector.observe(state, batch, np.ones(200, dtype=bool))
    assert np.median(value) < 2.0
    assert np.quantile(value, 0.99) < 12.0


def test_silent_without_channels_to_listen_to() -> None:
    detector = SourceEvidence()
    batch = replace(_batch([1, 2], np.array([0.5, 0.5])), p_value={})
    assert not detector.score(detector.empty(1), batch).ready.any()


def test_the_sentence_names_source_count_and_family() -> None:
    detector, state, _ = _run(0.01, 10)
    batch = _batch([0], np.array([0.01]))
    evidence = detector.explain(state, batch, np.array([0]))[0]
    assert "'acct-0' has sent 41 events" in evidence.text
    assert "41 of them" in evidence.text
    assert evidence.data["events"] == 41


def test_a_change_that_meets_every_source_at_once_convicts_none() -> None:
    rng = np.random.default_rng(21)
    detector = SourceEvidence()
    state = detector.empty(1)
    for _ in range(6):
        calm = _batch(rng.integers(0, 60, 1000).tolist(), rng.random(1000))
        state = detector.observe(state, calm, np.ones(1000, dtype=bool))
    sources = rng.integers(0, 60, 1000).tolist()
    hit = rng.random(1000) * 0.03
    everyone = detector.score(state, _batch(sources, hit)).value
    few = np.where(np.array(sources) == 7, hit, rng.random(1000))
    alone = detector.score(state, _batch(sources, few)).value[np.array(sources) == 7]
    assert np.median(everyone) < 0.5 * np.median(alone)
    assert np.median(alone) > 5.0
