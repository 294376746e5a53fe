from __future__ import annotations

import datetime as dt
import gzip
from pathlib import Path

import orjson
import pytest
import zstandard

from monitor.cli.inputs import Columns, open_inputs
from monitor.cli.inputs_river import bundled
from monitor.core.errors import UsageError


def lines(*arguments: object, columns: Columns | None = None, start: int = 0) -> list[bytes]:
    return list(open_inputs([str(a) for a in arguments], columns or Columns()).open(start))


def events(*arguments: object, columns: Columns | None = None) -> list[dict]:
    return [orjson.loads(line) for line in lines(*arguments, columns=columns)]


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


CSV = "amount,country,new,label\n1.5,de,true,1\n,fr,false,0\n3,,true,1\n"


def test_jsonl_passes_through_byte_for_byte(tmp_path):
    data = b'{"a":1}\r\n\nnot json \xff\n{"last":"no newline"}'
    assert lines(written(tmp_path / "e.jsonl", data)) == data.split(b"\n")


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_packed_files(tmp_path, ending):
    pack = gzip.compress if ending == ".gz" else zstandard.compress
    plain = lines(written(tmp_path / "t.csv", CSV))
    assert lines(written(tmp_path / f"t.csv{ending}", pack(CSV.encode()))) == plain
    data = b"one\ntwo\n"
    assert lines(written(tmp_path / f"e.jsonl{ending}", pack(data))) == [b"one", b"two"]


def test_csv_rows_become_events(tmp_path):
    first, second, third = events(written(tmp_path / "card.csv", CSV))
    assert first == {
        "id": "card-0",
        "ts": 1577836800,
        "source": "file:card",
        "label": 1,
        "features": {"amount": 1.5, "country": "de", "new": True},
    }
    assert second["features"] == {"amount": None, "country": "fr", "new": False}
    assert third["features"] == {"amount": 3, "country": None, "new": True}
    assert third["ts"] == first["ts"] + 2


def test_columns_can_be_named(tmp_path):
    path = written(tmp_path / "r.tsv", "user\titem\trating\twhen\n7\ti1\t5\t100\n8\ti2\t4\t200\n")
    columns = Columns("rating", "user", None, "when", "item", ("item",))
    event = events(path, columns=columns)[0]
    assert event == {
        "id": "r-0",
        "ts": 100,
        "source": "7",
        "subject": "i1",
        "label": 5,
        "features": {"item": "i1"},
    }


def test_usual_columns_are_found(tmp_path):
    path = written(tmp_path / "u.csv", "id,TS,source,x,Class\na,2026-01-01T00:00:00Z,s,1,yes\n")
    event = events(path)[0]
    assert (event["id"], event["ts"], event["source"]) == ("a", "2026-01-01T00:00:00Z", "s")
    assert event["label"] == "yes"
    assert event["features"] == {"x": 1}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "0"], [1, 0]),
        (["1.0", "2.0"], [1, 2]),
        (["1.5", "2"], ["1.5", "2"]),
        (["true", "False"], [True, False]),
        (["a", "1"], ["a", "1"]),
    ],
)
def test_labels_keep_their_type_by_column(tmp_path, values, expected):
    text = "x,label\n" + "".join(f"1,{v}\n" for v in values)
    assert [e["label"] for e in events(written(tmp_path / "l.csv", text))] == expected


def test_a_bad_row_costs_only_itself(tmp_path):
    path = written(tmp_path / "b.csv", "x,label\n1,0\n1,0,9\n5\n2,\n3,1\n")
    made = events(path)
    assert made[1] == ["1", "0", "9"] and made[2] == ["5"]
    assert "label" not in made[3]
    assert (made[4]["id"], made[4]["label"]) == ("b-4", 1)


def test_quoted_newlines_and_byte_order_mark(tmp_path):
    path = written(tmp_path / "q.csv", '\ufeffnote,label\n"two\nlines",1\n"a ""b""",0\n')
    assert [e["features"]["note"] for e in events(path)] == ["two\nlines", 'a "b"']


def test_any_line_can_be_the_first(tmp_path):
    a = written(tmp_path / "a.csv", CSV)
    b = written(tmp_path / "b.jsonl", "x\ny\n")
    everything = lines(a, b, "river:Phishing")
    assert len(everything) == 3 + 2 + 1250
    for start in (0, 2, 3, 4, 1000, len(everything)):
        assert lines(a, b, "river:Phishing", start=start) == everything[start:]
    assert open_inputs([str(a), str(b), "river:Phishing"], Columns()).count() == len(everything)


