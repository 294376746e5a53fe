"""Labelled streams as columns, with honest sources, for the benchmarks.

Real ones come from ../shared/data where that folder exists and from the river package; synthetic
ones with known drift from river.datasets.synth.
"""

from __future__ import annotations

import csv
import functools
import gzip
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from river import datasets
from river.datasets import synth

from loadtest import movielens
from monitor.core.types import FloatArray, IntArray, Label
from monitor.runtime.inject import Attacked, Role, Stream, honest_sources

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
BUNDLED = {
    "shuttle": datasets.Shuttle,
    "segments": datasets.ImageSegments,
    "phishing": datasets.Phishing,
    "bananas": datasets.Bananas,
    "electricity": datasets.Elec2,
}
MULTI = {
    "yeast": (datasets.Yeast, lambda targets: bool(targets["Class4"])),
    "solarflare": (datasets.SolarFlare, lambda targets: targets["c-class-flares"] > 0),
}
"""Bundled sets with several targets, and the label made of them: one protein class in 14, and
whether the region flares."""
FILES = ("electricity", "weather")
MOVIELENS = "movielens"
START = 1_700_000_000.0
SYNTHETIC_EVENTS = 20_000
ABRUPT_WIDTH = 64
"""Events; less overflows in river."""
GRADUAL_WIDTH = 6_000


def names() -> tuple[str, ...]:
    """The real streams that can be read here without a download."""
    files = tuple(name for name in FILES if (SHARED / f"{name}.csv.gz").exists())
    rated = (MOVIELENS,) if _ratings().exists() else ()
    bundled = ("shuttle", "segments", "phishing", "bananas", *MULTI)
    return (*files, *rated, *bundled)


def _ratings() -> Path:
    return SHARED / "movielens-100k.tsv.gz"


@functools.lru_cache(maxsize=8)
def load(name: str, *, sources: int = 200, seed: int = 0) -> Stream:
    """The stream ``name`` in its original order.

    Parameters
    ----------
    name
        One of :func:`names` or of :data:`SYNTHETIC`.
    sources
        Number of made-up honest accounts; MovieLens has its own users instead. All but
        MovieLens have one event a second.
    seed
        Of the accounts, and of the events of synthetic streams.

    Raises
    ------
    KeyError
        For an unknown name.
    """
    path = SHARED / f"{name}.csv.gz"
    if name == MOVIELENS:
        return movielens.read(_ratings())
    if name in SYNTHETIC:
        return _from_pairs(name, SYNTHETIC[name](seed), sources, seed)
    if name in MULTI:
        kind, label = MULTI[name]
        return _from_pairs(name, ((x, label(y)) for x, y in kind()), sources, seed)
    if name in FILES and path.exists():
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        table = np.array([[float(v) for v in row] for row in rows])
        x, raw, columns = table[:, :-1], [int(v) for v in table[:, -1]], tuple(header[:-1])
        return _stream(name, columns, x, raw, sources=sources, seed=seed)
    pairs = ((x, str(label)) for x, label in BUNDLED[name]())
    return _from_pairs(name, pairs, sources, seed)


def _from_pairs(
    name: str, pairs: Iterable[tuple[dict[Any, Any], Label]], sources: int, seed: int
) -> Stream:
    rows = list(pairs)
    columns = tuple(str(key) for key in rows[0][0])
    cells = [list(features.values()) for features, _ in rows]
    table = np.array([_numbers(column) for column in zip(*cells, strict=True)]).T.copy()
    raw = [label for _, label in rows]
    return _stream(name, columns, table, raw, sources=sources, seed=seed)


def _numbers(column: tuple[Any, ...]) -> list[float]:
    """Texts become their place in the sorted texts of the column."""
    words = sorted({value for value in column if isinstance(value, str)})
    code = {word: float(i) for i, word in enumerate(words)}
    return [code[value] if isinstance(value, str) else float(value) for value in column]


def _stream(
    name: str,
    columns: tuple[str, ...],
    x: FloatArray,
    raw: list[Any],
    *,
    sources: int,
    seed: int,
) -> Stream:
    labels = tuple(sorted(set(raw), key=str))
    index = {label: i for i, label in enumerate(labels)}
    y = np.array([index[label] for label in raw], dtype=np.int64)
    honest = honest_sources(len(y), count=sources, seed=seed)
    return Stream(name, columns, x, y, labels, honest, START + np.arange(len(y), dtype=np.float64))


# -- Synthetic drift ---------------------------------------------------------------------------

