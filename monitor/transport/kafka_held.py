"""Reads the quarantine topic: every partition, outside any group, committed records only."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from kafka import TopicPartition

from monitor.core.held import HeldBatch, HeldRecord, Original
from monitor.transport.kafka_clients import KafkaConfig, as_transport_error, new_reader
from monitor.transport.kafka_headers import accept_any_header_name
from monitor.transport.kafka_records import FIRST_HOLD_HEADER

log = logging.getLogger(__name__)

_POLL_MS = 200
_MAX_RECORDS = 500
_LOOK_SECONDS = 30.0


class KafkaHeld:
    """The quarantine topic as a :class:`~monitor.core.ports.HeldSource`; parts are partitions."""

    sees_all = False

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._consumer: Any = None
        self._places: dict[int, int] = {}
        self._looked = 0.0

    def start(self, places: Mapping[int, int]) -> None:
        """Go on at these offsets, at the beginning of partitions without one.

        Raises
        ------
        TransportError
            When the brokers fail, or the topic is not there (yet).
        """
        self.close()
        self._places = dict(places)
        try:
            self._open()
        except Exception as error:
            self.close()
            raise as_transport_error(error, self._what, self._config) from error

    def _open(self) -> None:
        accept_any_header_name()
        topic = self._config.topics.quarantine
        consumer = self._consumer = new_reader(self._config, TopicPartition(topic, 0))
        partitions = sorted(consumer.partitions_for_topic(topic) or ())
        if not partitions:
            raise LookupError(f"there is no topic {topic!r} yet")
        parts = [TopicPartition(topic, p) for p in partitions]
        consumer.assign(parts)
        ends = consumer.end_offsets(parts, timeout_ms=self._config.request_timeout_ms)
        for tp in parts:
            place = self._places.get(tp.partition, 0)
            if place > ends[tp]:
                log.warning("%s was made anew: reading partition %d again", topic, tp.partition)
                place = 0
            self._places[tp.partition] = place
            # What the brokers have deleted already is passed over.
            consumer.seek(tp, place)
        self._looked = time.monotonic()

    def read(self, timeout_seconds: float) -> HeldBatch:
        """The next records, a few hundred at most.

        Raises
        ------
        TransportError
            When the brokers fail; ``start`` again then.
        """
        try:
            consumer = self._consumer
            found = consumer.poll(int(timeout_seconds * 1000), max_records=_MAX_RECORDS)
            records = [held_record(r) for rows in found.values() for r in rows]
            for tp in consumer.assignment():
                at = consumer.position(tp, timeout_ms=_POLL_MS)
                self._places[tp.partition] = at or self._places[tp.partition]
            if not records and time.monotonic() - self._looked > _LOOK_SECONDS:
                self._look()
            return HeldBatch([r for r in records if r is not None], dict(self._places))
        except Exception as error:  # the client fails in many ways
            raise as_transport_error(error, self._what, self._config) from error

    def _look(self) -> None:
        """Someone may have added partitions."""
        self._looked = time.monotonic()
        there = self._consumer.partitions_for_topic(self._config.topics.quarantine) or ()
        if len(there) > len(self._consumer.assignment()):
            self.start(dict(self._places))

    @property
    def _what(self) -> str:
        return f"reading {self._config.topics.quarantine!r}"

    def close(self) -> None:
        """Release the connection."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(Exception):
                consumer.close(autocommit=False, timeout_ms=_POLL_MS)


def held_record(record: Any) -> HeldRecord | None:
    """What a record of the quarantine topic tells; None when it was not put there by a monitor.

    Our headers stand behind the record's own, however those are called, beginning with the last
    one named ``monitor-risk``.
    """
    names = [str(name) for name, _ in record.headers]
    if FIRST_HOLD_HEADER not in names:
        return None
    first = len(names) - 1 - names[::-1].index(FIRST_HOLD_HEADER)
    ours = {str(name): value or b"" for name, value in record.headers[first:]}
    try:
        original = Original(
            partition=int(ours["monitor-partition"]),
            offset=int(ours["monitor-offset"]),
            value=record.value,
            key=record.key,
            headers=tuple(record.headers[:first]),
            timestamp=record.timestamp,
        )
        held_at = int(ours.get("monitor-held-at", b"0")) / 1000
        risk = float(ours[FIRST_HOLD_HEADER])
    except (KeyError, ValueError):
        log.warning("%s: record %d cannot be read and is left out", record.topic, record.offset)
        return None
    return HeldRecord(
        original=original,
        decision=ours.get("monitor-decision", b""),
        held_at=held_at or None,
        risk=risk,
        reason=ours.get("monitor-reason", b"").decode("utf-8", "replace"),
    )
