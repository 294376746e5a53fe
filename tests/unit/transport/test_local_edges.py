"""Local input and output at their edges: what is refused, and with which words."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest
import zstandard

from monitor.core.errors import TransportError, UsageError
from monitor.runtime.service import Service, StopReason
from monitor.transport.local import (
    FileLines,
    FollowFile,
    LocalTransport,
    PipeLines,
    journal_status,
)
from tests.sim.toy import ToyGate


def run(transport: LocalTransport, n: int = 4) -> StopReason:
    service = Service(ToyGate(), transport, batch_events=n, linger_seconds=0.0)
    return service.run(threading.Event())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "in.jsonl"
    made.write_bytes(b"".join(b'{"id":"%d"}\n' % i for i in range(30)))
    return made


def half(path: Path, out: Path, **how: object) -> None:
    """A run over the first few lines that was stopped."""
    stop = threading.Event()

    class StopAfterOne:
        def committed(self, unit: object, seconds: object) -> None:
            stop.set()

    again = LocalTransport(FileLines([path]), out, **how)  # type: ignore[arg-type]
    service = Service(
        ToyGate(), again, observers=[StopAfterOne()], batch_events=4, snapshot_every_batches=1
    )
    assert service.run(stop) is StopReason.STOPPED


def test_every_kind_of_line(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n\na\r\n\r\nlast without newline")
    assert list(FileLines([path]).open(0)) == [b"", b"", b"a\r", b"\r", b"last without newline"]
    assert list(FileLines([path]).open(3)) == [b"\r", b"last without newline"]
    assert list(FileLines([path, path]).open(5))[:2] == [b"", b""]


def test_an_empty_input_finishes(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.touch()
    assert run(LocalTransport(FileLines([path]), tmp_path / "out")) is StopReason.FINISHED
    assert (tmp_path / "out" / "decisions.jsonl").read_bytes() == b""


def test_folders_that_are_missing_are_made_and_where_they_cannot_be_is_said(
    path: Path, tmp_path: Path
) -> None:
    accepted = tmp_path / "new" / "folder" / "accepted.jsonl"
    made = LocalTransport(FileLines([path]), tmp_path / "out", accepted=accepted)
    assert run(made) is StopReason.FINISHED
    assert accepted.stat().st_size > 0
    for name, folder in (("o", path / "x" / "to.jsonl"), ("in.jsonl", accepted)):
        with pytest.raises(TransportError, match=f"Cannot make {path}.*: Not a directory"):
            LocalTransport(FileLines([path]), tmp_path / name, accepted=folder).open()


@pytest.mark.parametrize("kind", ["plain", "gz", "zst"])
def test_a_line_beyond_the_bound_is_an_error(tmp_path: Path, kind: str) -> None:
    data = b"ok\n" + b"x" * 5000 + b"\n"
    path = tmp_path / f"in.{kind}"
    packed = {"plain": data, "gz": gzip.compress(data), "zst": zstandard.compress(data)}
    path.write_bytes(packed[kind])
    with pytest.raises(UsageError, match="line 2 is longer than 4,999 bytes"):
        list(FileLines([path], max_line_bytes=4999).open(0))
    assert len(list(FileLines([path], max_line_bytes=5000).open(0))) == 2


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_cut_off_compressed_input_is_an_error(tmp_path: Path, kind: str) -> None:
    data = b"".join(os.urandom(20).hex().encode() + b"\n" for _ in range(1000))
    path = tmp_path / f"in.{kind}"
    packed = gzip.compress(data) if kind == "gz" else zstandard.compress(data)
    path.write_bytes(packed[:-9])
    with pytest.raises(UsageError, match="damaged or cut off"):
        list(FileLines([path]).open(0))
    path.write_bytes(b"this is not compressed at all")
    with pytest.raises(UsageError, match="damaged or cut off"):
        list(FileLines([path]).open(0))


def test_missing_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        FileLines([tmp_path / "none.jsonl"])
    with pytest.raises(UsageError, match="not a regular file"):
        FileLines([tmp_path])
    with pytest.raises(UsageError, match="create it"):
        FollowFile(tmp_path / "none.jsonl")


def test_a_finished_folder_is_refused_unless_overwritten(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(LocalTransport(FileLines([path]), out))
    before = (out / "decisions.jsonl").read_bytes()
    with pytest.raises(UsageError, match="finished run"):
        run(LocalTransport(FileLines([path]), out))
    assert (out / "decisions.jsonl").read_bytes() == before
    run(LocalTransport(FileLines([path]), out, overwrite=True))
    assert (out / "decisions.jsonl").read_bytes() == before
    status = journal_status(out)
    assert status is not None
    assert (status.next_offset, status.finished) == (30, True)


def test_a_stopped_run_resumes_only_with_the_same_input_and_settings(
    path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    half(path, out, identity="a")
    status = journal_status(out)
    assert status is not None
    assert (status.next_offset, status.finished) == (4, False)
    other = tmp_path / "other.jsonl"
    other.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(UsageError, match="not the same input"):
        run(LocalTransport(FileLines([other]), out, identity="a"))
    with pytest.raises(UsageError, match="other settings"):
        run(LocalTransport(FileLines([path]), out, identity="b"))
    moved = path.rename(tmp_path / "moved.jsonl")
    assert run(LocalTransport(FileLines([moved]), out, identity="a")) is StopReason.FINISHED
    calm = tmp_path / "calm"
    run(LocalTransport(FileLines([moved]), calm))
    for name in ("accepted", "quarantined", "invalid", "decisions"):
        file = f"{name}.jsonl"
        assert (out / file).read_bytes() == (calm / file).read_bytes()


def test_files_of_someone_else_are_not_touched(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "accepted.jsonl").write_bytes(b"mine\n")
    with pytest.raises(UsageError, match="exists already"):
        run(LocalTransport(FileLines([path]), out))
    assert (out / "accepted.jsonl").read_bytes() == b"mine\n"


def test_input_is_never_output(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="both input and output"):
        run(LocalTransport(FileLines([path]), tmp_path / "o", accepted=path, overwrite=True))
    assert path.stat().st_size > 0


def test_outputs_that_lost_something_are_noticed(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    half(path, out)
    (out / "decisions.jsonl").write_bytes(b"")
    with pytest.raises(UsageError, match="shorter than its journal"):
        run(LocalTransport(FileLines([path]), out))


def test_a_torn_journal_and_torn_outputs_are_cut(path: Path, tmp_path: Path) -> None:
    out, calm = tmp_path / "out", tmp_path / "calm"
    half(path, out)
    for file in (out / ".monitor" / "journal", out / "accepted.jsonl", out / "decisions.jsonl"):
        with file.open("ab") as stream:
            stream.write(b'0badc0de {"torn')
    run(LocalTransport(FileLines([path]), out))
    run(LocalTransport(FileLines([path]), calm))
    assert (out / "accepted.jsonl").read_bytes() == (calm / "accepted.jsonl").read_bytes()
    assert (out / "decisions.jsonl").read_bytes() == (calm / "decisions.jsonl").read_bytes()


def test_a_batch_is_bounded_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes((b"x" * 999 + b"\n") * 20)
    transport = LocalTransport(FileLines([path]), tmp_path / "out", max_batch_bytes=3000)
    transport.open()
    transport.poll(512, 0.0)
    assert [len(transport.poll(512, 0.0).batches[0]) for _ in range(5)] == [4] * 5
    transport.close()


def test_a_rotated_or_cut_file_is_noticed(path: Path, tmp_path: Path) -> None:
    for turn, spoil in enumerate((lambda: path.rename(tmp_path / "old"), lambda: None)):
        path.write_bytes(b"a\nb\n")
        transport = LocalTransport(FollowFile(path), tmp_path / f"out{turn}")
        transport.open()
        transport.poll(8, 0.0)
        assert len(transport.poll(8, 0.0).batches[0]) == 2
        spoil()
        path.write_bytes(b"c\n")
        with pytest.raises(TransportError, match="rotated" if turn == 0 else "cut short"):
            transport.poll(8, 0.0)
        transport.close()


def test_a_partial_last_line_is_waited_for(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"whole\npart")
    transport = LocalTransport(FollowFile(path), tmp_path / "out")
    transport.open()
    transport.poll(8, 0.0)
    assert transport.poll(8, 0.0).batches[0].values == [b"whole"]
    assert not transport.poll(8, 0.0).batches
    with path.open("ab") as stream:
        stream.write(b"ial\n")
    assert transport.poll(8, 0.0).batches[0].values == [b"partial"]
    transport.close()


def test_a_reader_that_leaves_ends_the_run(path: Path, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    transport = LocalTransport(FileLines([path]), tmp_path / "out", accepted=write_end)
    assert run(transport) is StopReason.OUTPUT_CLOSED
    os.close(write_end)


def test_a_pipe_from_end_to_end(tmp_path: Path) -> None:
    from_us, to_us = os.pipe()
    read_end, write_end = os.pipe()
    os.write(to_us, b"".join(b'{"id":"%d"}\n' % i for i in range(50)) + b'{"id":"last"}')
    os.close(to_us)
    transport = LocalTransport(PipeLines(from_us), tmp_path / "state", accepted=write_end)
    assert run(transport) is StopReason.FINISHED
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        accepted = stream.read().split(b"\n")[:-1]
    state = tmp_path / "state"
    held = (state / "quarantined.jsonl").read_bytes().split(b"\n")[:-1]
    bad = (state / "invalid.jsonl").read_bytes().split(b"\n")[:-1]
    assert sorted(accepted + held + bad) == sorted(
        [*(b'{"id":"%d"}' % i for i in range(50)), b'{"id":"last"}']
    )
    assert not (state / "accepted.jsonl").exists()


def test_a_graceful_stop_judges_what_the_pipe_gave(tmp_path: Path) -> None:
    from_us, to_us = os.pipe()
    os.write(to_us, b"a\nb\nc\nd\ne\n")
    stop = threading.Event()

    class StopAtOnce:
        def committed(self, unit: object, seconds: object) -> None:
            stop.set()

    transport = LocalTransport(PipeLines(from_us), tmp_path / "out")
    service = Service(ToyGate(), transport, observers=[StopAtOnce()], batch_events=2)
    assert service.run(stop) is StopReason.STOPPED
    assert (tmp_path / "out" / "decisions.jsonl").read_bytes().count(b"\n") == 5
    os.close(to_us)


def test_packed_input_needs_no_suffix(tmp_path: Path) -> None:
    path = tmp_path / "events"
    for packed in (gzip.compress(b"a\nb"), zstandard.compress(b"a\nb"), b"a\nb"):
        path.write_bytes(packed)
        assert list(FileLines([path]).open(0)) == [b"a", b"b"]


def test_a_pipe_that_finishes_is_never_continued(tmp_path: Path) -> None:
    from_us, to_us = os.pipe()
    stopped = LocalTransport(PipeLines(from_us), tmp_path / "out", finishes=True)
    stopped.open()
    stopped.close()
    with pytest.raises(UsageError, match="pipe cannot be read again"):
        run(LocalTransport(PipeLines(from_us), tmp_path / "out", finishes=True))
    os.write(to_us, b"a\nb\n")
    os.close(to_us)
    again = LocalTransport(PipeLines(from_us), tmp_path / "out", finishes=True, overwrite=True)
    assert run(again) is StopReason.FINISHED
    with pytest.raises(UsageError, match="finished run"):
        run(LocalTransport(PipeLines(from_us), tmp_path / "out", finishes=True))