Pairs = list[tuple[dict[Any, Any], Label]]
CONCEPTS: dict[str, tuple[Any, Any]] = {
    "sea": (
        lambda seed: synth.SEA(variant=2, noise=0.05, seed=seed),
        lambda seed: synth.SEA(variant=3, noise=0.05, seed=seed),
    ),
    "agrawal": (
        lambda seed: synth.Agrawal(classification_function=0, seed=seed),
        lambda seed: synth.Agrawal(classification_function=2, seed=seed),
    ),
}
"""Pairs of concepts: with one seed, the same features and other labels."""


def _drift(concept: str, width: int, seed: int) -> Pairs:
    before, after = CONCEPTS[concept]
    # Other features too: with the same seed the second half would repeat those of the first.
    before, after = before(seed), after(seed + 1_000_003)
    stream = synth.ConceptDriftStream(
        before, after, position=SYNTHETIC_EVENTS // 2, width=width, seed=seed
    )
    return list(islice(iter(stream), SYNTHETIC_EVENTS))


def _rbf(seed: int) -> Pairs:
    stream = synth.RandomRBFDrift(
        seed_model=seed,
        seed_sample=seed,
        n_classes=3,
        n_features=8,
        n_centroids=20,
        change_speed=0.001,
        n_drift_centroids=10,
    )
    return list(islice(iter(stream), SYNTHETIC_EVENTS))


SYNTHETIC = {
    "sea_abrupt": lambda seed: _drift("sea", ABRUPT_WIDTH, seed),
    "sea_gradual": lambda seed: _drift("sea", GRADUAL_WIDTH, seed),
    "agrawal_abrupt": lambda seed: _drift("agrawal", ABRUPT_WIDTH, seed),
    "agrawal_gradual": lambda seed: _drift("agrawal", GRADUAL_WIDTH, seed),
    "rbf_drift": _rbf,
}
"""20,000 events each. Abrupt and gradual drift have their middle at half of the stream, gradual
ones last about 6,000 events; ``rbf_drift`` moves half of its class centres all the time."""


def campaign(
    stream: Stream, other: IntArray, *, share: float = 0.02, at: float = 0.5, seed: int = 0
) -> Attacked:
    """A drift that only some sources make: their events follow another concept.

    Parameters
    ----------
    stream
        n events of the concept that holds for everybody else.
    other
        int64[n], the labels (indices into ``stream.labels``) of the other concept.
    share
        Of the sources, at least one; drawn evenly among those with events before and behind
        ``at``, so that their activity is ordinary.
    at
        Share of the stream after which they follow the other concept.
    seed
        Of the draw.

    Returns
    -------
    Attacked
        ``poison`` is true for every event of those sources behind ``at``, also where the two
        concepts agree; their earlier events have the role of a hijacked source's honest ones.

    Raises
    ------
    ValueError
        When no source has events before and behind ``at``.
    """
    start = int(len(stream) * at)
    source = np.array(stream.source)
    known = np.intersect1d(source[:start], source[start:])
    if not len(known):
        raise ValueError("no source has events on both sides")
    count = min(len(known), max(1, round(share * len(np.unique(source)))))
    drawn = np.random.default_rng([seed, 41]).choice(known, size=count, replace=False)
    mine = np.isin(source, drawn)
    shifted = mine & (np.arange(len(stream)) >= start)
    role = np.full(len(stream), Role.HONEST, dtype=np.uint8)
    role[mine] = Role.HIJACKED_HONEST
    role[shifted] = Role.POISON
    return Attacked(
        replace(stream, y=np.where(shifted, other, stream.y)),
        shifted,
        "drift_campaign",
        role,
        np.arange(len(stream)),
        np.zeros(len(stream), dtype=bool),
    )


def drift_campaign(
    concept: str = "sea",
    *,
    events: int = SYNTHETIC_EVENTS,
    share: float = 0.02,
    at: float = 0.5,
    sources: int = 200,
    seed: int = 0,
) -> Attacked:
    """An honest population of one concept in which ``share`` of the sources shift to another.

    The shift is that of ``load(f"{concept}_abrupt")``, where everybody makes it; see
    :func:`campaign` for the truth. With 2 % of 200 sources about 1 event in 50 is theirs.

    Raises
    ------
    KeyError
        For a concept that is not in :data:`CONCEPTS`.
    """
    before, after = (list(islice(iter(make(seed)), events)) for make in CONCEPTS[concept])
    stream = _from_pairs(f"{concept}_campaign", before, sources, seed)
    index = {label: i for i, label in enumerate(stream.labels)}
    other = np.array([index[label] for _, label in after], dtype=np.int64)
    return campaign(stream, other, share=share, at=at, seed=seed)
