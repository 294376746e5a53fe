"""From an attack that got through to its retraction, on files: service, terminal and folder."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.cli import wiring, wiring_desk
from monitor.cli.app import execute
from monitor.config.settings import Settings, load_settings
from monitor.core.blast import Asked
from monitor.core.errors import MonitorError
from monitor.runtime.inject import Attacked, Stream, honest_sources, inject

N = 6_000


def attacked() -> Attacked:
    """Two classes of four features; from a third on a ring puts a trigger into its events."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, N)
    x = np.round(rng.normal(size=(N, 4)) + 2.5 * y[:, None] * [1.0, 0.5, 0.0, 0.0], 4)
    ts = 1.7e9 + np.arange(N, dtype=np.float64)
    stream = Stream("made", tuple("abcd"), x, y, ("no", "yes"), honest_sources(N), ts)
    return inject(stream, "backdoor", rate=0.05)


def settings_of(folder: Path, to: str = "accepted.jsonl") -> Settings:
    options: dict[str, Any] = {
        "transport": "local",
        "local.from": str(folder / "in.jsonl"),
        "local.to": str(folder / to),
        "local.out_dir": str(folder),
        "local.fsync": "never",
        "policy": {"mode": "shadow"},  # everything passes
        "http.port": 0,
    }
    return load_settings(environ={}, options=options)


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[tuple[str, wiring_desk.Manned]]:
    status = wiring.make_status()
    metrics = wiring.make_metrics(settings, status, live=False)
    transport = wiring.run_transport(settings)
    gate = wiring.make_gate(settings, local=True, meter=metrics.meter)
    manned = wiring_desk.make_manned(settings, gate, transport, status=status, metrics=metrics)
    http = wiring.make_server(settings, option="--port")
    stop = threading.Event()
    thread = threading.Thread(target=manned.service.run, args=(stop,))
    try:
        given = (settings, manned.service, status, metrics, manned.desk)
        http.start(wiring.make_app(*given, incidents=manned.incidents))
        thread.start()
        yield http.url, manned
    finally:
        stop.set()
        thread.join(60)
        manned.close()
        http.stop()


def indexed(manned: wiring_desk.Manned) -> int:
    assert manned.blast is not None
    with contextlib.suppress(MonitorError):
        manned.blast._sync()
        return manned.blast.size().events
    return 0


