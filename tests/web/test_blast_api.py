"""The blast radius over HTTP and from the terminal, on a desk in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from monitor.cli.app import execute
from tests.unit.admin.fake_desk import FakeDesk
from tests.unit.admin.fake_server import serving

ASKED = {"sources": ["ring-1-000"]}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[httpx.Client, FakeDesk]]:
    desk = FakeDesk(held=5, events=50)
    with (
        serving(desk) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client,
    ):
        yield client, desk


def run(client: httpx.Client, *words: str) -> int:
    return execute([*words, "--url", str(client.base_url)])


def test_ask_retract_and_ask_again(
    served: tuple[httpx.Client, FakeDesk], capsys: pytest.CaptureFixture[str]
) -> None:
    client, desk = served
    found = client.post("/v1/blast", json=ASKED | {"shown": 3}).json()
    n = found["events"]
    assert n > 20 and found["retracted"] == 0 and len(found["items"]) == 3
    assert found["sources"] == {"distinct": 1, "top": {"ring-1-000": n}}
    assert found["checkpoints"]["last_clean"]["name"] == "m-1"
    assert [one["name"] for one in found["checkpoints"]["tainted"]] == ["m-2"]
    assert sum(found["histogram"]["counts"]) == n
    assert found["keys"] == {"distinct": 1, "top": {"k-ring": n}}
    by_key = client.post("/v1/blast", json={"keys": ["k-ring"]}).json()
    assert (by_key["events"], by_key["index"]["keys"]) == (n, "claimed")
    body = {"asked": ASKED, "why": "taken over"}
    dry = client.post("/v1/retractions", json=body | {"dry_run": True}).json()
    assert (dry["events"], client.get("/v1/retractions").json()["retractions"]) == (n, [])
    # From the terminal: first only what it would do.
    words = ["blast", "--source", "ring-1-000", "--retract", "--reason", "taken over"]
    assert run(client, *words) == 0
    out = capsys.readouterr().out
    assert f"would retract {n} events" in out and "last clean checkpoint: m-1" in out
    words_by_key = ["blast", "--key", "k-ring", "--retract", "--reason", "the key was stolen"]
    assert run(client, *words_by_key) == 0
    out = capsys.readouterr().out
    assert f"would retract {n} events" in out and "every event a key has signed" in out
    assert not client.get("/v1/retractions").json()["retractions"]
    headers = {"idempotency-key": "0123456789"}
    first = client.post("/v1/retractions", json=body, headers=headers).json()
    assert first["events"] == n
    assert client.post("/v1/retractions", json=body, headers=headers).json() == first
    other = {"asked": {"sources": ["acct-001"]}, "why": "another"}
    assert client.post("/v1/retractions", json=other, headers=headers).status_code == 409
    assert run(client, *words, "--yes") == 0
    assert f"retracted 0 events; {n} had been before" in capsys.readouterr().out
    (kept,) = client.get("/v1/retractions").json()["retractions"]
    assert (kept["events"], kept["who"], kept["why"]) == (n, "local", "taken over")
    assert desk.log.audit(1)[0].what == "retract"
    assert run(client, "blast", "--source", "ring-1-000", "--json") == 0
    assert json.loads(capsys.readouterr().out)["retracted"] == n


def test_checkpoints_from_the_terminal(
    served: tuple[httpx.Client, FakeDesk], capsys: pytest.CaptureFixture[str]
) -> None:
    client, _ = served
    assert run(client, "checkpoint", "add", "m-9", "0-12", "1-7", "--at", "2030-01-01") == 0
    capsys.readouterr()
    assert run(client, "checkpoint", "list", "--json") == 0
    latest = json.loads(capsys.readouterr().out)["checkpoints"][0]
    assert latest == {"name": "m-9", "ts": 1893456000.0, "offsets": {"0": 12, "1": 7}}
    assert run(client, "checkpoint", "list") == 0
    assert "0-12, 1-7" in capsys.readouterr().out
    assert run(client, "checkpoint", "add", "m-9", "1-7", "0-12") == 0
    assert "known already" in capsys.readouterr().out
    assert run(client, "checkpoint", "add", "m-9", "0-1", "1-7") == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "offsets 0-12 1-7" in told and "choose another name" in told
    body = {"name": "m-9", "offsets": {"0": 12, "1": 7}, "ts": 5}
    assert client.post("/v1/checkpoints", json=body).status_code == 409
    assert client.get("/v1/checkpoints").json()["checkpoints"][0] == latest
    assert run(client, "checkpoint", "add", "m-9", "twelve") == 2
    assert "partition-offset" in capsys.readouterr().err
    for words, said in (
        (["0-12", "--at", "nan"], "--at"),
        (["0-12", "--at=-5"], "1970 to 9999"),
        (["0-12", "--at", "3.1e12"], "1970 to 9999"),
        (["0--12"], "partition-offset"),
        (["0-12", "0-13"], "given twice"),
    ):
        assert run(client, "checkpoint", "add", "m-9", *words) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_a_list_of_retractions_takes_no_unknown_names(
    served: tuple[httpx.Client, FakeDesk],
) -> None:
    client, _ = served
    for query, said in (
        ("since=5", "since"), ("limit=2&page=1", "page"), ("limit=0", "limit"),
        ("before=nan", "before"), ("before=soon", "before"),
    ):  # fmt: skip
        answer = client.get(f"/v1/retractions?{query}")
        assert answer.status_code == 422 and answer.json()["detail"].startswith(f"query.{said}")
    assert client.get("/v1/retractions?limit=2&before=5").json() == {
        "retractions": [], "before": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/blast", {}, 422, "needed"),
        ("/v1/blast", {"since": 5}, 422, "needed"),
        ("/v1/blast", {"sources": ["a"], "since": 5, "until": 5}, 422, "later"),
        ("/v1/blast", {"sources": ["a"], "since": "soon"}, 422, "since"),
        ("/v1/blast", {"sources": ["a"] * 1001}, 422, "sources"),
        ("/v1/blast", {"sources": ["a"], "poison": 1}, 422, "poison"),
        ("/v1/blast", {"incident": "i-77"}, 404, "No incident"),
        ("/v1/retractions", {"asked": ASKED}, 422, "why"),
        ("/v1/retractions", {"asked": ASKED, "why": " "}, 422, "why"),
        ("/v1/retractions", {"asked": {}, "why": "x"}, 422, "needed"),
        ("/v1/checkpoints", {"name": "m", "offsets": {}}, 422, "offsets"),
        ("/v1/checkpoints", {"name": "m", "offsets": {"a": 1}}, 422, "partition"),
        ("/v1/checkpoints", {"name": "m", "offsets": {"0": -1}}, 422, "offset"),
        ("/v1/checkpoints", {"name": "m", "offsets": {"0": 1}, "version": 2}, 422, "version"),
        ("/v1/checkpoints", {"name": "m", "offsets": {"0": True}}, 422, "offsets"),
        ("/v1/checkpoints", {"name": "m", "offsets": {"0": 1.5}}, 422, "offsets"),
        ("/v1/checkpoints", {"name": "m", "offsets": {"00": 1}}, 422, "partition"),
        ("/v1/checkpoints", {"name": " ", "offsets": {"0": 1}}, 422, "name"),
        ("/v1/checkpoints", {"name": "m" * 257, "offsets": {"0": 1}}, 422, "name"),
        ("/v1/checkpoints", {"name": "m", "offsets": {"0": 1}, "ts": -1}, 422, "1970"),
        ("/v1/checkpoints", {"name": "m", "offsets": {"0": 1}, "ts": 3.1e12}, 422, "9999"),
        ("/v1/checkpoints", {"name": "m", "offsets": {"0": 1}, "ts": True}, 422, "ts"),
        ("/v1/checkpoints", {"name": "m", "offsets": {"0": 1}, "ts": "nan"}, 422, "ts"),
        (
            "/v1/checkpoints",
            {"name": "m", "offsets": dict.fromkeys(map(str, range(10_001)), 1)},
            422,
            "offsets",
        ),
    ],
)
def test_what_is_refused_changes_nothing(
    served: tuple[httpx.Client, FakeDesk], path: str, body: dict[str, Any], status: int, said: str
) -> None:
    client, desk = served
    before = len(desk.log.entries)
    answer = client.post(path, json=body)
    assert answer.status_code == status and said in answer.json()["detail"]
    assert len(desk.log.entries) == before


def test_the_terminal_refuses_what_names_nobody(
    served: tuple[httpx.Client, FakeDesk], capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (["blast", "--since", "5"], "say whose events"),
        (["blast", "--source", "a", "--since", "soon"], "--since"),
        (["blast", "--source", "a", "--retract"], "--reason"),
    ):
        assert run(served[0], *words) == 2
        assert said in capsys.readouterr().err
