"""``policy``, ``quarantine`` and ``token`` against the interface on a real port."""

from __future__ import annotations

import io
import json
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from monitor.admin.auth import Auth
from monitor.admin.people import Role
from monitor.admin.tokens import TokenFile
from monitor.cli.app import execute
from monitor.core.desk import HeldFilter
from tests.unit.admin.fake_desk import FakeDesk
from tests.unit.admin.fake_server import serving


class Site:
    """A service with a viewer, two operators and an admin, and the terminal in front of it."""

    def __init__(self, url: str, desk: FakeDesk, tokens: dict[str, str]) -> None:
        self.url, self.desk, self.tokens = url, desk, tokens

    def run(self, *arguments: str, who: str = "ana") -> int:
        os.environ["MONITOR_URL"] = self.url
        os.environ["MONITOR_TOKEN"] = self.tokens[who]
        return execute(arguments)


@pytest.fixture(params=[False])
def site(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    for name in ("MONITOR_URL", "MONITOR_TOKEN"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setenv("COLUMNS", "200")
    file = TokenFile(tmp_path / "tokens.json")
    people = {"eve": Role.VIEWER, "ana": Role.OPERATOR, "ben": Role.OPERATOR, "root": Role.ADMIN}
    tokens = {name: file.create(name, role) for name, role in people.items()} | {"none": "x"}
    desk = FakeDesk(held=120, events=2000, two_person=request.param)
    with serving(desk, Auth(file)) as server:
        yield Site(server.url, desk, tokens)


def out_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_show_history_diff_whatif(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run("policy", "show", who="eve") == 0
    shown = capsys.readouterr().out
    assert "version 6" in shown and "quarantine_at" in shown and "monitor-1" in shown
    assert site.run("policy", "show", "--version", "2", "--json") == 0
    assert out_json(capsys)["policy"]["flag_at"] == 0.005
    assert site.run("policy", "history", "--limit", "2") == 0
    assert "Refunds desk is known to us" in capsys.readouterr().out
    assert site.run("policy", "diff", "1", "3", "--json") == 0
    assert [d["path"] for d in out_json(capsys)["differences"]] == ["flag_at", "quarantine_at"]
    assert site.run("policy", "diff") == 0
    assert "confirmed.ring-1-000" in capsys.readouterr().out
    assert site.run("policy", "whatif", "flag_at=0.2", who="eve") == 0
    assert "verdicts would change" in capsys.readouterr().out
    assert site.desk.policy.current().version == 6


def test_set_changes_nested_values_and_lists(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ("flag_at=2e-2", "detectors.ring.mode=shadow", "deny=[{source: acct-001}]")
    assert site.run("policy", "set", *changes, "--unset", "confirmed.ring-1-000", "--dry-run") == 0
    assert "detectors.ring" in capsys.readouterr().out
    assert site.desk.policy.current().version == 6
    options = ("--unset", "confirmed.ring-1-000", "--why", "w", "-y", "--json")
    assert site.run("policy", "set", *changes, *options) == 0
    made = out_json(capsys)
    assert (made["version"], made["who"], made["why"]) == (7, "ana", "w")
    policy = site.desk.policy.current().policy
    assert policy["flag_at"] == 0.02 and policy["detectors"]["ring"] == {"mode": "shadow"}
    assert policy["detectors"]["novelty"]["mode"] == "alert"  # what was not named stays
    assert policy["deny"] == [{"source": "acct-001"}] and policy["confirmed"] == {}
    assert site.run("policy", "set", "flag_at=0.02", "--why", "w", "-y") == 0
    assert "nothing would change" in capsys.readouterr().out
    assert site.run("policy", "rollback", "6", "--why", "back", "-y") == 0
    assert "version 8 holds now" in capsys.readouterr().out


def test_a_whole_document_from_a_file(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("policy:\n  mode: alert\n  flag_at: 0.03\n")
    assert site.run("policy", "diff", "--file", str(file), "--json") == 0
    assert out_json(capsys)["base"] == 6
    assert site.run("policy", "set", "--file", str(file), "--why", "w", "-y") == 0
    assert site.desk.policy.current().policy["mode"] == "alert"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("policy", "set", "flag_at=2", "-y", "--why", "w"), "flag_at: must be a share"),
        (("policy", "set", "detectors.oracle.mode=alert", "-y", "--why", "w"), "unknown detector"),
        (("policy", "set", "-y", "--why", "w"), "say what to change"),
        (("policy", "set", "flag_at", "-y", "--why", "w"), "write key=value"),
        (("policy", "set", "flag_at=[", "-y", "--why", "w"), "not valid YAML"),
        (("policy", "set", "mode.x=1", "-y", "--why", "w"), "mode is no section"),
        (("policy", "set", "--unset", "nothing.here", "-y", "--why", "w"), "has no nothing.here"),
        (("policy", "set", "flag_at=0.02", "-y"), "say why"),
        (("policy", "set", "flag_at=0.02", "--why", "w"), "say --yes"),
        (("policy", "rollback", "77", "-y", "--why", "w"), "no version 77"),
        (("policy", "approve", "-y"), "no proposal waits"),
        (("policy", "show", "--url", "ftp://x"), "no address like"),
        (("policy", "diff", "1", "--file", "x"), "name no other"),
        (("quarantine", "show", "../policy"), "a key is partition-offset"),
        (("quarantine", "show", "9-9"), "no held event"),
        (("quarantine", "release", "-y", "--why", "w"), "name keys, or a filter"),
        (("quarantine", "list", "--since", "monday"), "Unix seconds"),
        (("quarantine", "list", "--cursor", "zzz"), "cursor"),
        (("quarantine", "list", "--status", "gone"), "status"),
    ],
)
def test_bad_usage_is_2_and_changes_nothing(
    site: Site, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert site.run(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert site.desk.policy.current().version == 6
    assert len(site.desk.quarantine.released_bytes) <= 12


def test_refusals_are_1(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.run("policy", "set", "flag_at=0.02", "-y", "--why", "w", who="eve") == 1
    assert "takes the role operator; eve is viewer" in capsys.readouterr().err
    assert site.run("quarantine", "erase", "acct-001", "-y", "--why", "w", who="ana") == 1
    assert "takes the role admin" in capsys.readouterr().err
    assert site.run("policy", "show", who="none") == 1
    assert "MONITOR_TOKEN" in capsys.readouterr().err

    def meanwhile(question: str, **_: Any) -> bool:
        site.desk.policy.propose({"flag_at": 0.3}, base=6, who="ben", why="faster")
        return True

    monkeypatch.setattr("typer.confirm", meanwhile)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert site.run("policy", "set", "flag_at=0.02", "--why", "w") == 1
    assert "ben made version 7" in capsys.readouterr().err
    assert site.desk.policy.current().policy["flag_at"] == 0.3


@pytest.mark.parametrize("site", [True], indirect=True)
def test_two_persons(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run("policy", "set", "flag_at=0.02", "-y", "--why", "w") == 0
    assert "waits for a second person: policy approve p-7" in capsys.readouterr().out
    assert site.run("policy", "history") == 0
    assert "waiting for a second person" in capsys.readouterr().out
    assert site.run("policy", "approve", "-y") == 1
    assert "somebody else" in capsys.readouterr().err
    assert site.run("policy", "approve", "-y", who="ben") == 0
    assert "version 7 holds now" in capsys.readouterr().out
    assert site.run("policy", "set", "flag_at=0.03", "-y", "--why", "w") == 0
    assert site.run("policy", "reject", "p-8", "--why", "no", who="ben") == 0
    assert "p-8 is dropped" in capsys.readouterr().out
    assert site.desk.policy.current().policy["flag_at"] == 0.02


def test_nobody_to_ask_and_somebody_who_says_no(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def no(question: str, **options: Any) -> bool:
        asked.append(question)
        raise __import__("typer").Abort

    monkeypatch.setattr("typer.confirm", no)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert site.run("quarantine", "release", "--source", "ring-1-001", "--why", "w") == 130
    assert asked and asked[0].startswith("Release ")
    assert "would release" in capsys.readouterr().out
    assert len(site.desk.quarantine.released_bytes) <= 12


@pytest.mark.parametrize("site", [True], indirect=True)
def test_what_is_advised_where_nobody_can_be_asked_is_there(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.run("policy", "set", "flag_at=0.03", "-y", "--why", "w", who="ben") == 0
    for asked, looks in {
        "policy set flag_at=0.02 --why w": True,
        "policy rollback 5 --why w": True,
        "policy approve": False,
        "quarantine release --source ring-1-001 --why w": True,
        "quarantine erase acct-001 --why w": True,
        "keys revoke k-1 --why w": False,
    }.items():
        capsys.readouterr()
        words = asked.split()
        assert site.run(*words, who="root") == 2
        told = capsys.readouterr().err
        assert "nobody is there to ask: say --yes" in told
        assert ("--dry-run" in told) is looks, asked
        assert execute([*words[:2], "--help"]) == 0
        assert ("--dry-run" in capsys.readouterr().out) is looks, asked


def test_list_pages_and_show(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run("quarantine", "list", "--limit", "2", "--family", "sybil", who="eve") == 0
    shown = capsys.readouterr().out
    assert "2 of " in shown and "--cursor" in shown and "promised to be held" in shown
    assert site.run("quarantine", "list", "--limit", "3", "--risk", "4", "--json") == 0
    page = out_json(capsys)
    assert all(held["risk"] >= 4 for held in page["items"]) and page["cursor"]
    key = page["items"][0]["key"]
    assert site.run("quarantine", "show", key) == 0
    assert page["items"][0]["event_id"] in capsys.readouterr().out
    assert site.run("quarantine", "show", key, "--json") == 0
    assert out_json(capsys)["key"] == key


def test_what_strangers_wrote_does_not_steer_the_terminal(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "[bold]\x1b[2J\x1b]0;owned\x07[/bold]\u202e"
    held = site.desk.quarantine.search(HeldFilter(), 1).items[0]
    whole = site.desk.quarantine.get(held.key)
    reason = {"detector": evil, "p_value": 0.1, "text": evil}
    decision = {**whole.decision, "reasons": [reason]}
    site.desk.quarantine.add(
        replace(
            whole, source=evil, label=evil, subject=evil, value=evil.encode(), decision=decision
        )
    )
    for arguments in (("list",), ("show", held.key), ("confirm", held.key, "--dry-run")):
        assert site.run("quarantine", *arguments) == 0
        shown = capsys.readouterr().out
        assert "[bold]?[2J" in shown
        assert not set(shown) & {"\x1b", "\x07", "\u202e"}


def test_release_confirm_erase(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    quarantine = site.desk.quarantine
    keys = [h.key for h in quarantine.search(HeldFilter(source="ring-1-002")).items][:3]
    before = len(quarantine.released_bytes)
    assert site.run("quarantine", "release", *keys, "--dry-run", "--json") == 0
    assert out_json(capsys)["done"] == keys
    assert len(quarantine.released_bytes) == before
    assert site.run("quarantine", "release", *keys, "--why", "fine", "-y") == 0
    assert "released 3 events" in capsys.readouterr().out
    assert site.run("quarantine", "release", *keys, "--why", "fine", "-y") == 0
    assert "0 events; 3 had been before" in capsys.readouterr().out
    assert len(quarantine.released_bytes) == before + 3
    assert site.run("quarantine", "confirm", keys[0], "--why", "no", "-y") == 0
    assert "ana has released it" in capsys.readouterr().out
    assert site.run("quarantine", "confirm", "--source", "ring-1-002", "--why", "w", "-y") == 0
    statuses = quarantine.counts(HeldFilter(source="ring-1-002"))["status"]
    assert statuses["released"] == 3 and "open" not in statuses
    capsys.readouterr()
    options = ("--why", "r", "-y", "--json")
    assert site.run("quarantine", "erase", "ring-1-002", *options, who="root") == 0
    assert out_json(capsys)["events"] == sum(statuses.values())


def test_no_service_is_3(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.url = "http://127.0.0.1:9"
    assert site.run("policy", "show") == 3
    assert "cannot be reached" in capsys.readouterr().err


def test_some_other_service_is_3(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        assert site.run("policy", "show") == 3
        assert "not as the service does" in capsys.readouterr().err


def test_tokens_by_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tokens.json"
    where = ("--file", str(file))
    assert execute(["token", "create", "ana", "--role", "operator", *where]) == 0
    captured = capsys.readouterr()
    text = captured.out.strip()
    assert text.startswith("mon_") and "shown only once" in captured.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert execute(["token", "create", "late", "--expires-days", "0", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)["role"] == "viewer"
    assert execute(["token", "list", *where]) == 0
    shown = capsys.readouterr().out
    assert "ana" in shown and "(has)" in shown and text not in shown
    assert execute(["token", "list", "--json", *where]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == ["ana", "late"] and "sha256" not in listed[0]
    assert execute(["token", "revoke", "ana", *where]) == 0
    assert execute(["token", "revoke", "ana", *where]) == 2
    assert execute(["token", "create", "a b", *where]) == 2
    assert execute(["token", "list"]) == 2
    assert "http.tokens_file" in capsys.readouterr().err
    config = tmp_path / "c.yaml"
    config.write_text(f"http: {{tokens_file: {file}}}")
    assert execute(["token", "list", "--config", str(config)]) == 0
