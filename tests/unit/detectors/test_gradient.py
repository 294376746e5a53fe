"""Supplied vectors: client updates and per-example gradients, honest and poisoned."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import orjson
import pytest

from monitor.core.types import EventBatch
from monitor.detectors.gradient import NOTHING, Gradient
from monitor.gate import Gate
from tests.checks.channel import Watched, watch

N, PREFIX, RATE = 8000, 0.3, 0.03


@dataclass(frozen=True)
class Vectors:
    """A stream: features, labels, sources, gradients, and which events are poison."""

    z: np.ndarray
    y: np.ndarray
    source: np.ndarray
    g: np.ndarray
    poison: np.ndarray

    def batches(self, size: int = 256) -> list[EventBatch]:
        return [self._batch(i, min(i + size, len(self.y))) for i in range(0, len(self.y), size)]

    def _batch(self, first: int, last: int) -> EventBatch:
        part, n = slice(first, last), last - first
        rng = np.random.default_rng(first)
        return EventBatch(
            offset=np.arange(first, last),
            x=self.z[part],
            g=self.z[part],
            z=self.z[part],
            y=self.y[part].astype(np.int32),
            n_classes=2,
            source=self.source[part].astype(np.uint64),
            subject=np.zeros(n, dtype=np.uint64),
            id_hash=rng.integers(0, 2**63, n).astype(np.uint64),
            content=np.arange(first, last).astype(np.uint64),
            time_ns=np.arange(first, last) * 10**9,
            weight=np.ones(n),
            ids=[str(i) for i in range(first, last)],
            sources=[f"acct-{s}" for s in self.source[part]],
            labels=[int(label) for label in self.y[part]],
            columns=tuple(f"f{i}" for i in range(self.z.shape[1])),
            label_names=("0", "1"),
            gradient=self.g[part],
        )


def _sources(rng: np.random.Generator, count: int = 150) -> np.ndarray:
    activity = 1.0 / np.arange(1, count + 1) ** 0.7
    return rng.choice(count, N, p=activity / activity.sum())


def clients(seed: int, dimension: int = 200) -> Vectors:
    """Updates of clients whose data differ: a common direction, an own one, and noise."""
    rng = np.random.default_rng(seed)
    source = _sources(rng)
    common, own = 0.3 * rng.normal(size=dimension), 0.3 * rng.normal(size=(150, dimension))
    length = np.exp(0.4 * rng.normal(size=N) - np.arange(N) / N)
    g = (common + own[source] + rng.normal(size=(N, dimension))) * length[:, None]
    nobody = np.zeros(N, dtype=bool)
    return Vectors(np.zeros((N, 1)), np.zeros(N, dtype=int), source, g, nobody)


def examples(seed: int) -> Vectors:
    """Gradients of a logistic regression while it learns."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(N, 8))
    y = (z @ rng.normal(size=8) + rng.logistic(size=N) > 0).astype(int)
    joined, w = np.column_stack([z, np.ones(N)]), np.zeros(9)
    g = np.zeros((N, 9))
    for i in range(N):
        g[i] = (1.0 / (1.0 + np.exp(-joined[i] @ w)) - y[i]) * joined[i]
        w -= 0.05 * g[i]
    return Vectors(z, y, _sources(rng), g, np.zeros(N, dtype=bool))


def poisoned(stream: Vectors, kind: str, sybils: int) -> Vectors:
    """A copy with RATE poison behind the prefix; ``sybils`` 0 keeps the ordinary sources."""
    rng = np.random.default_rng(5)
    start = int(PREFIX * N)
    rows = rng.choice(np.arange(start, N), int(RATE * (N - start)), replace=False)
    g, source, poison = stream.g.copy(), stream.source.copy(), stream.poison.copy()
    poison[rows] = True
    if sybils:
        source[rows] = 1000 + rng.integers(0, sybils, len(rows))
    spread, noise = g.std(axis=0), rng.normal(size=g[rows].shape)
    if kind == "scaled":
        g[rows] *= 10.0
    elif kind == "flipped":
        g[rows] *= -1.0
    elif kind == "little":
        g[rows] = np.median(g, axis=0) - 0.3 * spread + 0.05 * spread * noise
    else:
        way = rng.normal(size=g.shape[1])
        turned = way / np.linalg.norm(way) + 0.5 / np.sqrt(len(way)) * noise
        turned /= np.linalg.norm(turned, axis=1, keepdims=True)
        g[rows] = turned * np.linalg.norm(g[rows], axis=1, keepdims=True)
    return replace(stream, g=g, source=source, poison=poison)


