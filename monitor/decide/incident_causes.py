"""Drifts and faults of the data that make events look suspicious."""

from __future__ import annotations

from monitor.core.incident import IncidentKind
from monitor.decide.incident_family import MOSTLY
from monitor.decide.incident_state import Incident

WORLD = "world"
"""Key of a drift: the detectors have met a change of the world."""
CAUSES = (WORLD, "frozen", "missing", "duplicates")
"""What keys of incidents begin with that may be behind others."""


def explains(cause: Incident, other: Incident, *, sent_again: bool) -> bool:
    """Whether ``cause`` is a drift or a fault of the data that is behind ``other``.

    That one is nobody's in particular. Or it is about copies, and there came again, as
    ``sent_again`` says, the very events of their sources in their order. A change of the world
    surprises, but repeats nothing.
    """
    if other.kind != IncidentKind.CAMPAIGN or not cause.key.startswith(CAUSES):
        return False
    copies = other.copied >= MOSTLY
    if copies and cause.key == WORLD:
        return False
    return 2 * other.of_core < other.events or (sent_again and copies)
