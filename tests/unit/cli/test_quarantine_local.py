"""Quarantine of the service on files, put together as ``run`` does it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from monitor.cli import wiring, wiring_desk
from monitor.config.settings import load_settings
from monitor.core.desk import HeldFilter, ReviewStatus
from monitor.core.errors import MonitorError, UsageError
from tests.checks.desk_service import running
from tests.unit.cli.test_cli_app import event

ROOT = Path(__file__).parents[3]
WHO = {"who": "ann", "why": "looked at it"}


def wait(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(MonitorError, OSError):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def holding(tmp_path, **more):
    """Settings under which everything is held back, because the gate is still learning."""
    return load_settings(
        environ={},
        options={
            "transport": "local",
            "local.from": str(tmp_path / "in.jsonl"),
            "local.to": str(tmp_path / "accepted.jsonl"),
            "local.out_dir": str(tmp_path / "out"),
            "gate.warmup": "hold",
            "gate.warmup_events": 400,
            "http.enabled": False,
            **more,
        },
    )


def test_held_released_confirmed_and_found_again_after_a_restart(tmp_path):
    lines = [event(i) for i in range(60)]
    (tmp_path / "in.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    settings = holding(tmp_path)
    with running(settings) as desk:
        wait(lambda: desk.search(HeldFilter()).total == 60)
        held = desk.get("0-7")
        assert (held.value, held.event_id, held.source) == (lines[7], "e7", "s7")
        assert held.detectors == ("warmup",)
        assert desk.release(HeldFilter(source="s7"), **WHO).done == (
            *("0-7", "0-18", "0-29", "0-40", "0-51"),
        )
        assert len(desk.confirm(HeldFilter(source="s8"), **WHO).done) == 5
        seen = desk.observed()
        assert (seen.promised, seen.judged, seen.held) == (0.001, 60, 60)
        assert (seen.released, seen.confirmed, seen.estimated) == (5, 5, 0.5)
    released = b"".join(lines[i] + b"\n" for i in (7, 18, 29, 40, 51))
    assert (tmp_path / "accepted.jsonl").read_bytes() == released
    for name in (".monitor/quarantine.db", "nothing"):  # also when the store is gone
        (tmp_path / "out" / name).unlink(missing_ok=True)
        with running(settings) as desk:
            wait(lambda desk=desk: desk.search(HeldFilter()).total == 60)
            wait(lambda desk=desk: desk.observed().judged == 60)
            assert desk.counts(HeldFilter())["status"] == {
                "open": 50,
                "released": 5,
                "confirmed": 5,
            }
            assert desk.release(HeldFilter(source="s7"), **WHO).done == ()
            assert [e.what for e in desk.audit()] == ["confirm", "release"]
    assert (tmp_path / "accepted.jsonl").read_bytes() == released


SCRIPT = """
import sys
from pathlib import Path
from monitor.core.desk import HeldFilter, ReviewStatus
from tests.unit.cli.test_quarantine_local import WHO, holding
from tests.checks.desk_service import running
folder = Path(sys.argv[1])
with running(holding(folder)) as desk:
    print("ready", flush=True)
    while True:
        open_ = desk.search(HeldFilter(status=ReviewStatus.OPEN), 5).items
        if desk.search(HeldFilter(status=ReviewStatus.RELEASED), 1).total == 300:
            break
        if open_:
            desk.release(HeldFilter(keys=tuple(h.key for h in open_)), **WHO)
            print("released", flush=True)
"""


def test_a_killed_service_releases_each_line_once(tmp_path):
    lines = [event(i) for i in range(300)]
    (tmp_path / "in.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    for turn in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )
        assert process.stdout.readline() == b"ready\n"
        if turn < 3:
            for _ in range(3 + turn):
                process.stdout.readline()
            time.sleep(0.003 * turn)
            process.send_signal(signal.SIGKILL)
        process.stdout.read()
        process.stdout.close()
        assert process.wait(120) == (-signal.SIGKILL if turn < 3 else 0)
    accepted = (tmp_path / "accepted.jsonl").read_bytes().split(b"\n")[:-1]
    assert Counter(accepted) == dict.fromkeys(lines, 1)


def test_a_store_that_does_not_work_holds_nobody_up(tmp_path):
    lines = [event(i) for i in range(60)]
    (tmp_path / "in.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    (tmp_path / "file").write_bytes(b"")
    settings = holding(tmp_path, **{"quarantine.url": f"sqlite:///{tmp_path}/file/q.db"})
    with running(settings) as desk:
        out = tmp_path / "out"
        wait(lambda: (out / "quarantined.jsonl").read_bytes().count(b"\n") == 60)
        with pytest.raises(MonitorError):
            desk.search(HeldFilter(status=ReviewStatus.OPEN))


def test_settings_that_cannot_be_used(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b"")
    for url in ("mysql://h/d", "nonsense"):
        settings = holding(tmp_path, **{"quarantine.url": url})
        with pytest.raises(UsageError, match=r"quarantine\.url"):
            wiring_desk.make_quarantine(settings, wiring.run_transport(settings), lambda: None)
    settings = holding(tmp_path, **{"quarantine.enabled": False})
    assert (
        wiring_desk.make_quarantine(settings, wiring.run_transport(settings), lambda: None) is None
    )
