"""``audit verify`` on folders: whole ones pass, tampered ones do not, and it says where."""

from __future__ import annotations

import shutil

import orjson
import pytest

from monitor.cli.app import execute
from tests.golden.golden import stream

EVENTS, BATCH = 600, 100


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A replay's folder: six batches, six audit records."""
    place = tmp_path_factory.mktemp("audit")
    (place / "in.jsonl").write_bytes(b"".join(v + b"\n" for v in stream(EVENTS).values))
    out = place / "out"
    asked = ["replay", str(place / "in.jsonl"), "--out", str(out), "--no-report", "--json"]
    assert execute([*asked, "--batch-events", str(BATCH)]) == 0
    return out


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def verified(capsys, folder, *more):
    capsys.readouterr()
    code = execute(["audit", "verify", str(folder), "--json", *more])
    report = orjson.loads(capsys.readouterr().out)
    assert code == (0 if report["ok"] else 1)
    return report


def places(report):
    return [(found["kind"], found["place"]) for found in report["findings"]]


def edit(path, change):
    lines = path.read_bytes().split(b"\n")[:-1]
    change(lines)
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def swap(lines, i, j):
    lines[i], lines[j] = lines[j], lines[i]


def test_a_whole_folder_passes(capsys, made):
    report = verified(capsys, made)
    (chain,) = report["chains"]
    assert (chain["records"], chain["decisions"]) == (EVENTS // BATCH, EVENTS)
    assert report["notes"] == []
    first = orjson.loads((made / "audit.jsonl").read_bytes().split(b"\n")[0])
    assert (first["chain"], first["seq"], first["state"]) == ("local-0", 1, "empty@0")


TAMPERED = {
    "decisions.jsonl": [
        (lambda rows: rows.__setitem__(41, rows[41].replace(b"accept", b"flag")), "changed", 42),
        (lambda rows: rows.pop(300), "dropped", 301),
        (lambda rows: rows.insert(7, rows[7].replace(b'"line":8', b'"line":999')), "inserted", 999),
        (lambda rows: rows.append(rows[5]), "inserted", 6),
        (lambda rows: rows.insert(500, rows.pop(20)), "moved", 21),
        (lambda rows: rows.pop(), "dropped", EVENTS),
    ],
    "audit.jsonl": [
        (lambda rows: rows.__setitem__(2, rows[2].replace(b'cy_version":1', b'cy_version":2')),
         "changed", 3),
        (lambda rows: rows.pop(0), "dropped", 1),
        (lambda rows: swap(rows, 1, 2), "moved", 3),
        (lambda rows: rows.pop(), "truncated", 6),
    ],
}  # fmt: skip
CASES = [(name, *case) for name, cases in TAMPERED.items() for case in cases]


@pytest.mark.parametrize("case", CASES)
def test_tampering_is_found_and_named(capsys, folder, case):
    name, change, kind, number = case
    edit(folder / name, change)
    found = places(verified(capsys, folder))
    word = "line" if name == "decisions.jsonl" else "record"
    assert found[0] == (kind, f"{word} {number}")
    if word == "line":
        assert len(found) == 1


def test_a_chain_that_was_taken_away_is_missed(capsys, folder, tmp_path):
    (folder / "audit.jsonl").unlink()
    assert places(verified(capsys, folder))[0] == ("truncated", "record 6")
    assert execute(["audit", "verify", str(tmp_path)]) == 2
    assert "holds no audit.jsonl" in capsys.readouterr().err


def test_words_for_people(capsys, folder):
    edit(folder / "decisions.jsonl", lambda rows: rows.pop(9))
    assert execute(["audit", "verify", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "line 10 in chain local-0 is missing: it was dropped" in out
    assert "1 thing is wrong" in out


def test_a_file_that_is_no_export_is_refused_with_what_to_give(capsys, made, tmp_path):
    for path in (made / "decisions.jsonl", made / "audit.jsonl", made / "accepted.jsonl"):
        assert execute(["audit", "verify", str(path)]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "is not a file that `audit export` wrote. Give that file, or the folder" in said
    (tmp_path / "empty").write_bytes(b"")
    assert execute(["audit", "verify", str(tmp_path / "empty")]) == 2
    assert execute(["audit", "verify", str(tmp_path / "nowhere")]) == 2
    assert "there is no such file or folder" in " ".join(capsys.readouterr().err.split())


def test_an_export_overwrites_nothing_and_says_what_to_do(capsys, made, tmp_path):
    times = ["--from", "1970-01-01", "--to", "2100-01-01"]
    out = tmp_path / "e.jsonl"
    for place, where, said in (
        (made, out, ""),
        (made, out, "name another file, or move it away"),
        (made, tmp_path, "is a folder; name a file in it"),
        (made, tmp_path / "no" / "e.jsonl", "is not there; make it first"),
        (made / "audit.jsonl", tmp_path / "f.jsonl", "is a file; give the folder"),
    ):
        code = execute(["audit", "export", str(place), *times, "--out", str(where)])
        assert code == (2 if said else 0)
        assert said in " ".join(capsys.readouterr().err.split())
    assert execute(["audit", "verify", str(out)]) == 0
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([*lines[:3], b"{\n", *lines[3:]]))
    assert execute(["audit", "verify", str(out)]) == 2
    assert "line 4 is not of an export" in " ".join(capsys.readouterr().err.split())
