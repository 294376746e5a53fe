"""Drills over HTTP: start one, watch it, stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response

from monitor.admin.desk import Desk, DrillDesk
from monitor.admin.desk_parts import OPERATOR, VIEWER, Operator, OrjsonResponse, answers, present
from monitor.admin.desk_schemas import DrillIn, DrillOut, DrillsOut
from monitor.admin.json_body import body_of, reads
from monitor.core.drill import Drill

EXAMPLE = {
    "family": "backdoor",
    "rate_per_second": 0.5,
    "seconds": 300,
    "why": "Weekly drill",
}
Id = Annotated[str, Path(pattern=r"^[0-9a-f]{1,32}$", description="A drill's identifier.")]


def as_json(drill: Drill) -> dict[str, Any]:
    """A drill as the interface and the terminal show it."""
    return asdict(drill) | {"recall": drill.recall, "noticed": drill.noticed}


def drill_router(desk: Desk | None) -> APIRouter:
    """The routes below ``/v1/drills``."""
    router = APIRouter(prefix="/v1/drills", tags=["drills"])

    def drills() -> DrillDesk:
        return present(desk).drills

    _add_reading(router, drills)
    _add_running(router, drills)
    return router


def _add_reading(router: APIRouter, drills: Callable[[], DrillDesk]) -> None:
    @router.get(
        "",
        summary="The latest drills, the latest first",
        dependencies=[VIEWER],
        response_model=DrillsOut,
        responses=answers(),
    )
    def latest() -> Response:
        """What was tried on this instance, and what would have been caught."""
        return OrjsonResponse({"drills": [as_json(drill) for drill in drills().list()]})

    @router.get(
        "/{drill}",
        summary="One drill",
        dependencies=[VIEWER],
        response_model=DrillOut,
        responses=answers(404),
    )
    def one(drill: Id) -> Response:
        """As it stands."""
        return OrjsonResponse(as_json(drills().get(drill)))


def _add_running(router: APIRouter, drills: Callable[[], DrillDesk]) -> None:
    @router.post(
        "",
        summary="Start a drill",
        status_code=201,
        dependencies=[OPERATOR],
        response_model=DrillOut,
        responses=answers(400, 409, 413, 415),
        openapi_extra=body_of(DrillIn, EXAMPLE),
    )
    def start(person: Operator, body: Annotated[DrillIn, Depends(reads(DrillIn))]) -> Response:
        """Canaries made from recent events are judged on a copy of the state.

        They reach no topic and nothing is learned from them. One drill at a time.
        """
        drill = drills().start(body.plan(), who=person.name, why=body.why)
        answer = OrjsonResponse(as_json(drill), status_code=201)
        answer.headers["location"] = f"/v1/drills/{drill.id}"
        return answer

    @router.post(
        "/{drill}/stop",
        summary="End a drill early",
        dependencies=[OPERATOR],
        response_model=DrillOut,
        responses=answers(404),
    )
    def stop(person: Operator, drill: Id) -> Response:
        """What was judged until then counts."""
        return OrjsonResponse(as_json(drills().stop(drill, who=person.name)))
