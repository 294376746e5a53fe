"""The live policy: what an operator is willing to pay, stated as false-positive shares."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from monitor.core.types import Family, Mode

Share = Annotated[float, Field(gt=0.0, lt=1.0)]

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

    @model_validator(mode="after")
    def _ordered(self) -> Policy:
        if self.quarantine_at > self.flag_at:
            raise ValueError("quarantine_at must not be larger than flag_at")
        return self

    def share(self, family: str, among: tuple[str, ...]) -> float:
        """The family's part of the budget among the families that have a channel."""
        total = sum(self.budget.get(name, 0.0) for name in among)
        return self.budget.get(family, 0.0) / total if total > 0.0 else 0.0