def test_the_fingerprint_follows_contents_order_and_columns(tmp_path):
    a, b = written(tmp_path / "a.csv", CSV), written(tmp_path / "b.jsonl", "x\n")

    def prints(*arguments: Path, columns: Columns | None = None) -> str:
        return open_inputs([str(x) for x in arguments], columns or Columns()).fingerprint()

    assert prints(a, b) == prints(a, b)
    others = {prints(b, a), prints(a), prints(a, b, columns=Columns(source="country"))}
    b.write_text("z\n")
    others.add(prints(a, b))
    b.write_text("x\n")
    assert len(others | {prints(a, b)}) == 5


def test_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    when = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    table = pa.table(
        {
            "amount": [1.5, float("nan")],
            "kind": ["a", None],
            "new": [True, False],
            "timestamp": pa.array([when, when], type=pa.timestamp("us", tz="UTC")),
            "target": pa.array([1.0, 2.0]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    first, second = events(tmp_path / "t.parquet")
    assert first["ts"] == when.timestamp()
    assert (first["label"], second["label"]) == (1, 2)
    assert second["features"] == {"amount": None, "kind": None, "new": False}


def test_parquet_with_a_vector_column(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"features": [[1.0, 2.0]], "label": ["x"]}), tmp_path / "v.parquet")
    assert events(tmp_path / "v.parquet")[0]["features"] == [1.0, 2.0]


def test_river_datasets():
    assert {"Phishing", "Shuttle", "ImageSegments", "Bananas"} <= set(bundled())
    first = events("river:Phishing")[0]
    assert first["label"] is True
    assert (first["id"], first["source"]) == ("phishing-0", "file:phishing")


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("no.csv", "a;b;label\n1;2;3\n", ["separated by ';'", "commas"]),
        ("no.csv", "a,b\n1,2\n", ["none of its columns", "--labels-from", "a, b"]),
        ("twice.csv", "a,a,label\n", ["'a' occurs twice"]),
        ("only.csv", "label\n1\n", ["no column is left"]),
        ("empty.csv", "", ["is empty", "header"]),
        ("latin.csv", "caf\xe9,label\n1,2\n".encode("latin-1"), ["UTF-8", "iconv"]),
        ("array.json", '[{"a": 1}]', ["JSON array", "jq"]),
        ("bad.parquet", "nothing", ["not a Parquet file"]),
        ("half.parquet", b"PAR1 and no more", ["not a readable Parquet file"]),
        ("packed.jsonl", gzip.compress(b"x", mtime=0), ["packed", "packed.jsonl.gz"]),
        ("cut.csv.gz", gzip.compress(CSV.encode() * 200)[:-20], ["damaged or cut off"]),
    ],
)
def test_bad_files_are_named_with_what_to_do(tmp_path, name, content, parts):
    path = written(tmp_path / name, content)
    with pytest.raises(UsageError) as caught:
        lines(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("absent.jsonl", ["no such file"]),
        (".", ["folder"]),
        ("river:Phising", ["did you mean river:Phishing", "river:Shuttle"]),
        ("river:Elec2", ["download", "river:Bananas"]),
        ("-", ["only input"]),
    ],
)
def test_bad_arguments(argument, parts):
    with pytest.raises(UsageError) as caught:
        lines(argument)
    for part in parts:
        assert part in str(caught.value)


def test_a_named_column_must_be_there(tmp_path):
    path = written(tmp_path / "t.csv", CSV)
    with pytest.raises(UsageError, match=r"--source-from: no column 'who'.*amount, country"):
        lines(path, columns=Columns(source="who"))
    with pytest.raises(UsageError, match="--features: no column 'z'"):
        lines(path, columns=Columns(features=("amount", "z")))


def test_tables_of_the_same_name_have_ids_of_their_own(tmp_path):
    paths = [tmp_path / day / "events.csv" for day in ("1", "2", "3")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("a,label\n1,x\n2,y\n")
    joined = open_inputs([str(path) for path in paths], Columns())
    found = [orjson.loads(line) for line in joined.open(0)]
    ids = [event["id"] for event in found]
    assert ids[:4] == ["events-0", "events-1", "events:2-0", "events:2-1"]
    assert len(set(ids)) == 6
    assert [orjson.loads(line) for line in joined.open(3)] == found[3:]
