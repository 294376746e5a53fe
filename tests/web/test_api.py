"""The HTTP interface: what it answers, in which form, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from monitor.admin.app import ALIVE_SECONDS, create_app
from monitor.admin.problem import PROBLEM, SECURITY_HEADERS
from monitor.admin.server import HttpServer
from monitor.core.errors import StateError
from monitor.core.types import DecisionBatch, Mode, Verdict
from monitor.telemetry.metrics import Metrics

EVENT = {"id": "a", "ts": 1.7e9, "source": "s", "label": "ok", "features": [1.0, 2.0]}


@dataclass
class FakeStatus:
    ready: bool = True
    idle: float = 0.1
    seen: dict[str, Any] = field(default_factory=lambda: {"stopped": None, "partitions": {"0": 3}})
    started: bool = True
    asked: list[tuple[int, Verdict | None]] = field(default_factory=list)

    def idle_seconds(self) -> float:
        return self.idle

    def snapshot(self) -> dict[str, Any]:
        return {**self.seen, "idle_seconds": self.idle, "ready": self.ready}

    def flagged(self, limit: int = 50, verdict: Verdict | None = None) -> list[dict[str, Any]]:
        self.asked.append((limit, verdict))
        return [{"id": "bad", "verdict": "flag"}]


class FakeService:
    """Records what it was asked; a value that is not JSON is invalid."""

    def __init__(self) -> None:
        self.asked: list[list[bytes]] = []
        self.fails: Exception | None = None

    def peek(self, values: Sequence[bytes], partition: int | None = None) -> DecisionBatch:
        if self.fails is not None:
            raise self.fails
        self.asked.append(list(values))
        n = len(values)
        zero = np.zeros(n, dtype=np.uint8)
        records = [
            orjson.dumps({"verdict": _verdict(v), "offset": i}) for i, v in enumerate(values)
        ]
        return DecisionBatch(
            0, np.arange(n), np.zeros(n), zero, zero, zero, zero, zero > 0,
            np.zeros((n, 0)), (), {}, policy_version=1, mode=Mode.ENFORCE, records=records,
        )  # fmt: skip


def _verdict(value: bytes) -> str:
    try:
        event = orjson.loads(value)
        return "accept" if isinstance(event, dict) and "id" in event else "invalid"
    except orjson.JSONDecodeError:
        return "invalid"


@dataclass
class Site:
    client: httpx.Client
    status: FakeStatus
    service: FakeService


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    status, service = FakeStatus(), FakeService()
    settings = SimpleNamespace(http=SimpleNamespace(max_body_bytes=2000, max_check_events=5))
    metrics = Metrics(status=status.snapshot)
    app = create_app(status=status, service=service, settings=settings, metrics=metrics)
    with (
        HttpServer().start(app) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        yield Site(client, status, service)


@pytest.fixture
def site(served: Site) -> Site:
    """The same server for all tests of this file, with nothing remembered."""
    for fake in (served.status, served.service):
        vars(fake).update(vars(type(fake)()))
    return served


def assert_problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body: dict[str, Any] = answer.json()
    assert body["type"] == "about:blank" and body["status"] == status
    assert (body["title"] and body["detail"].endswith(".")) or status == 422
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value
    return body


def test_liveness_follows_the_loop(site: Site) -> None:
    assert site.client.get("/healthz").json()["status"] == "alive"
    site.status.idle = ALIVE_SECONDS + 1
    assert "not moved for 61 seconds" in assert_problem(site.client.get("/healthz"), 503)["detail"]
    site.status.idle = 0.0
    site.status.seen["stopped"] = "failed"
    assert "ended: failed" in assert_problem(site.client.get("/healthz"), 503)["detail"]


def test_readiness_says_what_is_missing(site: Site) -> None:
    assert site.client.get("/readyz").status_code == 200
    site.status.ready = False
    assert "restored" in assert_problem(site.client.get("/readyz"), 503)["detail"]
    site.status.seen["partitions"] = {}
    detail = assert_problem(site.client.get("/readyz"), 503)["detail"]
    assert detail == "No input partition is assigned and restored yet."


def test_the_start_is_over_once_state_is_there(site: Site) -> None:
    assert site.client.get("/startupz").json()["status"] == "started"
    # Partitions that went elsewhere later are readiness's affair.
    site.status.ready = False
    assert site.client.get("/startupz").status_code == 200
    site.status.started = False
    assert "restored" in assert_problem(site.client.get("/startupz"), 503)["detail"]


def test_one_in_reserve_is_ready_only_for_those_who_ask_so(site: Site) -> None:
    site.status.ready, site.status.seen["partitions"] = False, {}
    assert site.client.get("/readyz").status_code == 503
    answer = site.client.get("/readyz?standby=true")
    assert (answer.status_code, answer.json()["status"]) == (200, "standby")
    site.status.started = False
    assert_problem(site.client.get("/readyz?standby=true"), 503)
    site.status.started, site.status.seen["partitions"] = True, {"0": 17}
    assert_problem(site.client.get("/readyz?standby=true"), 503)
    site.status.ready = True
    assert site.client.get("/readyz?standby=true").json()["status"] == "ready"


def test_metrics_are_prometheus_text(site: Site) -> None:
    answer = site.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "poisoning_monitor_ready 1.0" in answer.text


def test_one_event_gets_one_decision(site: Site) -> None:
    answer = site.client.post("/v1/check", json=EVENT)
    assert answer.json() == {"verdict": "accept", "offset": 0}
    assert orjson.loads(site.service.asked[0][0]) == EVENT


def test_a_list_gets_a_list_and_a_bad_event_costs_only_itself(site: Site) -> None:
    body = b'{"events": [%s, 7, {"no": "event"}, "text"]}' % orjson.dumps(EVENT)
    answer = site.client.post(
        "/v1/check", content=body, headers={"content-type": "application/json"}
    )
    words = [d["verdict"] for d in answer.json()["decisions"]]
    assert words[0] == "accept" and len(words) == 4
    assert site.service.asked[0][1:] == [b"7", b'{"no": "event"}', b'"text"']


def test_lines_get_lines_and_may_be_anything(site: Site) -> None:
    line = orjson.dumps(EVENT)
    answer = site.client.post(
        "/v1/check",
        content=line + b"\r\n\n{broken\n\xff\xfe\n" + line,
        headers={"content-type": "application/x-ndjson"},
    )
    assert answer.headers["content-type"] == "application/x-ndjson"
    words = [orjson.loads(text)["verdict"] for text in answer.text.splitlines()]
    assert words == ["accept", "invalid", "invalid", "accept"]
    assert site.service.asked[0] == [line, b"{broken", b"\xff\xfe", line]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"7", b'{"events": 3}', b'{"id": "\xff"}x'])
def test_a_body_that_is_not_json_is_refused(site: Site, body: bytes) -> None:
    answer = site.client.post(
        "/v1/check", content=body, headers={"content-type": "application/json"}
    )
    assert_problem(answer, 400)
    assert not site.service.asked


def test_deep_nesting_is_refused_not_a_crash(site: Site) -> None:
    body = b'{"meta": ' + b"[" * 900 + b"]" * 900 + b"}"
    headers = {"content-type": "application/json"}
    assert site.client.post("/v1/check", content=body, headers=headers).status_code in (200, 400)


def test_empty_list_gets_an_empty_list(site: Site) -> None:
    assert site.client.post("/v1/check", json={"events": []}).json() == {"decisions": []}


def test_too_many_bytes(site: Site) -> None:
    answer = site.client.post("/v1/check", json=EVENT | {"meta": "x" * 2000})
    assert assert_problem(answer, 413)["max_bytes"] == 2000

    def pieces() -> Any:
        yield from (b"x" * 500 for _ in range(10))

    headers = {"content-type": "application/json"}
    assert_problem(site.client.post("/v1/check", content=pieces(), headers=headers), 413)


def test_too_many_events(site: Site) -> None:
    answer = site.client.post("/v1/check", json={"events": [EVENT] * 6})
    assert assert_problem(answer, 413)["max_events"] == 5


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_other_content_types_are_refused(site: Site, headers: dict[str, str]) -> None:
    assert_problem(site.client.post("/v1/check", content=b"{}", headers=headers), 415)


def test_no_state_yet_is_said(site: Site) -> None:
    site.service.fails = StateError("No partition's state is here yet: try again in a moment.")
    assert "try again" in assert_problem(site.client.post("/v1/check", json=EVENT), 503)["detail"]


def test_a_failure_inside_tells_nothing_about_the_inside(site: Site) -> None:
    site.service.fails = RuntimeError("secret path")
    assert "secret" not in str(assert_problem(site.client.post("/v1/check", json=EVENT), 500))


def test_flagged_passes_its_filters_on(site: Site) -> None:
    assert site.client.get("/v1/events/flagged").json()["events"][0]["id"] == "bad"
    site.client.get("/v1/events/flagged?limit=3&verdict=quarantine")
    assert site.status.asked == [(50, None), (3, Verdict.QUARANTINE)]
    assert_problem(site.client.get("/v1/events/flagged?limit=0"), 422)
    assert_problem(site.client.get("/v1/events/flagged?verdict=maybe"), 422)


def test_status_is_the_snapshot(site: Site) -> None:
    assert site.client.get("/v1/status").json()["partitions"] == {"0": 3}


def test_unknown_addresses_and_methods(site: Site) -> None:
    assert "openapi.json" in assert_problem(site.client.get("/nothing"), 404)["detail"]
    assert assert_problem(site.client.delete("/v1/status"), 405)
    assert site.client.get("/docs").status_code == 404


def test_every_answer_is_guarded_and_none_is_shared_across_origins(site: Site) -> None:
    for path in ("/healthz", "/metrics", "/v1/status", "/openapi.json"):
        answer = site.client.get(path, headers={"origin": "http://evil.example"})
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "10.0.0.1", ""])
def test_requests_meant_for_another_host_are_refused(site: Site, host: str) -> None:
    assert_problem(site.client.get("/v1/status", headers={"host": host}), 421)


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8765", "127.8.8.8"])
def test_this_machine_has_several_names(site: Site, host: str) -> None:
    assert site.client.get("/v1/status", headers={"host": host}).status_code == 200


def test_openapi_describes_every_route(site: Site) -> None:
    document = site.client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/healthz", "/readyz", "/startupz", "/metrics", "/v1/status", "/v1/events/flagged",
        "/v1/check",
        "/v1/policy", "/v1/policy/history", "/v1/policy/versions/{number}", "/v1/policy/diff",
        "/v1/policy/applied", "/v1/policy/preview", "/v1/policy/whatif", "/v1/policy/risks",
        "/v1/policy/rollback", "/v1/policy/waiting", "/v1/policy/waiting/{proposal}/approve",
        "/v1/policy/waiting/{proposal}/reject",
        "/v1/quarantine", "/v1/quarantine/counts", "/v1/quarantine/observed",
        "/v1/quarantine/source", "/v1/quarantine/events/{key}",
        "/v1/quarantine/events/{key}/value", "/v1/quarantine/release", "/v1/quarantine/confirm",
        "/v1/quarantine/erase", "/v1/drills", "/v1/drills/{drill}", "/v1/drills/{drill}/stop",
        "/v1/audit", "/v1/session", "/v1/incidents", "/v1/incidents/{identifier}",
        "/v1/audit/heads", "/v1/lineage/{event_id}", "/v1/blast", "/v1/retractions",
        "/v1/checkpoints", "/v1/keys", "/v1/keys/{key_id}/revoke", "/v1/keys/{key_id}/rotate",
    }  # fmt: skip
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"] and operation["description"]
    check = document["paths"]["/v1/check"]["post"]
    assert {"200", "400", "413", "415", "503"} <= set(check["responses"])
    assert set(check["requestBody"]["content"]) == {"application/json", "application/x-ndjson"}
    assert "#/$defs" not in orjson.dumps(document).decode()
