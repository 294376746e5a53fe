"""Real labelled streams as columns, with honest sources, for the benchmarks."""

from __future__ import annotations

import csv
import functools
import gzip
from pathlib import Path

import numpy as np
from river import datasets

from monitor.runtime.inject import Stream, honest_sources

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
BUNDLED = {
    "shuttle": datasets.Shuttle,
    "segments": datasets.ImageSegments,
    "phishing": datasets.Phishing,
    "bananas": datasets.Bananas,
    "electricity": datasets.Elec2,
}
FILES = ("electricity", "weather")
START = 1_700_000_000.0


def names() -> tuple[str, ...]:
    """The streams that can be read here without a download."""
    files = tuple(name for name in FILES if (SHARED / f"{name}.csv.gz").exists())
    return (*files, "shuttle", "segments", "phishing", "bananas")


@functools.lru_cache(maxsize=8)
def load(name: str, *, sources: int = 200, seed: int = 0) -> Stream:
    """The stream ``name`` in its original order, one event a second, from honest accounts."""
    path = SHARED / f"{name}.csv.gz"
    if name in FILES and path.exists():
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        table = np.array([[float(v) for v in row] for row in rows])
        x, raw, columns = table[:, :-1], [int(v) for v in table[:, -1]], tuple(header[:-1])
    else:
        pairs = list(BUNDLED[name]())
        columns = tuple(str(key) for key in pairs[0][0])
        x = np.array([list(features.values()) for features, _ in pairs], dtype=np.float64)
        raw = [str(label) for _, label in pairs]
    labels = tuple(sorted(set(raw), key=str))
    index = {label: i for i, label in enumerate(labels)}
    y = np.array([index[label] for label in raw], dtype=np.int64)
    honest = honest_sources(len(y), count=sources, seed=seed)
    return Stream(name, columns, x, y, labels, honest, START + np.arange(len(y), dtype=np.float64))
