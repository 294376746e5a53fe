"""A client that keeps partitions it has lost, without a word, is found out by the generation."""

from __future__ import annotations

from collections import deque

import pytest

from monitor.core.ports import Resume
from monitor.core.types import RawBatch
from monitor.transport import kafka as kafka_transport
from monitor.transport.kafka import KafkaConfig, KafkaTransport
from monitor.transport.kafka_port import RefusedError
from monitor.transport.kafka_records import Rows
from monitor.transport.kafka_state import StoredState
from monitor.transport.kafka_worker import Worker
from tests.kafka.kafka_helpers import unit


class Group:
    """A member of a group whose brokers remember what was committed."""

    def __init__(self) -> None:
        self.noted: deque[tuple[bool, frozenset[int]]] = deque([(True, frozenset({0, 1}))])
        self.is_settled = True
        self.generation = 1
        self.at = {0: 0, 1: 0}
        self.brokers = {0: 10, 1: 10}
        self.asked = 0

    def poll(self, most: int, seconds: float) -> dict[int, Rows]:
        rows = {}
        for p, first in self.at.items():
            offsets = list(range(first, first + 5))
            rows[p] = Rows(offsets, [0] * 5, [None] * 5, [b"{}"] * 5, [[]] * 5)
        return rows

    def proof(self) -> object:
        return ("group", self.generation)

    def committed(self, partition: int, seconds: float) -> int:
        self.asked += 1
        return self.brokers[partition]

    def assignment(self) -> set[int]:
        return {0, 1}

    def seek(self, partition: int, offset: int) -> None:
        self.at[partition] = offset

    def highwater(self, partition: int) -> int:
        return 100

    def position(self, partition: int) -> int:
        return self.at[partition]


@pytest.fixture
def joined(monkeypatch):
    """A transport that has read its first records, and its member."""

    def resume(client, config, member, partitions):
        return {
            p: (Resume(p, member.brokers[p], None, None), StoredState(member.brokers[p]))
            for p in partitions
        }

    monkeypatch.setattr(kafka_transport, "resume", resume)
    transport, member = KafkaTransport(KafkaConfig()), Group()
    transport._worker, transport._member = Worker("test"), member
    transport._counts = {transport.config.topics.state: 4, transport.config.topics.input: 2}
    first = transport.poll(100, 0.0)
    assert [r.next_offset for r in first.assigned] == [10, 10]
    assert not first.batches
    yield transport, member
    transport._worker.stop()


def test_what_others_committed_meanwhile_is_loaded_anew(joined) -> None:
    transport, member = joined
    member.generation = 3
    member.brokers[1] = 40  # another instance had partition 1, and went on
    polled = transport.poll(100, 0.0)
    assert polled.revoked == [1]
    assert [(r.partition, r.next_offset) for r in polled.assigned] == [(1, 40)]
    assert [batch.partition for batch in polled.batches] == [0]
    assert member.at[1] == 40


def test_a_generation_without_foreign_commits_interrupts_nothing(joined) -> None:
    transport, member = joined
    member.generation = 2
    polled = transport.poll(100, 0.0)
    assert [batch.partition for batch in polled.batches] == [0, 1]
    assert not polled.revoked
    asked = member.asked
    assert asked == 2
    transport.poll(100, 0.0)
    assert member.asked == asked  # once a generation


def test_nothing_is_committed_in_a_generation_that_was_not_looked_at(joined) -> None:
    transport, member = joined
    transport.poll(100, 0.0)
    member.generation = 2
    with pytest.raises(RefusedError, match="another instance"):
        transport.commit(unit(RawBatch.of([b"{}"], start=10)))
