"""An attack on a real stream becomes an incident, a blast radius and a report; on files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadtest.streams import SHARED
from monitor.cli.app import execute
from tests.acceptance.story import Attacked, asking, named, taught, written

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the real streams are not here")


@pytest.mark.parametrize("stream", ["electricity", "movielens"])
def test_on_files(stream: str, tmp_path: Path, capsys: Any) -> None:
    attacked = Attacked.of(stream, 12_000, 0.5)
    source, out = tmp_path / "feedback.jsonl", tmp_path / "out"
    source.write_bytes(b"\n".join(attacked.lines) + b"\n")
    # In mode alert everything passes, so that there is something to look for afterwards.
    arguments = ["replay", str(source), "--out", str(out), "--mode", "alert", "--no-report"]
    assert execute(arguments) == 0
    lines = (out / "incidents.jsonl").read_text("utf-8").splitlines()
    incident = named(attacked, [json.loads(line) for line in lines])
    ask = asking(capsys, ["--dir", str(out)])
    taught(attacked, ask("blast", "--incident", incident["id"]))
    page = tmp_path / "incident.html"
    where = ["--dir", str(out), "--out", str(page)]
    assert execute(["report", "--incident", incident["id"], *where]) == 0
    written(page, incident)
    assert execute(["audit", "verify", str(out)]) == 0
