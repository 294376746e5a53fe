"""Who asks: bearer tokens, the console's sessions, and what a page elsewhere may not do.

Nothing is answered to strangers but what :attr:`Auth.open` lists. :func:`who` tells a route, or a
page of the console, who is there; :func:`require` refuses whoever may not do something.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from monitor.admin.lockout import Lockout
from monitor.admin.people import LOCAL, Person, Role
from monitor.admin.problem import HEALTH, ProblemError, problem
from monitor.admin.session import Sessions
from monitor.admin.tokens import Token, TokenFile
from monitor.core.desk import AuditEntry
from monitor.core.errors import MonitorError

PERSON = "monitor.person"
CSRF = "x-csrf-token"
LOGIN_PAGE = "/login"
LOGIN = "/v1/session"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_CREDENTIAL = 512
MOST_KNOWN = 4096
CHALLENGE = {"www-authenticate": 'Bearer realm="poisoning-monitor"'}

log = logging.getLogger("monitor.http")


def who(connection: HTTPConnection) -> Person:
    """Who sends this request or holds this websocket.

    Raises
    ------
    ProblemError
        401 where nobody has logged in.
    """
    person = connection.scope.get(PERSON)
    if not isinstance(person, Person):
        raise ProblemError(401, "Send a token: `Authorization: Bearer …`.", headers=CHALLENGE)
    return person


def require(role: Role) -> Callable[[Request], Person]:
    """A dependency of routes: the person, who has at least ``role``, else 403."""

    def checked(request: Request) -> Person:
        return allowed(who(request), role)

    return checked


def allowed(person: Person, role: Role) -> Person:
    """``person``, if they may do what ``role`` may. Raises ProblemError 403."""
    if not person.role.covers(role):
        raise ProblemError(
            403,
            f"This takes the role {role.value}; {person.name} is {person.role.value}.",
            needs=role.value,
        )
    return person


class Auth:
    """Tells who asks.

    Parameters
    ----------
    tokens
        Where tokens are; None lets everybody in as ``local``, which only a loopback address may.
    lockout
        Counts failed logins.
    sessions
        Makes and reads the console's cookies.
    open_metrics
        Whether ``/metrics`` is for everybody who reaches the service.
    clock
        Unix seconds.
    """

    def __init__(
        self,
        tokens: TokenFile | None = None,
        *,
        lockout: Lockout | None = None,
        sessions: Sessions | None = None,
        open_metrics: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tokens
        self._lockout = lockout or Lockout()
        self._clock = clock
        self._sessions = sessions or Sessions(clock=clock)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.open: set[str] = {*HEALTH, LOGIN_PAGE}
        """Addresses for everybody; one that ends in a slash means all below it."""
        if open_metrics:
            self.open.add("/metrics")
        self.note: Callable[[AuditEntry], None] | None = None
        """Where logins and failed ones are written down."""

    @property
    def login_needed(self) -> bool:
        """Whether people have to show a token."""
        return self._tokens is not None

    def is_open(self, method: str, path: str) -> bool:
        """Whether strangers may ask this."""
        if path == LOGIN and method == "POST":
            return True
        return path in self.open or any(
            path.startswith(prefix) for prefix in self.open if prefix.endswith("/")
        )

    async def identify(self, connection: HTTPConnection) -> Person:
        """Who sends ``connection``, by token or session.

        Raises
        ------
        ProblemError
            401 without a valid one, 429 after too many failures, 503 when tokens cannot be read.
        """
        if self._tokens is None:
            return LOCAL
        header = connection.headers.get("authorization")
        if header is not None:
            kind, _, text = header.partition(" ")
            if kind.lower() != "bearer":
                raise ProblemError(
                    401, "Send a token: `Authorization: Bearer …`.", headers=CHALLENGE
                )
            return await self.check(text.strip(), address_of(connection))
        person = self._sessions.read(connection)
        if person is None:
            raise ProblemError(
                401, "Log in, or send a token: `Authorization: Bearer …`.", headers=CHALLENGE
            )
        return self.renew(person)

    def renew(self, person: Person) -> Person:
        """The same person as of now: their token's present role. For pages that stay open.

        Raises
        ------
        ProblemError
            401 when their token was revoked or has expired, or their session has ended.
        """
        if self._tokens is None or person.token is None:
            return person
        token = self._found(lambda tokens: tokens.by_id(person.token or ""))
        now = self._clock()
        if token is None or token.expired(now) or self._sessions.ended(person):
            raise ProblemError(401, "Your session has ended; log in again.", headers=CHALLENGE)
        return replace(person, name=token.name, role=Role(token.role))

    async def check(self, text: str, address: str, *, login: bool = False) -> Person:
        """The person of a token, shown from ``address``. Raises ProblemError like identify."""
        if self._tokens is None:
            return LOCAL
        token = None
        short = len(text) <= MAX_CREDENTIAL
        wait = self._lockout.wait_seconds(address)
        if short and (wait <= 0.0 or self._known_here(address)):
            token = self._found(lambda tokens: tokens.find(text))
        if wait > 0.0 and (token is None or (address, token.id) not in self._known):
            raise ProblemError(
                429,
                "Too many failed logins from your address; wait, then try again.",
                headers={"retry-after": str(math.ceil(wait))},
            )
        if token is None or token.expired(self._clock()):
            raise await self._failed(token, address)
        self._lockout.succeeded(address)
        fresh = (address, token.id) not in self._known
        self._remember(address, token.id)
        if login or fresh:
            await self._write(token.name, "login", f"from {address}", {"role": token.role})
        return Person(token.name, Role(token.role), token.id)

    async def _failed(self, token: Token | None, address: str) -> ProblemError:
        locked = self._lockout.failed(address)
        why = "unknown token" if token is None else "expired token"
        details: dict[str, Any] = {"address": address, "locked_out": locked}
        if self._lockout.worth_a_note():
            name = "" if token is None else token.name
            await self._write(name, "login refused", why, details)
        said = "is not known here" if token is None else "has expired; ask for a new one"
        return ProblemError(401, f"This token {said}.", headers=CHALLENGE)

    def _found(self, find: Callable[[TokenFile], Token | None]) -> Token | None:
        assert self._tokens is not None
        try:
            return find(self._tokens)
        except MonitorError as error:
            log.error("tokens: %s", error)
            raise ProblemError(503, "The tokens cannot be read; the log says why.") from error

    def _known_here(self, address: str) -> bool:
        return any(place == address for place, _ in self._known)

    def _remember(self, address: str, token: str) -> None:
        # An address that others share must not be shut out for those who had come in before.
        self._known.pop((address, token), None)
        self._known[address, token] = None
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    async def _write(self, name: str, what: str, why: str, details: dict[str, Any]) -> None:
        log.log(
            logging.INFO if what == "login" else logging.WARNING,
            "%s of %r: %s, %r", what, name, why, details,
        )  # fmt: skip
        if self.note is None:
            return
        try:
            entry = AuditEntry(self._clock(), name, what, why, details)
            await run_in_threadpool(self.note, entry)
        except MonitorError as error:
            log.error("%s of %r could not be noted: %s", what, name, error)

    def session(self, person: Person) -> tuple[Person, str]:
        """A new session of somebody whose token was checked, and its cookie's value."""
        return self._sessions.begin(person)

    def set_cookie(self, response: Response, connection: HTTPConnection, value: str) -> None:
        """Have ``response`` carry a session."""
        self._sessions.set_cookie(response, connection, value)

    def end(self, person: Person, response: Response, connection: HTTPConnection) -> None:
        """Log ``person`` out."""
        self._sessions.end(person)
        self._sessions.clear_cookie(response, connection)


