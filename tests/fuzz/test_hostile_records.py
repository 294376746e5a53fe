"""Bytes from outside that are no events: ledgers, state, audit, tables. Refused by our own errors.

A ledger's bad row is left out and its neighbours count; a file is refused as a bad file.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from monitor.cli.inputs import Columns, open_input
from monitor.config.policy import Policy
from monitor.core.blast import NOWHERE, AcceptedBatch, Checkpoint
from monitor.core.errors import MonitorError, StateError
from monitor.lineage.checkpoints import checkpoint_row, read_checkpoints
from monitor.lineage.columns import unpacked
from monitor.lineage.reading import segment_of
from monitor.state import codec
from monitor.state.audit import Head, opened, seal
from monitor.state.control import ControlState, Report, fold, report_row
from monitor.state.snapshots import seal as snapshot
from monitor.state.snapshots import unseal
from monitor.store.ledger_rows import (
    Operation,
    erase_row,
    operation_row,
    read_rows,
    retract_row,
    review_row,
)
from monitor.transport.kafka_accepted import _key_of
from monitor.transport.local_headers import HeaderLines
from tests.fuzz.hostile import CORPUS, mutated, records

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
NUMBER = itertools.count()
OPERATION = Operation("7", "release", "ann", "fine", 5.0)
REPORT = report_row(Report(instance="a", version=0, when=1.0))
CHECKPOINT = checkpoint_row(Checkpoint("m", 1.0, {0: 5}))
ROWS = [
    review_row(OPERATION, 0, 9),
    operation_row(OPERATION, {"a": 1}),
    retract_row(OPERATION, 1, 7),
    erase_row(OPERATION, "acct-1", {0: 4}, {0: 4}),
    REPORT,
    CHECKPOINT,
]

_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)


@st.composite
def rows(draw: Any) -> tuple[bytes, bytes]:
    """A good row of which a byte, or a field, is anything; or anything."""
    key, value = draw(st.sampled_from(ROWS))
    rng = random.Random(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["byte", "field", "key", "any"]))
    if kind == "byte":
        return key, mutated(value, rng)
    if kind == "key":
        return mutated(key, rng), value
    if kind == "any":
        return key, draw(st.binary(max_size=60))
    fields = json.loads(value)
    fields[draw(st.sampled_from(sorted(fields)))] = draw(_json)
    return key, json.dumps(fields).encode("utf-8", "surrogatepass")


@FEW
@given(st.lists(rows(), max_size=4))
def test_a_bad_row_of_a_ledger_costs_only_itself(some: list[tuple[bytes, bytes]]) -> None:
    facts = read_rows([review_row(OPERATION, 5, 5), *some, review_row(OPERATION, 5, 6)])
    assert [(r["part"], r["pos"]) for r in facts.reviews if r["part"] == 5][:1] == [(5, 5)]
    assert (facts.reviews[-1]["part"], facts.reviews[-1]["pos"]) == (5, 6)
    assert read_checkpoints([*some, CHECKPOINT])[-1].name == "m"
    state = fold(ControlState(), [*some, report_row(Report(instance="z", version=0, when=1.0))])
    assert "z" in state.instances


@FEW
@given(st.dictionaries(st.sampled_from(sorted(Policy.model_fields)), _json, max_size=3))
def test_a_document_is_a_policy_or_refused(document: dict[str, Any]) -> None:
    with contextlib.suppress(ValidationError):
        made = Policy.model_validate(document)
        assert Policy.model_validate(made.model_dump(mode="json")) == made


@FEW
@given(st.integers(0, 2**32), st.booleans())
def test_an_audit_record_is_whole_or_refused(seed: int, noise: bool) -> None:
    line, _ = seal(Head(), "people", "login", {"who": "ann", "at": 1.0, "details": {"a": [1]}})
    assert opened(line).record.seq == 1
    rng = random.Random(seed)
    bad = rng.randbytes(50) if noise else mutated(line, rng)
    with contextlib.suppress(StateError):
        assert not opened(bad).intact or bad.rstrip(b"\n") == line


@FEW
@given(st.integers(0, 2**32), st.booleans())
def test_a_snapshots_body_is_whole_or_refused(seed: int, noise: bool) -> None:
    """The stamp around it, partition and next offset, has no checksum of its own."""
    body = codec.dump({"a": np.arange(50.0), "b": "text"})
    whole = snapshot(3, 70, body)
    assert unseal(whole) == (3, 70, body)
    rng = random.Random(seed)
    bad = rng.randbytes(80) if noise else mutated(whole, rng)
    with contextlib.suppress(StateError):
        found = unseal(bad)[2]
        codec.unseal(found)
        assert found == body
    with contextlib.suppress(StateError):
        unpacked(bad)


@FEW
@given(st.lists(records(), min_size=1, max_size=4))
def test_accepted_bytes_of_any_kind_are_indexed_in_their_place(values: list[bytes]) -> None:
    n = len(values)
    made = segment_of(AcceptedBatch([0] * n, range(n), [1.0] * n, values, [NOWHERE] * n))
    assert made.places.pos.tolist() == list(range(n)) and set(made.packed())


@pytest.mark.parametrize("name", [n for n, v in CORPUS.items() if len(v) < 2_000_000])
def test_the_corpus_is_indexed(name: str) -> None:
    made = segment_of(AcceptedBatch([0], [0], [1.0], [CORPUS[name]], [NOWHERE]))
    assert len(made) == 1 and np.isfinite(made.weight).all()


@FEW
@given(
    st.lists(
        st.tuples(st.sampled_from(["key-id", "x", ""]), st.none() | st.binary(max_size=140)),
        max_size=4,
    )
)
def test_a_claimed_key_is_short_and_printable_or_none(found: list[tuple[str, Any]]) -> None:
    key = _key_of(found)
    assert key is None or (0 < len(key) <= 128 and key.isascii() and key.isprintable())
    assert _key_of(None) is None


def read(path: Path) -> None:
    """Every line is one of JSON; a file that cannot be read is one of our own errors."""
    with contextlib.suppress(MonitorError):
        for line in open_input(str(path), Columns(label="label")).lines():
            json.loads(line)


def table(seed: int) -> bytes:
    rng, out = random.Random(seed), io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "ts", "source", "label", "a"])
    for i in range(5):
        cells = ["", "1e999", "nan", "\u2028", '"', "x" * 300, "9" * 400, "true", "-0", "1_0"]
        writer.writerow([i, 1.7e9 + i, rng.choice(cells), rng.choice(cells), rng.choice(cells)])
    return out.getvalue().encode()


@pytest.mark.parametrize("seed", range(30))
def test_a_csv_file_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    path, data = tmp_path / "t.csv", table(seed)
    for value in (data, mutated(data, random.Random(seed)), random.Random(seed).randbytes(99)):
        path.write_bytes(value)
        read(path)


@pytest.mark.parametrize("seed", range(30))
def test_a_parquet_file_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    path, rng = tmp_path / "t.parquet", random.Random(seed)
    label = [True, False, None, True, False]
    pq.write_table(pa.table({"label": label, "a": [1.0, float("nan"), None, 2.0, 3.0]}), path)
    data = path.read_bytes()
    read(path)
    for _ in range(5):
        path.write_bytes(mutated(data, rng))
        read(path)


@FEW
@given(st.lists(st.binary(max_size=40) | _json.map(lambda v: json.dumps(v).encode()), max_size=4))
def test_a_file_of_headers_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"h{next(NUMBER)}"
    path.write_bytes(b"\n".join(lines) + b"\n")
    with contextlib.suppress(MonitorError):
        HeaderLines(path).of(0, len(lines))
