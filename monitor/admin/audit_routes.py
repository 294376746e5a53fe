"""The audit trail, and sessions: log in, log out, who is there."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs, quote

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from starlette.responses import RedirectResponse

from monitor.admin.auth import LOGIN, LOGIN_PAGE, Auth, address_of, who
from monitor.admin.body import JSON, read_bytes
from monitor.admin.desk import Desk
from monitor.admin.desk_parts import VIEWER, OrjsonResponse, answers, present
from monitor.admin.desk_schemas import AuditOut, LoginIn, SessionOut
from monitor.admin.people import Person
from monitor.admin.problem import ProblemError, first_of
from monitor.admin.schemas import inline

FORM = "application/x-www-form-urlencoded"
MAX_LOGIN_BYTES = 8192


def audit_router(desk: Desk | None) -> APIRouter:
    """``/v1/audit``."""
    router = APIRouter(tags=["audit"])

    @router.get(
        "/v1/audit",
        summary="What people did, the latest first",
        dependencies=[VIEWER],
        response_model=AuditOut,
        responses=answers(),
    )
    def audit(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    ) -> Response:
        """Changes, reviews, erasures, logins and refused ones: who, what, when and why."""
        found = list(present(desk).log.audit(limit, before))
        return OrjsonResponse(
            {"entries": found, "before": found[-1].when if len(found) == limit else None}
        )

    return router


def session_router(auth: Auth) -> APIRouter:
    """``/v1/session``."""
    router = APIRouter(tags=["session"])

    @router.get(
        LOGIN,
        summary="Who you are",
        dependencies=[VIEWER],
        response_model=SessionOut,
        responses=answers(),
    )
    def read(request: Request) -> Response:
        """Name and role, and within a session what its changes bring in `x-csrf-token`."""
        return _session(who(request))

    @router.post(
        LOGIN,
        summary="Log in for a browser's session",
        response_model=SessionOut,
        responses=answers(400, 413, 415)
        | {303: {"description": "A form's answer: to its `next`, or back to the login page."}},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": inline(LoginIn)}, FORM: {"schema": inline(LoginIn)}},
            },
            "security": [],
        },
    )
    async def log_in(request: Request) -> Response:
        """Show a token, get a cookie. Programs send the token with every request instead."""
        form = request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM
        token, target = await _shown(request, form)
        try:
            person = await auth.check(token, address_of(request), login=True)
        except ProblemError as error:
            if not form:
                raise
            why = "wait" if error.status == 429 else "refused"
            return RedirectResponse(f"{LOGIN_PAGE}?failed={why}&next={quote(target)}", 303)
        cookie = None
        if person.token is not None:
            person, cookie = auth.session(person)
        answer = RedirectResponse(target, 303) if form else _session(person)
        if cookie is not None:
            auth.set_cookie(answer, request, cookie)
        return answer

    @router.delete(
        LOGIN,
        summary="Log out",
        status_code=204,
        response_class=Response,
        responses=answers(),
    )
    def log_out(request: Request) -> Response:
        """The session is over, also for copies of its cookie."""
        answer = Response(status_code=204)
        auth.end(who(request), answer, request)
        return answer

    return router


async def _shown(request: Request, form: bool) -> tuple[str, str]:
    """The token, and where to go with it."""
    body = await read_bytes(request, MAX_LOGIN_BYTES)
    if form:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8)
        return fields.get("token", [""])[0].strip(), _inside(fields.get("next", ["/"])[0])
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise ProblemError(415, f"Send a token as {JSON} or as a form.")
    try:
        return LoginIn.model_validate(orjson.loads(body)).token, "/"
    except orjson.JSONDecodeError as error:
        raise ProblemError(400, f"The body is not JSON: {error}.") from error
    except ValidationError as error:
        raise ProblemError(422, first_of(error.errors(include_input=False))) from error


def _inside(target: str) -> str:
    """``target`` if it is a path of this service, else its front page."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if plain and target.isprintable() and len(target) <= 1024 else "/"


def _session(person: Person) -> Response:
    return OrjsonResponse(
        {
            "name": person.name,
            "role": person.role,
            "csrf": person.csrf,
            "until": person.until,
        }
    )
