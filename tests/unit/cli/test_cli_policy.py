"""The whole policy document from a file, and what a restart makes of a stored policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from monitor.cli.app import execute
from monitor.transport.local_ledger import LocalLedger
from tests.unit.cli.test_cli_app import event, write

DOCUMENT = {
    "flag_at": 0.02,
    "detectors": {"novelty": {"mode": "alert"}},
    "overrides": [{"id": "calm", "scope": "label", "match": "b", "mode": "alert"}],
    "deny": [{"source": "s3", "why": "stolen"}],
    "learning_speed": 0.5,
}


def test_a_replay_takes_the_whole_document(tmp_path: Path) -> None:
    recorded = write(tmp_path / "in.jsonl", [event(i) for i in range(700)])
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump(DOCUMENT))
    out = tmp_path / "out"
    arguments = ["replay", str(recorded), "--out", str(out), "--policy", str(policy), "--no-report"]
    assert execute(arguments) == 0
    told = [json.loads(line) for line in (out / "decisions.jsonl").open()]
    denied = [record for record in told if record["source"] == "s3"]
    assert denied and {record["verdict"] for record in denied} == {"quarantine"}
    assert {(r["label"], r["action"]) for r in denied if not r.get("warmup")} >= {
        ("a", "hold"),
        ("b", "pass"),
    }
    summary = json.loads((out / "summary.json").read_text())
    assert summary["policy"]["deny"] == [{"source": "s3", "expires_at": None, "why": "stolen"}]
    assert not (out / ".monitor" / "control.jsonl").exists()  # nothing changes in a replay


def test_a_bad_document_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("detectors: {noveltie: {mode: alert}}")
    arguments = ["replay", "x.jsonl", "--out", str(tmp_path / "out"), "--policy", str(policy)]
    assert execute(arguments) == 2
    assert "did you mean 'novelty'" in " ".join(capsys.readouterr().err.split())


def test_a_run_stores_its_policy_beside_the_journal(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [event(i) for i in range(50)])
    out = tmp_path / "out"
    accepted = tmp_path / "new" / "folder" / "to.jsonl"  # made, as that of --out is
    paths = ["--from", str(source), "--to", str(accepted), "--out", str(out)]
    assert execute(["run", *paths, "--no-follow", "--no-http", "--mode", "shadow"]) == 0
    assert accepted.read_bytes() == source.read_bytes()
    ledger = LocalLedger(out / ".monitor" / "control.jsonl")
    rows = ledger.catch_up()
    ledger.close()
    assert [key.split(b"/")[0] for key, _ in rows] == [b"policy", b"applied"]
    first = json.loads(rows[0][1] or b"")
    assert (first["kind"], first["policy"]["mode"]) == ("start", "shadow")
