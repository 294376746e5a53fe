"""What stands at ``/`` and ``/login``, also without the console's library."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from monitor import console
from monitor.admin.auth import Auth
from monitor.admin.server import HttpServer
from tests.unit.admin.fake_desk import FakeDesk
from tests.unit.admin.fake_server import FakeStatus, fake_app


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr(console, "find_spec", lambda name: None)
    desk = FakeDesk(held=20, events=500)
    auth = Auth()
    app = fake_app(desk, auth)
    console.add_console(app, FakeStatus(desk), desk, auth)
    with HttpServer() as server, httpx.Client(base_url=server.start(app).url) as asking:
        yield asking


def test_without_the_library_the_front_says_how_to_install_it(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "pip install &#x27;" in page.text or "pip install '" in page.text
    assert "poisoning-monitor[console]" in page.text
    assert client.get("/v1/policy").status_code == 200


def test_the_login_quotes_what_its_address_says(client: httpx.Client) -> None:
    page = client.get("/login", params={"failed": "<b>", "next": '/"><script>alert(1)</script>'})
    assert page.status_code == 200
    assert "<script>alert" not in page.text and "&lt;script&gt;alert" in page.text
    assert "<b>" not in page.text
    refused = client.get("/login?failed=refused")
    assert 'role="alert"' in refused.text and "not known here" in refused.text
    assert "frame-ancestors 'none'" in refused.headers["content-security-policy"]
