"""Without a real Kafka: records survive the way in and out on librdkafka's mock cluster.

Nothing here is about transactions, which the mock only pretends to have.
"""

from __future__ import annotations

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from monitor.core.ports import PartitionCommit
from monitor.core.types import Action
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_python_consumer import as_rows, consumer_options
from monitor.transport.kafka_records import Topics, outgoing, raw_batch
from tests.kafka.kafka_helpers import judge

# What the mock cluster can do, and no check sums, which it does not fill in.
MOCK = {"api_version": (2, 3)}


@pytest.fixture(scope="module")
def address():
    confluent = pytest.importorskip("confluent_kafka")
    cluster = confluent.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock"})
    (broker,) = cluster.list_topics(timeout=10).brokers.values()
    yield f"{broker.host}:{broker.port}"
    cluster.flush(1)


def send(address, rows) -> None:
    producer = KafkaProducer(bootstrap_servers=address, enable_idempotence=False, **MOCK)
    futures = [
        producer.send(to, value, key, headers, p, at) for to, p, key, value, headers, at in rows
    ]
    producer.flush(10)
    for future in futures:
        future.get(5)
    producer.close(2)


def read(config, topic, count):
    consumer = KafkaConsumer(**consumer_options(config), check_crcs=False)
    tp = TopicPartition(topic, 0)
    consumer.assign([tp])
    rows = []
    for _ in range(40):
        rows += consumer.poll(500, max_records=count - len(rows)).get(tp, [])
        if len(rows) == count:
            break
    consumer.close(autocommit=False)
    return rows


def test_records_survive_the_way_in_and_out(address):
    config = KafkaConfig(bootstrap_servers=address, options=MOCK)
    topics = Topics()
    headers = [("signature", b"\x00\xff"), ("signature", b"")]
    values = [b'{"id":"a"}', b"\xff not text", b"", b"x" * 5000]
    send(
        address,
        [(topics.input, 0, b"k", v, headers, 1_600_000_000_000 + i) for i, v in enumerate(values)],
    )
    raw, origin = raw_batch(0, as_rows(read(config, topics.input, 4)))
    assert list(raw.values) == values
    decisions = judge(raw, {1: Action.REJECT, 3: Action.HOLD})
    part = PartitionCommit(raw, decisions, raw.next_offset, b"stamp")
    for records in outgoing(part, origin, topics, dict.fromkeys(topics.names().values(), 1)):
        none = [None] * len(records.values)
        columns = (
            records.keys,
            records.values,
            records.headers or none,
            records.timestamps or none,
        )
        rows = zip(*columns, strict=True)
        send(address, [(records.topic, records.partition, *row) for row in rows])
    accepted = read(config, topics.accepted, 2)
    assert [(r.key, r.value, r.headers, r.timestamp) for r in accepted] == [
        (b"k", values[i], headers, 1_600_000_000_000 + i) for i in (0, 2)
    ]
    (held,) = read(config, topics.quarantine, 1)
    (refused,) = read(config, topics.invalid, 1)
    assert (held.value, refused.value) == (values[3], values[1])
    assert len(read(config, topics.decisions, 4)) == 4
