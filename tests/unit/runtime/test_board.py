"""What comes from other partitions, damaged or not."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from monitor.core.errors import StateError
from monitor.runtime.board import Board
from monitor.state.recovery import advance, begin, seal, unseal
from monitor.state.schedule import SnapshotRule, due
from tests.sim.toy import SharingToyGate, ToyView

GATE = SharingToyGate()


def sealed(partition: int, offset: int, chain: int) -> bytes:
    return seal(partition, offset, GATE.dump(ToyView(offset, chain, "ab")))


def test_the_latest_of_each_other_partition() -> None:
    notices: list[str] = []
    board = Board(notices.append)
    board.put({0: sealed(0, 5, 1), 1: sealed(1, 6, 8), 2: sealed(2, 3, 3)})
    board.put_own(1, 7, GATE.own_summary(ToyView(7, 2, "ab")))
    board.put({1: sealed(1, 4, 9)})  # late: known already
    board.put({2: sealed(2, 8, 4)})
    found = board.others(GATE, 0)
    assert {p: (s.events, s.chain, s.view) for p, s in found.items()} == {
        1: (7, 2, ""),
        2: (8, 4, ""),
    }
    board.put({0: sealed(0, 9, 6)})
    board.put({1: sealed(1, 8, 5)})  # another process has it now
    board.put({1: sealed(1, 2, 7)})  # and its state has begun anew
    assert board.others(GATE, 0)[1].chain == 7
    assert list(board.others(GATE, 2)) == [0, 1]
    assert board.others(GATE, 2)[0].chain == 6
    assert not notices


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"nonsense", "cannot be read"),
        (sealed(1, 9, 1)[:-4], "cannot be read"),
        (sealed(3, 9, 1), "of partition 3"),
        (seal(1, 9, bytes(5000)), "larger than 1000 bytes"),
    ],
)
def test_what_cannot_be_used_changes_nothing(data: bytes, words: str) -> None:
    notices: list[str] = []
    board = Board(notices.append, max_bytes=1000)
    board.put({1: sealed(1, 5, 2)})
    board.put({1: data})
    assert words in notices[0]
    assert board.others(GATE, 0)[1].chain == 2


def test_a_state_of_another_version_changes_nothing() -> None:
    class Strict(SharingToyGate):
        def summary(self, data: bytes) -> ToyView:
            state = super().summary(data)
            if state.chain == 13:
                raise StateError("written by a later version")
            return state

    notices: list[str] = []
    board = Board(notices.append)
    board.put({1: sealed(1, 5, 2)})
    assert board.others(Strict(), 0)[1].chain == 2
    board.put({1: sealed(1, 6, 13)})
    assert board.others(Strict(), 0)[1].chain == 2
    assert "later version" in notices[0]


def test_snapshots_of_the_first_version_are_read() -> None:
    old = msgspec.msgpack.encode({"version": 1, "partition": 2, "next_offset": 7, "body": b"abc"})
    assert unseal(old) == unseal(seal(2, 7, b"abc")) == (2, 7, b"abc")


def snapshots(rule: SnapshotRule, partition: int, events: int, batch: int) -> list[int]:
    stamp, found = begin(partition, 0), []
    for end in range(batch, events + 1, batch):
        store = due(stamp, batch, 0, rule)
        stamp = advance(stamp, end, batch, policy_version=0, snapshot=store)
        if store:
            found.append(end)
    return found


def test_young_states_are_exchanged_often_and_old_ones_seldom() -> None:
    rule = SnapshotRule(every_batches=10**9, every_events=65_536, exchange_events=512)
    found = snapshots(rule, 0, 4_000_000, 64)
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert max(gaps[:14]) <= 512 + 64
    assert all(gap <= max(512, at / 12) + 64 for at, gap in zip(found, gaps, strict=False))
    assert max(gaps) <= 65_536
    # 16 in the first 8,192, 16 times the logarithm up to 1,048,576, and then one in 65,536.
    assert len(found) < 16 + 16 * 4.9 + 46 + 3
    # Two partitions do not store at the same moment.
    assert len(set(found) & set(snapshots(rule, 1, 4_000_000, 64))) < len(found) / 5


def test_a_single_partition_is_stored_as_before() -> None:
    assert snapshots(SnapshotRule(10**9, 65_536), 0, 200_000, 1000) == [66_000, 132_000, 198_000]
