"""The demo's stream: Shuttle sensor readings with honest sources, and attacks with ground truth."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from monitor.cli.report_data import FLAG, QUARANTINE, WORDS
from monitor.core.errors import UsageError
from monitor.core.types import IntArray
from monitor.runtime.inject import IN_PLACE, Stream, honest_sources, inject

EPOCH_SECONDS = 1_767_225_600.0
"""2026-01-01; demo events are one second apart from there."""

CALM_SHARE = 0.25
"""Part of the stream before the first attack."""

LABELS = ("normal", "anomaly")
NAME = "the demo's stream"
MIN_EVENTS = 3000


@dataclass(frozen=True, slots=True)
class DemoStream:
    """Events as lines, and what is wrong with them.

    Attributes
    ----------
    lines
        n JSON events.
    attacks
        Names of the attacks, in the order in which they begin.
    truth
        int64[n], index into ``attacks``, −1 for honest events.
    windows
        First and last row of each attack.
    """

    lines: Sequence[bytes]
    attacks: tuple[str, ...]
    truth: IntArray
    windows: tuple[tuple[int, int], ...]


def shuttle(events: int | None, seed: int) -> Stream:
    """The Shuttle data set inside the river package: nine sensor readings, two classes.

    Raises
    ------
    UsageError
        When fewer events are asked for than an attack needs.
    """
    from river import datasets  # noqa: PLC0415 - slow to import

    rows = list(datasets.Shuttle())
    n = len(rows) if events is None else min(events, len(rows))
    if n < MIN_EVENTS:
        raise UsageError(f"--events: the demo needs at least {MIN_EVENTS:,} events, not {n:,}")
    columns = tuple(rows[0][0])
    return Stream(
        name="shuttle",
        columns=columns,
        x=np.array([[float(x[name]) for name in columns] for x, _ in rows[:n]]),
        y=np.array([int(y) for _, y in rows[:n]], dtype=np.int64),
        labels=LABELS,
        source=honest_sources(n, seed=seed),
        ts=EPOCH_SECONDS + np.arange(n, dtype=np.float64),
    )


def _rows(stream: Stream, first: int, last: int) -> Stream:
    return replace(
        stream,
        x=stream.x[first:last],
        y=stream.y[first:last],
        source=stream.source[first:last],
        ts=stream.ts[first:last],
    )


def attacked(stream: Stream, attacks: Sequence[str], *, share: float, seed: int) -> DemoStream:
    """One attack after the other, each in a window of its own behind a calm beginning.

    Parameters
    ----------
    stream
        The honest stream.
    attacks
        Names from :data:`monitor.runtime.inject.IN_PLACE`; each has its own colluding sources.
    share
        Share of the events of a window that are poison, 0..0.5.
    seed
        Same seed, same events.

    Raises
    ------
    UsageError
        For an unknown attack or a share out of range.
    """
    for name in attacks:
        if name not in IN_PLACE:
            raise UsageError(
                f"--attack: unknown attack {name!r}; choose from {', '.join(IN_PLACE)}"
            )
    n = len(stream)
    edges = np.linspace(int(n * CALM_SHARE), n, len(attacks) + 1).astype(int).tolist()
    truth = np.full(n, -1, dtype=np.int64)
    for number, name in enumerate(attacks):
        first, last = edges[number], edges[number + 1]
        found = inject(
            _rows(stream, 0, last),
            name,
            rate=share,
            clean_prefix=(first + 0.5) / last,
            seed=seed + number,
        )
        rows = np.flatnonzero(found.poison)
        truth[rows] = number
        source = list(found.stream.source)
        for row in rows.tolist():
            source[row] = source[row].replace("ring-", f"ring-{number + 1}-")
        stream = replace(
            stream,
            x=np.concatenate([found.stream.x, stream.x[last:]]),
            y=np.concatenate([found.stream.y, stream.y[last:]]),
            source=(*source, *stream.source[last:]),
        )
    windows = tuple(pairwise(edges))
    return DemoStream(stream.lines(), tuple(attacks), truth, windows)


@dataclass(frozen=True, slots=True)
class PacedLines:
    """A stream that arrives at ``events_per_second``, for the transport; 0 is at full speed."""

    stream: DemoStream
    events_per_second: float

    def open(self, start_line: int) -> Iterator[bytes]:
        """Lines from ``start_line`` on, each not before its time."""
        began = time.monotonic()
        for given, line in enumerate(self.stream.lines[start_line:]):
            if self.events_per_second > 0 and given % 16 == 0:
                time.sleep(max(0.0, began + given / self.events_per_second - time.monotonic()))
            yield line

    def describe(self) -> str:
        """In words."""
        return NAME

    def fingerprint(self) -> str:
        """Of the attacks and the length."""
        return f"demo {self.stream.attacks} {len(self.stream.lines)}"


def outcome(stream: DemoStream, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was injected, caught and wrongly held back, given decisions in stream order.

    Shares are of the events that were judged before the demo ended.
    """
    verdict = np.array([WORDS.index(record["verdict"]) for record in records], dtype=np.int64)
    truth = stream.truth[: len(verdict)]
    attacks = [
        {"attack": name, **_counts(verdict[truth == number])}
        for number, name in enumerate(stream.attacks)
    ]
    return {"attacks": attacks, "honest": _counts(verdict[truth < 0])}


def _counts(verdict: IntArray) -> dict[str, Any]:
    n = len(verdict)
    held, flagged = int((verdict == QUARANTINE).sum()), int((verdict == FLAG).sum())
    return {
        "events": n,
        "quarantined": held,
        "flagged": flagged,
        "accepted": n - held - flagged,
        "quarantined_share": round(held / n, 6) if n else None,
        "flagged_or_quarantined_share": round((held + flagged) / n, 6) if n else None,
    }
