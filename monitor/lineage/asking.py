"""From what somebody asks, and an incident, to conditions on accepted events. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitor.core.blast import Asked, Clause, Wanted
from monitor.core.errors import UsageError
from monitor.lineage.matching import matched
from monitor.lineage.segment import Segment

SENDERS, PATTERN = "incident_sources", "incident_pattern"
_ROUNDING = 1e-3
"""An incident tells a trigger's values to four digits."""
_SPREADS = 0.02
"""A trigger may be a little blurred: by so much of the feature's ordinary spread."""

_STANDS_OUT = 0.25
"""Of the events of the busiest that is not ordinary: who has fewer may be a false alarm that the
incident drew in."""

_ORDINARY = 4
"""Who had so many times as many events accepted as the incident has of it was mostly honest: taking
back all that it said would cost more than it mends. Its events still count where they carry the
pattern."""

_SHARED, _COMMON, _LEAST = 0.5, 0.05, 5
"""A value is the pattern's when half of the senders' events have it, at least so many, and few of
all events; one that most have anyway says nothing."""

Look = Callable[[Wanted], Iterable[Segment]]


@dataclass(frozen=True, slots=True)
class Index:
    """What is asked of accepted events on the way: the segments that may hold meant ones, and the
    last of all, None while there is none.
    """

    look: Look
    last: Callable[[], Segment | None]

    def spread(self, feature: str) -> float:
        """The standard deviation of a feature among the latest events, 0 where not known."""
        last = self.last()
        values = np.empty(0) if last is None else last.numbers.column(feature)
        known = values[np.isfinite(values)]
        return float(known.std(dtype=np.float64)) if len(known) else 0.0

    def sent(self, wanted: Wanted) -> Counter[str]:
        """How many of the meant events are whose."""
        count = Counter[str]()
        for segment in self.look(wanted):
            rows = np.flatnonzero(matched(segment, wanted)[0]).tolist()
            names = segment.source.texts() if rows else ()
            count.update(name for row in rows if (name := names[row]) is not None)
        return count

    def shared(self, wanted: Wanted, names: Sequence[str]) -> dict[str, float]:
        """The values that most of the meant events share, where few others have them."""
        mine = {name: Counter[float]() for name in names}
        n = 0
        for segment in self.look(wanted):
            rows = np.flatnonzero(matched(segment, wanted)[0])
            n += len(rows)
            for name in names if len(rows) else ():
                values = segment.numbers.column(name)[rows]
                mine[name].update(values[np.isfinite(values)].tolist())
        best = {name: c.most_common(1)[0] for name, c in mine.items() if c}
        best = {name: (v, k) for name, (v, k) in best.items() if k >= max(_LEAST, _SHARED * n)}
        others, seen = Counter[str](), 0
        for segment in self.look(Wanted(since=wanted.since, until=wanted.until)) if best else ():
            seen += len(segment)
            for name, (value, _) in best.items():
                same = segment.numbers.column(name) == np.float32(value)
                others[name] += int(same.sum())
        rare = {name for name, (_, k) in best.items() if others[name] - k <= _COMMON * seen}
        return {name: value for name, (value, _) in best.items()} if rare else {}


def wanted_of(asked: Asked, incident: Mapping[str, Any] | None, index: Index) -> Wanted:
    """The conditions.

    An incident means what the sources that stand out in it sent with its labels, and whatever
    carries its pattern with the label that comes with it: from as long before its first event as it
    has lasted, since what passed before anybody noticed is what matters, until now while it is
    open, and as long behind its last event when it is closed. What is asked for beside it must hold
    as well.

    Parameters
    ----------
    asked
        As it was asked.
    incident
        The account of the incident it names.
    index
        The accepted events: what the senders' have in common tells the pattern's values better
        than the incident, which names what stood out when it was flagged.

    Raises
    ------
    UsageError
        When nothing is asked for, or nothing could match.
    """
    if asked.is_open:
        raise UsageError("Say whose events: a source, key, subject, label or incident is needed.")
    since, until = asked.since, asked.until
    if since is not None and until is not None and until <= since:
        raise UsageError("until must be later than since.")
    must = Clause("given", asked.sources, asked.subjects, asked.labels, keys=asked.keys)
    if incident is None:
        return Wanted(must, (), since, until)
    first, last = float(incident["first"]["ts"]), float(incident["last"]["ts"])
    senders = _senders(incident, index, (first, _behind(last)))
    values: dict[str, float] = {}
    if senders is not None:
        names = [str(part["feature"]) for part in incident["common"].get("pattern", ())]
        itself = Wanted(senders, (), first, _behind(last))
        values = index.shared(itself, names) if names else {}
    pattern = _pattern(incident, values, index.spread)
    some = tuple(clause for clause in (senders, pattern) if clause is not None)
    if not some:
        raise UsageError(
            f"The incident {incident['id']} names neither sources nor a pattern: "
            "ask by source, subject or label instead."
        )
    reach = max(0.0, last - first)
    since = first - reach if since is None else since
    if until is None and incident["state"] != "open":
        until = _behind(last + reach)
    return Wanted(must, some, since, until)


def _behind(ts: float) -> float:
    """Just later than a time in Unix seconds, so that an incident's last event is within."""
    return ts + 1e-3


def _senders(incident: Mapping[str, Any], index: Index, span: tuple[float, float]) -> Clause | None:
    """The sources that stand out in it, but for those that meanwhile were mostly honest."""
    events = {str(row["source"]): int(row["events"]) for row in incident["sources"]["top"]}
    if not events:
        return None
    sent = index.sent(Wanted(Clause(SENDERS, sources=tuple(events)), (), *span))
    # Before the busiest is looked for: a busy honest one must not hide the ring beside it.
    hostile = {name: n for name, n in events.items() if sent[name] < _ORDINARY * n}
    least = _STANDS_OUT * max(hostile.values(), default=0)
    sources = tuple(name for name, n in hostile.items() if n >= least)
    labels = tuple(str(row["label"]) for row in incident["labels"])
    return Clause(SENDERS, sources=sources, labels=labels) if sources else None


def _pattern(
    incident: Mapping[str, Any], values: Mapping[str, float], spread: Callable[[str], float]
) -> Clause | None:
    """The trigger with its label; values that nobody knows say nothing."""
    near, equal = [], []
    for part in incident["common"].get("pattern", ()):
        name = str(part["feature"])
        value = part["value"] if not values else values.get(name)
        if value is None:
            continue
        feature, sign, text = name.partition("=")
        if sign:  # the column of a category, which is 1 where the event has it
            if value >= 0.5 and text != "(other)":
                equal.append((feature, text))
        else:
            room = abs(value) * _ROUNDING + _SPREADS * spread(name)
            near.append((name, value - room, value + room))
    label = [str(row["label"]) for row in incident["labels"]][:1]
    if not (near or equal) or not label:
        return None
    return Clause(PATTERN, labels=tuple(label), near=tuple(near), equal=tuple(equal))
