"""What an event costs when many went before it, and when they come from many sources."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.soak_stream import BLOCK, Shape, block
from loadtest.speed_kafka import resident_megabytes
from monitor.core.types import RawBatch
from monitor.gate import Gate
from monitor.runtime.process import settled
from monitor.state.recovery import seal

LABELS, FEATURES = 10, 16
WINDOW = 20_480
"""Events before a mark of which the cost is taken."""
LEAST_EVENTS = 131_072


def marks(most: int, least: int = 10_000) -> list[int]:
    """Powers of ten from ``least`` to ``most``.

    Examples
    --------
    >>> marks(1_000_000)
    [10000, 100000, 1000000]
    """
    found = [least]
    while found[-1] * 10 <= most:
        found.append(found[-1] * 10)
    return found


def lengths(sources: Sequence[int]) -> dict[int, int]:
    """Events of a stream with so many sources: until nearly all of them have spoken.

    Nine of ten events come from the many, in turn; the others from 200 regular ones.
    """
    return {count: max(LEAST_EVENTS, int(count * 1.12)) for count in sources}


def stream_cost(shape: Shape, at: Sequence[int], tell: Callable[[int], None]) -> Iterator[Any]:
    """A row for each mark in ``at``: CPU µs of an event in the window before it, and sizes."""
    gate, costs = Gate(), []
    state, seen = gate.start(), 0
    due = sorted(at)
    for number in range(-(-shape.events // BLOCK)):
        raw = RawBatch.of(block(shape, number), start=seen)
        began = time.process_time()
        _, state = gate.step(state, raw)
        costs.append((len(raw), time.process_time() - began))
        seen += len(raw)
        tell(seen)
        while due and seen >= due[0]:
            yield {**_row(costs, seen), "mark": due.pop(0), **_stored(gate, state)}


def _row(costs: Sequence[tuple[int, float]], seen: int) -> dict[str, Any]:
    recent = costs[-max(1, WINDOW // BLOCK) :]
    events = np.array([n for n, _ in recent])
    seconds = np.array([s for _, s in recent])
    return {
        "events": seen,
        "cpu_us": float(np.median(1e6 * seconds / events)),
        "cpu_us_mean": float(1e6 * seconds.sum() / events.sum()),
    }


def _stored(gate: Gate, state: Any) -> dict[str, float]:
    began = time.process_time()
    pieces = gate.pieces(state)
    stored = seal(0, 1, pieces)
    return {
        "state_megabytes": sum(map(len, pieces)) / 1e6,
        "snapshot_megabytes": len(stored) / 1e6,
        "snapshot_cpu_seconds": time.process_time() - began,
    }


def one_stream(sources: int, events: int, tell: Callable[[int], None]) -> list[dict[str, Any]]:
    """All marks of one stream, and its end."""
    shape = Shape(events=events, features=FEATURES, labels=LABELS, sources=sources)
    at = sorted({*marks(events), events})
    with settled():
        rows = []
        for row in stream_cost(shape, at, tell):
            row |= {"sources": sources, "resident_megabytes": _resident()}
            rows.append(row)
    return rows


def _resident() -> float:
    return resident_megabytes(int(Path("/proc/self").resolve().name))


def flatness(rows: Sequence[dict[str, Any]]) -> float:
    """How many times as dear an event is at its dearest as at its cheapest, after 10^5 events.

    Before that the state is young and is judged in small parts.
    """
    grown = [row["cpu_us"] for row in rows if row["events"] >= 100_000]
    return max(grown) / min(grown) if grown else float("nan")
