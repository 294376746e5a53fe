"""The server thread: a real port, its own machine only."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from monitor.admin.server import HttpServer
from monitor.core.errors import UsageError


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def test_answers_on_a_free_port_and_stops() -> None:
    with HttpServer().start(hello) as server:
        assert server.port > 0
        assert httpx.get(server.url, trust_env=False).text == "hello"
    server.stop()
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url, trust_env=False)


def test_can_start_again_on_the_same_port() -> None:
    with HttpServer().start(hello) as first:
        port = first.port
        httpx.get(first.url, trust_env=False)
    with HttpServer("localhost", port).start(hello) as second:
        assert httpx.get(second.url, trust_env=False).text == "hello"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "monitor.example", "::", ""])
def test_refuses_to_be_reached_from_elsewhere(host: str) -> None:
    with pytest.raises(UsageError, match=r"http\.host: .*token create.*or use 127\.0\.0\.1"):
        HttpServer(host)


def test_a_taken_port_is_said_plainly() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match=r"--port: .*choose another port"):
            HttpServer(port=taken.getsockname()[1], option="--port")


def test_stop_without_start() -> None:
    HttpServer().stop()
