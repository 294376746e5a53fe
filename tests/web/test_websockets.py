"""Websockets, which the console needs, pass the same gate as requests."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.websockets import WebSocket

from monitor.admin.auth import Auth, who
from monitor.admin.people import Role
from monitor.admin.tokens import TokenFile
from tests.unit.admin.fake_desk import FakeDesk
from tests.unit.admin.fake_server import fake_app

REFUSED = "refused"


class Site:
    """An application with a websocket that greets, spoken to without a network."""

    def __init__(self, auth: Auth | None = None) -> None:
        self._app = fake_app(FakeDesk(held=3, events=50), auth)

        @self._app.websocket("/live")
        async def live(socket: WebSocket) -> None:
            await socket.accept()
            await socket.send_text(who(socket).name)
            await socket.close()

    def greeting(self, **headers: str) -> str:
        """Who the service says is there, or that it refused."""
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        given = {"host": "localhost"} | headers
        scope = {
            "type": "websocket", "asgi": {"version": "3.0"}, "scheme": "ws", "path": "/live",
            "raw_path": b"/live", "query_string": b"", "root_path": "", "subprotocols": [],
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        asyncio.run(self._app(scope, receive, send))
        if sent[0]["type"] == "websocket.close":
            assert len(sent) == 1
            return REFUSED
        assert sent[0]["type"] == "websocket.accept"
        return str(sent[1]["text"])


def test_without_login_only_this_machine_s_own_pages() -> None:
    site = Site()
    assert site.greeting() == "local"
    assert site.greeting(origin="http://localhost") == "local"
    for headers in (
        {"origin": "http://evil.example"},
        {"host": "evil.example"},
        {"origin": "http://evil.example", "host": "evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ):
        assert site.greeting(**headers) == REFUSED


def test_with_login_by_token_or_session(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    token = file.create("ana", Role.VIEWER)
    auth = Auth(file)
    site = Site(auth)
    assert site.greeting() == REFUSED
    assert site.greeting(authorization=f"Bearer {token}") == "ana"
    person, value = auth.session(asyncio.run(auth.check(token, "127.0.0.1")))
    cookie = f"monitor_session={value}"
    assert site.greeting(cookie=cookie) == "ana"
    assert site.greeting(cookie=cookie, origin="http://evil.example") == REFUSED
    assert auth.renew(person).role is Role.VIEWER
    file.revoke("ana")
    assert site.greeting(cookie=cookie) == REFUSED
