"""The section ``quarantine`` of the settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from monitor.config.base import Section
from monitor.config.sections import Positive


class QuarantineSettings(Section):
    """The store in which people look through what was held back."""

    enabled: bool = Field(
        default=True,
        description="false keeps no store; what is held back lies in its topic or file alone.",
    )
    url: str = Field(
        default="",
        description="Database: sqlite:///path/to/file, or postgresql://user@host/database, which "
        "several instances may share (needs the extra `postgres`; give a password in the "
        "environment, MONITOR_QUARANTINE__URL). Empty means an SQLite file: beside the journal "
        "with `transport: local`, in `dir` otherwise. It is filled from the stream: deleted, it "
        "comes back, but for notes of logins.",
    )
    dir: str = Field(
        default="monitor-data",
        min_length=1,
        description="Folder of that SQLite file on Kafka. Instances on one machine may share it.",
    )
    keep_days: Annotated[float, Field(gt=0.0)] = Field(
        default=30.0, description="How long held events are kept, in days, reviewed or not."
    )
    keep_events: Positive = Field(
        default=500_000, description="Most held events that are kept; the oldest go first."
    )
    keep_bytes: Positive = Field(
        default=4 << 30,
        description="Most bytes of held events, with their decisions; the oldest go first.",
    )
    keep_audit_entries: Positive = Field(
        default=100_000, description="Most entries of the audit trail that are kept."
    )
    max_bulk_events: Annotated[int, Field(ge=1, le=20_000)] = Field(
        default=5_000, description="Most events that one review releases or confirms."
    )
