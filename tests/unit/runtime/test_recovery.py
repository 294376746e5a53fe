"""Stamps, snapshots and the way back."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.errors import StateError
from monitor.core.ports import Resume
from monitor.core.types import RawBatch
from monitor.state.recovery import FROM_EMPTY, Stamp, advance, begin, recover, seal, unseal
from monitor.state.schedule import SnapshotRule, due
from tests.sim.toy import ToyGate, ToyState

GATE = ToyGate()


def raw(offsets: list[int]) -> RawBatch:
    return RawBatch(0, np.array(offsets, dtype=np.int64), [b"%d" % at for at in offsets])


def bring_back(
    resume: Resume, offsets: list[int], sizes: list[int], notices: list[str] | None = None
) -> tuple[ToyState, Stamp]:
    def read_range(partition: int, start: int, stop: int) -> Iterator[RawBatch]:
        left = [at for at in offsets if start <= at < stop]
        turn = 0
        while left:
            size = sizes[turn % len(sizes)]
            yield raw(left[:size])
            left, turn = left[size:], turn + 1

    return recover(
        resume,
        start=GATE.start,
        load=GATE.load,
        step=lambda state, batch: GATE.step(state, batch)[1],
        read_range=read_range,
        digest=GATE.digest,
        policy_version=1,
        notice=None if notices is None else notices.append,
    )


@given(
    gaps=st.lists(st.integers(1, 5), min_size=1, max_size=80),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=10),
    sizes=st.lists(st.integers(0, 13), min_size=1, max_size=5).filter(any),
    first=st.integers(0, 3),
    every=st.integers(1, 6),
)
def test_recovery_gives_the_state_that_was_left(
    gaps: list[int], cuts: list[int], sizes: list[int], first: int, every: int
) -> None:
    offsets = (np.cumsum(gaps) + first - 1).tolist()
    state, stamp, snapshot = GATE.start(), begin(0, first, 1), None
    left, turn = offsets, 0
    while left:
        batch = raw(left[: cuts[turn % len(cuts)]])
        left, turn = left[len(batch) :], turn + 1
        _, state = GATE.step(state, batch)
        store = due(stamp, len(batch), 1, SnapshotRule(every, 40))
        stamp = advance(
            stamp,
            batch.next_offset,
            len(batch),
            policy_version=1,
            snapshot=store,
            digest=GATE.digest(state),
        )
        if store:
            snapshot = seal(0, stamp.next_offset, GATE.dump(state))
        resume = Resume(0, stamp.next_offset, stamp.encode(), snapshot)
        assert bring_back(resume, offsets, sizes) == (state, stamp)


def test_a_fresh_start_and_one_in_the_middle() -> None:
    notices: list[str] = []
    assert bring_back(Resume(0, 0, None, None), [], [1], notices)[0] == GATE.start()
    assert not notices
    state, stamp = bring_back(Resume(0, 7, None, None), [], [1], notices)
    assert (state, stamp.start_offset, stamp.snapshot_offset) == (GATE.start(), 7, FROM_EMPTY)
    assert "starting with empty state" in notices[0]


def committed() -> tuple[Resume, list[int]]:
    offsets = list(range(12))
    state, stamp = GATE.start(), begin(0, 0, 1)
    for part in (offsets[:4], offsets[4:9], offsets[9:]):
        _, state = GATE.step(state, raw(part))
        stamp = advance(
            stamp,
            part[-1] + 1,
            len(part),
            policy_version=1,
            snapshot=False,
            digest=GATE.digest(state),
        )
    return Resume(0, 12, stamp.encode(), None), offsets


def test_what_does_not_fit_is_refused() -> None:
    resume, offsets = committed()
    stamp = Stamp.decode(resume.stamp or b"")
    refused = {
        "offsets were reset": msgspec.structs.replace(stamp, next_offset=12),
        "is missing": msgspec.structs.replace(
            stamp, snapshot_offset=4, boundaries=(9, 12), counts=(5, 3)
        ),
        "came out different": msgspec.structs.replace(stamp, digest="00"),
        "contradicts itself": msgspec.structs.replace(stamp, boundaries=(4, 4, 12)),
        "partition 3": msgspec.structs.replace(stamp, partition=3),
        "version 99": msgspec.structs.replace(stamp, version=99),
    }
    for words, spoilt in refused.items():
        at = 11 if words == "offsets were reset" else 12
        with pytest.raises(StateError, match=words):
            bring_back(Resume(0, at, spoilt.encode(), None), offsets, [5])
    with pytest.raises(StateError, match="deleted, compacted or replaced"):
        bring_back(resume, offsets[:3] + offsets[4:], [5])
    with pytest.raises(StateError, match="cannot be read"):
        bring_back(Resume(0, 12, b"\x00", None), offsets, [5])


def test_any_changed_byte_of_a_stamp_is_noticed() -> None:
    """Also one that leaves it a sound record: an offset's digit, a policy's version."""
    resume, _ = committed()
    data = resume.stamp or b""
    assert Stamp.decode(data).encode() == data
    for i in range(len(data)):
        for mask in (1, 2, 0x20, 0x80):
            spoilt = bytearray(data)
            spoilt[i] ^= mask
            with pytest.raises(StateError):
                Stamp.decode(bytes(spoilt))
    for cut in range(len(data)):
        with pytest.raises(StateError):
            Stamp.decode(data[:cut])
    with pytest.raises(StateError, match=r"partition 0 is damaged \(checksum differs\)"):
        bring_back(
            Resume(0, 12, data.replace(b'"policy_version":1', b'"policy_version":2'), None), [], [1]
        )


def test_a_stamp_of_before_there_were_checksums_is_read() -> None:
    resume, _ = committed()
    said = msgspec.json.decode(resume.stamp or b"")
    for name in ("check", "audit", "snapshot_digest"):
        del said[name]
    with pytest.raises(StateError, match="checksum"):
        Stamp.decode(msgspec.json.encode(said))
    old = Stamp.decode(msgspec.json.encode(said | {"version": 2}))
    assert old.encode() == resume.stamp


def test_a_snapshot_knows_where_it_belongs() -> None:
    assert unseal(seal(2, 7, b"body")) == (2, 7, b"body")
    with pytest.raises(StateError, match="cannot be read"):
        unseal(b"\x00garbage")
    stamp = advance(begin(0, 0, 1), 4, 4, policy_version=1, snapshot=True)
    with pytest.raises(StateError, match="found that of partition 0 at offset 3"):
        bring_back(Resume(0, 4, stamp.encode(), seal(0, 3, b"[0,0]")), [], [1])


def test_another_policy_is_said_and_forces_a_snapshot() -> None:
    resume, offsets = committed()
    stamp = msgspec.structs.replace(Stamp.decode(resume.stamp or b""), policy_version=7)
    notices: list[str] = []
    bring_back(Resume(0, 12, stamp.encode(), None), offsets, [5], notices)
    assert "policy 7" in notices[0]
    assert due(stamp, 1, 8, SnapshotRule())
    assert not due(stamp, 1, 7, SnapshotRule())


def test_the_input_may_not_go_back() -> None:
    with pytest.raises(StateError, match="rewound or replaced"):
        advance(begin(0, 5), 5, 1, policy_version=1, snapshot=False)