def wait(until: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def retracted(folder: Path) -> Counter[str]:
    lines = (folder / "retractions.jsonl").read_bytes().splitlines()
    return Counter(json.loads(line)["id"] for line in lines)


def announce(where: int, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One model from before the event at ``where``, and one from behind it."""
    for name, at in (("good", where), ("spoilt", where + 1)):
        assert execute(["checkpoint", "add", name, f"0-{at}", "--url", url]) == 0
    assert execute(["checkpoint", "add", "good", f"0-{where}", "--url", url]) == 0
    assert "known already" in capsys.readouterr().out
    assert execute(["checkpoint", "add", "spoilt", "0-1", "--url", url]) == 1
    assert f"offsets 0-{where + 1}" in " ".join(capsys.readouterr().err.split())
    assert execute(["checkpoint", "add", "far", "0-9999999999", "--url", url]) == 2
    assert f"accepted.jsonl ends at {N}" in " ".join(capsys.readouterr().err.split())


def test_an_incident_is_found_among_the_accepted_and_retracted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = attacked()
    lines = made.stream.lines()
    (tmp_path / "in.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    poison = {json.loads(line)["id"] for line, bad in zip(lines, made.poison, strict=True) if bad}
    settings = settings_of(tmp_path)
    words = ["--retract", "--reason", "the ring", "--yes"]
    with running(settings) as (url, manned):
        wait(lambda: indexed(manned) == N)
        worst = max(manned.incidents.snapshot().incidents, key=lambda one: one["events"])
        asked = ["blast", "--url", url, "--incident", worst["id"]]
        assert execute([*asked, "--json", "--shown", "1000"]) == 0
        found = json.loads(capsys.readouterr().out)
        meant = {one["id"] for one in found["items"]}
        assert found["matched_by"]["incident_pattern"] >= 0.8 * len(poison)
        assert len(meant & poison) >= 0.8 * len(poison)
        assert len(meant & poison) >= 0.8 * len(meant)
        where = found["first"]["accepted"]["offset"]
        # It was let through as it stands in the input; so says the decision beside it.
        assert found["first"]["input"] == {"partition": 0, "offset": where}
        announce(where, url, capsys)
        assert execute([*asked, *words]) == 0
        out = capsys.readouterr().out
        assert f"retracted {found['events']} events" in out
    assert set(retracted(tmp_path)) >= meant and set(retracted(tmp_path).values()) == {1}
    before = retracted(tmp_path)
    for name in tmp_path.glob(".monitor/accepted.db*"):  # it comes back from the files
        name.unlink()
    with running(settings) as (url, manned):
        wait(lambda: indexed(manned) == N)
        assert execute(["blast", "--url", url, "--incident", worst["id"], *words]) == 0
        assert "retracted 0 events" in capsys.readouterr().out
        (entry,) = [e for e in manned.desk.log.audit() if e.what == "retract"]
        assert (entry.why, entry.details["meant"]) == ("the ring", found["events"])
        # Whoever asks to be forgotten is forgotten here as well.
        gone = Asked(sources=("acct-0001",))
        assert manned.blast is not None and manned.quarantine is not None
        n = manned.blast.blast(gone)["events"]
        assert manned.quarantine.erase("acct-0001", who="ann", why="request 4711") == n > 0
        assert manned.blast.blast(gone)["events"] == 0 and indexed(manned) == N - n
    assert retracted(tmp_path) == before
    # The folder by itself tells the same.
    source = found["first"]["source"]
    assert execute(["blast", "--dir", str(tmp_path), "--source", source, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    of_source = [line for line in lines if json.loads(line)["source"] == source]
    assert alone["events"] == len(of_source) and alone["retracted"] > 0
    assert alone["checkpoints"]["last_clean"]["name"] == "good"
    assert [one["name"] for one in alone["checkpoints"]["tainted"]] == ["spoilt"]
    assert execute(["blast", "--dir", str(tmp_path), "--source", source]) == 0
    assert "last clean checkpoint: good" in capsys.readouterr().out
    assert execute(["blast", "--dir", str(tmp_path / "no"), "--source", source]) == 2


def test_a_services_folder_is_read_though_its_accepted_lines_went_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = attacked()
    lines = made.stream.lines()[: N // 2]
    out = tmp_path / "out"
    (tmp_path / "learner").mkdir()
    settings = settings_of(tmp_path, "learner/accepted.jsonl")
    local = settings.local.model_copy(update={"out_dir": str(out)})
    settings = settings.model_copy(update={"local": local})
    (tmp_path / "in.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    with running(settings) as (url, manned):
        wait(lambda: indexed(manned) == len(lines))
        worst = max(manned.incidents.snapshot().incidents, key=lambda one: one["events"])
        source = worst["sources"]["top"][0]["source"]
        some = ["--source", source]
        assert execute(["checkpoint", "add", "early", "0-0", "--url", url]) == 0
        assert execute(["blast", "--url", url, *some, "--retract", "--reason", "r", "--yes"]) == 0
        capsys.readouterr()
        # Beside the running service, too.
        assert execute(["blast", "--dir", str(out), *some, "--json"]) == 0
        beside = json.loads(capsys.readouterr().out)
    assert execute(["blast", "--dir", str(out), *some, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    sent = sum(json.loads(line)["source"] == source for line in lines)
    assert found["events"] == found["retracted"] == beside["events"] == sent
    assert found["index"]["events"] == len(lines) and found["index"]["behind"] == 0
    assert found["checkpoints"]["last_clean"]["name"] == "early"
    assert execute(["blast", "--dir", str(out), "--incident", worst["id"]]) == 0
    assert "accepted events match" in capsys.readouterr().out
    assert execute(["blast", "--dir", str(out), "--incident", "i-none"]) != 0
    capsys.readouterr()
    # Where the learner reads there is no journal: nothing must look like "none was accepted".
    assert execute(["blast", "--dir", str(tmp_path / "learner"), *some]) == 2
    assert "`run --out`" in " ".join(capsys.readouterr().err.split())
