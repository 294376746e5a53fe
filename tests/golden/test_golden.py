"""Stored states of every released form load, are brought to the present form, and judge on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from monitor.core.errors import StateError
from monitor.core.ports import Resume
from monitor.core.types import RawBatch, Verdict
from monitor.gate import Gate
from monitor.state import codec, partition, recovery
from tests.golden.golden import (
    CONFIG,
    HERE,
    MORE,
    STORED,
    Golden,
    journal_folder,
    layout,
    local_run,
    present,
    stream,
)

JOURNALS = sorted(HERE.glob("journal-*"))
FILES = sorted(HERE.glob("state-*.zst"))
ADD = "run `python tests/golden/golden.py` and commit what it writes, beside the old files"


def never(partition: int, start: int, stop: int) -> list[RawBatch]:
    raise AssertionError("a snapshot without later batches needs no input")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads_and_judges_on(path: Path) -> None:
    golden, gate = Golden.read(path), Gate(CONFIG)
    resume = Resume(0, STORED, golden.stamp, golden.snapshot)
    state, stamp = recovery.recover(
        resume, start=gate.start, load=gate.load, step=gate.relive, read_range=never
    )
    assert (stamp.next_offset, stamp.version) == (STORED, recovery.STAMP_VERSION)
    assert state.events > 0.9 * STORED and state.schema is not None
    assert set(state.detectors) == {d.name for d in gate.detectors}
    decided, after = gate.step(state, stream(MORE, STORED))
    assert decided.failures == ()
    assert len(decided.records) == MORE
    assert (decided.verdict == Verdict.INVALID).sum() == MORE // 50
    assert (decided.verdict == Verdict.ACCEPT).mean() > 0.8
    assert np.isfinite(decided.risk).all()
    # What is stored from now on is of the present form, and stays the same through a reload.
    stored = gate.dump(after)
    assert codec.unseal(stored)["format"] == partition.FORMAT
    assert gate.digest(gate.load(stored)) == gate.digest(after)
    # Learned from the stored state: another state judges otherwise.
    fresh, _ = gate.step(gate.start(), stream(MORE, STORED))
    assert list(fresh.records) != list(decided.records)


@pytest.mark.parametrize("number", partition.READABLE)
def test_every_readable_format_has_a_golden(number: int) -> None:
    assert any(path.name.startswith(f"state-{number}-") for path in FILES), ADD


def test_the_present_form_has_a_golden() -> None:
    now = f"state-{partition.FORMAT}-{layout(present().body)}.zst"
    assert now in {path.name for path in FILES}, f"the stored form has changed: {ADD}"


def test_a_form_of_the_future_is_refused_in_words() -> None:
    tree = codec.unseal(present().body)
    tree["format"] = partition.FORMAT + 1
    with pytest.raises(StateError, match="start from an empty state folder"):
        Gate(CONFIG).load(codec.seal(tree))


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.name)
def test_a_half_done_local_run_is_finished(path: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(path, one)
    (other).mkdir()
    shutil.copy(path / "input.jsonl", other)
    before = (one / "out" / "decisions.jsonl").read_bytes().count(b"\n")
    assert 0 < before < 100
    local_run(one)
    local_run(other)
    for name in ("accepted", "quarantined", "invalid", "decisions"):
        found = [(folder / "out" / f"{name}.jsonl").read_bytes() for folder in (one, other)]
        assert found[0] == found[1]
        assert found[0]


def test_the_present_journal_has_a_golden() -> None:
    assert journal_folder() in JOURNALS, "run `python tests/golden/golden.py --journal`"


def test_the_layout_notices_a_renamed_field() -> None:
    body = present().body
    tree = codec.unseal(body)
    tree["occurrences"] = tree.pop("events")
    assert layout(codec.seal(tree)) != layout(body)
