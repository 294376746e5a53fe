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
from monitor.transport.kafka_config import FETCH_MIN_BYTES, KafkaConfig
from monitor.transport.kafka_port import make_client
from monitor.transport.kafka_topics import ensure_topics


def ready() -> None:
    """Say, as the service does, that the partitions are here."""
    print("partition ready", file=sys.stderr, flush=True)


def make_topics(config: KafkaConfig) -> None:
    """The topics the service would make."""
    admin = make_client(config).admin()
    ensure_topics(admin, config)
    admin.close()


def with_kafka_python(
    config: KafkaConfig, decision: bytes, most: int, stop: threading.Event
) -> None:
    """Pass everything through by kafka-python."""
    from kafka import ConsumerRebalanceListener, KafkaConsumer  # noqa: PLC0415
    from kafka.structs import OffsetAndMetadata  # noqa: PLC0415

    from monitor.transport.kafka_python import PythonProducer  # noqa: PLC0415
    from monitor.transport.kafka_python_consumer import consumer_options  # noqa: PLC0415

    class Told(ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_assigned(self, assigned: Any) -> None:
            if assigned:
                ready()

        def on_partitions_revoked(self, revoked: Any) -> None:
            pass

    producer: Any = PythonProducer(config, config.max_record_bytes)._client
    member = KafkaConsumer(
        **consumer_options(config),
        group_id=config.group_id,
        fetch_min_bytes=FETCH_MIN_BYTES,
        fetch_max_wait_ms=int(config.fetch_wait_seconds * 1000),
    )
    member.subscribe([config.topics.input], listener=Told())
    topics = config.topics
    while not stop.is_set():
        fetched = member.poll(timeout_ms=100, max_records=most)
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
    from confluent_kafka import Consumer, TopicPartition  # noqa: PLC0415

    from monitor.transport.kafka_confluent import ConfluentProducer  # noqa: PLC0415
    from monitor.transport.kafka_confluent_consumer import consumer_options  # noqa: PLC0415

    producer: Any = ConfluentProducer(config, config.max_record_bytes)._client
    consumer = Consumer(
        consumer_options(config)
        | {
            "fetch.min.bytes": FETCH_MIN_BYTES,
            "partition.assignment.strategy": "cooperative-sticky",
        }
    )
    consumer.subscribe([config.topics.input], on_assign=lambda *_: ready())
    topics = config.topics
    while not stop.is_set():
        first = consumer.poll(0.1)
        if first is None:
            continue
        rows = [r for r in (first, *consumer.consume(most - 1, 0)) if r.error() is None]
        if not rows:
            continue
        producer.begin_transaction()
        ends: dict[int, int] = {}
        for r in rows:
            p, offset = r.partition(), r.offset()
            headers, when = r.headers(), r.timestamp()[1]
            accepted = (topics.accepted, r.value(), r.key(), p)
            producer.produce(*accepted, timestamp=when, headers=headers)
            producer.produce(topics.decisions, decision, b"%d-%d" % (p, offset), p)
            ends[p] = offset + 1
        producer.flush()
        offsets = [TopicPartition(topics.input, p, end) for p, end in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
        producer.commit_transaction()
    consumer.close()


def client_of(settings: Settings) -> str:
    """Which client the settings name."""
    return settings.kafka.client


def main() -> int:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--decision-bytes", type=int, required=True)
    given = parser.parse_args()
    settings = load_settings(given.config)
    config, stop = wiring.kafka_config(settings), threading.Event()
    make_topics(config)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ways: dict[str, Any] = {"kafka-python": with_kafka_python, "confluent": with_confluent}
    ways[client_of(settings)](config, b"x" * given.decision_bytes, settings.batch.max_events, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
