"""The section ``drills`` of the settings."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from monitor.config.base import Section
from monitor.core.drill import DrillPlan
from monitor.core.errors import UsageError


class DrillSettings(Section):
    """Attacks that the service tries on a copy of its state, to know what it would catch."""

    every_hours: Annotated[float, Field(ge=0.0)] = Field(
        default=0.0,
        description="How often a drill starts by itself, the families in turn. 0: only when "
        "somebody asks for one. While it lasts, the events of one partition are judged twice.",
    )
    families: tuple[str, ...] = Field(
        default=("label_flip", "backdoor", "clean_label"),
        description="Families of attacks that scheduled drills try: label_flip, backdoor, "
        "clean_label, gradient, boiling_frog, sybil, shilling (needs subjects), replay.",
        strict=False,
    )
    rate_per_second: float = Field(
        default=1.0, description="Canaries a second in scheduled drills, at most 1,000."
    )
    for_seconds: float = Field(default=120.0, description="Length of scheduled drills.")
    sources: str = Field(
        default="5",
        min_length=1,
        description="Who sends their canaries: a number of made-up accounts, ordinary, fresh (an "
        "account for each), hijacked or hijacked:N (accounts that were honest before).",
    )

    @model_validator(mode="after")
    def _plans_are_possible(self) -> Self:
        try:
            self.plans()
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self

    def plans(self) -> tuple[DrillPlan, ...]:
        """One for each family."""
        return tuple(
            DrillPlan(
                family,
                rate_per_second=self.rate_per_second,
                seconds=self.for_seconds,
                sources=self.sources,
            )
            for family in self.families
        )
