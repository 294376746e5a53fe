"""The console's sessions: a signed cookie that names a token, for some hours.

The key lives as long as the process: after a restart people log in again, and no file holds
anything with which a session could be forged. What a session may do is what its token may do now.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import Response

from monitor.admin.people import Person, Role

SESSION_SECONDS = 12 * 3600.0
MAX_COOKIE = 2048
MOST_ENDED = 10_000


class _Claims(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    name: str
    token: str
    until: float
    csrf: str
    session: str


class Sessions:
    """Makes and reads session cookies.

    Parameters
    ----------
    seconds
        How long a session lasts.
    clock
        Unix seconds.
    """

    def __init__(
        self, seconds: float = SESSION_SECONDS, clock: Callable[[], float] = time.time
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._ended: OrderedDict[str, float] = OrderedDict()

    def begin(self, person: Person) -> tuple[Person, str]:
        """``person`` within a new session, and the cookie's value."""
        session = replace(
            person,
            until=self._clock() + self._seconds,
            csrf=secrets.token_urlsafe(18),
            session=secrets.token_urlsafe(12),
        )
        claims = _Claims(
            session.name,
            session.token or "",
            session.until or 0.0,
            session.csrf or "",
            session.session or "",
        )
        body = base64.urlsafe_b64encode(msgspec.json.encode(claims)).decode()
        return session, f"{body}.{self._signature(body)}"

    def _signature(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), "sha256").hexdigest()

    def read(self, connection: HTTPConnection) -> Person | None:
        """Whose session the cookie is; None without a valid one. The role is the caller's to find.

        A forged signature cannot be guessed either, so it is a stranger's and not counted.
        """
        value = connection.cookies.get(cookie_name(connection), "")
        body, dot, signature = value.partition(".")
        if not dot or len(value) > MAX_COOKIE or not self.same(signature, self._signature(body)):
            return None
        claims = msgspec.json.decode(base64.urlsafe_b64decode(body), type=_Claims)
        return Person(
            claims.name, Role.VIEWER, claims.token, claims.until, claims.csrf, claims.session
        )

    def ended(self, person: Person) -> bool:
        """Whether the session of ``person`` is over; False for somebody without one."""
        if person.session is None:
            return False
        with self._lock:
            over = person.session in self._ended
        return over or person.until is None or self._clock() >= person.until

    def end(self, person: Person) -> None:
        """Let the session of ``person`` be over, wherever its cookie is."""
        if person.session is None:
            return
        with self._lock:
            self._ended[person.session] = person.until or 0.0
            if len(self._ended) > MOST_ENDED:
                self._ended.popitem(last=False)

    def set_cookie(self, response: Response, connection: HTTPConnection, value: str) -> None:
        """Have ``response`` carry a session: not for scripts, not for other sites."""
        response.set_cookie(
            cookie_name(connection),
            value,
            max_age=int(self._seconds),
            path="/",
            secure=_is_secure(connection),
            httponly=True,
            samesite="strict",
        )

    def clear_cookie(self, response: Response, connection: HTTPConnection) -> None:
        """Have ``response`` take the session's cookie back."""
        response.delete_cookie(
            cookie_name(connection),
            path="/",
            secure=_is_secure(connection),
            httponly=True,
            samesite="strict",
        )

    @staticmethod
    def same(given: str, wanted: str) -> bool:
        """Equality in constant time."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def cookie_name(connection: HTTPConnection) -> str:
    """Under TLS a name that browsers let this very host set only."""
    return "__Host-monitor" if _is_secure(connection) else "monitor_session"


def _is_secure(connection: HTTPConnection) -> bool:
    return connection.url.scheme in ("https", "wss")
