"""TLS and client certificates, over real sockets, with certificates made here."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from monitor.admin.auth import Auth
from monitor.admin.people import Role
from monitor.admin.server import HttpServer, Tls
from monitor.admin.tokens import TokenFile
from monitor.cli.app import execute
from monitor.core.errors import UsageError
from tests.checks.certificates import Authority
from tests.unit.admin.fake_desk import FakeDesk
from tests.unit.admin.fake_server import fake_app, serving


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def desk() -> Iterator[FakeDesk]:
    yield FakeDesk(held=5, events=100)


def trusting(authority: Authority, own: tuple[str, str] | None = None) -> httpx.Client:
    context = ssl.create_default_context(cafile=authority.file)
    if own is not None:
        context.load_cert_chain(*own)
    return httpx.Client(verify=context, trust_env=False)


def test_tls_with_a_secure_cookie(tmp_path: Path, authority: Authority, desk: FakeDesk) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    token = file.create("ana", Role.OPERATOR)
    with serving(desk, Auth(file), tls=Tls(*authority.issue("server"))) as server:
        assert server.url.startswith("https://127.0.0.1:")
        with trusting(authority) as client:
            answer = client.post(f"{server.url}/v1/session", json={"token": token})
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-monitor=") and "; Secure" in cookie
            assert "Path=/;" in cookie and "Domain" not in cookie
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
            assert client.get(f"{server.url}/v1/session").json()["name"] == "ana"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(server.url, trust_env=False)
        plain = server.url.replace("https://", "http://")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{plain}/healthz", trust_env=False)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_not_spoken(authority: Authority, desk: FakeDesk) -> None:
    with serving(desk, tls=Tls(*authority.issue("server"))) as server:
        context = ssl.create_default_context(cafile=authority.file)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/healthz", verify=context, trust_env=False)


def test_clients_need_a_certificate_of_the_right_authority(
    tmp_path: Path, authority: Authority, desk: FakeDesk
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger").issue("mallory")
    tls = Tls(*authority.issue("server"), client_ca_file=authority.file)
    with serving(desk, tls=tls) as server:
        with trusting(authority, authority.issue("client")) as client:
            assert client.get(f"{server.url}/v1/policy").json()["version"] == 6
        for own in (None, stranger):
            # Over TLS 1.3 a client learns only by its first reading that it was refused.
            with trusting(authority, own) as client, pytest.raises(httpx.TransportError):
                client.get(f"{server.url}/v1/policy")


def test_a_certificate_does_not_replace_a_token(
    tmp_path: Path, authority: Authority, desk: FakeDesk
) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    token = file.create("ana", Role.VIEWER)
    tls = Tls(*authority.issue("server"), client_ca_file=authority.file)
    with (
        serving(desk, Auth(file), tls=tls) as server,
        trusting(authority, authority.issue("client")) as client,
    ):
        assert client.get(f"{server.url}/v1/policy").status_code == 401
        headers = {"authorization": f"Bearer {token}"}
        assert client.get(f"{server.url}/v1/policy", headers=headers).status_code == 200


def test_files_that_are_no_good_are_named(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.issue("server")
    _, other_key = authority.issue("other")
    locked = authority.issue("locked", b"secret")
    for tls, said in (
        (Tls(str(tmp_path / "none.crt"), key), r"none\.crt.*No such file"),
        (Tls(cert, other_key), r"other\.key.*mismatch"),
        (Tls(key), r"server\.key.*cannot be used"),
        (Tls(*locked), "without a password"),
        (Tls(cert, key, str(tmp_path / "none.pem")), r"tls_client_ca_file.*No such file"),
        (Tls(cert, key, key), "tls_client_ca_file.*cannot be used"),
    ):
        with pytest.raises(UsageError, match=said):
            HttpServer(tls=tls)


def test_elsewhere_only_with_login_and_tls(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(UsageError, match="have to log in"):
        HttpServer("0.0.0.0", tls=Tls(*authority.issue("server")))
    with pytest.raises(UsageError, match=r"without TLS.*http\.insecure"):
        HttpServer("0.0.0.0", login=True)
    HttpServer("0.0.0.0", login=True, insecure=True).stop()
    HttpServer("0.0.0.0", login=True, tls=Tls(*authority.issue("server"))).stop()


def test_names_of_the_service(tmp_path: Path, desk: FakeDesk) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    headers = {"authorization": f"Bearer {file.create('ana', Role.VIEWER)}"}
    for hosts, host, path, status in (
        ((), "any.example", "/v1/policy", 200),
        (("monitor.example",), "monitor.example:8765", "/v1/policy", 200),
        (("monitor.example",), "Monitor.Example.", "/v1/policy", 200),
        (("monitor.example",), "evil.example", "/v1/policy", 421),
        (("monitor.example",), "10.1.2.3:8765", "/healthz", 200),
        (("monitor.example",), "localhost", "/v1/policy", 200),
    ):
        app = fake_app(desk, Auth(file), hosts)
        with HttpServer(login=True).start(app) as server:
            answer = httpx.get(server.url + path, headers=headers | {"host": host}, trust_env=False)
            assert answer.status_code == status, (hosts, host)


def test_a_trusted_proxy_tells_address_and_scheme(tmp_path: Path, desk: FakeDesk) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    token = file.create("ana", Role.VIEWER)
    told = {"x-forwarded-for": "192.0.2.9", "x-forwarded-proto": "https"}
    for proxies, cookie, address in (
        (["127.0.0.1"], "__Host-monitor=", "192.0.2.9"),
        ([], "monitor_session=", "127.0.0.1"),
    ):
        desk.log.entries.clear()
        with serving(desk, Auth(file), proxies=proxies) as server:
            answer = httpx.post(
                f"{server.url}/v1/session", json={"token": token}, headers=told, trust_env=False
            )
            assert answer.headers["set-cookie"].startswith(cookie)
            assert desk.log.entries[-1].why == f"from {address}"


def test_the_terminal_over_tls(
    tmp_path: Path,
    authority: Authority,
    desk: FakeDesk,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MONITOR_TOKEN", raising=False)
    own = tmp_path / "own.pem"
    own.write_bytes(b"".join(Path(name).read_bytes() for name in authority.issue("client")))
    tls = Tls(*authority.issue("server"), client_ca_file=authority.file)
    with serving(desk, tls=tls) as server:
        show = ["policy", "show", "--json", "--url", server.url]
        trust = ["--ca-file", authority.file]
        assert execute([*show, *trust, "--client-cert", str(own)]) == 0
        assert '"version": 6' in capsys.readouterr().out
        for arguments, code, said in (
            ([], 3, "CERTIFICATE_VERIFY_FAILED"),
            (trust, 3, "cannot be reached"),
            (["--ca-file", str(tmp_path / "none")], 2, "--ca-file"),
            ([*trust, "--client-cert", authority.file], 2, "--client-cert"),
        ):
            assert execute([*show, *arguments]) == code
            assert said in capsys.readouterr().err
