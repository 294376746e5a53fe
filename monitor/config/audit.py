"""The section ``audit`` of the settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from monitor.config.base import Section


class AuditSettings(Section):
    """A chain of hashes over all decisions and over what people do."""

    enabled: bool = Field(
        default=True,
        description="Whether decisions are chained: a digest of each, in audit.jsonl or "
        "kafka.topics.audit, so that `audit verify` finds one that was changed, dropped, inserted "
        "or moved.",
    )
    key_file: str | None = Field(
        default=None,
        min_length=1,
        description="The service's key, made by `audit keys create`, readable by its owner only. "
        "With it the heads of the chains and what people do are signed, so that nobody without the "
        "key can write the chain anew. null: nothing is signed.",
    )
    head_every_seconds: Annotated[float, Field(gt=0.0)] = Field(
        default=60.0,
        description="How often the heads of the chains are written down, signed and anchored, when "
        "they have moved; also at the end. What came after the last one can be cut off unnoticed.",
    )
    head_every_records: Annotated[int, Field(ge=1)] = Field(
        default=10_000,
        description="After so many audit records (micro-batches) they are written down earlier.",
    )
    anchor_file: str | None = Field(
        default=None,
        min_length=1,
        description="Each written head is appended to this file too; put it where those who could "
        "rewrite the chain cannot write. null for none.",
    )
    anchor_url: str | None = Field(
        default=None,
        min_length=1,
        pattern=r"^https?://",
        description="Each written head is posted there too, as JSON. null for none.",
    )
    anchor_timeout_seconds: Annotated[float, Field(gt=0.0)] = Field(
        default=10.0, description="How long the answer of anchor_url may take."
    )
