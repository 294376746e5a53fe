"""Serves the application from a thread; elsewhere than on this machine only with login and TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from monitor.admin.hosts import is_loopback
from monitor.core.errors import UsageError

START_SECONDS = 10.0
STOP_SECONDS = 5.0
PAUSE_SECONDS = 0.01
MAX_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: the certificate chain, its key, and who signs clients' certificates.

    ``key_file`` may be None when the key stands beside the certificate. With ``client_ca_file``
    a client without a certificate of theirs gets no answer at all.
    """

    cert_file: str
    key_file: str | None = None
    client_ca_file: str | None = None

    def check(self) -> None:
        """Load the files once. Raises UsageError with the name of the one that is no good."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
        except (OSError, ValueError) as error:
            files = " and ".join(filter(None, (self.cert_file, self.key_file)))
            raise UsageError(f"http.tls_cert_file: {files}: {_why(error)}") from error
        if self.client_ca_file is not None:
            try:
                context.load_verify_locations(self.client_ca_file)
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"http.tls_client_ca_file: {self.client_ca_file}: {_why(error)}"
                ) from error

    def options(self) -> dict[str, Any]:
        """As uvicorn wants them."""
        return {
            "ssl_certfile": self.cert_file,
            "ssl_keyfile": self.key_file,
            "ssl_ca_certs": self.client_ca_file,
            "ssl_cert_reqs": ssl.CERT_NONE if self.client_ca_file is None else ssl.CERT_REQUIRED,
        }


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one without a password")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        said = error.reason or "no PEM file of that kind"
        return f"cannot be used ({said.lower().replace('_', ' ')})"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


class HttpServer:
    """An HTTP server in a thread of its own. Binds at once, so that a bad port is known early.

    Parameters
    ----------
    host
        A loopback address or ``localhost``; others only with ``login``, and with ``tls`` or
        ``insecure``.
    port
        0 picks a free one; the attribute ``port`` is the one that was bound.
    option
        How the person gave the port, for the error message.
    login
        Whether the application asks people for a token.
    tls
        Speak TLS with these files.
    insecure
        Tokens may travel in the clear: TLS ends in front of this server.
    proxies
        Addresses whose word on the client's address and scheme is taken.

    Raises
    ------
    UsageError
        When others could reach the interface without login or TLS, the port is taken, or the
        certificates cannot be used.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        option: str = "http.port",
        login: bool = False,
        tls: Tls | None = None,
        insecure: bool = False,
        proxies: Sequence[str] = (),
    ) -> None:
        if not is_loopback(host):
            _refuse_unguarded(host, login, tls is not None or insecure)
        if tls is not None:
            tls.check()
        self._tls = tls
        self._proxies = list(proxies)
        self._socket = _bind(host, port, option)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where to reach it, without a trailing slash."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{name}:{self.port}"

    def start(self, app: ASGIApp) -> HttpServer:
        """Answer with ``app``; returns once it does.

        Raises
        ------
        UsageError
            When the server does not come up.
        """
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            lifespan="auto",
            ws="auto",
            server_header=False,
            proxy_headers=bool(self._proxies),
            forwarded_allow_ips=self._proxies,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=int(STOP_SECONDS),
            **({} if self._tls is None else self._tls.options()),
        )
        server = self._server = uvicorn.Server(config)
        thread = self._thread = threading.Thread(
            target=server.run, args=([self._socket],), name="http", daemon=True
        )
        thread.start()
        pause = threading.Event()
        for _ in range(int(START_SECONDS / PAUSE_SECONDS)):
            if server.started:
                return self
            if not thread.is_alive():
                break
            pause.wait(PAUSE_SECONDS)
        self.stop()
        raise UsageError(f"the HTTP interface on {self.url} did not start; see the log")

    def stop(self) -> None:
        """Finish what is being answered, then end. Safe to call twice, or before a start."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_SECONDS + 1.0)
        self._socket.close()

    def __enter__(self) -> HttpServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _refuse_unguarded(host: str, login: bool, private: bool) -> None:
    if not login:
        raise UsageError(
            f"http.host: {host or 'an empty host'} can be reached from other machines, so people "
            "have to log in: make a token with `poisoning-monitor token create` and set "
            "http.tokens_file; or use 127.0.0.1"
        )
    if not private:
        raise UsageError(
            f"http.host: {host} can be reached from other machines, and without TLS tokens travel "
            "in the clear: set http.tls_cert_file and http.tls_key_file; or http.insecure: true "
            "when something in front of the service speaks TLS"
        )


def _bind(host: str, port: int, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it a small answer
    # on a connection that is kept open waits 40 ms for the client's delayed acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host.strip("[]"), port))
    except OSError as error:
        bound.close()
        raise UsageError(
            f"{option}: cannot listen on {host}:{port} ({error.strerror}); "
            "choose another port, or 0 for a free one"
        ) from error
    return bound
