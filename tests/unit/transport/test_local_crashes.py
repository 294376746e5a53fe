"""A run that dies at any write, or is killed, resumes without a lost or doubled line."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from monitor.core.errors import TransportError, UsageError
from monitor.runtime.service import Service, StopReason
from monitor.transport.local import FileLines, FollowFile, LocalTransport, PipeLines, journal_status
from tests.sim.toy import ToyGate

NAMES = ("accepted", "quarantined", "invalid", "decisions")
ROOT = Path(__file__).parents[3]


class Killed(BaseException):
    """Stands for SIGKILL: after it, not one byte changes on disk."""


class Disk:
    """Fails at the n-th change to the disk, half of a write done, and stays dead if killed."""

    def __init__(self, patch: pytest.MonkeyPatch, nth: int, kill: bool) -> None:
        self.count, self.nth, self.kill, self.dead = 0, nth, kill, False
        write = os.write
        for name in ("write", "ftruncate", "fsync"):
            patch.setattr(os, name, self._wrapped(getattr(os, name), write))
        patch.setattr(Path, "replace", self._wrapped(Path.replace, write))
        patch.setattr(Path, "unlink", self._wrapped(Path.unlink, write))

    def _wrapped(self, call: Callable, write: Callable) -> Callable:  # type: ignore[type-arg]
        def wrapped(*args: object, **kwargs: object) -> object:
            self.count += 1
            if self.dead:
                raise Killed
            if self.count == self.nth:
                if call is write:
                    write(args[0], bytes(args[1])[: len(args[1]) // 2])  # type: ignore[arg-type]
                self.dead = self.kill
                raise Killed if self.kill else OSError(errno.ENOSPC, "No space left on device")
            return call(*args, **kwargs)

        return wrapped


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.runtime.service.settled", contextlib.nullcontext)


def lines(n: int) -> list[bytes]:
    rng = random.Random(5)
    return [b'{"id":"%d","v":%d}' % (i, rng.getrandbits(60)) for i in range(n)]


def run(transport: LocalTransport) -> StopReason:
    service = Service(
        ToyGate(),
        transport,
        batch_events=8,
        linger_seconds=0.0,
        snapshot_every_batches=4,
        digests=True,
    )
    return service.run(threading.Event())


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / f"{name}.jsonl").read_bytes() for name in NAMES}


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(lines(90)))
    assert run(LocalTransport(FileLines([path]), tmp_path / "calm")) is StopReason.FINISHED
    return path, contents(tmp_path / "calm")


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
def test_a_failure_at_every_change_of_the_disk(
    recorded: tuple[Path, dict[str, bytes]], tmp_path: Path, kill: bool, pipe: bool
) -> None:
    path, expected = recorded
    nth, failed = 1, True
    while failed:
        out = tmp_path / f"out{nth}"
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, nth, kill)
            transport = source(path, out, pipe)
            with contextlib.suppress(Killed, TransportError):
                run(transport)
            failed = disk.count >= nth
            transport._release()
        if failed and not (out / "decisions.jsonl").exists():
            pass
        if failed or pipe:
            finish(path, out, pipe)
        assert contents(out) == expected, nth
        nth += 1 if nth < 60 else 7
    assert nth > 60


def source(path: Path, out: Path, pipe: bool) -> LocalTransport:
    if not pipe:
        return LocalTransport(FileLines([path]), out)
    done = 0
    if (out / ".monitor").exists():
        status = journal_status(out)
        done = 0 if status is None else status.next_offset + status.pending
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as stream:
        stream.write(b"\n".join(path.read_bytes().split(b"\n")[done:]))
    return LocalTransport(PipeLines(read_end), out, fsync="commit")


def finish(path: Path, out: Path, pipe: bool) -> None:
    try:
        run(source(path, out, pipe))
    except UsageError as error:
        # It died between the mark that it is finished and the end of the process.
        assert "finished run" in str(error)


SCRIPT = """
import sys, threading, time
from pathlib import Path
from monitor.runtime.service import Service
from monitor.transport.local import FileLines, LocalTransport
from tests.sim.toy import ToyGate
class Slow(ToyGate):
    def step(self, state, raw):
        time.sleep(0.002)
        return super().step(state, raw)
transport = LocalTransport(FileLines([Path(sys.argv[1])]), Path(sys.argv[2]), fsync="never")
print("ready", flush=True)
Service(Slow(), transport, batch_events=32, snapshot_every_batches=7).run(threading.Event())
"""


def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out"
    path.write_bytes(b"\n".join(lines(8000)) + b"\n")
    rng = random.Random(11)
    command = [sys.executable, "-c", SCRIPT, str(path), str(out)]
    for turn in range(5):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        if turn < 4:
            time.sleep(rng.uniform(0.02, 0.25))
            process.send_signal(signal.SIGKILL)
        code = process.wait(60)
        process.stdout.close()
        assert code == (-signal.SIGKILL if turn < 4 else 0)
    calm = LocalTransport(FileLines([path]), tmp_path / "calm", fsync="never")
    Service(ToyGate(), calm, batch_events=32).run(threading.Event())
    assert contents(out) == contents(tmp_path / "calm")


PIPED = SCRIPT.replace("FileLines([Path(sys.argv[1])])", "PipeLines()").replace(
    "FileLines, LocalTransport", "LocalTransport, PipeLines"
)


def test_what_a_killed_process_read_of_a_pipe_is_not_lost(tmp_path: Path) -> None:
    every, out = lines(8000), tmp_path / "out"
    read_end, write_end = os.pipe()

    def done(out: Path) -> int:
        status = journal_status(out)
        return 0 if status is None else status.next_offset

    def write() -> None:
        with os.fdopen(write_end, "wb", buffering=0) as stream:
            for first in range(0, len(every), 50):  # whole lines, in less than a pipe takes at once
                stream.write(b"\n".join(every[first : first + 50]) + b"\n")

    threading.Thread(target=write, daemon=True).start()
    command, rng = [sys.executable, "-c", PIPED, "-", str(out)], random.Random(3)
    for turn in range(4):
        process = subprocess.Popen(command, cwd=ROOT, stdin=read_end, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        if turn < 3:
            before = done(out)
            while done(out) == before:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.1))
            process.send_signal(signal.SIGKILL)
        assert process.wait(60) == (-signal.SIGKILL if turn < 3 else 0)
        process.stdout.close()
    os.close(read_end)
    routed = [contents(out)[name].split(b"\n")[:-1] for name in NAMES[:3]]
    assert sorted(line for found in routed for line in found) == sorted(every)
    assert [line.count(b'"offset": ') for line in contents(out)["decisions"].split(b"\n")] == [
        *[1] * len(every),
        0,
    ]


def test_a_followed_file_resumes(tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out"
    every = lines(60)
    path.write_bytes(b"\n".join(every[:20]) + b"\n" + every[20][:5])
    gate = ToyGate()
    for grown in (b"", every[20][5:] + b"\n" + b"\n".join(every[21:]) + b"\n"):
        with path.open("ab") as stream:
            stream.write(grown)
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        transport = LocalTransport(FollowFile(path), out, fsync="commit")
        service = Service(gate, transport, batch_events=8, linger_seconds=0.02, digests=True)
        assert service.run(stop) is StopReason.STOPPED
    routed = [contents(out)[name].split(b"\n")[:-1] for name in NAMES[:3]]
    assert sorted(line for found in routed for line in found) == sorted(every)
    assert len(contents(out)["decisions"].split(b"\n")) == 61
