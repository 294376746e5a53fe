"""A ledger in a topic: one partition, compacted, written in transactions.

Each ledger object has a transactional id of its own, so none cuts another off. Readers see what
is committed only; who catches up waits for transactions that are open at that moment, because
they may commit in front of what is read next.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from monitor.core.errors import TransportError
from monitor.transport.kafka_clients import (
    KafkaConfig,
    Worker,
    as_transport_error,
    consumer_options,
    new_reader,
    ready_producer,
)
from monitor.transport.kafka_headers import accept_any_header_name

Row = tuple[bytes, bytes | None]

# A killed appender's transaction holds readers up until the brokers drop it: five seconds later.
_DEADLINE_SECONDS = 10.0
_POLL_MS = 200
_CLOSE_SECONDS = 2.0
_MAX_RECORDS = 5000


def end_of_log(config: KafkaConfig, place: TopicPartition) -> int:
    """The offset behind the last record, open transactions included. Raises a client's error."""
    options = {**consumer_options(config), "isolation_level": "read_uncommitted"}
    consumer = KafkaConsumer(**options)
    try:
        consumer.assign([place])
        found = consumer.end_offsets([place], timeout_ms=config.request_timeout_ms)
        return int(found[place])
    finally:
        consumer.close(autocommit=False, timeout_ms=_POLL_MS)


class KafkaLedger:
    """Partition 0 of a compacted topic, which must exist.

    Parameters
    ----------
    config
        How to reach Kafka.
    topic
        The topic's name.
    """

    def __init__(self, config: KafkaConfig, topic: str) -> None:
        self._config = config
        self._own = replace(
            config,
            instance=f"ledger-{uuid.uuid4().hex}",
            commit_deadline_seconds=min(_DEADLINE_SECONDS, config.commit_deadline_seconds),
        )
        self._place = TopicPartition(topic, 0)
        self._consumer: Any = None
        self._next: int | None = None
        self._producer: Any = None
        self._worker: Worker | None = None

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows in one transaction.

        Raises
        ------
        TransportError
            When the brokers fail; the rows may be there all the same when the connection broke
            in the very last step.
        """
        if not rows:
            return
        what = f"writing to {self._place.topic!r}"
        try:
            self._call(what, lambda: self._transact(rows))
        except Exception as error:  # the client fails in many ways; the next call begins anew
            self._drop_producer()
            raise as_transport_error(error, what, self._own) from error

    def _transact(self, rows: Sequence[Row]) -> None:
        deadline = time.monotonic() + self._own.commit_deadline_seconds
        if self._producer is None:
            self._producer = ready_producer(self._own, self._own.max_record_bytes)
        producer = self._producer
        producer.begin_transaction()
        topic, partition = self._place
        sent = [producer.send(topic, value, key, None, partition) for key, value in rows]
        producer.flush(max(0.0, deadline - time.monotonic()))
        for future in sent:
            future.get(max(0.0, deadline - time.monotonic()))
        producer.commit_transaction()

    def _call(self, what: str, function: Callable[[], None]) -> None:
        if self._worker is None:
            self._worker = Worker("kafka-ledger")
        # Connecting takes its own time at the first call.
        seconds = self._own.commit_deadline_seconds + self._config.request_timeout_seconds
        self._worker.call(what, seconds, function)

    def _drop_producer(self) -> None:
        worker, self._worker = self._worker, None
        producer, self._producer = self._producer, None
        if worker is not None:
            if producer is not None:
                with contextlib.suppress(Exception):
                    worker.call("closing", 2 * _CLOSE_SECONDS, lambda: _close(producer))
            worker.stop()

    def read(self, timeout_seconds: float) -> Sequence[Row]:
        """Rows since the last call; waits for the first at most ``timeout_seconds``.

        Raises
        ------
        TransportError
            When the brokers fail; the next call goes on at the same place.
        """
        try:
            reader = self._reader()
            rows = self._poll(reader, int(timeout_seconds * 1000))
            self._next = self._position(reader)
            return rows
        except Exception as error:
            self._drop_reader()
            raise as_transport_error(error, f"reading {self._place.topic!r}", self._own) from error

    def catch_up(self) -> Sequence[Row]:
        """Rows since the last call up to the present end; from the beginning the first time.

        Raises
        ------
        TransportError
            When the end is not reached within the request timeout.
        """
        rows: list[Row] = []
        what = f"reading {self._place.topic!r}"
        try:
            end = end_of_log(self._own, self._place)
            reader = self._reader()
            start = time.monotonic()
            # Brokers drop an open transaction in this time; then its records count for nothing.
            patience = self._own.transaction_timeout_seconds + self._own.request_timeout_seconds
            while self._position(reader) < end:
                found = self._poll(reader, _POLL_MS)
                rows += found
                start = time.monotonic() if found else start
                if time.monotonic() - start > patience:
                    raise TransportError(f"{what}: nothing arrived for {patience:g} s")
        except Exception as error:
            self._drop_reader()  # what was read here is not handed over: again from where we were
            raise as_transport_error(error, what, self._own) from error
        self._next = self._position(reader)
        return rows

    def _reader(self) -> Any:
        if self._consumer is None:
            accept_any_header_name()
            self._consumer = new_reader(self._own, self._place)
            if self._next is None:
                self._consumer.seek_to_beginning(self._place)
            else:
                self._consumer.seek(self._place, self._next)
        return self._consumer

    def _position(self, reader: Any) -> int:
        return reader.position(self._place, timeout_ms=_POLL_MS) or self._next or 0

    def _poll(self, reader: Any, milliseconds: int) -> list[Row]:
        found = reader.poll(milliseconds, max_records=_MAX_RECORDS).get(self._place, [])
        return [(r.key or b"", r.value) for r in found]

    def _drop_reader(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(Exception):
                consumer.close(autocommit=False, timeout_ms=_POLL_MS)

    def close(self) -> None:
        """Release the connections."""
        self._drop_reader()
        self._drop_producer()


def _close(producer: Any) -> None:
    with contextlib.suppress(Exception):
        producer.abort_transaction()  # left open it would hold up all readers
    producer.close(_CLOSE_SECONDS)
