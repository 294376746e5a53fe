"""Incidents as they leave the gate: what changed about which, in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

Account = Mapping[str, Any]
"""An incident as JSON has it; see :func:`monitor.decide.incident_account.account`."""


class IncidentKind(StrEnum):
    """What an incident is about."""

    CAMPAIGN = "campaign"
    DRIFT = "drift"
    DATA_FAULT = "data_fault"


class Changed(StrEnum):
    """What became of an incident in a batch."""

    OPENED = "opened"
    UPDATED = "updated"
    CLOSED = "closed"
    MERGED = "merged"


@dataclass(frozen=True, slots=True)
class IncidentChange:
    """One change; ``incident`` is how it stands after it."""

    change: Changed
    incident: Account

    def encoded(self) -> bytes:
        """One JSON object, the form of the alerts topic."""
        record = {"type": "incident", "change": self.change.value, **self.incident}
        return orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)
