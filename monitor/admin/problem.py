"""Errors as RFC 9457 problem documents, and the headers every answer carries."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.admin.hosts import is_loopback
from monitor.core.desk import ConflictError, ForbiddenError, MissingError
from monitor.core.errors import MonitorError, UsageError

log = logging.getLogger("monitor.http")
PROBLEM = "application/problem+json"
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""For pages; the console's library needs scripts in the page itself. Nothing from elsewhere."""
TLS_HEADER = (b"strict-transport-security", b"max-age=31536000")
HEALTH = frozenset({"/healthz", "/readyz", "/startupz"})
PROBES = HEALTH | {"/metrics"}


class ProblemError(Exception):
    """Raised by a route to answer with a problem document.

    Parameters
    ----------
    status
        HTTP status code.
    detail
        A sentence that says what to do.
    headers
        Further headers of the answer.
    extra
        Further members of the document.
    """

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
) -> Response:
    """A problem document. ``type`` is about:blank, so ``title`` is the status phrase."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return Response(
        orjson.dumps(body | extra),
        status_code=status,
        media_type=PROBLEM,
        headers=SECURITY_HEADERS | dict(headers or {}),
    )


def install(app: FastAPI) -> None:
    """Have every error of ``app`` answered as a problem document."""

    async def raised(_: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return problem(error.status, error.detail, headers=error.headers, **error.extra)

    async def expected(_: Request, error: Exception) -> Response:
        assert isinstance(error, MonitorError)
        return problem(status_of(error), as_sentence(str(error)))

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer = problem(error.status_code, _sentence(error))
        answer.headers.update(error.headers or {})
        return answer

    async def validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem(422, first_of(error.errors()))

    app.add_exception_handler(ProblemError, raised)
    app.add_exception_handler(MonitorError, expected)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)


def status_of(error: MonitorError) -> int:
    """The status that tells what kind of error this is."""
    kinds = ((ConflictError, 409), (ForbiddenError, 403), (MissingError, 404), (UsageError, 422))
    return next((code for kind, code in kinds if isinstance(error, kind)), 503)


def as_sentence(text: str) -> str:
    """An error's text with a full stop."""
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def first_of(errors: Sequence[Any]) -> str:
    """The first of pydantic's errors: where it is and what is allowed."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    return as_sentence(f"{where}: {said}" if where else said)


def _sentence(error: HTTPException) -> str:
    if error.status_code == 404:
        return "There is nothing at this address; /openapi.json lists what there is."
    if error.status_code == 405:
        return "This address does not take that method; /openapi.json lists those it does."
    return str(error.detail)


class Guard:
    """Adds the security headers, refuses requests meant for another host, and answers HEAD.

    A page in a browser can point a name of its own at 127.0.0.1 and so read a local service
    (DNS rebinding); it cannot forge the Host header. Names that are this machine's are let in.
    Where people log in such a page has nothing to show, so there any name is good unless some
    are listed; probes by address always are.

    Parameters
    ----------
    app
        What is guarded.
    login
        Whether people have to log in.
    hosts
        Names by which the service is known.
    """

    def __init__(self, app: ASGIApp, *, login: bool = False, hosts: Sequence[str] = ()) -> None:
        self._app = app
        self._login = login
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or websocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if not self._meant(_without_port(host), scope["path"]):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": "another host"})
                return
            names = ", ".join(sorted(self._hosts)) or "localhost only"
            answer = problem(421, f"This service answers to {names}, not to that host name.")
            await answer(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # Answered like GET; the server leaves the body out.
            scope = {**scope, "method": "GET"}

        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = _guarded(message["headers"], scope["scheme"] == "https")
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except Exception:
            if started:
                raise
            # Raised further it would end the connection too, under the client's next request.
            log.exception("%s %r failed", scope["method"], scope["path"])
            answer = problem(500, "The service failed to answer; its log says why.")
            await answer(scope, receive, send)

    def _meant(self, host: str, path: str) -> bool:
        if is_loopback(host) or host.lower().rstrip(".") in self._hosts:
            return True
        return self._login and (not self._hosts or path in PROBES)


def _guarded(headers: Sequence[tuple[bytes, bytes]], tls: bool) -> list[tuple[bytes, bytes]]:
    there = {name.lower(): value for name, value in headers}
    added = {name.encode(): value.encode() for name, value in SECURITY_HEADERS.items()}
    if there.get(b"content-type", b"").startswith(b"text/html"):
        added[b"content-security-policy"] = PAGE_POLICY.encode()
    extra = [(name, value) for name, value in added.items() if name not in there]
    return [*headers, *extra, TLS_HEADER] if tls else [*headers, *extra]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
