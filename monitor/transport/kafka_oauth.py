"""Tokens for OAUTHBEARER by client credentials (RFC 6749, section 4.4).

For kafka-python, which leaves this to its user; librdkafka fetches tokens by itself.
"""

from __future__ import annotations

import functools
import ssl
import threading
import time
from collections.abc import Callable

import httpx

from monitor.transport.kafka_security import OAuth, Secret

_SECONDS = 10.0
_MOST_CHARS = 200
_SHARE_OF_LIFE = 0.8
_LIFE_SECONDS = 300.0


class TokenError(Exception):
    """No token could be had; says why, and holds no secret."""


class TokenSource:
    """Fetches tokens and keeps each until four fifths of its life are over. Thread-safe.

    Parameters
    ----------
    oauth
        Whose tokens, and where.
    clock
        Monotonic seconds.
    """

    def __init__(self, oauth: OAuth, clock: Callable[[], float] = time.monotonic) -> None:
        self._oauth, self._clock = oauth, clock
        self._lock = threading.Lock()
        self._token, self._until = Secret(""), float("-inf")

    @property
    def extensions(self) -> tuple[tuple[str, str], ...]:
        """SASL extensions, name and value."""
        return self._oauth.extensions

    def token(self) -> Secret:
        """A token that is still good.

        Raises
        ------
        TokenError
            When the provider does not answer, or refuses.
        """
        with self._lock:
            if self._clock() >= self._until:
                began = self._clock()
                self._token, life = fetch_token(self._oauth)
                self._until = began + _SHARE_OF_LIFE * life
            return self._token


@functools.lru_cache(maxsize=8)
def token_source(oauth: OAuth) -> TokenSource:
    """The one source of these credentials, so that all connections share a token."""
    return TokenSource(oauth)


def fetch_token(oauth: OAuth) -> tuple[Secret, float]:
    """A new token, and for how many seconds it is good.

    Raises
    ------
    TokenError
        When the provider does not answer, or refuses.
    """
    where = f"token endpoint {oauth.token_url}"
    form = {"grant_type": "client_credentials"} | ({"scope": oauth.scope} if oauth.scope else {})
    try:
        trusted = ssl.create_default_context(cafile=oauth.ca_file)
        answer = httpx.post(
            oauth.token_url,
            data=form,
            auth=(oauth.client_id, oauth.client_secret),
            timeout=_SECONDS,
            verify=trusted,
        )
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise TokenError(f"{where}: {type(error).__name__}: {error}") from error
    if answer.status_code != httpx.codes.OK:
        raise TokenError(f"{where} answers {answer.status_code}{_reason(answer)}")
    try:
        body = answer.json()
        token, life = body["access_token"], float(body.get("expires_in", _LIFE_SECONDS))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TokenError(f"{where} answers without an access_token") from None
    if not isinstance(token, str) or not token or "\x01" in token:
        raise TokenError(f"{where} answers without an access_token")
    return Secret(token), life


def _reason(answer: httpx.Response) -> str:
    """The provider's own error code and sentence, bounded."""
    try:
        body = answer.json()
        parts = [str(body[name]) for name in ("error", "error_description") if name in body]
    except (ValueError, TypeError):
        return ""
    return f" ({': '.join(parts)[:_MOST_CHARS]})" if parts else ""
