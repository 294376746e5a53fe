"""``audit export`` of a folder: whatever is changed, added or left out is found, and named."""

from __future__ import annotations

import io

import orjson
import pytest

from monitor.cli.app import execute
from monitor.state.audit import Head, opened, seal
from monitor.state.audit_export import Export
from monitor.state.audit_proof import verify_export
from tests.checks.audit_made import KEY, TRUSTED, Made, careful, read, written

SINCE, UNTIL = 1018.0, 1042.0
BATCH, RECORDS = 5, 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A service's folder: an event a second, five a batch, two in turn; heads every third batch."""
    made, place = Made(), tmp_path_factory.mktemp("export")
    made.deed("desk-local", 990.0, "service start")
    for batch in range(RECORDS):
        times = [1000.0 + BATCH * batch + i for i in range(BATCH)]
        times[1], times[2] = times[2], times[1]
        made.batch(0, times)
        made.deed("desk-local", times[-1] + 0.5)
        if batch % 3 == 2:
            made.stand("desk-local", times[-1] + 1.0)
    for name, lines in (
        ("decisions", made.decisions["local-0"]),
        ("audit", made.lines["local-0"]),
        ("audit-desk", made.lines["desk-local"]),
    ):
        (place / f"{name}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    key = KEY.public_pem()
    (place / "key.pub").write_text(key)
    return place


def exported(folder, out, since=SINCE, until=UNTIL):
    out.unlink(missing_ok=True)
    times = ["--from", str(since), "--to", str(until)]
    assert execute(["audit", "export", str(folder), *times, "--out", str(out)]) == 0
    return read(out.read_bytes())


@pytest.fixture(scope="module")
def rows(folder, tmp_path_factory):
    return exported(folder, tmp_path_factory.mktemp("rows") / "e.jsonl")


def verified(data, *, keys=TRUSTED, anchors=()):
    """What verification of a file's bytes finds: kinds and places; and its report."""
    report = verify_export(io.BytesIO(data), keys, anchors)
    return {(found.kind, found.place) for found in report.findings}, report


def record_of(row):
    return opened(row["line"].encode()).record if row["type"] == "record" else None


def line_of(row):
    asked = row["type"] in ("decision", "beside")
    return orjson.loads(row["line"])["line"] if asked else None


def test_an_export_holds_its_time_and_what_proves_it(rows):
    ours = [line_of(row) for row in rows if row["type"] == "decision"]
    assert ours == [*range(19, 42), 43]  # line 1 is of the time 1000, line 42 of 1042
    beside = [line_of(row) for row in rows if row["type"] == "beside"]
    assert beside == [*range(11, 19), 42, *range(44, 51)]
    # Record 3 is the last before it, 10 the first behind it, and 12 has the next head.
    assert rows[0]["chains"]["local-0"] == [3, 10, 12]
    for keys in (TRUSTED, None):
        found, report = verified(written(rows), keys=keys)
        assert not found and not report.notes
        told = {c.chain: (c.begins, c.ends) for c in report.chains}
        assert told["local-0"] == told["desk-local"] == ("before --from", "behind --to")
    assert verified(careful(rows))[0] == set()


def drop_decision(number):
    return lambda rows: [row for row in rows if line_of(row) != number]


def drop_records(first, last, *, heads_from=None):
    """Records of the chain with their decisions, and of the other chain from some head on."""

    def edit(rows):
        lines = range(BATCH * (first - 1) + 1, BATCH * last + 1)
        kept = []
        for row in rows:
            record = record_of(row)
            if record is None:
                gone = line_of(row) in lines
            elif record.chain == "local-0":
                gone = first <= record.seq <= last
            else:
                gone = heads_from is not None and record.when >= heads_from
            if not gone:
                kept.append(row)
        return kept

    return edit


def drop_chain(name):
    def edit(rows):
        return [
            row
            for row in rows
            if row.get("chain") != name and getattr(record_of(row), "chain", "") != name
        ]

    return edit


def drop_deed(when):
    return lambda rows: [row for row in rows if getattr(record_of(row), "when", None) != when]


def change(which, old, new):
    def edit(rows):
        (at,) = [i for i, row in enumerate(rows) if which(row)]
        assert old in rows[at]["line"]
        rows[at] = rows[at] | {"line": rows[at]["line"].replace(old, new)}
        return rows

    return edit


def insert(behind, make):
    def edit(rows):
        (at,) = [i for i, row in enumerate(rows) if behind(row)]
        return [*rows[: at + 1], rows[at] | {"line": make(rows[at]["line"])}, *rows[at + 1 :]]

    return edit


def forged(line):
    """A record that a chain could go on with, if it were signed."""
    before = opened(line.encode())
    fields = {"first_offset": 900, "count": 1, "digests": "AAAAAAAAAAAAAAAAAAAAAA=="}
    new, _ = seal(Head(before.record.seq, before.hash), "local-0", "decisions", fields)
    return new.decode()


def header(**times):
    return lambda rows: [rows[0] | times, *rows[1:]]


def audit_record(seq):
    return lambda row: (r := record_of(row)) is not None and (r.chain, r.seq) == ("local-0", seq)


def at_line(number):
    return lambda row: line_of(row) == number


LATE, SAME = drop_records(8, 12), "the same"
TAMPERED = {
    # what is done: what is found of who edits the file, and of who makes all else agree
    "a decision from the middle": (drop_decision(30), ("dropped", "line 30"), SAME),
    "the first of the period": (drop_decision(19), ("dropped", "line 19"), SAME),
    "the last of the period": (drop_decision(43), ("dropped", "line 43"), SAME),
    "the first in the file": (drop_decision(11), ("dropped", "line 11"), SAME),
    "the last in the file": (drop_decision(50), ("dropped", "line 50"), SAME),
    "a record from the middle": (
        drop_records(6, 6), ("dropped", "record 6"), SAME,
    ),
    "records from the beginning": (
        drop_records(3, 4), ("dropped", "records 3 to 4"), ("unproven", "record 5"),
    ),
    "records from the beginning, outside of the period": (
        drop_records(3, 3), ("dropped", "record 3"), ("unproven", "record 4"),
    ),
    "records from the end": (
        LATE, ("dropped", "records 8 to 12"), ("truncated", "record 8"),
    ),
    "records from the end, and the heads that know of them": (
        drop_records(8, 12, heads_from=1040.0), ("dropped", "records 8 to 12"),
        ("unproven", "record 8"),
    ),
    "the record behind the period": (
        drop_records(10, 12), ("dropped", "records 10 to 12"), ("truncated", "record 10"),
    ),
    # Nothing of the period: the head before, of a time behind it as well, is then what proves it.
    "the records up to the head": (drop_records(11, 12), ("dropped", "records 11 to 12"), None),
    "a whole chain": (drop_chain("local-0"), ("dropped", "chain"), SAME),
    "what people did": (drop_chain("desk-local"), ("dropped", "chain"), ("unproven", "record 11")),
    "one thing that somebody did": (drop_deed(1034.5), ("dropped", "record 10"), SAME),
    "the record in front of what people did": (
        drop_deed(1015.0), ("dropped", "record 5"), ("unproven", "record 6"),
    ),
    "a decision changed": (
        change(at_line(30), '"accept"', '"reject"'), ("changed", "line 30"), SAME,
    ),
    "a decision's time changed": (
        change(at_line(19), '1018.0', '1017.0'), ("changed", "line 19"), SAME,
    ),
    "a record changed": (
        change(audit_record(6), '"policy_version":1', '"policy_version":2'),
        ("changed", "record 6"), SAME,
    ),
    "a decision added": (
        insert(at_line(30), lambda line: line.replace('"line":30', '"line":300')),
        ("inserted", "line 300"), SAME,
    ),
    "a decision added in front": (
        insert(at_line(11), lambda line: line.replace('"line":11', '"line":2')),
        ("inserted", "line 2"), SAME,
    ),
    "a decision twice": (
        insert(at_line(30), lambda line: line), ("inserted", "line 30"), SAME,
    ),
    "a record twice": (
        insert(audit_record(6), lambda line: line), ("inserted", "record 6"), SAME,
    ),
    "a record added behind": (
        insert(audit_record(12), forged), ("inserted", "record 13"), None,
    ),
    "--from earlier": (header(**{"from": 1012.0}), ("changed", "--from"), ("unproven", "record 3")),
    "--from later": (header(**{"from": 1020.0}), ("changed", "--from"), ("inserted", "line 19")),
    "--to later": (header(to=1060.0), ("changed", "--to"), ("changed", "line 42")),
    "--to earlier": (header(to=1040.0), ("changed", "--to"), ("inserted", "line 41")),
    "another stream": (header(of="other"), ("changed", "file"), None),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_what_is_done_to_an_export_is_found(rows, name):
    edit, edited, forged_ = TAMPERED[name]
    forged_ = edited if forged_ == SAME else forged_
    found, report = verified(written(edit(list(rows))))
    assert edited in found, report.findings
    found, report = verified(careful(edit(list(rows))))
    assert forged_ in found if forged_ else not found, report.findings


def test_a_file_that_was_cut_after_a_line_is_found(rows):
    data = written(rows).splitlines(keepends=True)
    for lines in range(1, len(rows)):
        for keys in (TRUSTED, None):
            assert ("truncated", "end") in verified(b"".join(data[:lines]), keys=keys)[0]
    found, _ = verified(b"".join([*data, data[40]]))
    assert found == {("inserted", f"line {len(data) + 1}")}


def test_without_a_key_the_end_is_what_the_export_says(rows):
    """Nobody vouches for heads then: a note says what is not proven."""
    cut = drop_records(8, 12, heads_from=1040.0)
    found, report = verified(careful(cut(list(rows))), keys=None)
    assert not found
    uncovered, people, decided = sorted(report.notes)
    assert uncovered == "5 decisions are not covered by a signed head"
    assert "that desk-local did not go on within the period is not proven" in people
    assert "that local-0 did not go on within the period is not proven" in decided
    assert {c.ends for c in report.chains} == {"not proven"}
    # Nor does what people did have an end, where the heads are in the chain of somebody else.
    assert verified(careful(cut(list(rows))))[0] >= {("unproven", "record 8")}


def test_the_words_for_people(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    path = tmp_path / "e.jsonl"
    rows = exported(folder, path)
    told = " ".join(capsys.readouterr().err.split())
    assert "24 decisions, 16 beside them as proof, 23 audit records, 0 not as the chain" in told
    given = ["audit", "verify", str(path), "--public-key", str(folder / "key.pub")]
    assert execute(given) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "local-0 10 40 before --from behind --to 12 " in out
    assert "the chain is whole" in out
    path.write_bytes(careful(LATE(rows)))
    assert execute(given) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "truncated: chain local-0 ends in the export at record 7, within the period, but" in out
    assert "knows record 9: the end was cut off" in out
    path.write_bytes(written([{"type": "export", "version": 1, "from": 1, "to": 2, "of": "x"}]))
    assert execute(given) == 2
    assert "is an export of version 1" in " ".join(capsys.readouterr().err.split())


def test_an_export_up_to_now_says_that_its_end_is_open(folder, tmp_path, capsys):
    rows = exported(folder, tmp_path / "e.jsonl", until=1200.0)
    assert "1 chain may go on within the period" in " ".join(capsys.readouterr().err.split())
    assert verified(written(rows))[0] == {
        *(("unproven", "record 15"), ("signature", "record 13")),
        ("unproven", "chains"),
    }
    found, report = verified(written(rows), keys=None)
    assert not found and len(report.notes) == 3


def test_a_whole_instance_is_missed_with_anchors_only():
    """Of two services, each with a partition and a chain of its own, one is left out: the limit."""
    made = Made("feedback", place="offset")
    for batch in range(8):
        for partition in (0, 1):
            made.batch(partition, [1000.0 + 5 * batch + i for i in range(5)])
            own = [f"feedback-{partition}"]
            made.stand(f"desk-{partition}", 1005.0 + 5 * batch, own)
    rows = read(b"".join(Export(made.source(), 1012.0, 1022.0).rows()))
    assert verified(written(rows))[0] == set()
    half = drop_chain("desk-1")(drop_chain("feedback-1")(rows))
    assert verified(careful(half))[0] == set()
    anchors = made.lines["desk-1"]
    found, report = verified(careful(half), anchors=anchors)
    assert found == {("dropped", "chain")}
    assert {one.chain for one in report.findings} == {"desk-1", "feedback-1"}
    assert verified(careful(drop_chain("feedback-1")(rows)))[0] == {("dropped", "chain")}
    # Anchors of long after the export say nothing against it.
    made.batch(0, [1100.0])
    made.batch(2, [1100.0])
    made.stand("desk-0", 1101.0)
    assert verified(written(rows), anchors=made.lines["desk-0"])[0] == set()


@pytest.mark.parametrize("since", [1100.0, 900.0, 1018.2])
def test_a_time_without_events_is_proven_to_be_one(folder, tmp_path, since):
    rows = exported(folder, tmp_path / "e.jsonl", since, since + 0.5)
    assert not [row for row in rows if row["type"] == "decision"]
    found, _ = verified(written(rows))
    later = {("unproven", "record 15"), ("unproven", "chains")} if since > 1090 else set()
    assert found == later


def test_a_chain_that_began_anew_is_told_and_can_be_accepted():
    made = Made("feedback", place="offset")
    for batch in range(12):
        if batch == 6:
            made.heads["feedback-0"] = Head()
        made.batch(0, [1000.0 + 5 * batch + i for i in range(5)])
        made.stand("desk-0", 1005.0 + 5 * batch)
    for until in (1022.0, 1047.0):
        data = b"".join(Export(made.source(), 1012.0, until).rows())
        anew = {("restart", "record 1")} if until > 1030.0 else set()
        assert verified(data)[0] == anew
        report = verify_export(io.BytesIO(data), TRUSTED, restarts=True)
        assert not report.findings and report.chains[1].ends == "behind --to"
        gone = written(drop_decision_at(17)(read(data)))
        report = verify_export(io.BytesIO(gone), TRUSTED, restarts=True)
        assert [(one.kind, one.place) for one in report.findings] == [("dropped", "offset 17")]


def drop_decision_at(offset):
    named = f'"offset":{offset},'
    return lambda rows: [
        row for row in rows if named not in row.get("line", "") or "chain" not in row
    ]
