"""An incident in plain values and in words that an operator can act on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from monitor.core.incident import Account, IncidentKind
from monitor.core.types import Family
from monitor.decide.incident_facts import FAMILIES
from monitor.decide.incident_family import Diagnosis, Signs, diagnose, signs
from monitor.decide.incident_state import SEEN_BITS, Incident, Traffic

SHOWN = 10
NAMED = 3
SECONDS = 1e9
_DOES = {
    Family.LABEL_FLIP: "Labels contradict what such events are called elsewhere{flip}.",
    Family.BACKDOOR: "A pattern comes with one label far too often{trigger}: a model that learns "
    "this gives that label to whatever carries the pattern.",
    Family.CLEAN_LABEL: "Labels fit, but features were moved towards another class{towards}.",
    Family.BOILING_FROG: "Features move towards another class{towards}, further with each event.",
    Family.GRADIENT: "Points or updates are placed where they pull the model most{flip}.",
    Family.SYBIL: "These sources act as one: what they send pushes a model one way.",
    Family.SHILLING: "Ratings move single subjects away from what others say{subject}.",
    Family.REPLAY: "Earlier events come again, with the same feature values.",
}
_DO = {
    Family.REPLAY: "Look for a producer that sends twice before accusing anybody.",
}
_RING = "Hold these sources back (policy deny) and review what they sent before."
_DIFFUSE = (
    "No source stands out, so look at what the events share, and whether the stream itself changed."
)


def called(incident: Incident, traffic: Traffic) -> str:
    """What the incident is taken for, to tell when that changes."""
    found = diagnose(incident, traffic)
    return f"{found.kind}|{found.family}"


def sources_of(incident: Incident) -> int:
    """How many sources it has, by linear counting (Whang et al. 1990)."""
    empty = SEEN_BITS - int(incident.seen_sources.sum())
    if not empty:
        return max(SEEN_BITS, len(incident.sources))
    return max(round(SEEN_BITS * math.log(SEEN_BITS / empty)), 1 if incident.sources else 0)


def account(incident: Incident, columns: tuple[str, ...], traffic: Traffic) -> Account:
    """The incident as JSON has it.

    Parameters
    ----------
    incident
        Of a closed one, what was said when it closed is given back.
    columns
        Names of the feature columns that are looked at.
    traffic
        What ordinary events look like.

    Returns
    -------
    Account
        ``quarantined`` and ``flagged`` count verdicts, whatever the mode did with the events;
        ``influence`` is in ordinary events' worth of gradient; times are Unix seconds.
    """
    if incident.final:
        stored: dict[str, Any] = orjson.loads(incident.final)
        return stored
    found, seen = diagnose(incident, traffic), signs(incident, traffic)
    common, many = _common(incident, seen, columns), sources_of(incident)
    return {
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
        "surprised": incident.surprised,
        "sources": {"estimate": many, "top": _top(incident.sources, "source")},
        "labels": _top(incident.labels, "label"),
        "families": _spoken(incident),
        "common": common,
        "risk": round(incident.risk, 3),
        "weight": round(incident.weight, 3),
        "influence": round(incident.influence, 3),
        "timeline": incident.timeline.told(),
        "evidence": list(incident.evidence),
        "text": _text(incident, found, common, (many, seen.ring)),
    }


def _spoken(incident: Incident) -> dict[str, int]:
    named = zip(FAMILIES, incident.families.tolist(), strict=True)
    return {name: count for name, count in named if count}


def _event(name: str, time_ns: int, offset: int) -> dict[str, Any]:
    return {"id": name, "ts": time_ns / SECONDS, "offset": offset}


def _top(tally: Mapping[str, float], name: str) -> list[dict[str, Any]]:
    order = sorted(tally, key=lambda text: (-tally[text], text))[:SHOWN]
    return [{name: text, "events": int(tally[text])} for text in order]


def _common(incident: Incident, seen: Signs, columns: tuple[str, ...]) -> dict[str, Any]:
    """What most of its events share: flips, the trigger's features and values, subjects."""
    common: dict[str, Any] = {}
    flips = [
        {"from": a, "to": b, "events": flip["events"]}
        for flip in _top(incident.pairs, "pair")
        for a, b in [orjson.loads(flip["pair"])]
    ]
    if flips:
        common["flips"] = flips
    values = _values(incident)
    pattern = [
        {"feature": columns[c], "normal_score": round(centre, 3), "value": values.get(columns[c])}
        for c, centre in zip(seen.columns.tolist(), seen.centres.tolist(), strict=True)
        if c < len(columns)
    ]
    if not pattern:
        pattern = [
            {"feature": name, "normal_score": None, "value": value}
            for name, value in list(values.items())[:NAMED]
        ]
    if pattern:
        common["pattern"] = pattern
    if incident.subjects:
        common["subjects"] = _top(incident.subjects, "subject")
    return common


