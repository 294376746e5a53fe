"""An attack that is spread over partitions is seen as well by four processes as by one."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest import streams
from loadtest.replicas import (
    PARTITIONS,
    Line,
    attacked,
    averaged,
    differences,
    in_process,
    recall_at,
)
from monitor.state.schedule import SnapshotRule


def recall(cell: str, events: int, processes: int, *, merged: bool = True) -> float:
    made = attacked(cell, events=events)
    lines, poison = made.stream.lines(), made.poison
    homes = np.random.default_rng(1).integers(0, PARTITIONS, len(lines))
    rule = SnapshotRule(exchange_events=512 if merged else 0)
    outcome = in_process(lines, homes, processes, rule=rule)
    assert (outcome.state_bytes > 0) == merged
    start = int(0.3 * len(lines))
    return recall_at(outcome.risk[start:], poison[start:])


@pytest.mark.parametrize("cell", ["shuttle:targeted:spread:5", "shuttle:gradient:spread:0"])
def test_four_processes_see_what_one_sees(cell: str) -> None:
    one, four = (recall(cell, 8_000, n) for n in (1, 4))
    assert abs(one - four) <= 0.02
    assert four > 0.9


@pytest.mark.skipif("electricity" not in streams.names(), reason="needs the shared data")
def test_partitions_that_know_of_each_other_see_more() -> None:
    cell = "electricity:flip:spread:5"
    assert recall(cell, 12_000, 4) > recall(cell, 12_000, 4, merged=False)


def test_the_table_averages_seeds() -> None:
    lines = [
        Line("a", "1 process", 0.9, 0.8, 0.01, 1.0),
        Line("a", "1 process", 0.7, 0.6, 0.03, 3.0),
        Line("a", "4 processes", 0.75, 0.8, 0.01, 1.0),
        Line("a", "one partition", 1.0, 0.8, 0.01, 0.0),
    ]
    mean = averaged(lines)
    assert mean[0] == Line("a", "1 process", pytest.approx(0.8), 0.7, 0.02, 2.0)
    assert differences(mean) == {"a": pytest.approx(0.05)}
