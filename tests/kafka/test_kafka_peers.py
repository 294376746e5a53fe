"""What partitions publish of themselves reaches every process."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import replace

import pytest

from monitor.core.errors import StateError
from monitor.core.ports import CommitUnit
from monitor.state.recovery import Stamp
from monitor.transport import kafka_state
from monitor.transport.kafka_peers import Pieces
from monitor.transport.kafka_state import CHUNK_BYTES, StoredState
from tests.kafka.kafka_helpers import CLIENTS, poll_until, unit
from tests.kafka.test_kafka_service import (
    EVENTS,
    Process,
    Progress,
    check,
    events,
    feed,
    produce,
    settings,
)
from tests.kafka.test_kafka_transport import plain
from tests.web.driving import until

SNAPSHOTS = [b"a" * 10, b"b" * (2 * CHUNK_BYTES + 7), b"c" * 3]


def log_of(snapshots, group="g"):
    """The records of commits, each with a snapshot or none."""
    before, rows = StoredState(), []
    for at, snapshot in enumerate(snapshots, 1):
        found, before = kafka_state.records(group, at, b"stamp", snapshot, before)
        rows += found
    return rows


def heard(pieces, rows):
    return [found for key, value in rows if (found := pieces.add(key, value)) is not None]


def test_each_snapshot_once_and_none_of_another_group():
    rows = log_of([None, SNAPSHOTS[0], None, None, *SNAPSHOTS[1:], None])
    assert heard(Pieces("g"), rows) == SNAPSHOTS
    assert heard(Pieces("h"), rows) == []


def test_a_compacted_log_brings_the_latest():
    last = {}
    for key, value in log_of([*SNAPSHOTS, None]):
        last.pop(key, None)
        last[key] = value
    assert heard(Pieces("g"), list(last.items())) == [SNAPSHOTS[-1]]


def test_damaged_and_oversized_snapshots_are_refused_and_the_next_is_heard():
    rows = log_of([SNAPSHOTS[1], SNAPSHOTS[2]])
    pieces = Pieces("g")
    (key, value), *rest = rows
    assert heard(pieces, [(key, value[:-1] + b"x"), *rest[:2]]) == []
    with pytest.raises(StateError, match="check sum"):
        pieces.add(*rest[2])
    assert heard(pieces, rest[3:]) == [SNAPSHOTS[2]]
    small = Pieces("g", max_bytes=1000)
    with pytest.raises(StateError, match="larger than 1000"):
        heard(small, rows[:4])
    assert heard(small, rows[4:]) == [SNAPSHOTS[2]]


@pytest.mark.kafka
def test_committed_snapshots_are_heard_by_all(cluster):
    one, two = cluster.transport(instance="a"), cluster.transport(instance="b", group_id="other")
    assert (one.n_partitions, one.published(), two.published()) == (2, {}, {})
    cluster.produce(plain(5) + plain(5, partition=1))
    batches, _ = poll_until(one, 10)
    parts = [replace(p, snapshot=b"s%d" % p.raw.partition) for p in unit(*batches).parts]
    one.commit(CommitUnit(tuple(parts)))
    found, deadline = {}, time.monotonic() + 20
    while len(found) < 2 and time.monotonic() < deadline:
        found |= one.published()
        time.sleep(0.1)
    assert found == {0: b"s0", 1: b"s1"}
    assert one.published() == {}
    # Another group's are none of its business; one that comes later hears what is there.
    assert two.published() == {}
    late = cluster.transport(instance="c")
    assert late.published() == found


@pytest.mark.kafka
@pytest.mark.timeout(420)
@pytest.mark.parametrize("client", ["kafka-python"], indirect=True)
def test_five_members_come_and_go(cluster, tmp_path):
    """With either client, as during a rolling change from one to the other."""
    # Of a backlog one partition may be read to its end before the others have published anything,
    # so the rest comes when all have.
    expected, places = feed(cluster, seed=3, first=EVENTS // 2)
    rng = random.Random(11)
    progress, running = Progress(cluster), {}

    def start(name):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        library = CLIENTS[name in "bd"]
        running[name] = Process(folder, settings(cluster, instance=name, client=library))
        running[name].start()

    try:
        start("a")
        progress.wait(1, running["a"])
        plan = [("b", None), ("c", "a"), ("d", "b"), ("e", None), ("a", "c")]
        for turn, (comes, goes) in enumerate(plan, 1):
            start(comes)
            time.sleep(rng.uniform(1.0, 4.0))
            if goes is not None:
                how = signal.SIGTERM if turn % 2 else signal.SIGKILL
                leaver = running.pop(goes)
                if how == signal.SIGTERM:  # to one whose Python still starts it says nothing
                    until(lambda log=leaver.log: b"policy in force" in log.read_bytes(), 120)
                assert leaver.end(how) in (0, -signal.SIGKILL)
            progress.wait(turn * EVENTS // 16, running[comes])
        progress.wait(EVENTS // 2, running["e"])
        produce(cluster, list(events(EVENTS, 3))[EVENTS // 2 :])
        progress.wait(EVENTS, running["e"])
        for process in running.values():
            assert process.end(signal.SIGTERM) == 0
    finally:
        for process in running.values():
            process.__exit__()
    check(cluster, expected, places)
    stamps = [
        Stamp.decode(kafka_state.decode_stamp(row.value)[1])
        for row in cluster.read(cluster.topics.state)
        if row.key.endswith(b"/stamp")
    ]
    assert len({stamp.partition for stamp in stamps if stamp.view}) >= 2
