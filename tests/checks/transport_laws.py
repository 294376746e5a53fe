"""What every transport obeys. A test module lists its transport by subclassing with a fixture.

class TestMine(TransportLaws):
    @pytest.fixture
    def harness(self, tmp_path): return MyHarness(tmp_path)
"""

from __future__ import annotations

import json
from typing import ClassVar, Protocol

import numpy as np
import pytest
import xxhash

from monitor.core.errors import MonitorError
from monitor.core.ports import CommitUnit, PartitionCommit, Resume, Transport
from monitor.core.types import Action, DecisionBatch, Mode, RawBatch, Verdict

ROUTES = {"accepted": Action.PASS, "quarantined": Action.HOLD, "invalid": Action.REJECT}
AWKWARD = [
    b'{"id":"a"}',
    b"",
    b"  spaced \t",
    b"carriage\r",
    b"\xff\xfe not utf-8 \x00",
    b'{"id":"a"}',
    "é漢".encode(),
    b"x" * 70_000,
]


class Harness(Protocol):
    """One place with an input, outputs and stored state. One input partition."""

    exclusive: bool
    """True when a second open transport is refused while the first lives."""

    def feed(self, values: list[bytes]) -> None:
        """Put these records into the input, before the first ``transport``."""

    def transport(self) -> Transport:
        """A new transport on this place, not opened yet."""

    def output(self, name: str) -> list[bytes]:
        """Records readers see in accepted, quarantined, invalid or decisions."""


def route(value: bytes) -> Action:
    """An arbitrary but fixed place for a record."""
    return Action(xxhash.xxh3_64_intdigest(value) % 3)


def decide(raw: RawBatch) -> DecisionBatch:
    """Decisions that follow :func:`route`."""
    n = len(raw)
    action = np.array([route(value) for value in raw.values], dtype=np.uint8)
    verdict = np.array([Verdict.ACCEPT, Verdict.QUARANTINE, Verdict.INVALID], dtype=np.uint8)[
        action
    ]
    return DecisionBatch(
        partition=raw.partition,
        offset=raw.offset,
        risk=np.zeros(n),
        channel=np.full(n, 255, dtype=np.uint8),
        verdict=verdict,
        action=action,
        reject=(verdict == Verdict.INVALID).astype(np.uint8),
        warmup=np.zeros(n, dtype=bool),
        p_value=np.full((n, 1), np.nan),
        channels=("label_flip",),
        reasons={},
        policy_version=1,
        mode=Mode.ENFORCE,
        records=[json.dumps({"offset": int(at)}).encode() for at in raw.offset],
    )


def commit_of(raw: RawBatch, snapshot: bytes | None = None) -> CommitUnit:
    """A commit of one batch with a recognisable stamp."""
    stamp = b"stamp %d" % raw.next_offset
    return CommitUnit((PartitionCommit(raw, decide(raw), raw.next_offset, stamp, snapshot),))


def assigned(transport: Transport, tries: int = 200) -> Resume:
    """Open-to-assigned: where the only partition goes on."""
    for _ in range(tries):
        polled = transport.poll(1, 0.1)
        assert not polled.batches, "a batch came before its partition was assigned"
        if polled.assigned:
            (resume,) = polled.assigned
            return resume
    raise AssertionError("no partition was assigned")


def next_batch(transport: Transport, n: int, tries: int = 200) -> RawBatch | None:
    """The next records, None at the end."""
    for _ in range(tries):
        polled = transport.poll(n, 0.1)
        if polled.batches:
            (batch,) = polled.batches
            assert 0 < len(batch) <= n
            assert np.all(np.diff(batch.offset) > 0)
            return batch
        if polled.finished:
            return None
    return None


def commit_all(transport: Transport, n: int, total: int) -> list[bytes]:
    """Commit batch after batch until ``total`` records were seen."""
    seen: list[bytes] = []
    while len(seen) < total:
        batch = next_batch(transport, n)
        assert batch is not None
        seen += batch.values
        transport.commit(commit_of(batch))
    return seen


def check_outputs(harness: Harness, values: list[bytes]) -> None:
    """Each of ``values`` is where it belongs, once, unchanged and in order."""
    for name, action in ROUTES.items():
        assert harness.output(name) == [value for value in values if route(value) == action]
    offsets = [json.loads(record)["offset"] for record in harness.output("decisions")]
    assert len(offsets) == len(values)
    assert offsets == sorted(set(offsets))


