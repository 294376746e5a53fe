"""The file of ``audit export``: what is no such file, is packed, joined to another, or hostile."""

from __future__ import annotations

import io
import os
import threading

import pytest

from monitor.cli.app import execute
from monitor.core.errors import StateError
from monitor.state import audit_proof
from monitor.state.audit import opened
from monitor.state.audit_ends import Part
from monitor.state.audit_export import Export
from monitor.state.audit_lineage import lineage
from monitor.state.audit_proof import verify_export
from tests.checks.audit_made import TRUSTED, Made, read, written


@pytest.fixture(scope="module")
def rows():
    made = Made()
    for batch in range(4):
        made.batch(0, [1000.0 + 5 * batch + i for i in range(5)])
        made.stand("desk-local", 1005.0 + 5 * batch)
    return read(b"".join(Export(made.source(), 1006.0, 1012.0).rows()))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"\x1f\x8b\x08\x00", "packed (gzip)"),
        (b"\xef\xbb\xbf{}\n", "byte order mark"),
        (b"[" * 100_000, "not a file that"),
        (b'{"x":' * 100_000, "not a file that"),
        (b"x" * 2000, "longer than"),
    ],
    ids=["empty", "gzip", "bom", "nested", "nested objects", "long"],
)
def test_a_file_that_is_no_export_is_said_to_be_none(tmp_path, capsys, monkeypatch, data, said):
    monkeypatch.setattr(audit_proof, "MOST_ROW_BYTES", 1000 if len(data) == 2000 else 1 << 20)
    path = tmp_path / "e.jsonl"
    path.write_bytes(data)
    assert execute(["audit", "verify", str(path)]) == 2
    assert said in capsys.readouterr().err
    assert execute(["audit", "verify", str(tmp_path / "none.jsonl")]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_an_export_is_read_from_a_pipe(rows, tmp_path, capsys):
    path, data = tmp_path / "pipe", written(rows)
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,), daemon=True)
    writer.start()
    assert execute(["audit", "verify", str(path)]) == 0
    writer.join(10.0)
    assert "the chain is whole" in capsys.readouterr().out


def test_two_exports_in_one_file_are_one_finding(rows):
    data = written(rows)
    report = verify_export(io.BytesIO(data + data), TRUSTED)
    assert {(found.kind, found.place) for found in report.findings} == {
        ("inserted", f"line {len(rows) + 1}")
    }
    assert f"as {len(rows) - 1:,} behind it were" in report.findings[0].text


def test_a_record_that_nests_too_deeply_is_unreadable():
    body = b'{"version":1,"details":{"a":' + b"[" * 100_000 + b',"hash":"' + b"0" * 64 + b'"}'
    with pytest.raises(StateError, match="nested too deeply"):
        opened(body)


def test_what_strangers_wrote_steers_no_terminal_and_no_calendar(tmp_path, capsys):
    """Unsigned records of chains and times that nobody would write but to do harm."""
    made = Made()
    made.batch(0, [1000.0, 1001.0])
    made.deed("desk-\x1b[2J", 1000.5)
    made.stand("desk-\x1b[2J", 1e300)
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"".join(Export(made.source(), 1000.0, 2000.0).rows()))
    assert execute(["audit", "verify", str(path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b[2J" not in out and "1e+300" in out.replace("\n", "")


def test_of_many_partitions_each_is_compared_with_what_is_said_of_it_only(monkeypatch):
    """Not with all that is said of all: of 1,000 partitions a day has a million statements."""
    compared, last_words = [], Part.last_words

    def counted(part, header, stands, *, keys):
        compared.append((part.chain, len(stands)))
        return last_words(part, header, stands, keys=keys)

    monkeypatch.setattr(Part, "last_words", counted)
    made = Made()
    for partition in range(20):
        made.batch(partition, [1000.0 + partition / 20])
    for beat in range(5):
        made.stand("desk", 1001.0 + beat)
    report = verify_export(Export(made.source(), 1000.0, 1004.5).rows(), TRUSTED)
    assert not report.findings and len(report.chains) == 21
    assert dict(compared) == {"desk": 0} | {f"local-{n}": 5 for n in range(20)}


def test_the_period_of_an_export_is_said(rows, tmp_path, capsys):
    """Who asked for a day and got an hour has to see it: both are whole."""
    path = tmp_path / "e.jsonl"
    path.write_bytes(written(rows))
    assert execute(["audit", "verify", str(path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    n = sum(row["type"] == "decision" for row in rows)
    assert "1970-01-01T00:16:46Z up to 1970-01-01T00:16:52Z" in out
    beside = sum(row["type"] == "beside" for row in rows)
    assert f"{n} decisions, {beside} beside as proof" in out


def test_a_record_with_details_of_another_kind_breaks_no_life():
    made = Made()
    made.batch(0, [1000.0])
    for details in ({"keys": 5, "ids": None}, {"keys": "0-0", "ids": ["e0"]}):
        made.deed("desk", 1000.5, details=details)
    (life,) = lineage(made.source(), "e0")
    assert [one["seq"] for one in life["actions"]] == [2]
