"""The parts of the policy: how one detector counts, exceptions, lists of sources. All bounded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from monitor.core.types import Mode

MAX_OVERRIDES = 1_000
MAX_LISTED = 10_000
MAX_CONFIRMED = 10_000
MAX_CHARS = 1_024
MAX_COUNT = 1_000_000_000
LATEST = 253_402_300_800.0  # the year 10000, in Unix seconds

Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Weight = Annotated[float, Field(ge=0.0, le=1_000.0)]
SourceName = Annotated[str, Field(min_length=1, max_length=MAX_CHARS)]
Why = Annotated[str, Field(max_length=MAX_CHARS)]
Until = Annotated[float, Field(ge=0.0, le=LATEST)]

KNOWN_DETECTORS = (
    "label_conflict",
    "class_moments",
    "undo",
    "novelty",
    "continuity",
    "trigger",
    "replay",
    "coherence",
    "source_evidence",
    "ring",
    "gradient",
    "subject",
    "structure",
    "half_space",
    "collision",
    "spectral",
    "influence",
    "slow_drift",
)
"""Their names, in scoring order. Written out because the policy lies below the detectors."""


class PolicyPart(BaseModel):
    """Base of all parts: strict types, frozen, no unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class DetectorSetting(PolicyPart):
    """How one detector counts within its channel."""

    mode: Mode = Field(
        default=Mode.ENFORCE,
        strict=False,
        description="enforce: may hold events back. alert: may flag them, never hold them back. "
        "shadow: is scored and shown, but has no say.",
    )
    weight: Weight = Field(
        default=1.0,
        description="Multiplies the detector's part of its channel's budget; 0 has no say.",
    )

    @property
    def has_say(self) -> bool:
        """Whether verdicts depend on the detector."""
        return self.mode is not Mode.SHADOW and self.weight > 0.0


class Override(PolicyPart):
    """Other thresholds, or another mode, for the events of one label, subject or source.

    Where several fit an event, what a source's says goes before a subject's, and that before a
    label's; of two with the same scope the later one in the list goes first.
    """

    id: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="Names the override in reasons and in differences; once in the list."
    )
    scope: Literal["label", "subject", "source"] = Field(description="What `match` is held against")
    match: Annotated[str, Field(min_length=1, max_length=MAX_CHARS)] | bool | int = Field(
        description="The label as it is printed, or the subject or source itself."
    )
    flag_at: Share | None = Field(default=None, description="In place of the policy's; else null.")
    quarantine_at: Share | None = Field(
        default=None, description="In place of the policy's; else null."
    )
    mode: Mode | None = Field(
        default=None, strict=False, description="In place of the policy's; else null."
    )
    expires_at: Until | None = Field(
        default=None, description="Unix seconds at which a new version without it is made."
    )
    why: Why = Field(default="", description="For people.")

    @model_validator(mode="after")
    def _sensible(self) -> Override:
        if self.scope != "label" and not isinstance(self.match, str):
            raise ValueError(f"a {self.scope} is matched by a text, not by {self.match!r}")
        if self.flag_at is None and self.quarantine_at is None and self.mode is None:
            raise ValueError("changes nothing: give flag_at, quarantine_at or mode")
        both = self.flag_at is not None and self.quarantine_at is not None
        if both and self.quarantine_at > self.flag_at:  # type: ignore[operator]
            raise ValueError("quarantine_at must not be larger than flag_at")
        return self

    @property
    def text(self) -> str:
        """What is matched, as text; labels as they are printed."""
        if isinstance(self.match, bool):
            return "true" if self.match else "false"
        return str(self.match)


class ListedSource(PolicyPart):
    """A source that is always let pass, or always held back."""

    source: SourceName = Field(description="The source.")
    expires_at: Until | None = Field(
        default=None, description="Unix seconds at which a new version without it is made."
    )
    why: Why = Field(default="", description="For people.")
