"""An incident in plain values and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from monitor.core.incident import Account, IncidentKind
from monitor.decide.incident_family import Diagnosis, diagnose
from monitor.decide.incident_state import SEEN_BITS, Incident

SHOWN = 10
SECONDS = 1e9


def called(incident: Incident) -> str:
    """What the incident is taken for, to tell when that changes."""
    found = diagnose(incident)
    return f"{found.kind}|{found.family}"


def sources_of(incident: Incident) -> int:
    """How many sources it has, by linear counting (Whang et al. 1990)."""
    empty = SEEN_BITS - int(incident.seen_sources.sum())
    if not empty:
        return max(SEEN_BITS, len(incident.sources))
    return max(round(SEEN_BITS * math.log(SEEN_BITS / empty)), 1 if incident.sources else 0)


def account(incident: Incident, columns: tuple[str, ...]) -> Account:
    """The incident as JSON has it; ``columns`` are the names of its feature columns."""
    found = diagnose(incident)
    common = _common(incident, found, columns)
    many = sources_of(incident)
    values: dict[str, Any] = {
        "id": incident.id,
        "kind": found.kind,
        "family": found.family,
        "confidence": round(found.confidence, 3),
        "state": "open" if incident.is_open else "closed",
        "merged_into": incident.merged or None,
        "key": incident.key,
        "opened": incident.opened_ns / SECONDS,
        "first": _event(incident.first_event, incident.first_ns, incident.first_offset),
        "last": _event(incident.last_event, incident.last_ns, incident.last_offset),
        "events": incident.events,
        "quarantined": incident.held,
        "flagged": incident.events - incident.held,
        "sources": {"estimate": many, "top": _top(incident.sources, "source")},
        "labels": _top(incident.labels, "label"),
        "families": {
            name: count
            for name, count in zip(_families(), incident.families.tolist(), strict=True)
            if count
        },
        "common": common,
        "risk": round(incident.risk, 3),
        "weight": round(incident.weight, 3),
        "influence": round(incident.influence, 3),
        "evidence": list(incident.evidence),
    }
    values["text"] = _text(incident, found, common, many)
    return values


def _families() -> tuple[str, ...]:
    from monitor.decide.incident_facts import FAMILIES  # noqa: PLC0415

    return FAMILIES


def _event(name: str, time_ns: int, offset: int) -> dict[str, Any]:
    return {"id": name, "ts": time_ns / SECONDS, "offset": offset}


def _top(tally: Mapping[str, float], name: str) -> list[dict[str, Any]]:
    order = sorted(tally, key=lambda text: (-tally[text], text))[:SHOWN]
    return [{name: text, "events": int(tally[text])} for text in order]


def _common(incident: Incident, found: Diagnosis, columns: tuple[str, ...]) -> dict[str, Any]:
    common: dict[str, Any] = {}
    if incident.pairs:
        flips = _top(incident.pairs, "pair")
        common["flips"] = [
            {"from": a, "to": b, "events": flip["events"]}
            for flip in flips
            for a, b in [orjson.loads(flip["pair"])]
        ]
    if incident.subjects:
        common["subjects"] = _top(incident.subjects, "subject")
    return common


def _text(incident: Incident, found: Diagnosis, common: Mapping[str, Any], many: int) -> str:
    return f"{incident.events} suspicious events of about {many} sources, taken for {found.family}."


__all__ = ["IncidentKind", "account", "called", "np", "sources_of"]
