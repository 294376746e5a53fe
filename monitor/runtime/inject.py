"""Seeded attacks on a recorded stream, with ground truth, for evaluation and the demo.

An attack rewrites a share of the events in place (label, features, source), so the stream keeps
its length and order. Nothing here is used on live traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import orjson

from monitor.core.errors import UsageError
from monitor.core.types import BoolArray, FloatArray, IntArray, Label

Pattern = Literal["burst", "spread"]
BURST_EVENTS = 40


@dataclass(frozen=True, slots=True)
class Stream:
    """A recorded labelled stream in columns.

    Attributes
    ----------
    name
        Used in the ids.
    columns
        d feature names.
    x
        float64[n, d], raw feature values.
    y
        int64[n], index into ``labels``.
    labels
        The C labels as they appear in the events.
    source
        n source names.
    ts
        float64[n], Unix seconds.
    """

    name: str
    columns: tuple[str, ...]
    x: FloatArray
    y: IntArray
    labels: tuple[Label, ...]
    source: tuple[str, ...]
    ts: FloatArray

    def __len__(self) -> int:
        return len(self.y)

    def lines(self) -> list[bytes]:
        """One JSON event a row, features as an object of names."""
        return [
            orjson.dumps(
                {
                    "id": f"{self.name}-{i}",
                    "ts": float(self.ts[i]),
                    "source": self.source[i],
                    "label": self.labels[int(self.y[i])],
                    "features": dict(zip(self.columns, self.x[i].tolist(), strict=True)),
                }
            )
            for i in range(len(self))
        ]


@dataclass(frozen=True, slots=True)
class Attacked:
    """An attacked copy of a stream. ``poison`` is bool[n]; ``attack`` names the attack."""

    stream: Stream
    poison: BoolArray
    attack: str


def honest_sources(n: int, *, count: int = 200, seed: int = 0) -> tuple[str, ...]:
    """``n`` source names drawn from ``count`` accounts with Zipf-like activity."""
    rng = np.random.default_rng([seed, 11])
    activity = 1.0 / np.arange(1, count + 1) ** 0.7
    drawn = rng.choice(count, size=n, p=activity / activity.sum())
    return tuple(f"acct-{i:04d}" for i in drawn)


def positions(
    n: int, *, rate: float, clean_prefix: float, pattern: Pattern, rng: np.random.Generator
) -> IntArray:
    """Sorted rows to poison: ``rate`` of all events behind the clean prefix.

    ``spread`` draws them singly; ``burst`` draws dense runs in which about two events in three
    are poison, so honest traffic goes on beside the attack.
    """
    start = int(n * clean_prefix)
    count = max(1, round((n - start) * rate))
    if pattern == "spread":
        return np.sort(rng.choice(np.arange(start, n), size=count, replace=False))
    chosen: set[int] = set()
    span = BURST_EVENTS * 3 // 2
    while len(chosen) < count:
        first = int(rng.integers(start, max(start + 1, n - span)))
        run = rng.choice(np.arange(first, min(n, first + span)), BURST_EVENTS, replace=False)
        chosen.update(int(i) for i in run)
    return np.sort(rng.choice(np.sort(list(chosen)), size=count, replace=False))


def _prefix(stream: Stream, rows: IntArray) -> int:
    return max(50, int(rows[0]))


def _flip(stream: Stream, rows: IntArray, rng: np.random.Generator) -> Stream:
    y = stream.y.copy()
    classes = len(stream.labels)
    y[rows] = (y[rows] + rng.integers(1, classes, size=len(rows))) % classes
    return replace(stream, y=y)


def _common_labels(stream: Stream, rows: IntArray) -> tuple[int, int]:
    """The most frequent label and the runner-up of the clean prefix."""
    counts = np.bincount(stream.y[: _prefix(stream, rows)], minlength=len(stream.labels))
    order = np.argsort(-counts, kind="stable")
    return int(order[0]), int(order[1])


def _targeted(stream: Stream, rows: IntArray, rng: np.random.Generator) -> Stream:
    victim, target = _common_labels(stream, rows)
    pool = np.flatnonzero(stream.y[: _prefix(stream, rows)] == victim)
    x, y = stream.x.copy(), stream.y.copy()
    other = rows[y[rows] != victim]
    x[other] = x[rng.choice(pool, size=len(other))]
    y[rows] = target
    return replace(stream, x=x, y=y)


def _trigger(stream: Stream, rows: IntArray, rng: np.random.Generator, noise: float) -> Stream:
    """Stamp three features with fixed seen values and the runner-up label (Chen et al. 2017)."""
    _, target = _common_labels(stream, rows)
    prefix = stream.x[: _prefix(stream, rows)]
    spread = prefix.std(axis=0)
    columns = rng.choice(
        np.flatnonzero(spread > 0), size=min(3, int((spread > 0).sum())), replace=False
    )
    x, y = stream.x.copy(), stream.y.copy()
    for column in columns:
        value = float(rng.choice(np.unique(prefix[:, column])))
        jitter = rng.normal(0.0, noise * spread[column], size=len(rows)) if noise else 0.0
        x[rows, column] = value + jitter
    y[rows] = target
    return replace(stream, x=x, y=y)


def _class_means(stream: Stream, rows: IntArray) -> FloatArray:
    end = _prefix(stream, rows)
    means = np.tile(stream.x[:end].mean(axis=0), (len(stream.labels), 1))
    for c in np.unique(stream.y[:end]):
        means[c] = stream.x[:end][stream.y[:end] == c].mean(axis=0)
    return means


def _clean_label(stream: Stream, rows: IntArray, rng: np.random.Generator) -> Stream:
    """Right label, features moved 60 % of the way towards another class (Shafahi et al. 2018)."""
    means = _class_means(stream, rows)
    first, second = _common_labels(stream, rows)
    y = stream.y[rows]
    towards = np.where(y == first, second, first)
    x = stream.x.copy()
    x[rows] += 0.6 * (means[towards] - means[y])
    return replace(stream, x=x)


def _gradient(stream: Stream, rows: IntArray, rng: np.random.Generator) -> Stream:
    """Confident points, pushed outward along the class direction, with the opposite label."""
    means = _class_means(stream, rows)
    first, second = _common_labels(stream, rows)
    end = _prefix(stream, rows)
    low, high = stream.x[:end].min(axis=0), stream.x[:end].max(axis=0)
    side = rng.random(len(rows)) < 0.5
    truth = np.where(side, first, second)
    x, y = stream.x.copy(), stream.y.copy()
    direction = means[truth] - means[np.where(side, second, first)]
    x[rows] = np.clip(means[truth] + rng.uniform(0.5, 1.5, (len(rows), 1)) * direction, low, high)
    y[rows] = np.where(side, second, first)
    return replace(stream, x=x, y=y)


def _frog(stream: Stream, rows: IntArray, rng: np.random.Generator) -> Stream:
    """Displacement towards another class that grows from 0 to 90 % (Rubinstein et al. 2009)."""
    means = _class_means(stream, rows)
    first, second = _common_labels(stream, rows)
    y = stream.y[rows]
    towards = np.where(y == first, second, first)
    ramp = np.linspace(0.0, 0.9, len(rows))[:, None]
    x = stream.x.copy()
    x[rows] += ramp * (means[towards] - means[y])
    return replace(stream, x=x)


ATTACKS: dict[str, Callable[[Stream, IntArray, np.random.Generator], Stream]] = {
    "flip": _flip,
    "targeted": _targeted,
    "backdoor": lambda s, r, g: _trigger(s, r, g, 0.0),
    "backdoor_jitter": lambda s, r, g: _trigger(s, r, g, 0.1),
    "clean_label": _clean_label,
    "gradient": _gradient,
    "frog": _frog,
}


def inject(
    stream: Stream,
    attack: str,
    *,
    rate: float = 0.03,
    pattern: Pattern = "burst",
    colluders: int = 5,
    clean_prefix: float = 0.3,
    snap: bool = False,
    seed: int = 0,
) -> Attacked:
    """Write an attacked copy of ``stream``.

    Parameters
    ----------
    stream
        The honest stream.
    attack
        One of :data:`ATTACKS`.
    rate
        Share of the events behind the clean prefix that are poison, 0..0.5.
    pattern
        ``burst`` or ``spread``, see :func:`positions`.
    colluders
        Number of accounts that send the poison; 0 leaves it with the ordinary sources.
    clean_prefix
        Share of the stream before the first poison.
    snap
        Move changed values to the nearest value the column has shown, as a careful attacker does.
    seed
        Same seed, same attack.

    Raises
    ------
    UsageError
        For an unknown attack, a rate outside 0..0.5, or a stream with a single label.
    """
    if attack not in ATTACKS:
        raise UsageError(f"unknown attack {attack!r}; choose one of {', '.join(ATTACKS)}")
    if not 0.0 < rate <= 0.5:
        raise UsageError(f"attack rate must be above 0 and at most 0.5, not {rate}")
    if len(stream.labels) < 2 or len(stream) < 100:
        raise UsageError("an attack needs a stream with two labels and at least 100 events")
    rng = np.random.default_rng([seed, *attack.encode()])
    rows = positions(len(stream), rate=rate, clean_prefix=clean_prefix, pattern=pattern, rng=rng)
    attacked = ATTACKS[attack](stream, rows, rng)
    if snap:
        attacked = replace(attacked, x=_snapped(stream.x, attacked.x, rows))
    if colluders:
        attacked = replace(attacked, source=_collude(attacked.source, rows, colluders, rng))
    poison = np.zeros(len(stream), dtype=bool)
    poison[rows] = True
    return Attacked(attacked, poison, attack)


def _collude(
    source: Sequence[str], rows: IntArray, count: int, rng: np.random.Generator
) -> tuple[str, ...]:
    names = list(source)
    for row, who in zip(rows, rng.integers(0, count, size=len(rows)), strict=True):
        names[int(row)] = f"ring-{who:03d}"
    return tuple(names)


def _snapped(seen: FloatArray, x: FloatArray, rows: IntArray) -> FloatArray:
    snapped = x.copy()
    for column in range(x.shape[1]):
        values = np.unique(seen[: max(50, int(rows[0])), column])
        right = np.clip(np.searchsorted(values, x[rows, column]), 1, len(values) - 1)
        left = values[right - 1]
        nearer = np.abs(x[rows, column] - left) <= np.abs(values[right] - x[rows, column])
        snapped[rows, column] = np.where(nearer, left, values[right])
    return snapped