def _values(incident: Incident) -> dict[str, float]:
    """By feature, the value that triggers named most often."""
    out: dict[str, float] = {}
    for text in sorted(incident.tokens, key=lambda t: (-incident.tokens[t], t)):
        name, value = orjson.loads(text)
        out.setdefault(name, value)
    return out


def _text(
    incident: Incident, found: Diagnosis, common: Mapping[str, Any], who: tuple[int, float]
) -> str:
    many, ring = who
    if incident.kind == IncidentKind.DATA_FAULT:
        return f"{incident.detail} Look at the pipeline upstream before anything else."
    if found.kind == IncidentKind.DRIFT:
        return _drift_text(incident, many)
    family = Family(found.family)
    label = max(incident.labels, key=lambda k: (incident.labels[k], k)) if incident.labels else "?"
    says = _DOES.get(family, "Events stand out.").format(
        flip=_flip(common),
        trigger=_trigger(common, label),
        towards=_towards(common),
        subject=_subjects(common),
    )
    names = sorted(incident.sources, key=lambda k: (-incident.sources[k], k))[:NAMED]
    from_ring = ring >= 0.5
    who_sent = (
        f"mostly from {', '.join(map(repr, names))}" if from_ring else "none of which stands out"
    )
    advice = _DO.get(family, _RING if from_ring else _DIFFUSE)
    suspects = _suspects(incident, f" ({incident.held} quarantined)", many)
    return f"{suspects}, {who_sent}. {says} {advice}"


def _suspects(incident: Incident, held: str, many: int) -> str:
    events = "event" if incident.events == 1 else "events"
    sources = "source" if many == 1 else "sources"
    return f"{incident.events} suspicious {events}{held} of about {many} {sources}"


def _drift_text(incident: Incident, many: int) -> str:
    more = f", and {incident.surprised} more surprised in masses" if incident.surprised else ""
    return (
        f"{_suspects(incident, '', many)}{more}. They come in clumps "
        "from the sources that send most anyway, as when the world changes. Nobody stands out, so "
        "check whether the change is real before releasing what is held."
    )


def _flip(common: Mapping[str, Any]) -> str:
    flips = common.get("flips", ())
    return "" if not flips else f", most often {flips[0]['from']!r} arrives as {flips[0]['to']!r}"


def _trigger(common: Mapping[str, Any], label: str) -> str:
    told = [
        p["feature"] if p["value"] is None else f"{p['feature']}≈{p['value']:.4g}"
        for p in common.get("pattern", ())
    ][: 2 * NAMED]
    return f" ({', '.join(told)} with label {label!r})" if told else ""


def _towards(common: Mapping[str, Any]) -> str:
    flips = common.get("flips", ())
    return f" ({flips[0]['from']!r})" if flips else ""


def _subjects(common: Mapping[str, Any]) -> str:
    named = [repr(s["subject"]) for s in common.get("subjects", ())[:NAMED]]
    return f" ({', '.join(named)})" if named else ""
