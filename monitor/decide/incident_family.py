"""What an incident is, told from all of its events together."""

from __future__ import annotations

from typing import NamedTuple

from monitor.core.incident import IncidentKind
from monitor.decide.incident_facts import FAMILIES
from monitor.decide.incident_state import Incident


class Diagnosis(NamedTuple):
    """Kind and family, and how sure that is, 0 to 1."""

    kind: str
    family: str
    confidence: float


def diagnose(incident: Incident) -> Diagnosis:
    """What the incident is taken for. Pure."""
    if incident.kind == IncidentKind.DRIFT:
        return Diagnosis(IncidentKind.DRIFT, "drift", 0.9)
    best = int(incident.nats.argmax())
    return Diagnosis(incident.kind, FAMILIES[best], 0.5)
