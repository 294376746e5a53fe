"""Only consumes and produces: what the client costs without any gate. Started by throughput.py.

    python -m loadtest.passing --config FILE --decision-bytes N

Reads the input of the service's settings in its group, and writes each event as it came and a
decision of N bytes, in one transaction a batch with the input's position, by the client the
settings name and with the options the service gives it. No snapshots, no state.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from monitor.cli import wiring
from monitor.config.settings import Settings, load_settings
from monitor.transport.kafka_clients import KafkaConfig

BATCH_BYTES = 1_000_000


def ready() -> None:
    """Say, as the service does, that the partitions are here."""
    print("partition ready", file=sys.stderr, flush=True)


def with_kafka_python(
    config: KafkaConfig, decision: bytes, most: int, stop: threading.Event
) -> None:
    """Pass everything through by kafka-python."""
    from kafka.structs import OffsetAndMetadata  # noqa: PLC0415

    from monitor.transport.kafka_clients import (  # noqa: PLC0415
        Rebalances,
        new_admin,
        new_member,
        ready_producer,
    )
    from monitor.transport.kafka_topics import ensure_topics  # noqa: PLC0415

    admin = new_admin(config)
    ensure_topics(admin, config)
    admin.close()
    producer = ready_producer(config, config.max_record_bytes)
    events = Rebalances()
    member = new_member(config, events)
    topics, told = config.topics, False
    while not stop.is_set():
        fetched = member.poll(timeout_ms=100, max_records=most)
        if not told and events.noted:
            told = True
            ready()
        if not fetched:
            continue
        producer.begin_transaction()
        futures, offsets = [], {}
        for tp, rows in fetched.items():
            p = tp.partition
            for r in rows:
                accepted = (topics.accepted, r.value, r.key, r.headers, p, r.timestamp)
                futures.append(producer.send(*accepted))
                key = b"%d-%d" % (p, r.offset)
                futures.append(producer.send(topics.decisions, decision, key, None, p))
            offsets[tp] = OffsetAndMetadata(rows[-1].offset + 1, "", -1)
        producer.flush(config.commit_deadline_seconds)
        for future in futures:
            future.get(0.0)
        producer.send_offsets_to_transaction(offsets, member.group_metadata())
        producer.commit_transaction()
    producer.close(5)
    member.close(autocommit=False)


def with_confluent(config: KafkaConfig, decision: bytes, most: int, stop: threading.Event) -> None:
    """Pass everything through by confluent-kafka."""
    from confluent_kafka import Consumer, Producer, TopicPartition  # noqa: PLC0415

    from monitor.transport.kafka_clients import new_admin  # noqa: PLC0415
    from monitor.transport.kafka_topics import ensure_topics  # noqa: PLC0415

    admin = new_admin(config)
    ensure_topics(admin, config)
    admin.close()
    producer = Producer(
        {
            "bootstrap.servers": config.bootstrap_servers,
            "transactional.id": config.transactional_id,
            "linger.ms": 5,
            "batch.size": BATCH_BYTES,
            "queue.buffering.max.messages": 4 * most + 1000,
        }
    )
    producer.init_transactions(60)
    consumer = Consumer(
        {
            "bootstrap.servers": config.bootstrap_servers,
            "group.id": config.group_id,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": int(config.fetch_wait_seconds * 1000),
            "partition.assignment.strategy": "cooperative-sticky",
        }
    )
    consumer.subscribe([config.topics.input], on_assign=lambda *_: ready())
    topics = config.topics
    while not stop.is_set():
        rows = consumer.consume(most, 0.1)
        if not rows:
            continue
        producer.begin_transaction()
        ends: dict[int, int] = {}
        for r in rows:
            p, offset = r.partition(), r.offset()
            headers, when = r.headers(), r.timestamp()[1]
            producer.produce(
                topics.accepted, r.value(), r.key(), p, timestamp=when, headers=headers
            )
            producer.produce(topics.decisions, decision, b"%d-%d" % (p, offset), p)
            ends[p] = offset + 1
        producer.flush()
        offsets = [TopicPartition(topics.input, p, end) for p, end in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
        producer.commit_transaction()
    consumer.close()


def client_of(settings: Settings) -> str:
    """Which client the settings name; kafka-python where they cannot say."""
    return str(getattr(settings.kafka, "client", "kafka-python"))


def main() -> int:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--decision-bytes", type=int, required=True)
    given = parser.parse_args()
    settings = load_settings(given.config)
    config, stop = wiring.kafka_config(settings), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ways: dict[str, Any] = {"kafka-python": with_kafka_python, "confluent": with_confluent}
    ways[client_of(settings)](config, b"x" * given.decision_bytes, settings.batch.max_events, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
