"""Drills over HTTP and from the terminal, on a desk in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from monitor.cli.app import execute
from tests.unit.admin.fake_desk import FakeDesk
from tests.unit.admin.fake_server import serving

ASKED = {"family": "backdoor", "rate_per_second": 0.5, "seconds": 20, "why": "weekly"}


@pytest.fixture
def served() -> Iterator[tuple[httpx.Client, FakeDesk]]:
    desk = FakeDesk(held=5, events=50)
    with (
        serving(desk) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client,
    ):
        yield client, desk


def test_start_look_stop(served: tuple[httpx.Client, FakeDesk]) -> None:
    client, desk = served
    answer = client.post("/v1/drills", json=ASKED)
    assert answer.status_code == 201
    drill = answer.json()
    assert answer.headers["location"] == f"/v1/drills/{drill['id']}"
    assert (drill["wanted"], drill["recall"], drill["noticed"]) == (10, 0.9, 0.9)
    assert client.get(answer.headers["location"]).json() == drill
    assert client.post(f"/v1/drills/{drill['id']}/stop").json()["id"] == drill["id"]
    assert client.get("/v1/drills").json() == {"drills": [drill]}
    assert desk.log.audit(1)[0].what == "drill done"


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"family": "backdoors"}, 422, "choose one of label_flip"),
        ({"attack": "nonsense"}, 422, "unknown attack"),
        ({"attack": "flip"}, 422, "not one of backdoor"),
        ({"rate_per_second": 0}, 422, "rate_per_second"),
        ({"seconds": 1e9}, 422, "seconds"),
        ({"rate_per_second": 1000, "seconds": 86_400}, 422, "100,000"),
        ({"why": " "}, 422, "why"),
        ({"poison": True}, 422, "poison"),
    ],
)
def test_what_is_refused_starts_nothing(
    served: tuple[httpx.Client, FakeDesk], change: dict[str, Any], status: int, said: str
) -> None:
    client, desk = served
    answer = client.post("/v1/drills", json=ASKED | change)
    assert answer.status_code == status and said in answer.json()["detail"]
    assert desk.drills.list() == []
    assert client.get("/v1/drills/abc").status_code == 404


def test_from_the_terminal(
    served: tuple[httpx.Client, FakeDesk], capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(served[0].base_url)
    wanted = ["drill", "--url", url, "--family", "backdoor", "--rate", "0.5", "--for", "20s"]
    assert execute(wanted) == 0
    assert "90.0 %" in capsys.readouterr().out
    assert execute([*wanted, "--min-recall", "0.95"]) == 1
    capsys.readouterr()
    assert execute([*wanted, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["held"] == 9
    assert execute(["drill", "--url", url, "--list"]) == 0
    assert capsys.readouterr().out.count("backdoor") == 3
    for bad, said in ((["--for", "soon"], "90s, 5m or 1h"), (["--rate", "0"], "rate_per_second")):
        assert execute([*wanted, *bad]) == 2
        assert said in capsys.readouterr().err
    assert execute(["drill", "--url", url]) == 2
    assert "--family" in capsys.readouterr().err
    assert execute([*wanted, "--attack", "flip"]) == 2
    assert "its family is label_flip or sybil" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("odd", ["nan", "inf", "-inf", "1e400"])
def test_no_number_is_bad_usage_and_no_bug(odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing listens there: it has to be refused before anything is sent."""
    at = ["--url", "http://127.0.0.1:9"]
    drill = ["drill", *at, "--family", "backdoor"]
    for words, said in (
        ([*drill, f"--rate={odd}"], "--rate: must be a number above 0 and at most 1000"),
        ([*drill, f"--min-recall={odd}"], "--min-recall"),  # infinite ones fail typer's range
        ([*drill, "--for", "9" * 400], "--for: must be a number above 0 and at most 86400 seconds"),
        (["keys", "rotate", "a", "b", *at, f"--overlap-hours={odd}"], "--overlap-hours"),
    ):
        assert execute(words) == 2, words
        told = " ".join(capsys.readouterr().err.split())
        assert said in told and ("must be a number" in told or "Input should be" in told)


def test_a_drill_that_judged_nothing_passes_no_check(
    served: tuple[httpx.Client, FakeDesk], capsys: pytest.CaptureFixture[str]
) -> None:
    client, desk = served
    desk.drills.quiet = True
    made = client.post("/v1/drills", json=ASKED).json()
    assert (made["state"], made["recall"], made["note"]) == ("failed", None, "No event came.")
    wanted = ["drill", "--url", str(client.base_url), "--family", "backdoor", "--for", "20s"]
    for least in ("0", "0.5"):
        for form in ([], ["--json"]):
            assert execute([*wanted, "--min-recall", least, *form]) == 1
            said = " ".join(capsys.readouterr().err.split())
            assert "no canary was judged, so there is no recall. No event came." in said
    assert execute(wanted) == 1
