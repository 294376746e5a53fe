from __future__ import annotations

import io
import time

import numpy as np
import orjson
import pytest
from rich.console import Console

from monitor.cli.demo_stream import PacedLines, attacked, outcome, shuttle
from monitor.cli.demo_view import Collected, DemoView
from monitor.core.errors import UsageError
from monitor.core.ports import CommitUnit, PartitionCommit
from monitor.core.types import RawBatch
from monitor.gate import Gate
from monitor.runtime.status import Status


@pytest.fixture(scope="module")
def stream():
    return attacked(shuttle(4000, 0), ("flip", "backdoor"), share=0.05, seed=0)


def test_the_same_seed_gives_the_same_stream(stream):
    again = attacked(shuttle(4000, 0), ("flip", "backdoor"), share=0.05, seed=0)
    assert again.lines == stream.lines
    assert attacked(shuttle(4000, 1), ("flip",), share=0.05, seed=1).lines != stream.lines


def test_each_attack_keeps_to_its_window_and_its_sources(stream):
    assert stream.windows == ((1000, 2500), (2500, 4000))
    sources = [orjson.loads(line)["source"] for line in stream.lines]
    for number, (first, last) in enumerate(stream.windows):
        rows = np.flatnonzero(stream.truth == number)
        assert len(rows) == 75 and first <= rows[0] and rows[-1] < last
        assert {sources[row][:7] for row in rows} == {f"ring-{number + 1}-"}
    assert not any(sources[row].startswith("ring") for row in np.flatnonzero(stream.truth < 0))


def test_outcome_counts_what_was_judged_only(stream):
    verdicts = ["quarantine" if t >= 0 else "accept" for t in stream.truth[:2600]]
    found = outcome(stream, [{"verdict": v} for v in verdicts])
    first, second = found["attacks"]
    assert first["quarantined_share"] == 1.0 and first["events"] == 75
    assert second["events"] < 75
    assert found["honest"]["quarantined"] == 0
    empty = outcome(stream, [])
    assert empty["honest"]["quarantined_share"] is None


def test_lines_come_no_faster_than_asked(stream):
    began = time.monotonic()
    lines = PacedLines(stream, 2000.0).open(0)
    for _ in range(321):
        next(lines)
    assert time.monotonic() - began >= 0.15


def test_bad_attacks(stream):
    with pytest.raises(UsageError, match="unknown attack 'x'"):
        attacked(shuttle(4000, 0), ("x",), share=0.05, seed=0)
    with pytest.raises(UsageError, match="rate"):
        attacked(shuttle(4000, 0), ("flip",), share=0.9, seed=0)


def test_the_view_draws_at_any_size_and_takes_hostile_names(stream):
    status, collected, gate = Status(), Collected(), Gate()
    view = DemoView(stream, status, collected, "http://127.0.0.1:1")
    lines = [line.replace(b"acct-0000", b"[red]\\u001b[2J") for line in stream.lines[:2000]]
    for first in range(0, 2000, 500):
        raw = RawBatch.of(lines[first : first + 500], start=first)
        decisions = gate.check(raw)
        unit = CommitUnit((PartitionCommit(raw, decisions, raw.next_offset, b""),))
        status.committed(unit, {"gate": 0.1})
        collected.committed(unit, {})
    for width, height in ((200, 60), (80, 24), (20, 5)):
        out = io.StringIO()
        Console(file=out, width=width, height=height, force_terminal=True).print(view.render())
        assert "\x1b[2J" not in out.getvalue()
    assert collected.risk.sum() == collected.events == 2000
