"""The laws of a transport, for recorded files, a followed file and a pipe."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest
import zstandard

from monitor.transport.local import (
    FileLines,
    FollowFile,
    LocalTransport,
    PipeLines,
    journal_status,
)
from tests.checks.transport_laws import TransportLaws


def records(path: Path) -> list[bytes]:
    data = path.read_bytes()
    assert not data or data.endswith(b"\n")
    return data.split(b"\n")[:-1]


class FileHarness:
    exclusive = True
    name = "input.jsonl"

    def __init__(self, folder: Path) -> None:
        self.input = folder / self.name
        self.out = folder / "out"

    def feed(self, values: list[bytes]) -> None:
        self.input.write_bytes(self.pack(b"".join(value + b"\n" for value in values)))

    def pack(self, data: bytes) -> bytes:
        return data

    def transport(self) -> LocalTransport:
        return LocalTransport(FileLines([self.input]), self.out)

    def output(self, name: str) -> list[bytes]:
        return records(self.out / f"{name}.jsonl")


class GzHarness(FileHarness):
    name = "input.jsonl.gz"

    def pack(self, data: bytes) -> bytes:
        return gzip.compress(data[:-1])  # the last line without its newline


class ZstHarness(FileHarness):
    name = "input.jsonl.zst"

    def pack(self, data: bytes) -> bytes:
        half = len(data) // 2
        return zstandard.compress(data[:half]) + zstandard.compress(data[half:])


class FollowHarness(FileHarness):
    def transport(self) -> LocalTransport:
        return LocalTransport(FollowFile(self.input), self.out, fsync="commit")


class PipeHarness(FileHarness):
    """Every new process gets a pipe with what the ones before did not read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.values: list[bytes] = []

    def feed(self, values: list[bytes]) -> None:
        self.values = values

    def transport(self) -> LocalTransport:
        status = journal_status(self.out)
        done = 0 if status is None else status.next_offset + status.pending
        read_end, write_end = os.pipe()
        data = b"".join(value + b"\n" for value in self.values[done:])

        def write() -> None:
            try:
                with os.fdopen(write_end, "wb") as stream:
                    stream.write(data)
            except BrokenPipeError:
                pass

        threading.Thread(target=write, daemon=True).start()
        return LocalTransport(PipeLines(read_end), self.out)


HARNESSES = (FileHarness, GzHarness, ZstHarness, FollowHarness, PipeHarness)


class TestLocal(TransportLaws):
    @pytest.fixture(params=HARNESSES, ids=lambda kind: kind.__name__)
    def harness(self, request: pytest.FixtureRequest, tmp_path: Path) -> FileHarness:
        made: FileHarness = request.param(tmp_path)
        return made
