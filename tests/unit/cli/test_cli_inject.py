from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from monitor.cli.app import execute
from monitor.runtime.inject import ATTACKS, Role

BAD = (b"not json \xff", b"", b'{"id": "x"}', b"[1, 2]")


def events(n: int = 400, *, array: bool = False, **changes: object) -> list[bytes]:
    rng = np.random.default_rng(5)
    lines = []
    for i in range(n):
        features: object = {
            "amount": round(float(rng.normal(50, 20)), 2),
            "items": int(rng.integers(1, 9)),
            "country": ["de", "fr", "pl"][int(rng.integers(0, 3))],
            "known": bool(rng.integers(0, 2)),
            "age": None if i % 7 == 0 else int(rng.integers(1, 90)),
        }
        if array:
            features = [round(float(v), 2) for v in rng.normal(0, 1, 3)]
        event = {
            "id": f"é{i}",
            "ts": f"2024-01-01T00:{i // 60:02d}:{i % 60:02d}Z",
            "source": f"s{i % 23}",
            "label": ["fraud", "legit"][int(rng.integers(0, 2))],
            "features": features,
            "subject": f"shop-{i % 17}",
            "meta": {"big": 2**70, "note": "ü"},
        }
        # Not the usual spacing: what is not touched must not be written anew.
        lines.append(json.dumps(event | changes, ensure_ascii=False, separators=(", ", " : ")))
    return [line.encode() for line in lines]


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def run(source: object, out: Path, attack: str, *more: object) -> list[dict]:
    command = ["inject", str(source), "--attack", attack, "--out", str(out), *map(str, more)]
    assert execute(command) == 0
    truth = out.with_name(out.name + ".truth.jsonl").read_text().splitlines()
    return [json.loads(line) for line in truth]


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_only_poison_differs(tmp_path, attack, array):
    lines = events(array=array)
    for place, bad in zip((0, 90, 200, 399), BAD, strict=True):
        lines.insert(place, bad)
    source, out = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    truth = run(source, out, attack, "--rate", 0.1, "--sources", 7)
    after = lines_of(out)
    assert len(after) == len(truth)
    assert [t["line"] for t in truth] == list(range(1, len(truth) + 1))
    poison = [t["poison"] for t in truth]
    added = [i for i, t in enumerate(truth) if t["poison"]] if ATTACKS[attack].inserts else []
    kept = [line for i, line in enumerate(after) if i not in set(added)]
    assert len(kept) == len(lines)
    flags = [p for i, p in enumerate(poison) if i not in set(added)]
    new_updates = ATTACKS[attack].needs == "gradient"
    for old, new, bad in zip(lines, kept, flags, strict=True):
        if old in BAD:
            assert new == old and not bad
        elif new_updates:
            assert set(json.loads(new)) - set(json.loads(old)) == {"gradient"}
        else:
            assert (new == old) != bad
    assert [t["role"] for t in truth].count("unread") == len(BAD)
    for line, told in zip(after, truth, strict=True):
        if told["role"] == "unread":
            assert told["id"] is None
            continue
        event = json.loads(line)
        assert told["id"] == event["id"]
        assert told["attack"] == (attack if told["poison"] else None)
        assert event["meta"] == {"big": 2**70, "note": "ü"}
        if told["poison"]:
            assert event["source"].startswith("ring-")
            assert event["label"] in ("fraud", "legit")
            if not array:
                features = event["features"]
                assert features["country"] in ("de", "fr", "pl")
                assert isinstance(features["known"], bool)
    stamps = [json.loads(line)["ts"] for line in after if line not in BAD]
    assert stamps == sorted(stamps)


def test_same_seed_same_bytes_also_packed(tmp_path):
    source = write(tmp_path / "in.jsonl", events())
    for seed, name in ((1, "a.jsonl"), (1, "b.jsonl"), (2, "c.jsonl"), (1, "d.gz"), (1, "e.zst")):
        run(source, tmp_path / name, "backdoor_jitter", "--seed", seed, "--snap")
    a, b, c = ((tmp_path / f"{n}.jsonl").read_bytes() for n in "abc")
    assert a == b != c
    assert gzip.decompress((tmp_path / "d.gz").read_bytes()) == a
    packed = zstandard.ZstdDecompressor().stream_reader(
        io.BytesIO((tmp_path / "e.zst").read_bytes())
    )
    assert packed.read() == a
    first = (tmp_path / "d.gz").read_bytes()
    run(source, tmp_path / "d.gz", "backdoor_jitter", "--seed", 1, "--snap", "--overwrite")
    assert (tmp_path / "d.gz").read_bytes() == first


def test_snapped_values_were_seen_and_whole_numbers_stay_whole(tmp_path):
    lines = events()
    out = tmp_path / "out.jsonl"
    run(write(tmp_path / "in.jsonl", lines), out, "clean_label", "--snap", "--rate", 0.2)
    seen = [json.loads(line)["features"] for line in lines]
    for line in lines_of(out):
        for name, value in json.loads(line)["features"].items():
            assert value in [f[name] for f in seen]
            if name == "items":
                assert isinstance(value, int)


