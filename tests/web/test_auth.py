"""Who is let in: roles, sessions, pages of other origins, expiry, lock-out. Over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitor.admin.auth import CSRF, Auth
from monitor.admin.lockout import Lockout
from monitor.admin.people import Role
from monitor.admin.problem import PROBLEM, SECURITY_HEADERS
from monitor.admin.session import Sessions
from monitor.admin.tokens import TokenFile
from monitor.core.errors import StateError
from tests.unit.admin.fake_desk import FakeDesk
from tests.unit.admin.fake_server import serving

POLICY = {"policy": {"flag_at": 0.02}, "why": "try"}


class Clock:
    def __init__(self) -> None:
        self.now = 1.8e9

    def __call__(self) -> float:
        return self.now


@dataclass
class Site:
    url: str
    desk: FakeDesk
    file: TokenFile
    clock: Clock
    tokens: dict[str, str] = field(default_factory=dict)

    def client(self, who: str | None = None, **headers: str) -> httpx.Client:
        if who is not None:
            headers["authorization"] = f"Bearer {self.tokens[who]}"
        return httpx.Client(base_url=self.url, trust_env=False, headers=headers, timeout=20)

    def noted(self, what: str) -> list[Any]:
        return [entry for entry in self.desk.log.entries if entry.what == what]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    clock = Clock()
    file = TokenFile(tmp_path / "tokens.json", clock)
    desk = FakeDesk(held=60, events=500, now=clock.now)
    auth = Auth(
        file,
        lockout=Lockout(4, 60.0, clock),
        sessions=Sessions(clock=clock),
        open_metrics=False,
        clock=clock,
    )
    with serving(desk, auth) as server:
        made = Site(server.url, desk, file, clock)
        for role in Role:
            made.tokens[role.value] = file.create(f"{role.value}-1", role)
        yield made


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value
    body: dict[str, Any] = answer.json()
    assert body["detail"].endswith("."), body
    return body


def test_strangers_get_probes_only(site: Site) -> None:
    with site.client() as client:
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        assert client.get("/startupz").status_code == 200
        for path in ("/metrics", "/openapi.json", "/v1/status", "/v1/policy", "/v1/audit", "/no"):
            answer = client.get(path)
            assert_problem(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert_problem(client.put("/v1/policy", json=POLICY), 401)
        assert_problem(client.get("/v1/policy", headers={"authorization": "Basic YTpi"}), 401)
    assert site.desk.policy.current().version == 6


CHANGES = (
    ("PUT", "/v1/policy", "operator"),
    ("POST", "/v1/policy/rollback", "operator"),
    ("POST", "/v1/policy/waiting/p-1/approve", "operator"),
    ("POST", "/v1/policy/waiting/p-1/reject", "operator"),
    ("POST", "/v1/quarantine/release", "operator"),
    ("POST", "/v1/quarantine/confirm", "operator"),
    ("POST", "/v1/quarantine/erase", "admin"),
    ("POST", "/v1/keys", "admin"),
    ("POST", "/v1/keys/k-1/rotate", "admin"),
    ("POST", "/v1/keys/k-1/revoke", "admin"),
    ("POST", "/v1/drills", "operator"),
    ("POST", "/v1/drills/d1/stop", "operator"),
    ("POST", "/v1/retractions", "operator"),
    ("POST", "/v1/checkpoints", "operator"),
)


@pytest.mark.parametrize(("method", "path", "needs"), CHANGES)
def test_the_wrong_role_is_refused_before_anything_is_read(
    site: Site, method: str, path: str, needs: str
) -> None:
    for who in ("viewer", "operator"):
        with site.client(who) as client:
            answer = client.request(method, path, content=b"{", headers={"if-match": '"6"'})
            if Role(who).covers(Role(needs)):
                assert answer.status_code != 403
            else:
                assert assert_problem(answer, 403)["needs"] == needs
    assert site.desk.policy.current().version == 6


def test_every_route_that_changes_is_in_that_list(site: Site) -> None:
    with site.client("viewer") as client:
        paths = client.get("/openapi.json").json()["paths"]
    reading = {
        "/v1/check", "/v1/policy/preview", "/v1/policy/whatif", "/v1/session", "/v1/blast"
    }  # fmt: skip
    changing = {
        (
            method.upper(),
            path.replace("{proposal}", "p-1").replace("{drill}", "d1").replace("{key_id}", "k-1"),
        )
        for path, methods in paths.items()
        for method in methods
        if method != "get" and path not in reading
    }
    assert changing == {(method, path) for method, path, _ in CHANGES}


def test_who_is_who(site: Site) -> None:
    with site.client("operator") as client:
        me = client.get("/v1/session").json()
        assert (me["name"], me["role"], me["csrf"]) == ("operator-1", "operator", None)
        changed = client.put("/v1/policy", json=POLICY, headers={"if-match": '"6"'})
        assert changed.json()["who"] == "operator-1"
    first_use = site.noted("login")
    assert [(entry.who, entry.details["role"]) for entry in first_use] == [
        ("operator-1", "operator")
    ]


def test_a_revoked_token_is_out_at_once(site: Site) -> None:
    with site.client("viewer") as client:
        assert client.get("/v1/policy").status_code == 200
        site.file.revoke("viewer-1")
        assert_problem(client.get("/v1/policy"), 401)


def test_an_expired_token_says_so(site: Site) -> None:
    site.tokens["late"] = site.file.create("late", Role.ADMIN, site.clock.now + 10)
    with site.client("late") as client:
        assert client.get("/v1/policy").status_code == 200
        site.clock.now += 10
        assert "expired" in assert_problem(client.get("/v1/policy"), 401)["detail"]
    assert [(e.who, e.why) for e in site.noted("login refused")] == [("late", "expired token")]


def test_failed_logins_shut_an_address_out_but_not_those_at_work(site: Site) -> None:
    site.tokens["wrong"] = "mon_guess"
    with site.client("operator") as at_work, site.client("wrong") as guessing:
        assert at_work.get("/v1/policy").status_code == 200
        for _ in range(4):
            assert_problem(guessing.get("/v1/policy"), 401)
        answer = guessing.get("/v1/policy")
        assert "failed logins" in assert_problem(answer, 429)["detail"]
        assert answer.headers["retry-after"] == "60"
        # A right token is not even tried from there, unless it came from there before.
        with site.client("viewer") as late:
            assert_problem(late.get("/v1/policy"), 429)
            assert_problem(late.post("/v1/session", json={"token": site.tokens["viewer"]}), 429)
            assert at_work.get("/v1/policy").status_code == 200
            site.clock.now += 60
            assert late.get("/v1/policy").status_code == 200
    refused = site.noted("login refused")
    assert [entry.details["locked_out"] for entry in refused] == [False, False, False, True]
    assert refused[0].details["address"] == "127.0.0.1"
    assert "mon_guess" not in str(refused)


def test_no_credential_at_all_is_no_failure(site: Site) -> None:
    with site.client() as client:
        for _ in range(8):
            assert_problem(client.get("/v1/policy"), 401)
    assert not site.noted("login refused")


def test_a_huge_token_is_refused(site: Site) -> None:
    site.tokens["huge"] = "x" * 6000
    with site.client("huge") as client:
        assert_problem(client.get("/v1/policy"), 401)


def log_in(client: httpx.Client, token: str) -> httpx.Response:
    return client.post("/v1/session", json={"token": token})


def test_a_session_reads_and_changes_only_with_its_csrf_token(site: Site) -> None:
    with site.client() as client:
        answer = log_in(client, site.tokens["operator"])
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and "max-age=43200" in cookie
        assert "secure" not in cookie  # the server of this test speaks no TLS
        csrf = answer.json()["csrf"]
        assert client.get("/v1/session").json()["csrf"] == csrf
        match = {"if-match": '"6"'}
        assert (
            CSRF
            in assert_problem(client.put("/v1/policy", json=POLICY, headers=match), 403)["detail"]
        )
        wrong = match | {CSRF: "guess"}
        assert_problem(client.put("/v1/policy", json=POLICY, headers=wrong), 403)
        assert site.desk.policy.current().version == 6
        right = match | {CSRF: csrf}
        assert client.put("/v1/policy", json=POLICY, headers=right).json()["who"] == "operator-1"
    assert site.noted("login")[0].who == "operator-1"


def test_outside_the_interface_a_browser_s_word_is_enough(site: Site) -> None:
    with site.client() as client:
        log_in(client, site.tokens["operator"])
        own = {"origin": site.url}
        # There is nothing at that address yet; the question is whether it is let through.
        assert_problem(client.post("/console-library/upload", headers=own), 404)
        assert_problem(client.post("/console-library/upload"), 403)
        assert_problem(client.put("/v1/policy", json=POLICY, headers=own), 403)
    assert site.desk.policy.current().version == 6


def test_a_form_logs_in_and_goes_on_inside_only(site: Site) -> None:
    for target, where in (
        ("/quarantine?x=1", "/quarantine?x=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("", "/"),
    ):
        with site.client() as client:
            fields = {"token": site.tokens["viewer"], "next": target}
            answer = client.post("/v1/session", data=fields)
            assert (answer.status_code, answer.headers["location"]) == (303, where)
            assert client.get("/v1/session").json()["name"] == "viewer-1"
    with site.client() as client:
        answer = client.post("/v1/session", data={"token": "no", "next": "/a"})
        assert answer.headers["location"] == "/login?failed=refused&next=/a"
        assert "set-cookie" not in answer.headers


def test_pages_are_led_to_the_login(site: Site) -> None:
    with site.client(accept="text/html") as client:
        answer = client.get("/quarantine")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/quarantine")
        assert_problem(client.get("/v1/policy"), 401)


def test_a_session_ends_by_time_logout_revocation_and_forgery(site: Site) -> None:
    token = site.tokens["viewer"]
    with site.client() as client:
        csrf = log_in(client, token).json()["csrf"]
        kept = dict(client.cookies)
        assert client.delete("/v1/session", headers={CSRF: csrf}).status_code == 204
        assert not client.cookies
        client.cookies.update(kept)
        assert_problem(client.get("/v1/session"), 401)  # a copy of the cookie is no good either
    with site.client() as client:
        log_in(client, token)
        name, value = next(iter(client.cookies.items()))
        body, _, signature = value.partition(".")
        for forged in (f"{body}.{'0' * 64}", f"{body}A.{signature}", "x", f"{body}.é", "."):
            quoted = f"{name}={forged}".encode()
            answer = httpx.get(
                f"{site.url}/v1/session", headers={b"cookie": quoted}, trust_env=False
            )
            assert_problem(answer, 401)
        site.clock.now += 12 * 3600
        assert "ended" in assert_problem(client.get("/v1/session"), 401)["detail"]
    with site.client() as client:
        log_in(client, token)
        site.file.revoke("viewer-1")
        assert_problem(client.get("/v1/session"), 401)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"token": 3}', b'{"token": "x", "a": 1}'])
def test_a_bad_login_tells_nothing(site: Site, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    with site.client() as client:
        answer = client.post("/v1/session", content=body, headers=headers)
        assert_problem(answer, 400 if body in (b"", b"{") else 422)
        assert_problem(client.post("/v1/session", content=b"x"), 415)
        assert_problem(client.post("/v1/session", json={"token": "x" * 10_000}), 413)


ELSEWHERE = (
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1"},
)


@pytest.mark.parametrize("headers", ELSEWHERE)
def test_pages_of_other_origins_change_nothing(site: Site, headers: dict[str, str]) -> None:
    with site.client("operator", **headers) as client:
        answer = client.put("/v1/policy", json=POLICY, headers={"if-match": '"6"'})
        assert "another origin" in assert_problem(answer, 403)["detail"]
        assert_problem(client.post("/v1/session", data={"token": site.tokens["viewer"]}), 403)
        assert_problem(client.options("/v1/policy", headers={
            "access-control-request-method": "PUT"
        }), 405)  # fmt: skip
    assert site.desk.policy.current().version == 6


def test_its_own_pages_may(site: Site) -> None:
    own = {"origin": site.url, "if-match": '"6"'}
    with site.client("operator") as client:
        assert client.put("/v1/policy", json=POLICY, headers=own).status_code == 200


def test_a_damaged_file_of_tokens_lets_nobody_in_and_does_not_tell_where_it_is(site: Site) -> None:
    with site.client("admin") as client:
        assert client.get("/v1/policy").status_code == 200
        site.file.path.write_text("{")
        detail = assert_problem(client.get("/v1/policy"), 503)["detail"]
        assert str(site.file.path) not in detail
        assert client.get("/healthz").status_code == 200


def test_an_audit_trail_that_fails_keeps_nobody_out_and_nobody_in(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(entry: Any) -> None:
        raise StateError("the store is full")

    monkeypatch.setattr(site.desk.log, "note", fails)
    with serving(site.desk, Auth(site.file, clock=site.clock)) as server:
        site.url = server.url
        site.tokens["wrong"] = "mon_guess"
        with site.client("viewer") as client:
            assert client.get("/v1/policy").status_code == 200
        with site.client("wrong") as client:
            assert_problem(client.get("/v1/policy"), 401)
    said = caplog.text
    assert "the store is full" in said and "'viewer-1'" in said and "mon_guess" not in said


def test_without_login_a_page_elsewhere_is_still_refused() -> None:
    desk = FakeDesk(held=10, events=100)
    with serving(desk) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.get("/v1/session").json()["name"] == "local"
        elsewhere = {"origin": "http://evil.example"}
        assert_problem(client.post("/v1/policy/waiting/p-1/approve", headers=elsewhere), 403)
        assert_problem(client.post("/v1/policy/waiting/p-1/approve"), 404)
        # No form can send JSON, and no script of another origin may.
        answer = client.post("/v1/quarantine/release", content=b'{"all": true, "why": "x"}')
        assert_problem(answer, 415)
        changed = client.put("/v1/policy", json=POLICY, headers={"if-match": '"6"'})
        assert changed.json()["who"] == "local"
