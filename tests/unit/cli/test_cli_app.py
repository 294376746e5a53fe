from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from monitor.cli.app import execute
from monitor.runtime.inject import IN_PLACE

OUTPUTS = ("accepted.jsonl", "quarantined.jsonl", "invalid.jsonl")


def event(i: int, **changes: object) -> bytes:
    value = {
        "id": f"e{i}",
        "ts": 1.7e9 + i,
        "source": f"s{i % 11}",
        "label": "a" if (i * 7919) % 10 < 5 else "b",
        "features": {"x": (i * 7919 % 100) / 10, "y": (i * 104729 % 53) / 7},
    }
    return json.dumps(value | changes).encode()


def stream(n: int) -> list[bytes]:
    lines = [event(i) for i in range(n)]
    lines[n // 2] = b"not json \xff"
    lines[n // 3] = b""
    return lines


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def start(
    *arguments: object, environ: dict[str, str] | None = None, **options: object
) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, "-m", "monitor", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": root} | (environ or {}),
        **options,
    )


def put_together(out: Path) -> list[bytes]:
    """Lines of all outputs, put back in order by the decisions."""
    files = {name: (out / name).read_bytes().split(b"\n")[:-1] for name in OUTPUTS}
    places = {"pass": "accepted.jsonl", "hold": "quarantined.jsonl", "reject": "invalid.jsonl"}
    decisions = [json.loads(line) for line in (out / "decisions.jsonl").open()]
    assert [d["line"] for d in decisions] == list(range(1, len(decisions) + 1))
    back = [files[places[d["action"]]].pop(0) for d in decisions]
    assert not any(files.values())
    return back


def test_replay_writes_every_line_to_one_place(tmp_path, capsys):
    lines = stream(1500)
    source, out = write(tmp_path / "in.jsonl", lines), tmp_path / "out"
    assert execute(["replay", str(source), "--out", str(out)]) == 0
    assert put_together(out) == lines
    names = {path.name for path in out.iterdir()}
    assert {*OUTPUTS, "decisions.jsonl", "incidents.jsonl", "summary.json", "report.html"} <= names
    summary = json.loads((out / "summary.json").read_text())
    assert summary["events"] == 1500
    assert sum(summary["verdicts"].values()) == 1500
    assert summary["reject_codes"] == {"not_json": 1, "not_utf8": 1}
    assert summary["policy"]["mode"] == "enforce" and summary["events_per_second"] > 0
    assert "1,500 events" in capsys.readouterr().out


def test_replay_with_json_prints_only_json(tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", stream(600))
    arguments = ["replay", str(source), "--out", str(tmp_path / "o"), "--json", "--no-report"]
    assert execute([*arguments, "--mode", "shadow", "--flag-at", "0.05"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["policy"]["mode"] == "shadow" and summary["policy"]["flag_at"] == 0.05
    assert summary["actions"].get("hold", 0) == 0
    assert not (tmp_path / "o" / "report.html").exists()


def test_a_table_that_names_no_source_is_warned_of(tmp_path, capsys):
    rows = "".join(f"{i % 7},{'ab'[i % 2]},u{i % 5}\n" for i in range(60))
    table, other = tmp_path / "card[1].csv", tmp_path / "day.csv"
    table.write_text(f"x,label,user\n{rows}")
    other.write_text(f"x,label,source\n{rows}")
    lines = write(tmp_path / "in.jsonl", stream(60))

    def warned(*arguments: object) -> list[str]:
        out = ["--out", str(tmp_path / "o"), "--overwrite", "--no-report", "--json"]
        assert execute(["replay", *map(str, arguments), *out]) == 0
        shown = capsys.readouterr()
        assert json.loads(shown.out)["events"]
        return [line for line in shown.err.splitlines() if line.startswith("warning: ")]

    (told,) = warned(table, other, lines)
    assert f"{table}: no column is called source" in told
    assert "--source-from COLUMN" in told and str(other) not in told
    assert warned(table, "--source-from", "user") == warned(other) == warned(lines) == []


def test_a_finished_folder_is_replaced_only_on_request(tmp_path, capsys):
    source, out = write(tmp_path / "in.jsonl", stream(600)), tmp_path / "out"
    command = ["replay", str(source), "--out", str(out), "--no-report"]
    assert execute(command) == 0
    first = (out / "decisions.jsonl").read_bytes()
    assert execute(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert execute([*command, "--overwrite"]) == 0
    assert (out / "decisions.jsonl").read_bytes() == first


def test_a_lost_report_is_written_without_judging_again(tmp_path):
    source, out = write(tmp_path / "in.jsonl", stream(600)), tmp_path / "out"
    assert execute(["replay", str(source), "--out", str(out), "--no-report"]) == 0
    (out / "summary.json").unlink()
    assert execute(["replay", str(source), "--out", str(out)]) == 0
    assert (out / "report.html").exists()
    assert json.loads((out / "summary.json").read_text())["events"] == 600


def test_a_replay_that_was_killed_goes_on(tmp_path):
    lines = stream(3000)
    source, out = write(tmp_path / "in.jsonl", lines), tmp_path / "out"
    whole = tmp_path / "whole"
    arguments = ["replay", str(source), "--no-report", "--batch-events", "64", "--out"]
    assert execute([*arguments, str(whole)]) == 0
    running = start(*arguments, out)
    deadline = time.monotonic() + 60
    decisions = out / "decisions.jsonl"
    while running.poll() is None and time.monotonic() < deadline:
        if decisions.exists() and decisions.stat().st_size > 100_000:
            running.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    running.wait(30)
    assert execute([*arguments, str(out)]) == 0
    assert put_together(out) == lines
    assert decisions.read_bytes() == (whole / "decisions.jsonl").read_bytes()
    assert json.loads((out / "summary.json").read_text())["events"] == 3000


def test_an_interrupted_replay_says_how_to_go_on(tmp_path):
    rows = [event(i) for i in range(40_000)]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out"
    running = start("replay", source, "--out", out, "--no-report", "--batch-events", "64")
    while running.poll() is None and not (out / "decisions.jsonl").exists():
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"the same command goes on from there" in err and b"Traceback" not in err


def test_standard_input_cannot_be_resumed(tmp_path):
    first = start("replay", "-", "--out", tmp_path / "o", "--no-report")
    first.communicate(b"".join(line + b"\n" for line in stream(600)), timeout=60)
    assert first.returncode == 0
    assert put_together(tmp_path / "o") == stream(600)
    second = start("replay", "-", "--out", tmp_path / "o")
    _, err = second.communicate(b"{}\n", timeout=60)
    assert second.returncode == 2 and b"--overwrite" in err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["replay", "no.jsonl", "--out", "o"], ["no.jsonl: no such file"]),
        (["replay", "river:Nope", "--out", "o"], ["river:Phishing"]),
        (["replay", "in.jsonl"], ["--out"]),
        (["replay", "in.jsonl", "--out", "in.jsonl"], ["in.jsonl: is a file"]),
        (["replay", "in.jsonl", "--out", "in.jsonl/o"], ["in.jsonl: is a file"]),
        (["replay", "in.jsonl", "--out", "o", "--config", "times.yaml"], ["times.yaml: limits"]),
        (["run", "--from", "in.jsonl", "--to", ".", "--no-http"], ["--to: . is a folder"]),
        (["run", "--from", ".", "--no-http"], ["--from: . is a folder"]),
        (["run", "--from", "-", "--out", "in.jsonl/o", "--no-http"], ["in.jsonl: is a file"]),
        (["replay", "in.jsonl", "--out", "o", "--flag-at", "2"], ["flag_at", "less than 1"]),
        (["replay", "in.jsonl", "--out", "o", "--mode", "odd"], ["odd", "shadow"]),
        (["replay", "in.jsonl", "--out", "o", "--config", "no.yaml"], ["no.yaml"]),
        (["replay", "in.jsonl", "--out", "o", "--config", "bad.yaml"], ["bad.yaml: http.port"]),
        (["replay", "in.jsonl", "--out", "o", "--batch-events", "0"], ["batch.max_events"]),
        (["replay", "-", "in.jsonl", "--out", "o"], ["standard input"]),
        (["replay", "in.jsonl", "--out", "-"], ["--out takes a folder"]),
        (["run", "--transport", "kafka", "--from", "-"], ["--transport local"]),
        (["run", "--from", "x", "--to", "x", "--no-http"], ["both input and output"]),
        (["demo", "--events", "10", "--port", "0"], ["at least 3,000"]),
        (["demo", "--attack", "nope", "--port", "0"], ["nope", "backdoor"]),
        (["demo", "--port", "99999"], ["http.port", "65535"]),
        (["nonsense"], ["nonsense", "--help"]),
        (["replai"], ["Did you mean 'replay'? See --help."]),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, parts):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.jsonl", stream(10))
    (tmp_path / "bad.yaml").write_text("http: {port: high}")
    (tmp_path / "times.yaml").write_text("limits: {max_ts_seconds: 1e20}")
    assert execute(arguments) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert err[-1].startswith("error: ") and "Traceback" not in "\n".join(err)
    for part in parts:
        assert part in err[-1]


def test_no_command_shows_the_help_and_no_error(capsys):
    assert execute([]) == 2
    shown = capsys.readouterr()
    assert "Commands" in shown.out and shown.err == ""


def test_debug_shows_the_traceback(tmp_path, capsys):
    assert execute(["replay", "absent", "--out", str(tmp_path / "o"), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_version_and_help(capsys):
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out.startswith("poisoning-monitor ")
    for command in ([], ["demo"], ["inject"], ["replay"], ["run"]):
        assert execute([*command, "--help"]) == 0
        assert "Usage" in capsys.readouterr().out


def test_the_help_names_every_attack(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert execute(["demo", "--help"]) == 0
    shown = capsys.readouterr().out
    for name in IN_PLACE:
        assert name in shown


def test_run_between_pipes_prints_accepted_events_only(tmp_path):
    lines = stream(900)
    running = start("run", "--from", "-", "--to", "-", "--http-port", 0, cwd=tmp_path)
    out, err = running.communicate(b"".join(line + b"\n" for line in lines), timeout=60)
    assert running.returncode == 0, err
    held = (tmp_path / "monitor-out" / "quarantined.jsonl").read_bytes().splitlines()
    passed = out.split(b"\n")[:-1]
    assert passed == [line for line in lines if line in set(passed)]
    assert len(passed) + len(held) + 2 == 900
    logs = [json.loads(line) for line in err.splitlines()]
    assert logs[-1]["event"] == "stopped" and logs[-1]["events"] == 900


def ready(process: subprocess.Popen[bytes], url: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1):
                return
        except OSError:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
    raise AssertionError("never became ready")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_run_follows_a_file_serves_http_and_stops_gracefully(tmp_path):
    source, target = write(tmp_path / "in.jsonl", stream(700)), tmp_path / "accepted.jsonl"
    port = free_port()
    environ = {"MONITOR_HTTP__PORT": str(port), "MONITOR_LOG__FORMAT": "text"}
    running = start("run", "--from", source, "--to", target, cwd=tmp_path, environ=environ)
    url = f"http://127.0.0.1:{port}"
    try:
        ready(running, url)
        with source.open("ab") as file:
            file.write(b"".join(event(i) + b"\n" for i in range(700, 900)))
        for _ in range(200):
            with urllib.request.urlopen(f"{url}/v1/status") as answer:
                if json.load(answer)["events"] == 900:
                    break
            time.sleep(0.05)
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            assert b"poisoning_monitor_events_total" in answer.read()
        check = urllib.request.Request(f"{url}/v1/check", event(1), method="POST")
        check.add_header("content-type", "application/json")
        with urllib.request.urlopen(check) as answer:
            assert json.load(answer)["id"] == "e1"
        busy = start("run", "--from", "-", "--to", "-", "--http-port", port, cwd=tmp_path / "..")
        _, err = busy.communicate(b"", timeout=60)
        assert busy.returncode == 2 and b"--http-port" in err and b"Traceback" not in err
    finally:
        running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 0 and b"Traceback" not in err
    assert target.read_bytes().count(b"\n") > 800


def test_demo_says_what_was_caught_and_leaves_its_folder_only(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["demo", "--events", "4000", "--rate", "0", "--port", "0", "--no-live"]
    assert execute([*arguments, "--attack", "flip"]) == 0
    shown = capsys.readouterr().out
    assert "attack flip" in shown and "honest events" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["demo-data"]
    summary = json.loads((tmp_path / "demo-data" / "summary.json").read_text())
    (attack,) = summary["ground_truth"]["attacks"]
    honest = summary["ground_truth"]["honest"]
    assert attack["events"] == 150 and attack["events"] + honest["events"] == 4000
    assert attack["quarantined_share"] > 10 * honest["quarantined_share"]
    assert (tmp_path / "demo-data" / "report.html").exists()
    assert execute([*arguments, "--duration", "1"]) == 0  # twice in a row


def test_demo_does_not_touch_a_folder_that_is_not_its_own(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("precious")
    assert execute(["demo", "--out", str(tmp_path), "--port", "0"]) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_demo_does_not_replace_the_results_of_a_replay(tmp_path, capsys):
    source, out = write(tmp_path / "in.jsonl", stream(50)), tmp_path / "out"
    assert execute(["replay", str(source), "--out", str(out)]) == 0
    before = (out / "decisions.jsonl").read_bytes()
    assert execute(["demo", "--out", str(out), "--port", "0"]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert (out / "decisions.jsonl").read_bytes() == before


def test_demo_names_the_option_when_the_port_is_taken(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert execute(["demo", "--port", str(port), "--out", str(tmp_path / "d")]) == 2
    assert "--port" in capsys.readouterr().err