def _watched(stream: Vectors) -> tuple[Watched, np.ndarray]:
    # The model that the examples' gradients come from learns fast at first.
    late = np.arange(N) >= 0.5 * N
    return watch(Gradient(), stream.batches()), late & ~stream.poison


@pytest.mark.parametrize("sybils", [5, 40, 0])
@pytest.mark.parametrize("kind", ["scaled", "flipped", "little", "one way"])
def test_poisoned_client_updates_stand_out(kind: str, sybils: int) -> None:
    stream = poisoned(clients(1), kind, sybils)
    watched, honest = _watched(stream)
    assert watched.recall(stream.poison, honest) >= 0.95
    assert watched.flagged(stream.poison) >= 0.9
    assert watched.flagged(honest) <= 0.025


@pytest.mark.parametrize("sybils", [5, 0])
@pytest.mark.parametrize("kind", ["flipped", "little", "one way"])
def test_poisoned_example_gradients_stand_out(kind: str, sybils: int) -> None:
    stream = poisoned(examples(2), kind, sybils)
    watched, honest = _watched(stream)
    assert watched.recall(stream.poison, honest) >= 0.95
    assert watched.flagged(honest) <= 0.025


@pytest.mark.parametrize("stream", [clients(3), examples(3)], ids=["clients", "examples"])
def test_honest_vectors_are_flagged_as_often_as_promised(stream: Vectors) -> None:
    watched, honest = _watched(stream)
    assert watched.flagged(honest) <= 0.02
    assert watched.flagged(honest, 0.001) <= 0.004


def test_events_without_a_gradient_are_not_judged() -> None:
    stream = clients(4)
    g = stream.g.copy()
    g[::2] = np.nan
    watched = watch(Gradient(), replace(stream, g=g).batches())
    assert watched.ready[-512:].tolist() == [False, True] * 256
    assert not watched.score[~watched.ready].any()
    silent = replace(stream.batches()[0], gradient=None)
    detector = Gradient()
    assert not detector.score(watched.state, silent).ready.any()
    assert detector.observe(watched.state, silent, np.ones(256, dtype=bool)) is watched.state
    assert detector.explain(watched.state, silent, np.array([3]))[0].text == NOTHING


def test_numbers_near_the_limits_of_floats_do_no_harm() -> None:
    stream = clients(6, dimension=40)
    g = stream.g.copy()
    g[5000::41] = 1e308
    g[5001::41] = 0.0
    g[5002::41] = 1e-308
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        watched = watch(Gradient(), replace(stream, g=g).batches())
    assert np.isfinite(watched.score).all()
    assert watched.p[5000::41].max() < 1e-3
    assert watched.flagged(np.arange(N) % 41 == 5) < 0.03


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("scaled", "as long as usual"),
        ("flipped", "points against the others"),
        ("one way", "points the same way"),
    ],
)
def test_the_sentence_names_the_signal(kind: str, words: str) -> None:
    stream = poisoned(clients(1), kind, 40)
    watched, _ = _watched(stream)
    batch = stream.batches()[-1]
    rows = np.flatnonzero(stream.poison[-len(batch) :])
    texts = [e.text for e in Gradient().explain(watched.state, batch, rows)]
    assert any(words in text for text in texts), texts


def test_the_gate_flags_a_flipped_gradient_and_says_why() -> None:
    stream = poisoned(clients(1, dimension=20), "scaled", 3)
    lines = [
        orjson.dumps(
            {
                "id": str(i),
                "ts": i,
                "source": f"acct-{stream.source[i]}",
                "label": "ok",
                "features": [1.0, float(i % 7)],
                "gradient": stream.g[i].tolist(),
            }
        )
        for i in range(4000)
    ]
    gate = Gate()
    decided = [gate.check(lines[i : i + 250]) for i in range(0, len(lines), 250)]
    families = [d.families.get(j, ()) for d in decided for j in range(len(d))]
    caught = np.array(["gradient" in found for found in families])
    assert caught[stream.poison[:4000]].mean() > 0.9
    assert caught[~stream.poison[:4000]].mean() < 0.01
