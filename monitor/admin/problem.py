"""Errors as RFC 9457 problem documents, and the headers every answer carries."""

from __future__ import annotations

from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROBLEM = "application/problem+json"
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class ProblemError(Exception):
    """Raised by a route to answer with a problem document.

    Parameters
    ----------
    status
        HTTP status code.
    detail
        A sentence that says what to do.
    extra
        Further members of the document.
    """

    def __init__(self, status: int, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.extra = extra


def problem(status: int, detail: str, **extra: Any) -> Response:
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
        headers=SECURITY_HEADERS,
    )


def install(app: FastAPI) -> None:
    """Have every error of ``app`` answered as a problem document."""

    async def raised(_: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return problem(error.status, error.detail, **error.extra)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer = problem(error.status_code, _sentence(error))
        answer.headers.update(error.headers or {})
        return answer

    async def validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(422, f"{where}: {first['msg']}")

    async def failed(_: Request, error: Exception) -> Response:
        return problem(500, "The service failed to answer; its log says why.")

    app.add_exception_handler(ProblemError, raised)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(Exception, failed)


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
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # Answered like GET; the server leaves the body out.
            scope = {**scope, "method": "GET"}
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if not is_loopback(_without_port(host)):
            answer = problem(421, "This service answers to localhost only, not to that host name.")
            await answer(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in SECURITY_HEADERS.items()
                        if name.encode() not in there
                    ),
                ]
            await send(message)

        await self._app(scope, receive, with_headers)


def is_loopback(host: str) -> bool:
    """True when ``host``, a name or an address, is this machine's own."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
