#!/usr/bin/env python3
"""A producer that signs what it sends, with kafka-python or confluent-kafka.

Make a key, and let the monitor know its public part:

    poisoning-monitor keys new shop-2026-05 --out shop.key --source "shop-*" > shop.json
    poisoning-monitor keys add --file shop.json --why "The shop signs from May on"

Then:

    python deploy/examples/signed_producer.py --key shop.key --key-id shop-2026-05 < events.jsonl

In a service of yours only `signed_headers` counts. Sign the very bytes that are sent: the same
event encoded anew may have other bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key


def signed_headers(value: bytes, key_id: str, private_key: Any) -> list[tuple[str, bytes]]:
    """Kafka headers that say who signed `value`; the same form for both clients."""
    return [("key-id", key_id.encode()), ("signature", private_key.sign(value))]


def by_kafka_python(rows: Iterable[tuple[bytes, Any]], topic: str, servers: str) -> None:
    """Send values with their headers."""
    from kafka import KafkaProducer  # noqa: PLC0415

    producer = KafkaProducer(bootstrap_servers=servers, acks="all")
    for value, headers in rows:
        producer.send(topic, value, headers=headers)
    producer.flush()


def by_confluent(rows: Iterable[tuple[bytes, Any]], topic: str, servers: str) -> None:
    """The same with confluent-kafka."""
    from confluent_kafka import Producer  # noqa: PLC0415

    producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True})
    for value, headers in rows:
        producer.produce(topic, value, headers=headers)
        producer.poll(0)
    producer.flush()


def main() -> None:
    """Sign and send the lines of standard input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--key-id", required=True)
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    parser.add_argument("--topic", default="feedback")
    parser.add_argument("--confluent", action="store_true", help="send with confluent-kafka")
    given = parser.parse_args()
    key = load_pem_private_key(given.key.read_bytes(), None)
    values = (line.rstrip(b"\n") for line in sys.stdin.buffer)
    rows = ((value, signed_headers(value, given.key_id, key)) for value in values)
    send = by_confluent if given.confluent else by_kafka_python
    send(rows, given.topic, given.bootstrap_servers)


if __name__ == "__main__":
    main()
