"""Where in a stream an attack strikes."""

from __future__ import annotations

from typing import Literal

import numpy as np

from monitor.core.types import IntArray

Pattern = Literal["burst", "spread"]
PATTERNS: tuple[Pattern, ...] = ("burst", "spread")
BURST_EVENTS = 40
SPAN = BURST_EVENTS * 3 // 2
"""A burst of 40 lies within 60 events, so honest traffic goes on beside it."""


def positions(
    n: int, *, rate: float, clean_prefix: float, pattern: Pattern, rng: np.random.Generator
) -> IntArray:
    """Sorted rows to poison: ``rate`` of all events behind the clean prefix, at least one.

    ``spread`` draws them singly; ``burst`` draws dense runs in which about two events in three
    are poison, so honest traffic goes on beside the attack.
    """
    start = int(n * clean_prefix)
    return draw(start, n, max(1, round((n - start) * rate)), pattern, rng)


def draw(start: int, end: int, count: int, pattern: Pattern, rng: np.random.Generator) -> IntArray:
    """``count`` sorted distinct rows of ``start`` .. ``end`` − 1, at most two thirds of them."""
    if pattern == "spread":
        return np.sort(rng.choice(np.arange(start, end), size=count, replace=False))
    chosen: set[int] = set()
    while len(chosen) < count:
        first = int(rng.integers(start, max(start + 1, end - SPAN)))
        among = np.arange(first, min(end, first + SPAN))
        run = rng.choice(among, min(BURST_EVENTS, len(among)), replace=False)
        chosen.update(int(i) for i in run)
    return np.sort(rng.choice(np.sort(list(chosen)), size=count, replace=False))


def widened(
    n: int, *, rate: float, clean_prefix: float, pattern: Pattern, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Places for rows that are inserted: ``rate`` of the *resulting* events behind the prefix.

    Returns
    -------
    rows
        int64[k], sorted places of the new rows in the longer stream.
    template
        int64[n + k], for every row of the longer stream the old row it is, and for a new one the
        old row just before it.
    """
    start = int(n * clean_prefix)
    count = max(1, round((n - start) * rate / (1.0 - rate)))
    rows = draw(max(1, start), n + count, count, pattern, rng)
    fresh = np.zeros(n + count, dtype=np.int64)
    fresh[rows] = 1
    return rows, np.arange(n + count) - np.cumsum(fresh)


def closing_batch(rows: IntArray, n: int, share: float, rng: np.random.Generator) -> IntArray:
    """The same number of rows, the last ``share`` of them moved together into one dense run.

    They stay where they are when the stream is too short behind the others.
    """
    count = max(1, round(len(rows) * share))
    before = rows[: len(rows) - count]
    start = int(before[-1]) + 1 if len(before) else int(rows[0])
    span = -(-count * 3 // 2)
    if n - start < span:
        return rows
    first = int(rng.integers(start, n - span + 1))
    batch = rng.choice(np.arange(first, first + span), size=count, replace=False)
    return np.concatenate([before, np.sort(batch)])
