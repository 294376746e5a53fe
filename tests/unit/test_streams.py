"""The benchmarks' streams: seeded, causal features, drift where and in whom it is said to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest import movielens, streams
from monitor.core.errors import UsageError
from monitor.runtime.inject import Role, Stream, inject


@pytest.mark.parametrize("name", [*streams.MULTI, "phishing", "segments"])
def test_bundled_streams_load(name):
    stream = streams.load(name)
    assert len(stream) > 1000 and len(stream.labels) > 1
    assert np.isfinite(stream.x).all() and stream.x.shape == (len(stream), len(stream.columns))
    assert name in streams.names()


@pytest.mark.parametrize("name", ["sea_abrupt", "sea_gradual", "rbf_drift"])
def test_synthetic_streams_are_seeded_and_never_repeat(name):
    stream = streams.load(name, seed=3)
    streams.load.cache_clear()
    again = streams.load(name, seed=3)
    assert stream.lines() == again.lines() and len(stream) == streams.SYNTHETIC_EVENTS
    assert not np.array_equal(stream.x, streams.load(name, seed=4).x)
    assert len(np.unique(stream.x, axis=0)) == len(stream)


def sea_share(stream: Stream, threshold: float) -> np.ndarray:
    """Share of labels that follow a threshold, by tenth of the stream."""
    follows = (stream.x[:, 0] + stream.x[:, 1] > threshold) == (stream.y == 1)
    return follows.reshape(10, -1).mean(axis=1)


def test_drift_is_in_the_middle():
    abrupt, gradual = streams.load("sea_abrupt"), streams.load("sea_gradual")
    first, second = sea_share(abrupt, 7.0), sea_share(abrupt, 9.5)
    assert first[:5].min() > 0.92 and second[5:].min() > 0.92 and first[5:].max() < 0.85
    first = sea_share(gradual, 7.0)
    assert first[:3].min() > 0.92 and 0.8 < first[4:6].mean() < 0.92 and first[8:].max() < 0.85


def test_a_campaign_is_the_drift_of_a_few_sources():
    found = streams.drift_campaign("sea", events=6000, share=0.05, seed=2)
    source = np.array(found.stream.source)
    mine = set(source[found.poison])
    assert len(mine) == 10 and not found.poison[:3000].any()
    assert set(source[(found.role == Role.HIJACKED_HONEST)]) == mine
    assert (found.poison[3000:] == np.isin(source[3000:], list(mine))).all()
    total = found.stream.x[:, 0] + found.stream.x[:, 1]
    label = found.stream.y == 1
    assert ((total > 9.5) == label)[found.poison].mean() > 0.9
    assert ((total > 7.0) == label)[~found.poison].mean() > 0.9


def test_a_campaign_needs_sources_on_both_sides():
    stream = replace(streams.load("phishing"), source=tuple(f"s{i}" for i in range(1250)))
    with pytest.raises(ValueError, match="both sides"):
        streams.campaign(stream, stream.y)


def ratings(n: int, seed: int) -> Stream:
    rng = np.random.default_rng(seed)
    bare = Stream(
        "r",
        movielens.COLUMNS,
        np.zeros((n, len(movielens.COLUMNS))),
        rng.integers(0, 5, n),
        movielens.RATINGS,
        tuple(f"user-{i}" for i in rng.integers(0, 12, n)),
        8.9e8 + np.cumsum(rng.exponential(5000.0, n)),
        tuple(f"item-{i}" for i in rng.integers(0, 15, n)),
        derive=movielens.features,
    )
    return replace(bare, x=movielens.features(bare))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 149), st.integers(1, 4))
def test_no_rating_leaks_into_its_own_or_earlier_features(seed, row, step):
    stream = ratings(150, seed)
    y = stream.y.copy()
    y[row] = (y[row] + step) % 5
    after = movielens.features(replace(stream, y=y))
    assert np.array_equal(after[: row + 1], stream.x[: row + 1])
    assert row == 149 or not np.array_equal(after[row + 1 :], stream.x[row + 1 :])


def test_features_are_those_of_the_past():
    stream = ratings(150, 1)
    worth = np.array(movielens.RATINGS)[stream.y]
    for i in (0, 40, 149):
        past = np.arange(150) < i
        same = past & (np.array(stream.subject) == stream.subject[i])
        usual = (3.0 + worth[past].sum()) / (1.0 + past.sum())
        mean = (worth[same].sum() + 5.0 * usual) / (same.sum() + 5.0)
        assert stream.x[i, 4] == pytest.approx(mean) and stream.x[i, 5] == same.sum()


def test_shillers_get_the_features_they_would_have():
    found = inject(ratings(900, 2), "shilling_push_average", colluders=4, rate=0.1)
    whole = movielens.features(found.stream)
    assert np.array_equal(found.stream.x[found.poison], whole[found.poison])
    assert np.array_equal(found.stream.x[~found.poison], ratings(900, 2).x)
    first = int(np.flatnonzero(found.poison)[0])
    assert found.stream.x[first, 1] == 0


@pytest.mark.skipif("movielens" not in streams.names(), reason="needs the shared data")
def test_movielens():
    stream = streams.load("movielens")
    assert len(stream) == 100_000 and len(set(stream.source)) == 943
    assert stream.labels == (1, 2, 3, 4, 5) and (np.diff(stream.ts) >= 0).all()
    with pytest.raises(UsageError, match="subject"):
        inject(streams.load("phishing"), "shilling_push_random")
