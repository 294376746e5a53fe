"""What the chosen events add up to: how many, since when, from whom, about what. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from monitor.core.blast import Checkpoint, Place, Wanted
from monitor.core.types import BoolArray, IntArray
from monitor.lineage.checkpoints import judged
from monitor.lineage.matching import matched
from monitor.lineage.reading import label_shown
from monitor.lineage.segment import Segment

SHOWN = 100
BINS = 40
_LEAST_SECONDS = 1.0


@dataclass(slots=True)
class Survey:
    """Adds up segment after segment, in the order of their acceptance.

    Attributes
    ----------
    wanted
        Which events are meant.
    shown
        So many of the first ones are given one by one.
    retracted
        Which of some places were retracted before.
    """

    wanted: Wanted
    shown: int = 20
    retracted: Any = None
    events: int = 0
    taken_back: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    subjects: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    clauses: Counter[str] = field(default_factory=Counter)
    spans: dict[int, list[int]] = field(default_factory=dict)
    ts: list[Any] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    first: dict[str, Any] | None = None
    last: dict[str, Any] | None = None

    def add(self, segment: Segment) -> None:
        """Look through one more segment."""
        chosen, each = matched(segment, self.wanted)
        rows = np.flatnonzero(chosen)
        if not len(rows):
            return
        found = segment.take(rows, features=False)
        self.events += len(rows)
        for clause, mask in zip(self.wanted.some, each, strict=True):
            self.clauses[clause.name] += int(mask.sum())
        for name in ("source", "subject", "key"):
            counter, column = getattr(self, f"{name}s"), getattr(found, name)
            counter.update(dict(zip(column.names, column.counts().tolist(), strict=True)))
        for name, n in zip(found.label.names, found.label.counts().tolist(), strict=True):
            self.labels[label_shown(name)] += n
        for part, (first, last) in found.spans().items():
            span = self.spans.setdefault(part, [first, last, 0])
            span[0], span[1] = min(span[0], first), max(span[1], last)
            span[2] += int((found.places.part == part).sum())
        self.ts.append(found.times[0])
        if self.retracted is not None:
            self.taken_back += len(self.retracted(places_of(found)))
        room = max(0, self.shown - len(self.items))
        self.items += [item(found, row) for row in range(min(room, len(found)))]
        self._ends(found)

    def _ends(self, found: Segment) -> None:
        """The first and the last that were accepted, in the order of reading where it is equal."""
        at = found.times[1]
        first, last = int(at.argmin()), len(at) - 1 - int(at[::-1].argmax())
        if self.first is None or at[first] < self.first["accepted_at"]:
            self.first = item(found, first)
        if self.last is None or at[last] >= self.last["accepted_at"]:
            self.last = item(found, last)

    def result(self, checkpoints: Sequence[Checkpoint], since: Mapping[int, int]) -> dict[str, Any]:
        """All of it as JSON has it.

        Parameters
        ----------
        checkpoints
            The models that were stored.
        since
            By partition, the offset from which on the events are all known.
        """
        firsts = {part: span[0] for part, span in self.spans.items()}
        return {
            "events": self.events,
            "retracted": self.taken_back,
            "first": self.first,
            "last": self.last,
            "sources": _top(self.sources),
            "subjects": _top(self.subjects),
            "labels": _top(self.labels),
            "keys": _top(self.keys),
            "matched_by": dict(self.clauses),
            "partitions": [
                {"partition": part, "first": first, "last": last, "events": n}
                for part, (first, last, n) in sorted(self.spans.items())
            ],
            "histogram": histogram(self.ts),
            "checkpoints": judged(checkpoints, firsts, since),
            "items": self.items,
        }


def _top(counter: Counter[str]) -> dict[str, Any]:
    """The most frequent ones, and how many there are."""
    order = sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))[:SHOWN]
    return {"distinct": len(counter), "top": dict(order)}


def item(segment: Segment, row: int) -> dict[str, Any]:
    """One event as JSON has it."""
    places, (ts, at) = segment.places, segment.times
    one = np.array([row])
    origin = int(places.origin_part[row]), int(places.origin_pos[row])
    known = {"partition": origin[0], "offset": origin[1]} if origin[1] >= 0 else None
    return {
        "id": segment.ids[row],
        "source": segment.source.take(one).texts()[0],
        "subject": segment.subject.take(one).texts()[0],
        "label": label_of(segment, row),
        "key_id": segment.key.take(one).texts()[0],
        "ts": float(ts[row]),
        "accepted_at": float(at[row]),
        "weight": float(segment.weight[row]),
        "accepted": {"partition": int(places.part[row]), "offset": int(places.pos[row])},
        "input": known,
    }


def label_of(segment: Segment, row: int) -> Any:
    """A label as the event gave it."""
    return msgspec.json.decode(segment.label.names[int(segment.label.codes[row])])


def places_of(segment: Segment) -> list[Place]:
    """The places of all its events."""
    p = segment.places
    return list(zip(p.part.tolist(), p.pos.tolist(), strict=True))


def histogram(ts: Sequence[Any]) -> dict[str, Any]:
    """Numbers of events by their own time, in equal bins.

    Examples
    --------
    >>> histogram([np.array([0.0, 1.0, 79.0])])["counts"][:2]
    [2, 0]
    """
    if not ts:
        return {"start": None, "seconds": None, "counts": []}
    every = np.concatenate(ts)
    low, high = float(every.min()), float(every.max())
    seconds = max((high - low) / BINS, _LEAST_SECONDS)
    place: IntArray = np.minimum((every - low) // seconds, BINS - 1).astype(np.int64)
    return {"start": low, "seconds": seconds, "counts": np.bincount(place).tolist()}


def chosen_of(segments: Iterable[Segment], wanted: Wanted) -> Iterable[Segment]:
    """The meant events of each segment that has some, without their features."""
    for segment in segments:
        chosen: BoolArray = matched(segment, wanted)[0]
        if chosen.any():
            yield segment.take(np.flatnonzero(chosen), features=False)
