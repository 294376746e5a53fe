"""From what somebody asks, and an incident, to conditions on accepted events. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from monitor.core.blast import Asked, Clause, Wanted
from monitor.core.errors import UsageError

SENDERS, PATTERN = "incident_sources", "incident_pattern"
_ROUNDING = 1e-3
"""An incident tells a trigger's values to four digits."""
_SPREADS = 0.02
"""A trigger may be a little blurred: by so much of the feature's ordinary spread."""

_STANDS_OUT = 0.25
"""Of the busiest source's events: who has fewer may be a false alarm that the incident drew in."""

Spread = Callable[[str], float]


def wanted_of(asked: Asked, incident: Mapping[str, Any] | None, spread: Spread) -> Wanted:
    """The conditions.

    An incident means, within its time: what the sources that stand out in it sent with its
    labels, and whatever carries its pattern with the label that comes with it. What is asked for
    beside it must hold as well.

    Parameters
    ----------
    asked
        As it was asked.
    incident
        The account of the incident it names.
    spread
        The standard deviation of a feature among accepted events, 0 where it is not known.

    Raises
    ------
    UsageError
        When nothing is asked for, or nothing could match.
    """
    if asked.is_open:
        raise UsageError("Say whose events: a source, subject, label or incident is needed.")
    since, until = asked.since, asked.until
    if since is not None and until is not None and until <= since:
        raise UsageError("until must be later than since.")
    must = Clause("given", asked.sources, asked.subjects, asked.labels)
    if incident is None:
        return Wanted(must, (), since, until)
    some = tuple(
        clause for clause in (_senders(incident), _pattern(incident, spread)) if clause is not None
    )
    if not some:
        raise UsageError(
            f"The incident {incident['id']} names neither sources nor a pattern: "
            "ask by source, subject or label instead."
        )
    first, last = float(incident["first"]["ts"]), float(incident["last"]["ts"])
    # Up to and with its last event.
    return Wanted(
        must,
        some,
        first if since is None else since,
        _behind(last) if until is None else until,
    )


def _behind(ts: float) -> float:
    """Just later than a time in Unix seconds."""
    return ts + 1e-3


def _senders(incident: Mapping[str, Any]) -> Clause | None:
    top = incident["sources"]["top"]
    least = _STANDS_OUT * max((row["events"] for row in top), default=0)
    sources = tuple(str(row["source"]) for row in top if row["events"] >= least)
    labels = tuple(str(row["label"]) for row in incident["labels"])
    return Clause(SENDERS, sources=sources, labels=labels) if sources else None


def _pattern(incident: Mapping[str, Any], spread: Spread) -> Clause | None:
    """The trigger with its label; values that the incident does not know say nothing."""
    near, equal = [], []
    for part in incident["common"].get("pattern", ()):
        name, value = str(part["feature"]), part["value"]
        if value is None:
            continue
        feature, sign, text = name.partition("=")
        if sign:  # the column of a category, which is 1 where the event has it
            if value >= 0.5 and text != "(other)":
                equal.append((feature, text))
        else:
            room = abs(value) * _ROUNDING + _SPREADS * spread(name)
            near.append((name, value - room, value + room))
    labels = [str(row["label"]) for row in incident["labels"]]
    flips = [str(flip["to"]) for flip in incident["common"].get("flips", ())]
    label = (flips or labels)[:1]
    if not (near or equal) or not label:
        return None
    return Clause(PATTERN, labels=tuple(label), near=tuple(near), equal=tuple(equal))
