"""What a terminal of 80 columns shows of hostile streams: all identifiers, no escapes."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from monitor.cli import audit, blast_view, incidents
from monitor.cli.app import execute

ID = "i-31f4e4244fe04b64"
EVIL = "acct\x1b[2J\u202e[red]"


def incident(family: str = "boiling_frog") -> dict[str, Any]:
    end = {"ts": 1.7e9}
    return {
        "id": ID,
        "kind": "campaign",
        "family": family,
        "confidence": 0.93,
        "state": "closed",
        "events": 12_345,
        "quarantined": 12_000,
        "flagged": 345,
        "influence": 3.0,
        "text": f"Events of {EVIL}.",
        "first": end,
        "last": end,
        "sources": {"estimate": 1_234, "top": [{"source": EVIL, "events": 3}]},
        "labels": [{"label": EVIL, "events": 3}],
        "common": {"pattern": [{"feature": EVIL, "value": 1.0}]},
        "evidence": [EVIL],
    }


def shown(thing: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(thing)
    return out.getvalue()


def test_a_narrow_list_of_incidents_cuts_nothing() -> None:
    told = shown(incidents.incident_table([incident()], 1))
    for word in (ID, "closed", "campaign:", "boiling_frog", "12,345", "1,234", "2023-11-14"):
        assert word in told
    assert "…" not in told
    assert max(map(len, told.splitlines())) <= 80


def test_names_do_not_steer_the_terminal_that_shows_an_incident() -> None:
    out = io.StringIO()
    incidents.print_incident(Console(file=out, width=80), incident())
    told = out.getvalue()
    assert told.count("acct?[2J?[red]") == 5
    assert "\x1b" not in told
    assert "\u202e" not in told


def test_names_do_not_steer_the_terminal_that_shows_an_event() -> None:
    life = {
        "id": EVIL, "source": EVIL, "topic": "in", "partition": 0, "line": 1, "key_id": EVIL,
        "verdict": "flag", "action": "pass", "policy_version": 1, "state": None, "software": None,
        "audit": None, "incident": None, "decision": {"reasons": [{"text": EVIL}]},
        "reviews": [{"status": "released", "who": "ana", "why": EVIL}],
        "actions": [{"what": "retract", "who": EVIL, "why": EVIL, "seq": 1, "chain": "people"}],
    }  # fmt: skip
    out = io.StringIO()
    audit._print_life(Console(file=out, width=80), life)
    told = out.getvalue()
    assert told.count("acct?[2J?[red]") == 7
    assert "\x1b" not in told


def test_a_review_and_its_record_in_the_chain_are_told_once() -> None:
    review = {"key": "0-0", "status": "released", "who": "ana", "why": "A retry", "at": 2.0}
    record = {
        "what": "release", "who": "ana", "why": "A retry", "when": 1.9, "chain": "desk", "seq": 3
    }  # fmt: skip
    other = record | {"what": "retract", "who": "ben", "seq": 4}
    life = {
        "id": "e", "source": "s", "topic": "in", "partition": 0, "line": 1, "key_id": None,
        "verdict": "quarantine", "action": "hold", "policy_version": 1, "state": None,
        "software": None, "audit": None, "incident": None, "decision": {},
        "reviews": [review, review | {"status": "confirmed"}], "actions": [record, other],
    }  # fmt: skip
    out = io.StringIO()
    audit._print_life(Console(file=out, width=80), life)
    assert out.getvalue().splitlines()[-3:] == [
        "review     released by ana: A retry (record 3 of desk)",
        "review     confirmed by ana: A retry",
        "done       retract by ben: A retry (record 4 of desk)",
    ]


def test_a_time_that_no_calendar_has_is_shown() -> None:
    found = [{"name": "m", "ts": ts, "offsets": {"0": 1}} for ts in (1e300, -1e300, 1.7e9)]
    told = shown(blast_view.checkpoint_table(found))
    assert "-1e+300 s" in told
    assert "2023-11-1" in told


@pytest.mark.parametrize(
    "asked",
    [
        ["blast", "--source", "a", "--since", "nan", "--retract", "--reason", "x", "--yes"],
        ["blast", "--source", "a", "--until", "inf"],
        ["report", "--from", "nan"],
        ["audit", "export", ".", "--from", "nan", "--to", "9"],
        ["checkpoint", "add", "m", "0-1", "--at", "1e999"],
        ["keys", "revoke", "k", "--after", "inf", "--why", "x", "--yes"],
    ],
)
def test_a_time_that_is_no_number_is_refused(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON has no NaN: it would be sent as null, and bound nothing."""
    assert execute(asked) == 2
    assert "must be Unix seconds" in capsys.readouterr().err


def test_an_export_of_no_time_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "export.jsonl"
    asked = ["audit", "export", str(tmp_path), "--from", "2026-05-02", "--to", "2026-05-01"]
    assert execute([*asked, "--out", str(out)]) == 2
    assert "--from must be before --to" in capsys.readouterr().err
    assert not out.exists()


def test_the_help_of_an_export_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Markdown made a list's bullet of a leading dash."""
    monkeypatch.setenv("COLUMNS", "200")
    execute(["audit", "export", "--help"])
    assert "By default standard output" in capsys.readouterr().out


def test_one_thing_is_not_many_and_times_are_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        one = incident() | {"events": 1, "quarantined": 1, "flagged": 0, "influence": 1.2}
        out = io.StringIO()
        console = Console(file=out, width=80)
        incidents.print_incident(console, one)
        console.print(incidents.incident_table([one], 1))
        models = [{"name": "m", "ts": 1.7e9, "offsets": {"0": 1}}]
        console.print(blast_view.checkpoint_table(models))
    finally:
        monkeypatch.undo()
        time.tzset()
    told = out.getvalue()
    assert told.count("2023-11-14 22:13:20Z") == 3  # twice of the incident, once of the model
    for said in ("1 event: 1 quarantined", "worth 1 ordinary event to", "1 incident "):
        assert said in told
    assert "1 checkpoint " in told and "1 events" not in told and "1 incidents" not in told


@pytest.mark.parametrize("line", ['{"a":1}', "x{", "[]", "7"])
@pytest.mark.parametrize("name", ["retractions.jsonl", "incidents.jsonl"])
def test_the_blast_radius_of_a_damaged_folder(
    name: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "accepted.jsonl").write_bytes(b"")
    (tmp_path / name).write_text(f"{line}\n", "utf-8")
    whose = ["--incident", "i-1"] if name.startswith("i") else ["--source", "a"]
    assert execute(["blast", "--dir", str(tmp_path), *whose]) == 1
    assert f"{name}: line 1 is not such a record" in capsys.readouterr().err
