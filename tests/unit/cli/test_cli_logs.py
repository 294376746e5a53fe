"""Logs for programs: every line one object, with the batch it is about and nothing secret."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from monitor.admin.people import Role
from monitor.admin.tokens import TokenFile

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "hunter2-and-more"
REQUIRED = {"timestamp", "level", "logger", "event"}
BATCH = re.compile(r"\d+:\d+-\d+(,\d+:\d+-\d+)*")


def lines_of(text: str) -> list[dict]:
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        assert isinstance(line, dict) and line.keys() >= REQUIRED, line
        assert line["level"] in ("debug", "info", "warning", "error")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line["timestamp"])
    return found


def write_events(path: Path) -> None:
    """Ordinary events, one that repeats itself a lot, and some that are none."""
    with path.open("w") as file:
        for i in range(1500):
            features = [31.25 + i % 17, 4711.5 + i % 13]
            event = {"id": f"secret-id-{i}", "ts": 1.7e9 + i, "source": f"acct-{i % 40}"}
            event |= {"label": "refund" if i % 3 else "chargeback", "features": features}
            if i > 1200 and i % 4 == 0:
                event |= {"source": "ring-1", "label": "refund", "features": [90125.75, -5150.5]}
            file.write(json.dumps(event) + "\n")
            if i % 500 == 0:
                file.write('{"id": "broken-9", "features": "5150.25"}\n')


def service(folder: Path, *options: str, **environ: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "monitor", "run", "--from", str(folder / "in.jsonl")]
    command += ["--to", str(folder / "accepted.jsonl"), "--out", str(folder / "out"), *options]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environ}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ask(url: str, token: str) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_every_line_is_an_object_and_holds_nothing_of_events_or_secrets(tmp_path) -> None:
    write_events(tmp_path / "in.jsonl")
    tokens = TokenFile(tmp_path / "tokens.json")
    token = tokens.create("ana", Role.OPERATOR)
    running = service(
        tmp_path, "--debug", "--http-port", "0",
        MONITOR_HTTP__TOKENS_FILE=str(tmp_path / "tokens.json"),
        MONITOR_BATCH__MAX_EVENTS="256",
        MONITOR_KAFKA__SECURITY__PROTOCOL="SASL_SSL",
        MONITOR_KAFKA__SECURITY__MECHANISM="PLAIN",
        MONITOR_KAFKA__SECURITY__USERNAME="me",
        MONITOR_KAFKA__SECURITY__PASSWORD=PASSWORD,
    )  # fmt: skip
    seen = []
    try:
        deadline = time.monotonic() + 60
        for line in running.stderr:
            seen.append(line)
            url = json.loads(line).get("http")
            if url is not None:
                assert ask(f"{url}/v1/policy", token) == 200
                assert ask(f"{url}/v1/policy", "mon_" + "wrong" * 8) == 401
            if '"batch committed"' in line and '"1:' not in line and ":1280-" in line:
                break
            assert time.monotonic() < deadline, seen
        running.terminate()
        rest, error = running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 0 and rest == ""
    text = "".join(seen) + error
    lines = lines_of(text)
    committed = [line for line in lines if line["event"] == "batch committed"]
    assert sum(line["events"] for line in committed) == 1503
    assert all(BATCH.fullmatch(line["batch"]) for line in committed)
    assert committed[0]["batch"] == "0:0-255" and committed[0].keys() >= {"seconds", "quarantine"}
    assert sum(line["invalid"] for line in committed) == 3
    assert "starting" in {line["event"] for line in lines if "batch" not in line}
    shown = ("90125", "5150", "4711.", "secret-id", "broken-9", "acct-", "ring-1", "refund")
    for hidden in (*shown, PASSWORD, token, "wrongwrong"):
        assert hidden not in text, hidden


def test_the_end_by_an_error_is_a_line_too(tmp_path) -> None:
    running = service(tmp_path, "--no-follow", "--no-http", "--debug")
    _, error = running.communicate(timeout=60)
    assert running.returncode == 2
    last = lines_of(error)[-1]
    assert last["level"] == "error" and last["exit_code"] == 2
    assert str(tmp_path / "in.jsonl") in last["event"] and "Traceback" in last["exception"]


def test_threads_and_warnings_are_lines_and_what_happens_in_a_batch_names_it() -> None:
    code = """
import logging, threading, warnings
from monitor.cli import logs
from monitor.config.sections import LogSettings
from monitor.core.errors import TransportError
from monitor.core.types import RawBatch
from monitor.transport.kafka_worker import Worker
logs.setup(LogSettings())
warnings.warn("odd")
thread = threading.Thread(target=lambda: 1 / 0, name="t1")
thread.start(); thread.join()
worker = Worker("w")
with logs.BatchLog().batch([RawBatch.of([b"{}"] * 2, start=5, partition=3)], 0.0, 0.0):
    worker.call("x", 10, lambda: logging.getLogger("monitor.transport").warning("in %s", "there"))
worker.call("x", 10, lambda: logging.getLogger("monitor.transport").warning("outside"))
try:
    with logs.BatchLog().batch([RawBatch.of([b"{}"], start=9)], 0.0, 0.0):
        raise TransportError("no room")
except TransportError:
    pass
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    warned, failed, inside, outside, refused = lines_of(ran.stderr)
    assert "odd" in warned["event"] and warned["logger"] == "py.warnings"
    assert failed["thread"] == "t1" and "ZeroDivisionError" in failed["exception"]
    assert (inside["event"], inside["batch"]) == ("in there", "3:5-6")
    assert "batch" not in outside
    assert (refused["batch"], refused["error"]) == ("0:9-9", "no room")
