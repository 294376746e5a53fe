"""The parts of the Kafka transport that need no broker."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.errors import KafkaError, MessageSizeTooLargeError, ProducerFencedError
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from monitor.core.errors import StateError, TransportError, UsageError
from monitor.core.types import Action
from monitor.transport import kafka_port
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_headers import RawName, accept_any_header_name, nullable
from monitor.transport.kafka_port import RefusedError, as_transport_error, make_client
from monitor.transport.kafka_python_consumer import consumer_options
from monitor.transport.kafka_records import Rows, Topics, outgoing, raw_batch
from monitor.transport.kafka_state import CHUNK_BYTES, StoredState, assemble, records
from monitor.transport.kafka_worker import Worker
from tests.kafka.kafka_helpers import unit

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
    found = as_transport_error(error, "committing", CONFIG, make_client(CONFIG))
    assert not isinstance(found, RefusedError)
    with pytest.raises(TransportError, match=f"committing: .*{words}"):
        raise found


def test_unknown_options_are_refused():
    with pytest.raises(UsageError, match="isolation_level"):
        consumer_options(KafkaConfig(options={"isolation_level": "read_uncommitted"}))


def test_each_client_refuses_options_that_it_has_no_word_for():
    pytest.importorskip("confluent_kafka")
    for name in ("isolation_level", "sasl_mechanism", "api_version"):
        config = KafkaConfig(client="confluent", options={name: "x"})
        with pytest.raises(UsageError, match=rf"{name}.*confluent.*kafka\.security"):
            make_client(config)
    with pytest.raises(UsageError, match=r"ssl_cafile.*kafka\.security"):
        make_client(KafkaConfig(options={"ssl_cafile": "x"}))


def test_a_missing_package_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'confluent_kafka'")

    monkeypatch.setattr(kafka_port.importlib, "import_module", missing)
    with pytest.raises(UsageError, match=r"pip install 'poisoning-monitor\[kafka-fast\]'"):
        make_client(KafkaConfig(client="confluent"))


def test_times_and_nulls_follow_their_records():
    columns = [[b"a", None, b"c", None], [b"1", None, None, b"4"], [[], [], [("h", b"")], []]]
    raw, origin = raw_batch(3, Rows([5, 6, 8, 9], [50, 60, 80, 90], *columns))
    assert raw.values == [b"1", b"", b"", b"4"]
    counts = dict.fromkeys(Topics().names().values(), 2)
    for start, end in ((0, 4), (1, 3)):
        (part,) = unit(raw.part(start, end), actions={1: Action.REJECT}).parts
        found = list(outgoing(part, origin, Topics(), counts))
        assert {bundle.partition for bundle in found} == {1}
        rows = [
            row
            for bundle in found[:2]
            for row in zip(bundle.timestamps, bundle.keys, bundle.values, strict=True)
        ]
        # The second has neither key nor value, and so gets one; the third keeps its null.
        expected = [(50, b"a", b"1"), (60, None, b""), (80, b"c", None), (90, None, b"4")]
        assert sorted(rows) == expected[start:end]
        assert found[2].keys == [b"3-%d" % offset for offset in (5, 6, 8, 9)[start:end]]


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