class TransportLaws:
    """The laws. ``harness`` is the fixture a subclass gives."""

    values: ClassVar[list[bytes]] = [*AWKWARD, *(b'{"id":"%d"}' % i for i in range(60))]

    def test_every_record_in_one_output_unchanged_and_in_order(self, harness: Harness) -> None:
        harness.feed(self.values)
        transport = harness.transport()
        transport.open()
        assigned(transport)
        assert commit_all(transport, 7, len(self.values)) == self.values
        transport.close()
        check_outputs(harness, self.values)

    def test_a_fresh_start_has_no_state(self, harness: Harness) -> None:
        harness.feed(self.values)
        transport = harness.transport()
        transport.open()
        resume = assigned(transport)
        transport.close()
        assert (resume.next_offset, resume.stamp, resume.snapshot) == (0, None, None)

    def test_nothing_uncommitted_is_visible(self, harness: Harness) -> None:
        harness.feed(self.values)
        transport = harness.transport()
        transport.open()
        assigned(transport)
        first = next_batch(transport, 10)
        assert first is not None
        transport.commit(commit_of(first))
        assert next_batch(transport, 10) is not None
        transport.close()
        check_outputs(harness, list(first.values))

    def test_abort_brings_the_same_records_again(self, harness: Harness) -> None:
        harness.feed(self.values)
        transport = harness.transport()
        transport.open()
        assigned(transport)
        before = next_batch(transport, 10)
        assert before is not None
        transport.abort()
        seen = commit_all(transport, 10, len(self.values))
        transport.close()
        assert seen == self.values
        check_outputs(harness, self.values)

    def test_it_goes_on_where_it_was_committed(self, harness: Harness) -> None:
        harness.feed(self.values)
        seen: list[bytes] = []
        snapshot: bytes | None = None
        expected: tuple[int, bytes | None] = (0, None)
        for turn in range(5):
            transport = harness.transport()
            transport.open()
            resume = assigned(transport)
            assert (resume.next_offset, resume.stamp) == expected
            assert resume.snapshot == snapshot
            batch = next_batch(transport, 9)
            assert batch is not None
            if turn % 2:
                snapshot = b"snapshot \x00\xff %d" % turn
            transport.commit(commit_of(batch, snapshot if turn % 2 else None))
            seen += batch.values
            expected = (batch.next_offset, b"stamp %d" % batch.next_offset)
            transport.close()
        assert seen == self.values[: len(seen)]
        check_outputs(harness, seen)

    def test_the_latest_snapshot_counts(self, harness: Harness) -> None:
        harness.feed(self.values)
        transport = harness.transport()
        transport.open()
        assigned(transport)
        for n in range(4):
            batch = next_batch(transport, 5)
            assert batch is not None
            transport.commit(commit_of(batch, b"snapshot %d" % n if n < 3 else None))
        transport.close()
        again = harness.transport()
        again.open()
        assert assigned(again).snapshot == b"snapshot 2"
        again.close()

    def test_committed_input_can_be_read_again(self, harness: Harness) -> None:
        harness.feed(self.values)
        transport = harness.transport()
        transport.open()
        assigned(transport)
        offsets: list[int] = []
        while len(offsets) < 40:
            batch = next_batch(transport, 8)
            assert batch is not None
            offsets += batch.offset.tolist()
            transport.commit(commit_of(batch))
        transport.close()
        again = harness.transport()
        again.open()
        resume = assigned(again)
        start, stop = offsets[3], offsets[29] + 1
        read = list(again.read_range(resume.partition, start, stop))
        assert [at for batch in read for at in batch.offset.tolist()] == offsets[3:30]
        assert [value for batch in read for value in batch.values] == self.values[3:30]
        rest = commit_all(again, 8, len(self.values) - len(offsets))
        assert rest == self.values[len(offsets) :]
        again.close()

    def test_only_one_at_a_time(self, harness: Harness) -> None:
        if not harness.exclusive:
            pytest.skip("this transport shares its input by design")
        harness.feed(self.values)
        transport = harness.transport()
        transport.open()
        second = harness.transport()
        with pytest.raises(MonitorError):
            second.open()
        transport.close()
        third = harness.transport()
        third.open()
        third.close()
