"""What the routes of the blast radius take and give."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt, StringConstraints

from monitor.admin.desk_schemas import MAX_PAGE, Moment, Text, Why
from monitor.core.blast import Asked
from monitor.lineage.checkpoints import MAX_PARTITIONS

MAX_NAMES = 1000
MAX_SHOWN = 1000
Name = Annotated[Text, StringConstraints(min_length=1)]
Names = Annotated[list[Name], Field(max_length=MAX_NAMES)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AskedIn(_In):
    """Which accepted events are meant. All that is given must hold; of a list one."""

    sources: Names = Field(default=[], description="Who sent them.")
    subjects: Names = Field(default=[], description="What they are about.")
    labels: Names = Field(default=[], description="Their labels, as text.")
    keys: Names = Field(
        default=[],
        description="The keys that signed them: verified ones on files, on Kafka those that the "
        "header key-id names, which are all that were verified and maybe more.",
    )
    since: Moment | None = Field(
        default=None, description="Of this time or later, by the event's own clock."
    )
    until: Moment | None = Field(default=None, description="Before this time.")
    incident: Name | None = Field(
        default=None,
        description="An incident: what its sources sent with its labels, and whatever carries its "
        "pattern, from somewhat before it was noticed on.",
    )

    def asked(self) -> Asked:
        """As the desk wants it."""
        return Asked(
            tuple(self.sources),
            tuple(self.subjects),
            tuple(self.labels),
            self.since,
            self.until,
            self.incident,
            tuple(self.keys),
        )


class BlastIn(AskedIn):
    """What somebody wants to know."""

    shown: int = Field(default=20, ge=0, le=MAX_SHOWN, description="So many events one by one.")


class RetractIn(_In):
    """Which accepted events to take back, and why."""

    asked: AskedIn
    why: Why
    dry_run: bool = Field(default=False, description="true only says what would be done.")


class CheckpointIn(_In):
    """A stored model."""

    version: int = Field(default=1, ge=1, le=1, description="Of this form.")
    name: Name
    ts: Moment | None = Field(default=None, description="When it was stored; now by default.")
    offsets: dict[str, StrictInt] = Field(
        min_length=1,
        max_length=MAX_PARTITIONS,
        description="By partition of the accepted topic, the first offset that the model has not "
        "learned. For files the partition is 0 and offsets are numbers of lines, from 0.",
    )


class _Out(BaseModel):
    model_config = ConfigDict(extra="allow")


class CheckpointOut(_Out):
    """A stored model."""

    name: str
    ts: float
    offsets: dict[str, int]


class AnnouncedOut(CheckpointOut):
    """A stored model, as it holds."""

    known: bool = Field(description="It had been announced before, just so.")


class CheckpointsOut(BaseModel):
    """Stored models, the latest first."""

    checkpoints: list[CheckpointOut]


class JudgedOut(BaseModel):
    """What the meant events did to stored models."""

    last_clean: CheckpointOut | None = Field(description="The latest that has learned none.")
    certain: bool = Field(
        description="false where earlier events are not in the index any more: the last clean one "
        "may have learned some of those."
    )
    tainted: list[CheckpointOut]
    unclear: list[CheckpointOut] = Field(
        description="Those that do not say how far they have read where the events are."
    )
    known: int


class BlastOut(_Out):
    """What the meant events add up to."""

    events: int
    retracted: int = Field(description="How many of them were taken back already.")
    first: dict[str, Any] | None = Field(description="The first that was accepted, and where.")
    last: dict[str, Any] | None
    checkpoints: JudgedOut
    keys: dict[str, Any] = Field(
        description="The most frequent keys; `index.keys` says whether verified or claimed."
    )
    items: list[dict[str, Any]] = Field(description="The first ones.")


class RetractionOutcomeOut(BaseModel):
    """What a retraction did, or would do."""

    request: str = Field(description="Names it; in every record that it wrote.")
    dry_run: bool
    events: int = Field(description="Taken back by this request.")
    already: int = Field(description="Taken back before it.")
    by_source: dict[str, int]
    by_label: dict[str, int]


class RetractionsIn(_In):
    """Which requests are asked for; unknown names are refused."""

    limit: int = Field(default=50, ge=1, le=MAX_PAGE, description="At most so many.")
    before: FiniteFloat | None = Field(default=None, description="Only those before this time.")


class RetractedOut(_Out):
    """A request as it is remembered."""

    request: str
    who: str
    why: str
    when: float
    events: int


class RetractionsOut(BaseModel):
    """Requests, the latest first."""

    retractions: list[RetractedOut]
    before: float | None = Field(description="Asks for those behind them; null at the end.")
