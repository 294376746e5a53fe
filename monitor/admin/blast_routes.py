"""The blast radius over HTTP: ask what was learned, take it back, tell of stored models."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response

from monitor.admin.blast_schemas import (
    AnnouncedOut,
    BlastIn,
    BlastOut,
    CheckpointIn,
    CheckpointsOut,
    RetractIn,
    RetractionOutcomeOut,
    RetractionsIn,
    RetractionsOut,
)
from monitor.admin.desk import BlastDesk, Desk
from monitor.admin.desk_parts import OPERATOR, VIEWER, Operator, OrjsonResponse, answers, present
from monitor.admin.json_body import body_of, reads
from monitor.lineage.checkpoints import as_json, checked

EXAMPLE = {"sources": ["acct-71"], "since": "2026-05-01T12:00:00Z"}
BODY_CODES = (400, 413, 415)
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=8,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="Made up for this request; sent again with it when no answer came.",
    ),
]


def blast_router(desk: Desk | None) -> APIRouter:
    """``/v1/blast``, ``/v1/retractions`` and ``/v1/checkpoints``."""
    router = APIRouter(tags=["blast radius"])

    def lineage() -> BlastDesk:
        return present(desk).blast

    _add_looking(router, lineage)
    _add_retractions(router, lineage)
    _add_checkpoints(router, lineage)
    return router


def _add_looking(router: APIRouter, lineage: Callable[[], BlastDesk]) -> None:
    @router.post(
        "/v1/blast",
        summary="What a source, or an incident, has already taught the model",
        dependencies=[VIEWER],
        response_model=BlastOut,
        responses=answers(404, *BODY_CODES),
        openapi_extra=body_of(BlastIn, EXAMPLE),
    )
    def blast(body: Annotated[BlastIn, Depends(reads(BlastIn))]) -> Response:
        """Accepted events that match: how many, since when, and which checkpoints are clean.

        Changes nothing; it is a POST because the question may be long.
        """
        return OrjsonResponse(lineage().blast(body.asked(), body.shown))


def _add_retractions(router: APIRouter, lineage: Callable[[], BlastDesk]) -> None:
    @router.post(
        "/v1/retractions",
        summary="Tell the learner to take accepted events back, each exactly once",
        dependencies=[OPERATOR],
        response_model=RetractionOutcomeOut,
        responses=answers(404, 409, *BODY_CODES),
        openapi_extra=body_of(
            RetractIn, {"asked": EXAMPLE, "why": "The account was taken over", "dry_run": True}
        ),
    )
    def retract(
        person: Operator,
        body: Annotated[RetractIn, Depends(reads(RetractIn))],
        key: Key = None,
    ) -> Response:
        """One record an event in the topic of retractions. Asking again changes nothing.

        With an `Idempotency-Key` a request that is sent again answers as the first one did, and
        goes on where that was interrupted. `dry_run` only says what would be done.
        """
        asked = body.asked.asked()
        return OrjsonResponse(
            lineage().retract(asked, who=person.name, why=body.why, key=key, dry_run=body.dry_run)
        )

    @router.get(
        "/v1/retractions",
        summary="Requests for retraction, the latest first",
        dependencies=[VIEWER],
        response_model=RetractionsOut,
        responses=answers(),
    )
    def retractions(asked: Annotated[RetractionsIn, Query()]) -> Response:
        """Who asked for what, why, and how many events were taken back."""
        found = [asdict(one) for one in lineage().retractions(asked.limit, asked.before)]
        more = found[-1]["when"] if len(found) == asked.limit else None
        return OrjsonResponse({"retractions": found, "before": more})


def _add_checkpoints(router: APIRouter, lineage: Callable[[], BlastDesk]) -> None:
    @router.post(
        "/v1/checkpoints",
        summary="Tell of a stored model",
        status_code=201,
        dependencies=[OPERATOR],
        response_model=AnnouncedOut,
        responses=answers(409, *BODY_CODES),
        openapi_extra=body_of(CheckpointIn, {"name": "fraud-0417", "offsets": {"0": 1204112}}),
    )
    def announce(
        person: Operator, body: Annotated[CheckpointIn, Depends(reads(CheckpointIn))]
    ) -> Response:
        """How far it has learned, by partition. Its name stays with it.

        Announced again just so it is `known`; with other offsets, or another time, it is refused.
        """
        ts = time.time() if body.ts is None else body.ts
        checkpoint = checked(body.name, ts, body.offsets)
        made = lineage().announce(checkpoint, who=person.name, dated=body.ts is not None)
        told = as_json(made.checkpoint) | {"known": made.known}
        return OrjsonResponse(told, status_code=201)

    @router.get(
        "/v1/checkpoints",
        summary="Stored models, the latest first",
        dependencies=[VIEWER],
        response_model=CheckpointsOut,
        responses=answers(),
    )
    def checkpoints() -> Response:
        """Those that were announced here or in the topic of checkpoints."""
        return OrjsonResponse({"checkpoints": [as_json(one) for one in lineage().checkpoints()]})
