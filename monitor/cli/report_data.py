"""What a finished run comes to, counted in one pass over its decision records.

Memory is bounded whatever the length of the stream: counts, coarse histograms, and samples that
are chosen by a hash of the line number, so the same run always shows the same points.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import xxhash

from monitor.core.errors import StateError
from monitor.core.types import Verdict

WORDS = tuple(verdict.word for verdict in Verdict)
ACCEPT, FLAG, QUARANTINE, INVALID = range(4)
MAX_SOURCES = 100_000
MAX_BUCKETS = 240
RISK_STEP = 0.1
MAX_RISK = 20.0
TOP = 100
WARM_UP = "warm-up"
"""Stands for the family of what the warm-up setting held back."""


@dataclass(slots=True)
class Sample:
    """At most ``size`` of the points given, those whose line number hashes lowest."""

    size: int
    heap: list[tuple[int, int, tuple[Any, ...]]] = field(default_factory=list)

    def add(self, line: int, point: tuple[Any, ...]) -> None:
        """Offer one point; ``line`` identifies it."""
        order = -xxhash.xxh3_64_intdigest(line.to_bytes(8, "little"))
        if len(self.heap) < self.size:
            heapq.heappush(self.heap, (order, line, point))
        elif order > self.heap[0][0]:
            heapq.heapreplace(self.heap, (order, line, point))

    def points(self) -> list[tuple[Any, ...]]:
        """The chosen points by line number."""
        return [point for _, _, point in sorted(self.heap, key=lambda item: item[1])]


@dataclass(slots=True)
class Timeline:
    """Verdict counts over the stream in at most ``MAX_BUCKETS`` equal buckets."""

    width: int = 1
    counts: list[list[int]] = field(default_factory=list)

    def add(self, line: int, verdict: int) -> None:
        """Count one event at ``line``; buckets are joined in pairs when there are too many."""
        while line // self.width >= MAX_BUCKETS:
            pairs = [self.counts[i : i + 2] for i in range(0, len(self.counts), 2)]
            self.counts = [[sum(column) for column in zip(*pair, strict=True)] for pair in pairs]
            self.width *= 2
        while len(self.counts) <= line // self.width:
            self.counts.append([0] * len(WORDS))
        self.counts[line // self.width][verdict] += 1


@dataclass(slots=True)
class Tally:
    """Everything a summary and a report are made from."""

    events: int = 0
    warmup: int = 0
    verdicts: list[int] = field(default_factory=lambda: [0] * len(WORDS))
    actions: Counter[str] = field(default_factory=Counter)
    families: dict[str, list[int]] = field(default_factory=dict)
    detectors: dict[str, list[int]] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    code_examples: dict[str, tuple[int, str]] = field(default_factory=dict)
    classes: dict[str, list[int]] = field(default_factory=dict)
    sources: dict[str, list[int]] = field(default_factory=dict)
    sources_dropped: bool = False
    risks: list[Counter[int]] = field(default_factory=lambda: [Counter() for _ in WORDS])
    timeline: Timeline = field(default_factory=Timeline)
    calm: Sample = field(default_factory=lambda: Sample(3000))
    alarms: Sample = field(default_factory=lambda: Sample(4000))
    top: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)

    @property
    def warmup_passed(self) -> int:
        """Events of the warm-up that were accepted."""
        held = self.families.get(WARM_UP)
        return self.warmup - (held[QUARANTINE] if held is not None else 0)

    def add(self, record: Mapping[str, Any], line: int) -> None:
        """Count one decision record; ``line`` is its place in the stream, from 0."""
        verdict = WORDS.index(record["verdict"])
        self.events += 1
        self.verdicts[verdict] += 1
        self.actions[record["action"]] += 1
        self.warmup += bool(record.get("warmup"))
        self.timeline.add(line, verdict)
        if verdict == INVALID:
            self._invalid(record, line)
            return
        self._count(self.classes, label_text(record.get("label")), verdict)
        self._count(self.sources, str(record.get("source")), verdict)
        if len(self.sources) > 2 * MAX_SOURCES:
            self._drop_sources()
        risk = float(record["risk"])
        self.risks[verdict][int(min(risk, MAX_RISK) / RISK_STEP + 1e-9)] += 1
        if verdict == ACCEPT:
            self.calm.add(line, (line, risk))
            return
        self._alarm(record, line, verdict, risk)

    def _alarm(self, record: Mapping[str, Any], line: int, verdict: int, risk: float) -> None:
        families = record.get("families") or [WARM_UP if record.get("warmup") else "none"]
        self._count(self.families, str(families[0]), verdict)
        reasons = () if record.get("warmup") else record.get("reasons") or ()
        for name in {str(reason["detector"]) for reason in reasons}:
            self._count(self.detectors, name, verdict)
        source = str(record.get("source"))
        self.alarms.add(line, (line, risk, verdict, str(families[0]), source))
        if not record.get("warmup"):
            item = (risk, -line, dict(record))
            if len(self.top) < TOP:
                heapq.heappush(self.top, item)
            elif item[:2] > self.top[0][:2]:
                heapq.heapreplace(self.top, item)

    def _invalid(self, record: Mapping[str, Any], line: int) -> None:
        reasons = record.get("reasons") or [{}]
        code = str(record.get("code") or reasons[0].get("code") or "unknown")
        self.codes[code] += 1
        self.code_examples.setdefault(code, (line, str(reasons[0].get("text", ""))))

    @staticmethod
    def _count(table: dict[str, list[int]], key: str, verdict: int) -> None:
        counts = table.get(key)
        if counts is None:
            counts = table[key] = [0] * len(WORDS)
        counts[verdict] += 1

    def _drop_sources(self) -> None:
        """Forget the sources with the least held back, then the fewest events."""
        self.sources_dropped = True
        self.sources = dict(
            heapq.nlargest(MAX_SOURCES, self.sources.items(), key=lambda item: _suspicion(item[1]))
        )

    def top_sources(self, count: int) -> list[tuple[str, list[int]]]:
        """Sources by events held back, then flagged, then all."""
        ranked = sorted(self.sources.items(), key=lambda item: (_negated(item[1]), item[0]))
        return ranked[:count]

    def riskiest(self) -> list[dict[str, Any]]:
        """The records of highest risk, riskiest first; each with its ``place`` (line from 1)."""
        ranked = sorted(self.top, key=lambda item: (-item[0], -item[1]))
        return [record | {"place": 1 - line} for _, line, record in ranked]

    def as_dict(self) -> dict[str, Any]:
        """The counts as they stand in summary.json."""
        return {
            "events": self.events,
            "verdicts": dict(zip(WORDS, self.verdicts, strict=True)),
            "actions": dict(sorted(self.actions.items())),
            "warmup_events": self.warmup,
            "families": _named(self.families),
            "detectors": _named(self.detectors),
            "reject_codes": dict(sorted(self.codes.items())),
            "classes": _named(self.classes),
            "sources": len(self.sources),
            "top_sources": [
                {"source": name, "events": sum(counts), **_words(counts)}
                for name, counts in self.top_sources(20)
                if counts[QUARANTINE] or counts[FLAG]
            ],
        }


def _suspicion(counts: list[int]) -> tuple[int, int, int]:
    return counts[QUARANTINE], counts[FLAG], sum(counts)


def _negated(counts: list[int]) -> tuple[int, int, int]:
    held, flagged, events = _suspicion(counts)
    return -held, -flagged, -events


def _words(counts: list[int]) -> dict[str, int]:
    return dict(zip(WORDS, counts, strict=True))


def _named(table: Mapping[str, list[int]]) -> dict[str, dict[str, int]]:
    return {name: _words(counts) for name, counts in sorted(table.items())}


def label_text(label: object) -> str:
    """A label in print; text as it is, numbers and booleans as JSON has them."""
    return label if isinstance(label, str) else orjson.dumps(label).decode()


def read_decisions(path: Path) -> Iterator[dict[str, Any]]:
    """Decision records in order.

    Raises
    ------
    StateError
        When the file is missing or was changed by something else.
    """
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - used below
                yield orjson.loads(line)
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror or error}") from error
    except orjson.JSONDecodeError as error:
        raise StateError(f"{path}: line {number} is not a decision record") from error


def tally(records: Iterable[Mapping[str, Any]]) -> Tally:
    """Count decision records, given in stream order."""
    counted = Tally()
    for line, record in enumerate(records):
        counted.add(record, line)
    return counted


def risk_of(share: float) -> float:
    """The risk at which a policy share cuts: 0.001 is 3."""
    return -math.log10(share)
