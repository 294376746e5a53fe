"""Incidents over HTTP: a list by state and family, and one by its identifier."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from monitor.admin.desk_parts import VIEWER, OrjsonResponse, answers
from monitor.admin.problem import ProblemError
from monitor.runtime.incident_board import IncidentSnapshot

MAX_PAGE = 500
MAX_CHARS = 64


class IncidentsView(Protocol):
    """Where incidents come from (:class:`~monitor.runtime.incident_board.IncidentBoard`)."""

    def snapshot(self) -> IncidentSnapshot:
        """The incidents now."""


class IncidentsIn(BaseModel):
    """Which incidents are asked for; unknown names are refused."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["open", "closed"] | None = Field(default=None, description="Only these.")
    family: str | None = Field(
        default=None, max_length=MAX_CHARS, description="A family or a kind."
    )
    limit: int = Field(default=50, ge=1, le=MAX_PAGE, description="At most so many.")
    cursor: str | None = Field(
        default=None, max_length=MAX_CHARS, description="Of the page before; same filters."
    )


class IncidentOut(BaseModel):
    """One incident; further fields say what its events share."""

    model_config = ConfigDict(extra="allow")

    id: str
    kind: Literal["campaign", "drift", "data_fault"]
    family: str
    confidence: float = Field(description="0 to 1.")
    state: Literal["open", "closed"]
    events: int
    quarantined: int = Field(description="Events with that verdict, whatever the mode did.")
    flagged: int
    text: str = Field(description="What it is and what to do, in two or three sentences.")


class IncidentPageOut(BaseModel):
    """Incidents, the open ones first, then by their last event."""

    items: list[IncidentOut]
    total: int = Field(description="How many match, on all pages.")
    cursor: str | None = Field(description="Asks for those behind them; null at the end.")


def incident_router(view: IncidentsView | None) -> APIRouter:
    """``/v1/incidents`` and ``/v1/incidents/{id}``."""
    router = APIRouter(tags=["incidents"])

    @router.get(
        "/v1/incidents",
        summary="Incidents of the partitions that this instance judges",
        dependencies=[VIEWER],
        response_model=IncidentPageOut,
        responses=answers(),
    )
    def incidents(asked: Annotated[IncidentsIn, Query()]) -> Response:
        """What flagged events were grouped into: campaigns, drifts, faults of the data."""
        found = _present(view).snapshot().matching(asked.state, asked.family)
        rest = found if asked.cursor is None else _behind(found, asked.cursor)
        page = rest[: asked.limit]
        more = page[-1]["id"] if len(rest) > asked.limit else None
        return OrjsonResponse({"items": page, "total": len(found), "cursor": more})

    @router.get(
        "/v1/incidents/{identifier}",
        summary="One incident",
        dependencies=[VIEWER],
        response_model=IncidentOut,
        responses=answers(404),
    )
    def incident(identifier: Annotated[str, Path(max_length=MAX_CHARS)]) -> Response:
        """By its identifier, or by that of a part of it in one partition."""
        found = _present(view).snapshot().get(identifier)
        if found is None:
            raise ProblemError(
                404, f"No incident {identifier[:MAX_CHARS]!r} is known here (any more)."
            )
        return OrjsonResponse(found)

    return router


def _present(view: IncidentsView | None) -> IncidentsView:
    if view is None:
        raise ProblemError(503, "This process keeps no incidents: ask the running service.")
    return view


def _behind(found: list[dict[str, Any]], cursor: str) -> list[dict[str, Any]]:
    """Those behind the incident ``cursor``. Raises ProblemError where it is not among them."""
    at = next((i for i, one in enumerate(found) if one["id"] == cursor), None)
    if at is None:
        raise ProblemError(
            422,
            f"cursor: {cursor!r} is not the end of a page of these incidents (any more): ask "
            "again from the beginning, without it.",
        )
    return found[at + 1 :]
