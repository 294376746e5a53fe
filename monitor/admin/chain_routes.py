"""The audit chains over HTTP: where they stand, and the life of an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from monitor.admin.desk_parts import VIEWER, OrjsonResponse, answers
from monitor.admin.problem import ProblemError
from monitor.core.errors import MonitorError

MAX_ID = 256


class ChainsView(Protocol):
    """Where it comes from (:class:`~monitor.runtime.chains.Chains`)."""

    def heads(self) -> Mapping[str, Any]:
        """Where the chains stand."""

    def lineage(self, event_id: str) -> Sequence[Mapping[str, Any]]:
        """All that is known of events with this id. Raises MonitorError."""


class HeadOut(BaseModel):
    """Where a chain stands."""

    seq: int = Field(description="Number of its last record.")
    hash: str = Field(description="SHA-256 of it, in hexadecimal digits.")


class HeadsOut(BaseModel):
    """The chains that this instance writes."""

    enabled: bool
    heads: dict[str, HeadOut]


class LifeOut(BaseModel):
    """A decision about an event, and what it goes back to; the decision record is in it."""

    model_config = ConfigDict(extra="allow")

    id: str | None
    topic: str
    partition: int | None
    key_id: str | None = Field(description="The key that signed the event; null for none.")
    policy_version: int | None
    state: str | None = Field(description="What it was judged by: digest@position of a snapshot.")
    software: str | None
    incident: str | None


class LineageOut(BaseModel):
    """The same id may come several times."""

    events: list[LifeOut]


def chain_router(view: ChainsView | None) -> APIRouter:
    """``/v1/audit/heads`` and ``/v1/lineage/{id}``."""
    router = APIRouter(tags=["audit"])

    def present() -> ChainsView:
        if view is None:
            raise ProblemError(503, "This process keeps no audit chains.")
        return view

    @router.get(
        "/v1/audit/heads",
        summary="Where the audit chains stand",
        dependencies=[VIEWER],
        response_model=HeadsOut,
        responses=answers(),
    )
    def heads() -> Response:
        """Number and hash of the last record of each chain that this instance writes."""
        return OrjsonResponse(present().heads())

    @router.get(
        "/v1/lineage/{event_id}",
        summary="The life of an event",
        dependencies=[VIEWER],
        response_model=LineageOut,
        responses=answers(404),
    )
    def lineage(event_id: Annotated[str, Path(min_length=1, max_length=MAX_ID)]) -> Response:
        """Where it came from, what judged it, what was decided and what people did then.

        On files everything is found; on Kafka what is in the quarantine store and the latest
        events that were not plainly accepted. `audit show` reads the topics.
        """
        try:
            found = present().lineage(event_id)
        except MonitorError as error:
            raise ProblemError(503, str(error)) from error
        if not found:
            raise ProblemError(404, "No event of this id is known here; `audit show` may find it.")
        return OrjsonResponse({"events": found})

    return router
