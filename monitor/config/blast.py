"""The section ``blast`` of the settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from monitor.config.base import Section
from monitor.config.sections import Positive


class BlastSettings(Section):
    """The index of accepted events, for when a source turns out to be hostile a day later."""

    enabled: bool = Field(
        default=True,
        description="false keeps no index: nobody can ask what a source has taught the model, nor "
        "take it back. With `transport: local` and accepted events on standard output there is "
        "none either.",
    )
    url: str = Field(
        default="",
        description="Database, as quarantine.url, which may name the same PostgreSQL database. "
        "Empty means an SQLite file: beside the journal with `transport: local`, in `dir` "
        "otherwise. It is filled from the accepted events: deleted, it comes back as far as these "
        "are still there.",
    )
    dir: str = Field(
        default="monitor-data",
        min_length=1,
        description="Folder of that SQLite file on Kafka. Instances on one machine may share it.",
    )
    keep_days: Annotated[float, Field(gt=0.0)] = Field(
        default=30.0, description="How long accepted events are kept in the index, in days."
    )
    keep_bytes: Positive = Field(
        default=2 << 30,
        description="Most bytes of the index; the oldest events go first, and answers say from "
        "where on it is complete.",
    )
    segment_events: Annotated[int, Field(ge=16, le=65_536)] = Field(
        default=4096, description="Events that are stored, compressed and forgotten together."
    )
    max_features: Annotated[int, Field(ge=0, le=4096)] = Field(
        default=256,
        description="Most features of an event that are kept, the first ones, by which the pattern "
        "of an incident is recognised.",
    )
    max_retract_events: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=100_000, description="Most events that one request takes back."
    )
    keep_checkpoints: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000, description="Most announced checkpoints that are remembered, the latest."
    )
