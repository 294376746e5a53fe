"""Held events over HTTP: search, look, release, confirm, erase."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from monitor.admin.desk import Desk, QuarantineDesk
from monitor.admin.desk_parts import (
    ADMIN,
    OPERATOR,
    VIEWER,
    Admin,
    Operator,
    OrjsonResponse,
    answers,
    overview,
    present,
    whole,
)
from monitor.admin.desk_schemas import (
    KEY,
    ErasedOut,
    EraseIn,
    FilterIn,
    HeldPageOut,
    HeldWholeOut,
    ObservedOut,
    OutcomeOut,
    ReviewIn,
    SearchIn,
)
from monitor.admin.json_body import body_of, reads
from monitor.admin.problem import ProblemError
from monitor.core.desk import HeldFilter

Key = Annotated[str, Path(pattern=KEY, description="`partition-offset`.")]
EXAMPLE = {"filter": {"keys": ["0-1000"]}, "why": "The merchant explained it", "dry_run": True}
BODY_CODES = (400, 409, 413, 415)


def quarantine_router(desk: Desk | None) -> APIRouter:
    """The routes below ``/v1/quarantine``."""
    router = APIRouter(prefix="/v1/quarantine", tags=["quarantine"])

    def quarantine() -> QuarantineDesk:
        return present(desk).quarantine

    _add_reading(router, quarantine)
    _add_events(router, quarantine)
    _add_reviews(router, quarantine)
    return router


def _add_reading(router: APIRouter, quarantine: Callable[[], QuarantineDesk]) -> None:
    @router.get(
        "",
        summary="Held events, the latest first",
        dependencies=[VIEWER],
        response_model=HeldPageOut,
        responses=answers(),
    )
    def search(asked: Annotated[SearchIn, Query()]) -> Response:
        """A page of those that fit all given filters; `cursor` asks for the next page."""
        page = quarantine().search(asked.chosen(), asked.limit, asked.cursor)
        items = [overview(held) for held in page.items]
        return OrjsonResponse({"items": items, "total": page.total, "cursor": page.cursor})

    @router.get(
        "/counts",
        summary="Numbers of held events by family, source, label and status",
        dependencies=[VIEWER],
        response_model=dict[str, dict[str, int]],
        responses=answers(),
    )
    def counts(asked: Annotated[FilterIn, Query()]) -> Response:
        """Of those that fit all given filters."""
        return OrjsonResponse(quarantine().counts(asked.chosen()))

    @router.get(
        "/observed",
        summary="The observed false-positive share beside the promised one",
        dependencies=[VIEWER],
        response_model=ObservedOut,
        responses=answers(),
    )
    def observed() -> Response:
        """What reviews say: released events were false alarms."""
        return OrjsonResponse(quarantine().observed())

    @router.get(
        "/source",
        summary="History of a source",
        dependencies=[VIEWER],
        response_model=dict[str, object],
        responses=answers(404),
    )
    def source(name: Annotated[str, Query(min_length=1, max_length=256)]) -> Response:
        """Its held events by status, day and family; first and last seen."""
        return OrjsonResponse(quarantine().source(name))


def _add_events(router: APIRouter, quarantine: Callable[[], QuarantineDesk]) -> None:
    @router.get(
        "/events/{key}",
        summary="One held event with its bytes and its decision",
        dependencies=[VIEWER],
        response_model=HeldWholeOut,
        responses=answers(404),
    )
    def event(key: Key) -> Response:
        """Why it was held, and what it said."""
        return OrjsonResponse(whole(quarantine().get(key)))

    @router.get(
        "/events/{key}/value",
        summary="The original bytes of a held event",
        dependencies=[VIEWER],
        response_class=Response,
        responses=answers(404)
        | {200: {"content": {"application/octet-stream": {}}, "description": "As they came."}},
    )
    def value(key: Key) -> Response:
        """As a download: a browser must not show what a stranger wrote."""
        return Response(
            quarantine().get(key).value,
            media_type="application/octet-stream",
            headers={"content-disposition": f'attachment; filename="{key}.json"'},
        )


def _add_reviews(router: APIRouter, quarantine: Callable[[], QuarantineDesk]) -> None:
    @router.post(
        "/release",
        summary="Send held events to the learner, each exactly once",
        dependencies=[OPERATOR],
        response_model=OutcomeOut,
        responses=answers(*BODY_CODES),
        openapi_extra=body_of(ReviewIn, EXAMPLE),
    )
    def release(person: Operator, body: Annotated[ReviewIn, Depends(reads(ReviewIn))]) -> Response:
        """They count as false alarms. Asking again changes nothing; `dry_run` only says what."""
        chosen = _chosen(body)
        return OrjsonResponse(
            quarantine().release(chosen, who=person.name, why=body.why, dry_run=body.dry_run)
        )

    @router.post(
        "/confirm",
        summary="Mark held events as poison",
        dependencies=[OPERATOR],
        response_model=OutcomeOut,
        responses=answers(*BODY_CODES),
        openapi_extra=body_of(ReviewIn, EXAMPLE | {"why": "The ring of last week"}),
    )
    def confirm(person: Operator, body: Annotated[ReviewIn, Depends(reads(ReviewIn))]) -> Response:
        """Counts against their sources from now on; `dry_run` only says what."""
        chosen = _chosen(body)
        return OrjsonResponse(
            quarantine().confirm(chosen, who=person.name, why=body.why, dry_run=body.dry_run)
        )

    @router.post(
        "/erase",
        summary="Remove what is stored of a source",
        dependencies=[ADMIN],
        response_model=ErasedOut,
        responses=answers(*BODY_CODES),
        openapi_extra=body_of(EraseIn, {"source": "acct-71", "why": "Request 4711"}),
    )
    def erase(person: Admin, body: Annotated[EraseIn, Depends(reads(EraseIn))]) -> Response:
        """For privacy requests. What stands in topics ends with their retention."""
        events = quarantine().erase(
            body.source, who=person.name, why=body.why, dry_run=body.dry_run
        )
        return OrjsonResponse({"source": body.source, "dry_run": body.dry_run, "events": events})


def _chosen(body: ReviewIn) -> HeldFilter:
    """The filter of a review; an empty one has to be meant. Raises ProblemError 422."""
    chosen = body.filter.chosen()
    if chosen == HeldFilter() and not body.all:
        raise ProblemError(422, "filter: is empty and so means every event; if so, say all: true.")
    return chosen
