"""How the settings of the HTTP interface become a server that asks for tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from monitor.admin.people import Role
from monitor.admin.tokens import TokenFile
from monitor.cli import wiring
from monitor.config.settings import Settings, load_settings
from monitor.core.errors import StateError, UsageError
from tests.unit.admin.fake_desk import FakeDesk
from tests.unit.admin.fake_server import FakeJudge, FakeStatus


def settings(**http: Any) -> Settings:
    options = {f"http.{name}": value for name, value in ({"port": 0} | http).items()}
    return load_settings(environ={}, options=options)


def serve(chosen: Settings, desk: FakeDesk) -> Any:
    status: Any = FakeStatus(desk)
    judge: Any = FakeJudge()
    metrics = wiring.make_metrics(chosen, wiring.make_status(), live=False)
    server = wiring.make_server(chosen, option="http.port")
    return server.start(wiring.make_app(chosen, judge, status, metrics, desk))


def test_all_of_it_by_settings(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    token = {"authorization": f"Bearer {file.create('ana', Role.OPERATOR)}"}
    chosen = settings(
        host="0.0.0.0",
        tokens_file=str(file.path),
        insecure=True,
        open_metrics=False,
        allowed_hosts=["monitor.example"],
        login_failures=2,
        lockout_seconds=300.0,
        session_hours=1.0,
    )
    desk = FakeDesk(held=3, events=50)
    with serve(chosen, desk) as server:
        url = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=url, trust_env=False) as client:
            assert client.get("/healthz").status_code == 200
            assert client.get("/metrics").status_code == 401
            assert client.get("/v1/policy", headers=token).status_code == 200
            named = token | {"host": "monitor.example"}
            assert client.get("/v1/policy", headers=named).status_code == 200
            other = token | {"host": "other.example"}
            assert client.get("/v1/policy", headers=other).status_code == 421
            form = client.post("/v1/session", json={"token": token["authorization"][7:]})
            assert "Max-Age=3600" in form.headers["set-cookie"]
            wrong = {"authorization": "Bearer wrong"}
            codes = [client.get("/v1/policy", headers=wrong).status_code for _ in range(3)]
            assert codes == [401, 401, 429]
    assert desk.log.entries[-1].details["locked_out"]


def test_nobody_could_log_in(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    with pytest.raises(UsageError, match=r"holds no token.*token create NAME --file"):
        wiring.make_server(settings(tokens_file=str(path)), option="http.port")
    path.write_text("{")
    with pytest.raises(StateError, match="is not a file of tokens"):
        wiring.make_server(settings(tokens_file=str(path)), option="http.port")


def test_elsewhere_is_refused_by_default() -> None:
    with pytest.raises(UsageError, match="have to log in"):
        wiring.make_server(settings(host="0.0.0.0"), option="http.port")


@pytest.mark.parametrize(
    ("http", "said"),
    [
        ({"tls_key_file": "k.pem"}, "need tls_cert_file"),
        ({"tls_client_ca_file": "k.pem"}, "need tls_cert_file"),
        ({"session_hours": 0.0}, "session_hours"),
        ({"login_failures": 0}, "login_failures"),
        ({"tokens_file": ""}, "tokens_file"),
    ],
)
def test_bad_settings(http: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        settings(**http)