def address_of(connection: HTTPConnection) -> str:
    """The client's address; behind a trusted proxy the one it tells."""
    return connection.client.host if connection.client is not None else ""


class Gatekeeper:
    """Lets a request in only if :class:`Auth` knows who sends it, and no page elsewhere made it."""

    def __init__(self, app: ASGIApp, auth: Auth) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or websocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        method = scope.get("method", "WEBSOCKET")
        path = scope["path"]
        try:
            if method not in SAFE:
                refuse_other_origins(connection)
            if not self._auth.is_open(method, path):
                person = await self._auth.identify(connection)
                if method not in SAFE and method != "WEBSOCKET":
                    _refuse_without_csrf(connection, person)
                scope = {**scope, PERSON: person}
        except ProblemError as error:
            await _refuse(connection, error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _refuse(connection: HTTPConnection, error: ProblemError) -> ASGIApp:
    scope = connection.scope
    if scope["type"] == "websocket":
        return _close
    page = "text/html" in connection.headers.get("accept", "")
    if error.status == 401 and scope["method"] == "GET" and page and not _is_api(scope["path"]):
        return RedirectResponse(f"{LOGIN_PAGE}?next={quote(scope['path'])}", 303)
    return problem(error.status, error.detail, headers=error.headers, **error.extra)


def _is_api(path: str) -> bool:
    return path.startswith("/v1/") or path in ("/openapi.json", "/metrics")


async def _close(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008, "reason": "log in first"})


def refuse_other_origins(connection: HTTPConnection) -> None:
    """Refuse what a page of another origin had the browser send. Raises ProblemError 403.

    Browsers say where a request comes from, and pages cannot forge it; other clients send neither
    header.
    """
    if _said_origin(connection) is False:
        raise ProblemError(403, "A page of another origin may not ask this.")


def _said_origin(connection: HTTPConnection) -> bool | None:
    """Whether a browser says that a page of this service asks; None where none says anything."""
    site = connection.headers.get("sec-fetch-site")
    if site is not None:
        return site.lower() in ("same-origin", "none")
    origin = connection.headers.get("origin")
    if origin is None:
        return None
    host = connection.headers.get("host", "").lower()
    return bool(host) and urlsplit(origin).netloc.lower() == host


def _refuse_without_csrf(connection: HTTPConnection, person: Person) -> None:
    """A session's change proves that a page of this service made it. Raises ProblemError 403.

    Scripts of the console's library know no such header; for them the browser's word is enough.
    """
    if person.csrf is None or Sessions.same(connection.headers.get(CSRF, ""), person.csrf):
        return
    if _is_api(connection.scope["path"]) or not _said_origin(connection):
        raise ProblemError(
            403, f"A session's changes bring its {CSRF} header; GET {LOGIN} tells its value."
        )
