"""The live policy: what an operator is willing to pay, stated as false-positive shares."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from monitor.config.policy_parts import (
    KNOWN_DETECTORS,
    MAX_CONFIRMED,
    MAX_COUNT,
    MAX_LISTED,
    MAX_OVERRIDES,
    DetectorSetting,
    ListedSource,
    Override,
    Share,
    SourceName,
)
from monitor.config.policy_provenance import ProvenancePolicy
from monitor.core.types import Family, Mode

Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
UNCHANGED = DetectorSetting()

DEFAULT_BUDGET: dict[str, float] = {
    Family.LABEL_FLIP: 0.52,
    Family.BACKDOOR: 0.15,
    Family.CLEAN_LABEL: 0.12,
    Family.SYBIL: 0.18,
    Family.REPLAY: 0.03,
    Family.GRADIENT: 0.08,
    Family.SHILLING: 0.08,
    Family.BOILING_FROG: 0.06,
}


class Policy(BaseModel):
    """Thresholds and mode. Strict, frozen, versioned; every decision names its version.

    ``flag_at`` and ``quarantine_at`` are the shares of honest events an operator accepts to see
    flagged (or worse) and held back; ``budget`` splits that share among the families' channels.
    The rest are exceptions; there are none by default.

    Examples
    --------
    >>> Policy(flag_at=0.02).flag_at
    0.02
    >>> Policy(flag_at=0.001, quarantine_at=0.01)
    Traceback (most recent call last):
    ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Policy
      Value error, quarantine_at must not be larger than flag_at ...
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    version: int = Field(default=1, ge=1, description="Rises with every change.")
    mode: Mode = Field(
        default=Mode.ENFORCE,
        strict=False,
        description="shadow: everything passes. alert: passes, alerts are raised. "
        "enforce: quarantined events are held back.",
    )
    flag_at: Share = Field(
        default=0.01, description="Share of honest events that may be flagged or held back."
    )
    quarantine_at: Share = Field(
        default=0.001, description="Share of honest events that may be held back."
    )
    budget: dict[str, float] = Field(
        default_factory=lambda: dict(DEFAULT_BUDGET),
        description="Each family's part of the share above; parts are scaled to sum to one.",
    )
    detectors: dict[str, DetectorSetting] = Field(
        default_factory=dict,
        max_length=len(KNOWN_DETECTORS),
        description="By detector: {mode: enforce | alert | shadow, weight: number ≥ 0}. alert may "
        "flag events but holds none back, shadow has no say; the weight multiplies its part of "
        "its family's budget. Those not named enforce with weight 1.",
    )
    overrides: list[Override] = Field(
        default_factory=list,
        max_length=MAX_OVERRIDES,
        description="Other thresholds or another mode for some events: {id, scope: label | "
        "subject | source, match, flag_at, quarantine_at, mode, expires_at, why}.",
    )
    allow: list[ListedSource] = Field(
        default_factory=list,
        max_length=MAX_LISTED,
        description="Sources whose events are flagged at most: {source, expires_at, why}.",
    )
    deny: list[ListedSource] = Field(
        default_factory=list,
        max_length=MAX_LISTED,
        description="Sources whose events are all quarantined: {source, expires_at, why}. Goes "
        "before `allow`.",
    )
    provenance: ProvenancePolicy = Field(
        default_factory=ProvenancePolicy,
        description="Who may sign for which sources. Only admins change it while the service runs.",
    )
    learning_speed: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default=1.0,
        description="Share of the accepted events that baselines and their thresholds learn from; "
        "0 freezes them.",
    )
    confirmed: dict[SourceName, Count] = Field(
        default_factory=dict,
        max_length=MAX_CONFIRMED,
        description="By source, how many of its events people have confirmed as poison. The tail "
        "probability of its events is divided by 1 + 10 times that, by 1,001 at most.",
    )

    @field_validator("budget")
    @classmethod
    def _known_families(cls, budget: dict[str, float]) -> dict[str, float]:
        known = {family.value for family in Family}
        for name, part in budget.items():
            if name not in known:
                raise ValueError(
                    f"unknown family {name!r}; families are {', '.join(sorted(known))}"
                )
            if not (math.isfinite(part) and part >= 0.0):
                raise ValueError(f"the part of {name} must be a number ≥ 0, not {part}")
        if not sum(budget.values()) > 0.0:
            raise ValueError("at least one family needs a part above 0")
        return {str(name): part for name, part in budget.items()}

    @field_validator("detectors")
    @classmethod
    def _known_detectors(cls, chosen: dict[str, DetectorSetting]) -> dict[str, DetectorSetting]:
        for name in chosen:
            if name not in KNOWN_DETECTORS:
                close = difflib.get_close_matches(name, KNOWN_DETECTORS, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ValueError(
                    f"unknown detector {name!r}{hint}; detectors are {', '.join(KNOWN_DETECTORS)}"
                )
        return chosen

    @field_validator("overrides")
    @classmethod
    def _named_once(cls, overrides: list[Override]) -> list[Override]:
        _once([override.id for override in overrides], "the id")
        return overrides

    @field_validator("allow", "deny")
    @classmethod
    def _listed_once(cls, listed: list[ListedSource]) -> list[ListedSource]:
        _once([entry.source for entry in listed], "the source")
        return listed

    @model_validator(mode="after")
    def _ordered(self) -> Policy:
        if self.quarantine_at > self.flag_at:
            raise ValueError("quarantine_at must not be larger than flag_at")
        return self

    def share(self, family: str, among: tuple[str, ...]) -> float:
        """The family's part of the budget among the families that have a channel."""
        total = sum(self.budget.get(name, 0.0) for name in among)
        return self.budget.get(family, 0.0) / total if total > 0.0 else 0.0

    def setting(self, detector: str) -> DetectorSetting:
        """How ``detector`` counts."""
        return self.detectors.get(detector, UNCHANGED)

    def without_expired(self, now: float) -> Policy:
        """The same without what has expired by ``now``, Unix seconds; itself if nothing has."""
        kept = {
            name: [entry for entry in getattr(self, name) if not _over(entry, now)]
            for name in ("overrides", "allow", "deny")
        }
        if all(len(entries) == len(getattr(self, name)) for name, entries in kept.items()):
            return self
        return self.model_copy(update=kept)


def _over(entry: Override | ListedSource, now: float) -> bool:
    return entry.expires_at is not None and entry.expires_at <= now


def _once(names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"has {what} {name!r} twice")
        seen.add(name)
