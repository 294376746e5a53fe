"""What incidents are called, and when a group is one that is known."""

from __future__ import annotations

from monitor.core.hashing import hash_text
from monitor.decide.incident_split import RING
from monitor.decide.incident_state import WINDOW, Incident
from monitor.decide.incident_timeline import SECOND

BUCKET_SECONDS = 3600
AGAIN_EVENTS, AGAIN_SECONDS = 4 * WINDOW, 3600.0


def identifier(kind: str, key: str, opened_ns: int) -> str:
    """An incident's name: the same wherever the same group is found in the same hour."""
    hour = opened_ns // (BUCKET_SECONDS * SECOND)
    return f"i-{hash_text(f'{kind}|{key}|{hour}'):016x}"


def is_same(incident: Incident, key: str, name: str) -> bool:
    """Whether a group with this key and name is the incident.

    What was told from another keeps the name that any ring of that hour would have had.
    """
    told_apart = key == RING and incident.key.startswith(f"{RING}|")
    return incident.key == key or (incident.id == name and not told_apart)


def comes_back(incident: Incident, key: str, name: str, at: tuple[int, int]) -> bool:
    """Whether a group is a closed incident again; ``at`` are events seen and the time."""
    seen, now = at
    soon = seen - incident.active_seen <= AGAIN_EVENTS or (
        now - incident.active_ns <= AGAIN_SECONDS * SECOND
    )
    return is_same(incident, key, name) and (incident.id == name or soon)
