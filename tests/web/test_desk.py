"""The desk's routes: what they answer, and that what is refused changes nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from monitor.admin.json_body import MAX_BODY_BYTES
from monitor.admin.problem import PROBLEM
from monitor.core.desk import HeldFilter
from monitor.core.errors import StateError, UsageError
from tests.unit.admin.fake_desk import FakeDesk
from tests.unit.admin.fake_server import serving

NOW = 1.8e9
MATCH = {"if-match": '"6"'}
JSON = {"content-type": "application/json"}


class Switch:
    """A desk that is exchanged for each test, so that one server does for all."""

    def __init__(self) -> None:
        self.real = FakeDesk(held=0, events=100)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[httpx.Client, Switch]]:
    switch: Any = Switch()
    with (
        serving(switch) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client,
    ):
        yield client, switch


@pytest.fixture
def desk(served: tuple[httpx.Client, Switch]) -> FakeDesk:
    served[1].real = FakeDesk(held=120, events=2000, now=NOW)
    return served[1].real


@pytest.fixture
def client(served: tuple[httpx.Client, Switch], desk: FakeDesk) -> httpx.Client:
    return served[0]


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body: dict[str, Any] = answer.json()
    assert body["status"] == status and body["detail"].endswith((".", "?"))
    return body


def unchanged(desk: FakeDesk) -> None:
    fresh = FakeDesk(held=120, events=100, now=NOW)
    documents = [[c.policy for c in d.policy.history()] for d in (desk, fresh)]
    assert documents[0] == documents[1] and not desk.policy.waiting()
    statuses = [q.quarantine.counts(HeldFilter())["status"] for q in (desk, fresh)]
    assert statuses[0] == statuses[1]
    assert len(desk.log.entries) == len(fresh.log.entries)


def test_the_present_policy_and_its_tag(client: httpx.Client) -> None:
    answer = client.get("/v1/policy")
    assert answer.headers["etag"] == '"6"'
    body = answer.json()
    assert body["version"] == 6 and body["policy"]["quarantine_at"] == 0.003
    assert client.get("/v1/policy", headers={"if-none-match": '"6"'}).status_code == 304
    assert client.get("/v1/policy", headers={"if-none-match": '"5"'}).status_code == 200


def test_history_in_pages(client: httpx.Client) -> None:
    seen: list[int] = []
    before: int | None = None
    while True:
        parameters = {"limit": 4} | ({} if before is None else {"before": before})
        body = client.get("/v1/policy/history", params=parameters).json()
        seen += [change["version"] for change in body["versions"]]
        before = body["before"]
        if before is None:
            break
    assert seen == [6, 5, 4, 3, 2, 1]
    assert client.get("/v1/policy/versions/3").json()["who"] == "ben"


def test_diff_preview_applied_risks(client: httpx.Client, desk: FakeDesk) -> None:
    diff = client.get("/v1/policy/diff?a=1&b=3").json()["differences"]
    assert diff == [
        {"path": "flag_at", "before": 0.01, "after": 0.005},
        {"path": "quarantine_at", "before": 0.001, "after": 0.003},
    ]
    document = client.get("/v1/policy").json()["policy"] | {"flag_at": 0.04}
    body = client.post("/v1/policy/preview", json={"policy": document}).json()
    assert body == {
        "base": 6,
        "differences": [{"path": "flag_at", "before": 0.005, "after": 0.04}],
    }
    applied = client.get("/v1/policy/applied").json()
    assert applied["current"] == 6
    assert [one["version"] for one in applied["instances"]] == [6, 6]
    risks = client.get("/v1/policy/risks?bins=7").json()
    assert len(risks["edges"]) == 8 and len(risks["counts"]["flag"]) == 7
    unchanged(desk)


def test_what_if_counts_and_changes_nothing(client: httpx.Client, desk: FakeDesk) -> None:
    document = client.get("/v1/policy").json()["policy"]
    same = client.post("/v1/policy/whatif", json={"policy": document}).json()
    assert same["before"] == same["after"] and same["n_flips"] == 0 and same["flips"] == []
    lax = client.post("/v1/policy/whatif", json={"policy": document | {"flag_at": 0.3}}).json()
    assert lax["after"]["flag"] > same["after"]["flag"] and lax["events"] == 2000
    assert lax["promised"]["flag"] == 0.3 and lax["n_flips"] > 0
    unchanged(desk)


def test_a_change_names_who_and_why_and_raises_the_tag(
    client: httpx.Client, desk: FakeDesk
) -> None:
    document = client.get("/v1/policy").json()["policy"] | {"flag_at": 0.02}
    body = {"policy": document, "why": "  fewer alarms "}
    answer = client.put("/v1/policy", json=body, headers=MATCH)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"7"')
    made = answer.json()
    assert (made["who"], made["why"], made["base"]) == ("local", "fewer alarms", 6)
    back = client.post(
        "/v1/policy/rollback", json={"to": 6, "why": "was better"}, headers={"if-match": '"7"'}
    ).json()
    assert (back["version"], back["kind"], back["policy"]["flag_at"]) == (8, "rollback", 0.005)
    audit = client.get("/v1/audit?limit=2").json()
    assert [entry["what"] for entry in audit["entries"]] == ["policy rollback", "policy edit"]
    assert audit["before"] == audit["entries"][-1]["when"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"flag_at": 1.5}, "flag_at: must be a share"),
        ({"flag_at": 0}, "flag_at: must be a share"),
        ({"quarantine_at": 0.5}, "must not be larger than flag_at"),
        ({"detectors": {"oracle": {"mode": "shadow"}}}, "detectors.oracle: unknown detector"),
        ({"budget": {"magic": 1.0}}, "unknown family"),
        ({"mode": "off"}, "mode: must be"),
        ({"flagg_at": 0.1}, "flagg_at: no such setting"),
    ],
)
def test_a_bad_document_is_refused_everywhere_alike(
    client: httpx.Client, desk: FakeDesk, change: dict[str, Any], said: str
) -> None:
    document = desk.policy.current().policy | change
    for method, path, extra in (
        ("POST", "/v1/policy/preview", {}),
        ("POST", "/v1/policy/whatif", {}),
        ("PUT", "/v1/policy", {"why": "x"}),
    ):
        answer = client.request(method, path, json={"policy": document} | extra, headers=MATCH)
        assert said in problem(answer, 422)["detail"]
    unchanged(desk)


def test_a_stale_version_is_refused_with_the_latest(client: httpx.Client, desk: FakeDesk) -> None:
    body = {"policy": {"flag_at": 0.02}, "why": "x"}
    stale = client.put("/v1/policy", json=body, headers={"if-match": '"5"'})
    told = problem(stale, 412)
    assert told["current"] == 6 and stale.headers["etag"] == '"6"'
    assert "monitor made version 6" in told["detail"]
    back = {"to": 2, "why": "x"}
    stale = client.post("/v1/policy/rollback", json=back, headers={"if-match": '"5"'})
    problem(stale, 412)
    unchanged(desk)


@pytest.mark.parametrize("tag", ["*", "6", 'W/"6"', '"six"', '"6", "5"', '""', '"-1"'])
def test_if_match_names_one_version(client: httpx.Client, desk: FakeDesk, tag: str) -> None:
    body = {"policy": {"flag_at": 0.02}, "why": "x"}
    problem(client.put("/v1/policy", json=body, headers={"if-match": tag}), 412)
    unchanged(desk)


def test_without_if_match_nothing_is_changed(client: httpx.Client, desk: FakeDesk) -> None:
    problem(client.put("/v1/policy", json={"policy": {}, "why": "x"}), 428)
    problem(client.post("/v1/policy/rollback", json={"to": 1, "why": "x"}), 428)
    unchanged(desk)


def test_two_persons(client: httpx.Client, served: tuple[httpx.Client, Switch]) -> None:
    served[1].real = desk = FakeDesk(held=10, events=100, now=NOW, two_person=True)
    body = {"policy": {"flag_at": 0.02}, "why": "x"}
    answer = client.put("/v1/policy", json=body, headers=MATCH)
    assert answer.status_code == 202 and answer.json()["state"] == "waiting"
    assert "etag" not in answer.headers
    assert client.get("/v1/policy").json()["version"] == 6
    proposal = answer.json()["proposal"]
    listed = client.get("/v1/policy/waiting").json()["waiting"]
    assert [one["proposal"] for one in listed] == [proposal]
    own = client.post(f"/v1/policy/waiting/{proposal}/approve")
    assert "somebody else" in problem(own, 403)["detail"]
    dropped = client.post(f"/v1/policy/waiting/{proposal}/reject", json={"why": "no"})
    assert dropped.json()["state"] == "rejected"
    problem(client.post(f"/v1/policy/waiting/{proposal}/approve"), 404)

    other = desk.policy.propose({"flag_at": 0.02}, base=6, who="ana", why="y")
    answer = client.post(f"/v1/policy/waiting/{other.proposal}/approve")
    assert answer.headers["etag"] == '"7"' and answer.json()["approved_by"] == "local"


def test_missing_versions_and_proposals(client: httpx.Client) -> None:
    problem(client.get("/v1/policy/versions/77"), 404)
    problem(client.get("/v1/policy/diff?a=1&b=77"), 404)
    problem(client.post("/v1/policy/rollback", json={"to": 77, "why": "x"}, headers=MATCH), 404)
    for path in ("versions/0", "versions/x", "diff?a=1", f"versions/{10**30}", "history?limit=0"):
        problem(client.get(f"/v1/policy/{path}"), 422)


BODIES = (
    ("PUT", "/v1/policy"),
    ("POST", "/v1/policy/preview"),
    ("POST", "/v1/policy/whatif"),
    ("POST", "/v1/policy/rollback"),
    ("POST", "/v1/policy/waiting/p-1/reject"),
    ("POST", "/v1/quarantine/release"),
    ("POST", "/v1/quarantine/confirm"),
    ("POST", "/v1/quarantine/erase"),
)


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_bad_bodies_are_refused(
    client: httpx.Client, desk: FakeDesk, method: str, path: str
) -> None:
    def send(content: Any, **headers: str) -> httpx.Response:
        return client.request(method, path, content=content, headers=JSON | MATCH | headers)

    for content in (b"", b"{", b"\xff", b'{"why": NaN}', b"[" * 5000):
        problem(send(content), 400)
    for content in (
        b"[]",
        b"3",
        b"{}",
        b'{"why": " "}',
        b'{"nonsense": 1}',
        b'{"why": "a\\u0000"}',
    ):
        problem(send(content), 422)
    large = orjson.dumps({"why": "x", "policy": {"a": "x" * MAX_BODY_BYTES}})
    assert problem(send(large), 413)["max_bytes"] == MAX_BODY_BYTES

    def pieces() -> Iterator[bytes]:
        yield from (b" " * 100_000 for _ in range(20))

    problem(send(pieces()), 413)
    problem(send(b"{}", **{"content-type": "text/plain"}), 415)
    problem(send(b"{}", **{"content-encoding": "gzip"}), 415)
    unchanged(desk)


def test_search_by_every_filter(client: httpx.Client, desk: FakeDesk) -> None:
    everything = client.get("/v1/quarantine?limit=500").json()
    assert everything["total"] == len(everything["items"]) == 120
    assert everything["cursor"] is None
    assert "value" not in everything["items"][0] and "decision" not in everything["items"][0]
    one = everything["items"][5]
    for name, value in (
        ("source", one["source"]),
        ("label", one["label"]),
        ("detector", one["detectors"][0]),
        ("family", one["families"][0]),
        ("status", one["status"]),
        ("since", one["held_at"]),
        ("risk_at_least", one["risk"]),
        ("keys", one["key"]),
        ("text", one["event_id"]),
    ):
        found = client.get("/v1/quarantine", params={name: value, "limit": 500}).json()
        assert one["key"] in [held["key"] for held in found["items"]], name
        assert found["total"] < 120 or name in ("status", "label"), name
    before = client.get("/v1/quarantine", params={"until": one["held_at"]}).json()
    assert one["key"] not in [held["key"] for held in before["items"]]
    two = [held["key"] for held in everything["items"][:2]]
    found = client.get("/v1/quarantine", params={"keys": two}).json()
    assert [held["key"] for held in found["items"]] == two
    counts = client.get("/v1/quarantine/counts", params={"family": "sybil"}).json()
    assert counts["family"]["sybil"] == sum(counts["status"].values())


def test_times_are_seconds_or_text(client: httpx.Client, desk: FakeDesk) -> None:
    since = NOW - 3600
    texts = (str(since), "2027-01-15T07:00:00Z", "2027-01-15T08:00:00+01:00", "2027-01-15T07:00:00")
    totals = {
        client.get("/v1/quarantine", params={"since": text}).json()["total"] for text in texts
    }
    assert len(totals) == 1 and 0 < totals.pop() < 120
    assert "Unix seconds" in problem(client.get("/v1/quarantine?since=monday"), 422)["detail"]


def test_pages_hold_each_event_once(client: httpx.Client) -> None:
    seen: list[str] = []
    cursor = None
    for _ in range(20):
        parameters = {"limit": 17} | ({} if cursor is None else {"cursor": cursor})
        page = client.get("/v1/quarantine", params=parameters).json()
        seen += [held["key"] for held in page["items"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 120


@pytest.mark.parametrize(
    "query",
    ["cursor=nonsense", "cursor=%00", "limit=0", "limit=501", "risk_at_least=nan", "status=gone",
     "sorce=acct-1", "keys=1", "since=inf", f"source={'x' * 257}", "text=%00"],
)  # fmt: skip
def test_bad_queries_are_refused(client: httpx.Client, query: str) -> None:
    problem(client.get(f"/v1/quarantine?{query}"), 422)


def test_an_event_with_its_bytes(client: httpx.Client, desk: FakeDesk) -> None:
    held = desk.quarantine.search(HeldFilter(), 1).items[0]
    whole = desk.quarantine.get(held.key)
    body = client.get(f"/v1/quarantine/events/{held.key}").json()
    assert base64.b64decode(body["value_base64"]) == body["value"].encode() == whole.value
    assert body["decision"]["reasons"][0]["text"]
    answer = client.get(f"/v1/quarantine/events/{held.key}/value")
    assert answer.content == whole.value
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"
    problem(client.get("/v1/quarantine/events/9-999999"), 404)
    problem(client.get("/v1/quarantine/events/..%2f..%2fetc"), 404)
    problem(client.get("/v1/quarantine/events/one"), 422)


def test_bytes_that_are_no_text(client: httpx.Client, desk: FakeDesk) -> None:
    from dataclasses import replace

    held = desk.quarantine.get(desk.quarantine.search(HeldFilter(), 1).items[0].key)
    desk.quarantine.add(replace(held, value=b"\xff\xfe"))
    body = client.get(f"/v1/quarantine/events/{held.key}").json()
    assert body["value"] is None and base64.b64decode(body["value_base64"]) == b"\xff\xfe"


def review(client: httpx.Client, verb: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/quarantine/{verb}", json={"why": "looked at it"} | body)
    assert answer.status_code == 200, answer.text
    outcome: dict[str, Any] = answer.json()
    return outcome


def test_release_and_confirm(client: httpx.Client, desk: FakeDesk) -> None:
    page = client.get("/v1/quarantine?status=open&limit=3").json()
    keys = [held["key"] for held in page["items"]]
    sent = len(desk.quarantine.released_bytes)
    dry = review(client, "release", filter={"keys": keys}, dry_run=True)
    assert dry["dry_run"] and dry["done"] == keys and sum(dry["by_source"].values()) == 3
    assert len(desk.quarantine.released_bytes) == sent
    done = review(client, "release", filter={"keys": keys})
    assert done["done"] == keys
    again = review(client, "release", filter={"keys": keys})
    assert again["done"] == [] and again["already"] == keys
    assert len(desk.quarantine.released_bytes) == sent + 3
    refused = review(client, "confirm", filter={"keys": [keys[0], "9-9"]})
    assert set(refused["refused"]) == {keys[0], "9-9"} and refused["done"] == []
    source = client.get("/v1/quarantine?status=open&family=sybil").json()["items"][0]["source"]
    bulk = review(client, "confirm", filter={"source": source})
    assert set(bulk["by_source"]) == {source}
    history = client.get("/v1/quarantine/source", params={"name": source}).json()
    assert history["by_status"] == {"confirmed": history["held"]}
    observed = client.get("/v1/quarantine/observed").json()
    assert observed["released"] >= 3 and observed["estimated"] > observed["at_least"]
    assert [e["what"] for e in client.get("/v1/audit?limit=2").json()["entries"]] == [
        "confirm",
        "release",
    ]


def test_an_empty_filter_has_to_be_meant(client: httpx.Client, desk: FakeDesk) -> None:
    for body in ({}, {"filter": {}}, {"filter": {"source": None}}):
        answer = client.post("/v1/quarantine/release", json=body | {"why": "x"})
        assert "every event" in problem(answer, 422)["detail"]
    typed_wrong = {"filter": {"sorce": "a"}, "why": "x", "all": True}
    assert (
        "sorce" in problem(client.post("/v1/quarantine/release", json=typed_wrong), 422)["detail"]
    )
    unchanged(desk)
    assert len(review(client, "confirm", all=True, dry_run=True)["done"]) > 50


def test_erase(client: httpx.Client, desk: FakeDesk) -> None:
    source = client.get("/v1/quarantine").json()["items"][0]["source"]
    ask = {"source": source, "why": "privacy request 4711"}
    dry = client.post("/v1/quarantine/erase", json=ask | {"dry_run": True}).json()
    assert dry["events"] > 0
    assert client.post("/v1/quarantine/erase", json=ask).json()["events"] == dry["events"]
    assert client.get("/v1/quarantine", params={"source": source}).json()["total"] == 0
    problem(client.get("/v1/quarantine/source", params={"name": source}), 404)


@pytest.mark.parametrize(
    ("error", "status"), [(StateError("the store is busy"), 503), (UsageError("no"), 422)]
)
def test_a_store_that_fails_is_said(
    client: httpx.Client, desk: FakeDesk, error: Exception, status: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(desk.quarantine, "search", fails)
    assert problem(client.get("/v1/quarantine"), status)["detail"] == f"{error}."


def test_without_a_desk_it_is_said_why() -> None:
    with serving(None) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        for path in ("/v1/policy", "/v1/quarantine", "/v1/audit", "/v1/policy/waiting"):
            assert "no desk" in problem(client.get(path), 503)["detail"]
        put = client.put("/v1/policy", json={"policy": {}, "why": "x"}, headers=MATCH)
        problem(put, 503)
        assert client.get("/v1/session").json()["role"] == "admin"
        assert client.get("/v1/policy", headers={"host": "evil.example"}).status_code == 421