def test_what_replay_reads_it_reads(tmp_path, monkeypatch):
    table = "amount,kind,label,who\n" + "".join(
        f"{i * 37 % 101},{'xy'[i % 2]},{i * 7919 % 10 < 4},u{i % 9}\n" for i in range(300)
    )
    (tmp_path / "t.csv").write_text(table)
    truth = run(tmp_path / "t.csv", tmp_path / "csv.jsonl", "flip", "--source-from", "who")
    assert len(truth) == 300 and truth[0]["id"] == "t-0"
    columns = {
        "amount": [float(i * 37 % 101) for i in range(300)],
        "label": [i % 3 for i in range(300)],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert len(run(tmp_path / "t.parquet", tmp_path / "pq.jsonl", "targeted")) == 300
    packed = tmp_path / "in.jsonl.gz"
    packed.write_bytes(gzip.compress(b"\n".join(events())))
    assert len(run(packed, tmp_path / "gz.jsonl", "frog")) == 400
    more = ("--honest-sources", 50, "--sources", "hijacked:4", "--honest-bursts", 3)
    truth = run("river:Phishing", tmp_path / "r.jsonl", "gradient", *more)
    assert len(truth) == 1250
    roles = {t["role"] for t in truth}
    assert roles == {"honest", "poison", "honest_burst", "hijacked_honest"}
    sources = {json.loads(line)["source"] for line in lines_of(tmp_path / "r.jsonl")}
    assert 40 < len(sources) <= 53
    pipe = io.TextIOWrapper(io.BytesIO(b"\n".join(events())))
    monkeypatch.setattr(sys, "stdin", pipe)
    assert len(run("-", tmp_path / "p.jsonl", "flip", "--sources", "fresh")) == 400


def test_updates_that_are_there_are_used(tmp_path):
    lines = [json.loads(line) for line in events()]
    rng = np.random.default_rng(0)
    for line in lines:
        line["gradient"] = rng.normal(0, 1, 4).round(3).tolist()
    raw = [json.dumps(line).encode() for line in lines]
    out = tmp_path / "o.jsonl"
    truth = run(write(tmp_path / "in.jsonl", raw), out, "gradient_flipped", "--sources", "ordinary")
    for old, new, told in zip(lines, lines_of(out), truth, strict=True):
        sign = -1 if told["poison"] else 1
        assert json.loads(new)["gradient"] == [sign * v for v in old["gradient"]]


def test_summary(tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [*events(), BAD[0]])
    truth = run(source, tmp_path / "o.jsonl", "flip", "--json", "--sources", "fresh")
    shown = json.loads(capsys.readouterr().out)
    assert shown["lines"] == 401 and shown["unread_lines"] == 1 and shown["attack"] == "flip"
    assert shown["poison"] == sum(t["poison"] for t in truth) == shown["poison_sources"]
    assert truth[shown["first_poison_line"] - 1]["poison"]
    assert shown["roles"]["honest_newcomer"] > 0
    assert "line 401" in shown["first_trouble"]
    run(source, tmp_path / "o.jsonl", "flip", "--overwrite")
    text = capsys.readouterr().out
    assert "o.jsonl.truth.jsonl" in text and "sources of poison" in text and "line 401" in text


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--attack", "nonsense"], "choose one of flip"),
        (["--rate", "0.9"], "at most 0.5"),
        (["--rate", "lots"], "--rate"),
        (["--pattern", "wave"], "burst, spread"),
        (["--sources", "some"], "hijacked:N"),
        (["--attack", "shilling_push_random"], "400 events have no subject"),
        (["--clean-prefix", "2"], "clean prefix"),
    ],
)
def test_bad_usage_is_told_in_a_line(tmp_path, capsys, more, says):
    source = write(tmp_path / "in.jsonl", events(subject=None))
    options = {"--attack": "flip", "--out": str(tmp_path / "o.jsonl")}
    options |= {more[0]: more[1]}
    flat = [part for pair in options.items() for part in pair]
    assert execute(["inject", str(source), *flat]) == 2
    err = capsys.readouterr().err
    assert says in err and "error:" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_files_are_not_lost(tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", events())
    start = ["inject", str(source), "--attack", "flip", "--out"]
    assert execute([*start, str(source), "--overwrite"]) == 2
    assert "is the input" in capsys.readouterr().err
    assert execute([*start, str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert execute([*start, "-"]) == 2
    capsys.readouterr()
    assert execute([*start, str(tmp_path / "new" / "o.jsonl")]) == 0
    assert execute([*start, str(tmp_path / "new" / "o.jsonl")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    write(source, [*events(20), BAD[2]])
    assert execute([*start, str(tmp_path / "p.jsonl")]) == 2
    err = capsys.readouterr().err
    assert "hold 20 events" in err and "line 21: ts is missing" in err


def test_the_help_names_every_attack_and_the_roles_have_words(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert execute(["inject", "--help"]) == 0
    shown = capsys.readouterr().out
    for name in ATTACKS:
        assert name in shown
    assert {role.word for role in Role} >= {"honest", "poison", "prepare", "filler"}
