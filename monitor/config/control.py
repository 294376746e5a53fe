"""The section ``control``: how people change the policy while the service runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from monitor.config.base import Section


class ControlSettings(Section):
    """How the policy is changed, and how much what-if looks back on."""

    two_person: bool = Field(
        default=False,
        description="true: a change of a policy that is, or becomes, one of mode enforce waits "
        "until somebody else than its author approves it. Set it alike for all instances.",
    )
    whatif_events: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=50_000,
        description="How many of the latest scored events are kept, to say at once what another "
        "policy would have made of them. Some 250 bytes each.",
    )
