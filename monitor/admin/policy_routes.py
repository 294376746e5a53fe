"""The live policy over HTTP: read, preview, change, roll back, approve."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from monitor.admin.desk import Desk, PolicyDesk
from monitor.admin.desk_parts import OPERATOR, VIEWER, Operator, OrjsonResponse, answers, present
from monitor.admin.desk_schemas import (
    VERSION,
    AppliedOut,
    ChangeIn,
    ChangeOut,
    DiffOut,
    DocumentIn,
    HistoryOut,
    PreviewOut,
    RejectIn,
    RisksOut,
    RollbackIn,
    WaitingOut,
    WhatIfOut,
)
from monitor.admin.json_body import body_of, reads
from monitor.admin.people import Person, Role
from monitor.admin.problem import ProblemError, as_sentence
from monitor.admin.schemas import Described
from monitor.config.policy_diff import brought_back
from monitor.core.desk import Change, ConflictError, ForbiddenError, MissingError
from monitor.provenance.edit import changes_provenance

UNCHANGED = "unchanged"
DOCUMENT = {"mode": "enforce", "flag_at": 0.02, "quarantine_at": 0.001}
Number = Annotated[int, Query(ge=1, le=VERSION)]
Proposal = Annotated[str, Path(max_length=128, description="A proposal's identifier.")]
IfMatch = Annotated[
    str | None, Header(description='The version that the change is made of, as its ETag: `"7"`.')
]
_TAG = re.compile(r'"(\d{1,9})"')


def policy_router(desk: Desk | None) -> APIRouter:
    """The routes below ``/v1/policy``."""
    router = APIRouter(prefix="/v1/policy", tags=["policy"])

    def policy() -> PolicyDesk:
        return present(desk).policy

    _add_reading(router, policy)
    _add_asking(router, policy)
    _add_changing(router, policy)
    _add_waiting(router, policy)
    return router


def _add_reading(router: APIRouter, policy: Callable[[], PolicyDesk]) -> None:
    @router.get(
        "",
        summary="The policy that holds now",
        dependencies=[VIEWER],
        response_model=ChangeOut,
        responses=answers() | {304: {"description": "Still the version of If-None-Match."}},
    )
    def current(if_none_match: Annotated[str | None, Header()] = None) -> Response:
        """The latest version with its document; `ETag` is what a change brings in `If-Match`."""
        change = policy().current()
        if if_none_match is not None and if_none_match == tag_of(change):
            return Response(status_code=304, headers={"etag": tag_of(change)})
        return changed(change)

    @router.get(
        "/history",
        summary="Applied versions, the latest first",
        dependencies=[VIEWER],
        response_model=HistoryOut,
        responses=answers(),
    )
    def history(
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before: Annotated[int | None, Query(ge=1, le=VERSION)] = None,
    ) -> Response:
        """Who changed what, when and why, with each whole document."""
        found = list(policy().history(limit, before))
        more = len(found) == limit and found[-1].version > 1
        return OrjsonResponse({"versions": found, "before": found[-1].version if more else None})

    @router.get(
        "/versions/{number}",
        summary="One version",
        dependencies=[VIEWER],
        response_model=ChangeOut,
        responses=answers(404),
    )
    def version(number: Annotated[int, Path(ge=1, le=VERSION)]) -> Response:
        """An applied version with its document."""
        return OrjsonResponse(policy().version(number))

    @router.get(
        "/diff",
        summary="What differs between two versions",
        dependencies=[VIEWER],
        response_model=DiffOut,
        responses=answers(404),
    )
    def diff(a: Number, b: Number) -> Response:
        """Value by value, by path."""
        return OrjsonResponse({"a": a, "b": b, "differences": policy().diff(a, b)})

    @router.get(
        "/applied",
        summary="By which version each instance judges",
        dependencies=[VIEWER],
        response_model=AppliedOut,
        responses=answers(),
    )
    def applied() -> Response:
        """As the instances said themselves."""
        return OrjsonResponse(
            {"current": policy().current().version, "instances": policy().applied()}
        )


def _add_asking(router: APIRouter, policy: Callable[[], PolicyDesk]) -> None:
    @router.post(
        "/preview",
        summary="Check a document and see what it would change",
        dependencies=[VIEWER],
        response_model=PreviewOut,
        responses=answers(400, 413, 415),
        openapi_extra=body_of(DocumentIn, {"policy": DOCUMENT}),
    )
    def preview(body: Annotated[DocumentIn, Depends(reads(DocumentIn))]) -> Response:
        """Changes nothing. What is missing in the document has its default."""
        base = policy().current().version
        return OrjsonResponse({"base": base, "differences": policy().preview(body.policy)})

    @router.post(
        "/whatif",
        summary="What another policy would have made of the latest events",
        dependencies=[VIEWER],
        response_model=WhatIfOut,
        responses=answers(400, 413, 415),
        openapi_extra=body_of(DocumentIn, {"policy": DOCUMENT}),
    )
    def whatif(body: Annotated[DocumentIn, Depends(reads(DocumentIn))]) -> Response:
        """Changes nothing. Counts by verdict, label, source and family, and what would flip."""
        return OrjsonResponse(policy().whatif(body.policy))

    @router.get(
        "/risks",
        summary="Histogram of the latest events' risk",
        dependencies=[VIEWER],
        response_model=RisksOut,
        responses=answers(),
    )
    def risks(bins: Annotated[int, Query(ge=1, le=1000)] = 60) -> Response:
        """Counts by verdict between `edges`; a share s stands at −log10(s)."""
        return OrjsonResponse(policy().risks(bins))


def _add_changing(router: APIRouter, policy: Callable[[], PolicyDesk]) -> None:
    waiting: Described = {202: {"model": ChangeOut, "description": "It waits for a second person."}}

    @router.put(
        "",
        summary="Change the policy",
        dependencies=[OPERATOR],
        response_model=ChangeOut,
        responses=answers(400, 409, 412, 413, 415, 428) | waiting,
        openapi_extra=body_of(ChangeIn, {"policy": DOCUMENT, "why": "Too many alarms today"}),
    )
    def change(
        person: Operator,
        body: Annotated[ChangeIn, Depends(reads(ChangeIn))],
        if_match: IfMatch = None,
    ) -> Response:
        """Make a whole document the next version, on every replica, or let it wait for approval.

        `If-Match` names the version that the document was made of. If somebody was faster the
        answer is 412, and nothing has changed. Another part `provenance` needs the role admin.
        """
        base = base_of(if_match)
        with Stale(policy):
            _refuse_keys(person, policy(), base, body.policy)
            made = policy().propose(body.policy, base=base, who=person.name, why=body.why)
        return changed(made)

    @router.post(
        "/rollback",
        summary="Return to an earlier version",
        dependencies=[OPERATOR],
        response_model=ChangeOut,
        responses=answers(400, 404, 409, 412, 413, 415, 428) | waiting,
        openapi_extra=body_of(RollbackIn, {"to": 4, "why": "Version 5 held honest events"}),
    )
    def rollback(
        person: Operator,
        body: Annotated[RollbackIn, Depends(reads(RollbackIn))],
        if_match: IfMatch = None,
    ) -> Response:
        """Make an earlier version's document the next version. `If-Match` names the latest.

        Its part `provenance` stays as it is: a key that was revoked since stays revoked. Where
        nothing else differs no version is made; the answer is the present one, `state` `unchanged`.
        """
        base = base_of(if_match)
        with Stale(policy):
            now = policy().current()
            if now.version == base and not brought_back(policy().diff(base, body.to)):
                return changed(replace(now, state=UNCHANGED))
            made = policy().rollback(body.to, base=base, who=person.name, why=body.why)
        return changed(made)


def _add_waiting(router: APIRouter, policy: Callable[[], PolicyDesk]) -> None:
    @router.get(
        "/waiting",
        summary="Proposals that wait for a second person",
        dependencies=[VIEWER],
        response_model=WaitingOut,
        responses=answers(),
    )
    def waiting() -> Response:
        """With who proposed them and why."""
        return OrjsonResponse({"waiting": policy().waiting()})

    @router.post(
        "/waiting/{proposal}/approve",
        summary="Apply somebody else's proposal",
        dependencies=[OPERATOR],
        response_model=ChangeOut,
        responses=answers(404, 409),
    )
    def approve(person: Operator, proposal: Proposal) -> Response:
        """Nobody approves what they have proposed themselves: 403."""
        return changed(policy().approve(proposal, who=person.name))

    @router.post(
        "/waiting/{proposal}/reject",
        summary="Drop a proposal",
        dependencies=[OPERATOR],
        response_model=ChangeOut,
        responses=answers(400, 404, 409, 413, 415),
        openapi_extra=body_of(RejectIn, {"why": "The ring is known already"}),
    )
    def reject(
        person: Operator, proposal: Proposal, body: Annotated[RejectIn, Depends(reads(RejectIn))]
    ) -> Response:
        """It stays in the audit trail."""
        return OrjsonResponse(policy().reject(proposal, who=person.name, why=body.why))


class Stale:
    """Answers 412 with the latest version where the named one is not it any more."""

    def __init__(self, policy: Callable[[], PolicyDesk]) -> None:
        self._policy = policy

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ConflictError):
            now = self._policy().current()
            raise ProblemError(
                412, as_sentence(str(error)), headers={"etag": tag_of(now)}, current=now.version
            ) from error


def _refuse_keys(person: Person, policy: PolicyDesk, base: int, document: Any) -> None:
    """Keys and rules for sources are for admins. Raises ForbiddenError.

    The base counts, not what is current here: the change is only made if that is the latest.
    """
    if person.role.covers(Role.ADMIN):
        return
    try:
        before = policy.version(base).policy
    except MissingError:
        raise ConflictError(f"there is no version {base} here") from None
    if changes_provenance(before, document):
        raise ForbiddenError("provenance: only somebody of the role admin changes it")


def base_of(if_match: str | None) -> int:
    """The version that ``If-Match`` names. Raises ProblemError 428 or 412."""
    if if_match is None:
        raise ProblemError(
            428, "Send If-Match with the version that you looked at; GET /v1/policy has its ETag."
        )
    named = _TAG.fullmatch(if_match.strip())
    if named is None:
        raise ProblemError(412, 'If-Match must name one version, as the ETag does: "7".')
    return int(named[1])


def tag_of(change: Change) -> str:
    """Its ETag."""
    return f'"{change.version}"'


def changed(change: Change) -> Response:
    """What a change answers: 202 where it waits for a second person."""
    if change.state == "waiting":
        return OrjsonResponse(change, status_code=202)
    return OrjsonResponse(change, headers={"etag": tag_of(change)})
