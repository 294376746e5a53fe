"""The whole program under faults of its machine: a full disk, a read-only one, a wrong clock."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from monitor.core.errors import DetectorError, StateError, TransportError, UsageError
from monitor.core.types import RawBatch, Verdict
from monitor.gate import Gate, GateConfig
from monitor.runtime.service import Service
from monitor.runtime.status import Status
from monitor.telemetry.metrics import Metrics
from tests.sim.model import ModelTransport, Store
from tests.unit.test_gate_steps import values

ROOT = Path(__file__).resolve().parents[3]
EVENTS = 3000
OUTPUTS = ("accepted.jsonl", "quarantined.jsonl", "invalid.jsonl", "decisions.jsonl")
DAY = 86_400.0


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "events.jsonl"
    path.write_bytes(b"".join(value + b"\n" for value in values(EVENTS)))
    return path


def replay(
    recording: Path, out: Path, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    settings = {"MONITOR_BATCH__MAX_EVENTS": "200", "MONITOR_STATE__SNAPSHOT_EVERY_BATCHES": "4"}
    return subprocess.run(
        [sys.executable, "-m", "monitor", "replay", str(recording), "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=before,
    )


@pytest.fixture(scope="module")
def whole(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed replay writes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert replay(recording, out).returncode == 0
    return {name: (out / name).read_bytes() for name in OUTPUTS}


@pytest.mark.parametrize("most_bytes", [1_500, 100_000, 400_000])
def test_a_full_disk_ends_with_its_exit_code_and_the_run_goes_on_later(
    most_bytes: int, recording: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """No file may grow beyond a size, which fails in the middle of a write as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    out = tmp_path / "out"
    ran = replay(recording, out, limit)
    assert ran.returncode == TransportError.exit_code, ran.stderr
    assert "goes on where it stopped" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert replay(recording, out).returncode == 0
    assert {name: (out / name).read_bytes() for name in OUTPUTS} == whole


def test_a_read_only_folder_is_refused_in_words(recording: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    try:
        ran = replay(recording, folder / "out")
        assert ran.returncode in (UsageError.exit_code, TransportError.exit_code)
        assert "Traceback" not in ran.stderr
        assert str(folder) in ran.stderr
    finally:
        folder.chmod(0o755)


def test_a_folder_that_is_a_file_is_refused_in_words(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = replay(recording, tmp_path / "file" / "out")
    assert ran.returncode in (UsageError.exit_code, TransportError.exit_code)
    assert "Traceback" not in ran.stderr


def test_every_failure_has_an_exit_code_of_its_own() -> None:
    codes = [e.exit_code for e in (StateError, UsageError, TransportError, DetectorError)]
    assert len(set(codes)) == 4
    assert not {0, 130} & set(codes)


def shifted(seconds: float, n: int = 200, *, seed: int = 8) -> list[bytes]:
    """Ordinary events whose time stamps are off."""
    found = []
    for value in values(n, seed=seed):
        if value[:1] == b"{" and len(value) > 50:
            event = orjson.loads(value)
            event["ts"] += 1200 + seconds
            event["id"] += f"+{seconds}"
            found.append(orjson.dumps(event))
    return found


@pytest.mark.parametrize("days", [1, -1])
def test_a_producer_whose_clock_is_a_day_off(days: int) -> None:
    """Its events are judged; those of the others are judged as before, then and afterwards."""
    gate, calm = (Gate(GateConfig(warmup_events=100)) for _ in range(2))
    for each in (gate, calm):
        each.check(values(1000))
    decided = gate.check(shifted(days * DAY))
    usual = calm.check(shifted(0.0))
    assert decided.failures == ()
    share = [(d.verdict == Verdict.ACCEPT).mean() for d in (decided, usual)]
    assert share[0] > share[1] - 0.1
    for step in range(3):
        # Others each time: the same under new ids would be copies.
        after = gate.check(shifted(200.0 * (step + 1), seed=9 + step))
        assert after.failures == ()
        assert (after.verdict == Verdict.ACCEPT).mean() > 0.8


@pytest.mark.parametrize("days", [1, -1])
def test_the_clock_of_the_machine_is_set_while_it_runs(
    days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decisions know no clock; the figures for people stay sane."""
    sample, real, reads = values(1200), time.time, itertools.count()

    def jumping() -> float:
        return real() + (days * DAY if next(reads) > 5 else 0.0)

    def run() -> tuple[Store, Metrics, Status]:
        store = Store({0: list(enumerate(sample))})
        status = Status(wall=time.time)
        metrics = Metrics(status=status.snapshot, clock=time.time)
        service = Service(
            Gate(GateConfig(warmup_events=100)),
            ModelTransport(store),
            observers=(status, metrics),
            on_status=status,
            batch_events=100,
        )
        service.run(threading.Event())
        return store, metrics, status

    calm, _, _ = run()
    monkeypatch.setattr(time, "time", jumping)
    store, metrics, status = run()
    assert store.outputs == calm.outputs
    text = metrics.expose()[0].decode()
    ages = [line for line in text.splitlines() if "event_age_seconds_sum" in line]
    assert float(ages[0].split()[-1]) >= 0.0
    assert status.snapshot()["uptime_seconds"] >= 0.0


def test_times_far_apart_in_one_batch() -> None:
    gate = Gate(GateConfig(warmup_events=100))
    gate.check(values(600))
    event = orjson.loads(values(1, seed=6)[0])
    times = [0.0, 4e9, 1.7e9, 1.7e9 + DAY, 1.7e9 - DAY, 4e9]
    batch = [orjson.dumps(event | {"id": f"t{i}", "ts": ts}) for i, ts in enumerate(times)]
    decided, after = gate.step(gate.state, RawBatch.of(batch, start=600))
    assert decided.failures == ()
    assert gate.digest(gate.load(gate.dump(after))) == gate.digest(after)
