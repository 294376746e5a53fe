"""The ledger in a file: what every ledger obeys, and what a crash leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from monitor.core.errors import TransportError
from monitor.transport import local_ledger
from monitor.transport.local_ledger import LocalLedger, encode_rows
from tests.checks.ledger_laws import LedgerLaws


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".monitor" / "reviews.jsonl"


@pytest.fixture
def ledgers(path):
    made = []

    def make():
        made.append(LocalLedger(path))
        return made[-1]

    yield make
    for ledger in made:
        ledger.close()


class TestLocalLedger(LedgerLaws):
    pass


@pytest.mark.parametrize("keep", [1, 9, -2, -1])
def test_a_torn_line_is_not_seen_and_cut_off(ledgers, path, keep):
    ledgers().append([(b"a", b"1")])
    with path.open("ab") as stream:
        stream.write(encode_rows([(b"torn", b"x" * 200_000)])[:keep])
    assert list(ledgers().catch_up()) == [(b"a", b"1")]
    ledgers().append([(b"b", b"2")])
    assert list(ledgers().catch_up()) == [(b"a", b"1"), (b"b", b"2")]
    assert path.read_bytes().count(b"\n") == 2


def test_a_damaged_line_is_left_out_and_reported(ledgers, path, caplog):
    for name in (b"a", b"b", b"c"):
        ledgers().append([(name, b"1")])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b'"1"', b'"2"') + lines[2])
    assert list(ledgers().catch_up()) == [(b"a", b"1"), (b"c", b"1")]
    assert "damaged" in caplog.text


def test_another_file_in_its_place_is_read_from_its_beginning(ledgers, path):
    reader, writer = ledgers(), ledgers()
    writer.append([(b"a", b"1")])
    assert list(reader.catch_up()) == [(b"a", b"1")]
    path.unlink()
    writer.append([(b"b", b"2")])
    assert list(reader.catch_up()) == [(b"b", b"2")]


def test_a_full_disk_leaves_what_was_there(ledgers, path, monkeypatch):
    ledger = ledgers()
    ledger.append([(b"a", b"1")])

    def half(fd, data):
        os.write(fd, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(local_ledger, "write_all", half)
        with pytest.raises(TransportError, match="No space"):
            ledger.append([(b"b", b"2")])
    ledger.append([(b"c", b"3")])
    assert list(ledgers().catch_up()) == [(b"a", b"1"), (b"c", b"3")]


def test_whoever_waits_too_long_for_the_lock_says_so(ledgers, path, monkeypatch):
    monkeypatch.setattr(local_ledger, "_LOCK_SECONDS", 0.05)
    ledger = ledgers()
    with ledgers()._locked(local_ledger.fcntl.LOCK_EX), pytest.raises(TransportError, match="lock"):
        ledger.append([(b"a", b"1")])


WRITER = """
import sys
from pathlib import Path
from monitor.transport.local_ledger import LocalLedger
ledger, i = LocalLedger(Path(sys.argv[1])), 0
while True:
    ledger.append([(b"%s/%d" % (sys.argv[2].encode(), i), b"v" * 5000)])
    print(i, flush=True)
    i += 1
"""


def test_killed_writers_lose_nothing_that_was_acknowledged(ledgers, path):
    for round_ in range(3):
        args = [sys.executable, "-c", WRITER, str(path), str(round_)]
        with subprocess.Popen(args, stdout=subprocess.PIPE) as process:
            for line in process.stdout:
                if int(line) >= 5:
                    process.send_signal(signal.SIGKILL)
                    break
            told = max([int(line), *map(int, process.stdout)])
        keys = [key.decode().split("/") for key, _ in ledgers().catch_up()]
        mine = [int(i) for name, i in keys if name == str(round_)]
        assert mine[: told + 1] == list(range(told + 1))
        assert len(mine) <= told + 2
