"""Serves the application from a thread, on this machine's own addresses only."""

from __future__ import annotations

import socket
import threading
from types import TracebackType

import uvicorn
from starlette.types import ASGIApp

from monitor.admin.problem import is_loopback
from monitor.core.errors import UsageError

START_SECONDS = 10.0
STOP_SECONDS = 5.0
PAUSE_SECONDS = 0.01
MAX_CONNECTIONS = 64


class HttpServer:
    """An HTTP server in a thread of its own. Binds at once, so that a bad port is known early.

    Parameters
    ----------
    host
        A loopback address or ``localhost``. The interface has no login, so others are refused.
    port
        0 picks a free one; the attribute ``port`` is the one that was bound.
    option
        How the person gave the port, for the error message.

    Raises
    ------
    UsageError
        When the host is not this machine's own, or the port is taken.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, option: str = "http.port"
    ) -> None:
        if not is_loopback(host):
            raise UsageError(
                f"http.host: {host or 'an empty host'} can be reached from other machines, and "
                "the HTTP interface has no login yet; use 127.0.0.1, and an SSH tunnel or a proxy "
                "with authentication to reach it from elsewhere"
            )
        self._socket = _bind(host, port, option)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where to reach it, without a trailing slash."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}"

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
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=int(STOP_SECONDS),
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


def _bind(host: str, port: int, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
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
