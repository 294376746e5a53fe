"""The parts of the Kafka transport that need no broker."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.errors import KafkaError, MessageSizeTooLargeError, ProducerFencedError
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from monitor.core.errors import StateError, TransportError, UsageError
from monitor.transport.kafka_clients import (
    KafkaConfig,
    RefusedError,
    Worker,
    as_transport_error,
    consumer_options,
)
from monitor.transport.kafka_headers import RawName, accept_any_header_name
from monitor.transport.kafka_records import nullable
from monitor.transport.kafka_state import CHUNK_BYTES, StoredState, assemble, records

CONFIG = KafkaConfig(instance="one")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.binary(max_size=9), st.integers(1, 3 * CHUNK_BYTES)), max_size=6
    )
)
def test_the_latest_state_comes_back(snapshots):
    """Compacted or not, and whatever sizes the snapshots had."""
    topic, stored, last = {}, StoredState(), None
    for i, size in enumerate(snapshots):
        snapshot = bytes([i]) * size if isinstance(size, int) else size
        last = last if snapshot is None else snapshot
        rows, stored = records("g", 10 * i, b"stamp %d" % i, snapshot, stored)
        topic.update(rows)
        found = assemble("g", topic)
        assert (found.next_offset, found.stamp, found.snapshot) == (10 * i, b"stamp %d" % i, last)
        assert (found.ref, found.chunk_counts) == (stored.ref, stored.chunk_counts)
        live = {key for key, value in topic.items() if value is not None}
        assert len(live) == 1 + sum(stored.chunk_counts.values())


def test_other_groups_do_not_matter():
    rows, _ = records("g", 7, b"stamp", b"abc", StoredState())
    assert assemble("other", dict(rows)) == StoredState()


@pytest.mark.parametrize("damage", ["missing", "other", "shorter", "flipped", "stamp"])
def test_a_damaged_snapshot_is_refused(damage):
    first, stored = records("g", 10, b"a", b"x" * (CHUNK_BYTES + 5), StoredState())
    _, stored = records("g", 20, b"b", b"y" * 100, stored)
    third, _ = records("g", 30, b"c", b"z" * (CHUNK_BYTES + 5), stored)
    topic, key = dict(third), b"g/snapshot/0/1"
    assert assemble("g", topic).snapshot == b"z" * (CHUNK_BYTES + 5)
    if damage == "missing":
        del topic[key]
    elif damage == "other":
        topic[key] = dict(first)[key]
    elif damage == "shorter":
        topic[key] = topic[key][:-1]
    elif damage == "flipped":
        topic[key] = topic[key][:-1] + b"a"
    else:
        topic[b"g/stamp"] = b"something else"
    with pytest.raises(StateError):
        assemble("g", topic)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KafkaError("vague", ProducerFencedError()), "'poisoning-monitor-one'.*kafka.instance"),
        (MessageSizeTooLargeError(), "max.message.bytes"),
        (ValueError("odd"), "ValueError: odd"),
    ],
)
def test_errors_say_what_to_do(error, words):
    found = as_transport_error(error, "committing", CONFIG)
    assert not isinstance(found, RefusedError)
    with pytest.raises(TransportError, match=f"committing: .*{words}"):
        raise found


def test_unknown_options_are_refused():
    with pytest.raises(UsageError, match="isolation_level"):
        consumer_options(KafkaConfig(options={"isolation_level": "read_uncommitted"}))


def test_the_worker_keeps_its_deadline():
    worker = Worker("test")
    assert worker.call("adding", 5.0, lambda: 1 + 1) == 2
    with pytest.raises(ZeroDivisionError):
        worker.call("dividing", 5.0, lambda: 1 // 0)
    with pytest.raises(TransportError, match=r"waiting did not finish within 0\.05 s"):
        worker.call("waiting", 0.05, lambda: time.sleep(0.3))
    with pytest.raises(TransportError, match="restart"):
        worker.call("adding", 5.0, lambda: 1 + 1)
    worker.stop()


def test_any_header_is_read_and_written():
    accept_any_header_name()
    headers = nullable([("name", b"v"), (RawName.of(b"\xff\xfe"), None), ("é", b"")])
    builder = MemoryRecordsBuilder(2, 0, 1 << 16)
    for _ in range(3):
        builder.append(1, b"k", b"v", headers)
    builder.close()
    (batch,) = MemoryRecords(builder.buffer())
    for record in batch:
        assert record.headers == [("name", b"v"), ("\ufffd\ufffd", None), ("é", b"")]
        assert record.headers[1][0].encode() == b"\xff\xfe"
