"""The terminal's way to the running service: its HTTP interface, errors as exit codes."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import orjson
import typer

from monitor.admin.hosts import is_loopback
from monitor.core.errors import MonitorError, TransportError, UsageError

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8765"
SECONDS = 30.0

UrlOption = Annotated[
    str, typer.Option("--url", metavar="URL", envvar="MONITOR_URL", help="The running service.")
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="MONITOR_TOKEN",
        show_envvar=True,
        help="Your token. Other people of this machine see command lines: better as a variable.",
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option("--ca-file", metavar="FILE", help="Who signed the service's certificate, PEM."),
]
CertOption = Annotated[
    Path | None,
    typer.Option(
        "--client-cert", metavar="FILE", help="Your certificate and its key in one file, PEM."
    ),
]


class RefusedError(MonitorError):
    """The service has understood and refused: a conflict, a missing right. Exit code 1."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the service is, and how to get in."""

    url: str = DEFAULT_URL
    token: str | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None


class Client:
    """Asks the service. Use it as a context manager.

    Raises
    ------
    UsageError
        For a bad URL or certificate file, and for what the service calls a bad value.
    RefusedError
        For a conflict or a missing right.
    TransportError
        When the service cannot be reached or cannot answer now.
    """

    def __init__(self, access: Access) -> None:
        import httpx  # noqa: PLC0415 - slow to import, not needed for --help

        parts = urlsplit(access.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--url: {access.url!r} is no address like {DEFAULT_URL}")
        headers = {"accept": "application/json"}
        if access.token is not None:
            if not access.token.isascii() or not access.token.strip().isprintable():
                raise UsageError("--token: holds characters that no token has")
            headers["authorization"] = f"Bearer {access.token.strip()}"
        self.url = access.url.rstrip("/")
        self._client = httpx.Client(
            headers=headers,
            timeout=SECONDS,
            verify=_context(access) if parts.scheme == "https" else True,
            # A proxy for the world outside must not be asked for this machine.
            trust_env=not is_loopback(parts.hostname),
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **parameters: Any) -> Any:
        """What an address answers; parameters that are None are left out."""
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._read(self._send("GET", path, params=given))

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> Any:
        """What an address answers to a body; ``key`` makes it safe to ask again."""
        headers = {} if key is None else {"idempotency-key": key}
        return self._read(self._send("POST", path, json=body, headers=headers))

    def change(self, method: str, path: str, body: Mapping[str, Any], base: int) -> Any:
        """Change something of which ``base`` is the version that was looked at."""
        headers = {"if-match": f'"{base}"'}
        return self._read(self._send(method, path, json=body, headers=headers))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        import httpx  # noqa: PLC0415

        try:
            return self._client.request(method, self.url + path, **options)
        except httpx.TransportError as error:
            raise TransportError(
                f"{self.url}: cannot be reached ({_cause(error)}); is the service running there? "
                "--url says where it is"
            ) from error

    def _read(self, answer: httpx.Response) -> Any:
        try:
            value = orjson.loads(answer.content)
        except orjson.JSONDecodeError as error:
            raise TransportError(
                f"{self.url}: answers with status {answer.status_code}, but not as the service does"
            ) from error
        if answer.is_success:
            return value
        raise _refusal(answer, value)


def _refusal(answer: httpx.Response, value: Any) -> MonitorError:
    detail = value.get("detail") if isinstance(value, dict) else None
    text = str(detail or f"status {answer.status_code}")
    if answer.status_code == 401:
        text += " Set MONITOR_TOKEN."
    if answer.status_code >= 500:
        return TransportError(text)
    if answer.status_code in (401, 403, 409, 412, 429):
        return RefusedError(text)
    return UsageError(text)


def _context(access: Access) -> ssl.SSLContext:
    """TLS with the files given. Raises UsageError for bad ones."""
    try:
        context = ssl.create_default_context(
            cafile=None if access.ca_file is None else str(access.ca_file)
        )
    except OSError as error:
        raise UsageError(f"--ca-file: {access.ca_file}: cannot be used: {error}") from error
    if access.client_cert is not None:
        try:
            context.load_cert_chain(access.client_cert)
        except OSError as error:
            raise UsageError(
                f"--client-cert: {access.client_cert}: cannot be used: {error}"
            ) from error
    return context


def _cause(error: Exception) -> str:
    return str(error).strip() or type(error).__name__
