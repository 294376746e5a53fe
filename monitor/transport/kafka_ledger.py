"""A ledger in a topic: one partition, compacted, written in transactions.

Each ledger object has a transactional id of its own, so none cuts another off. Readers see what
is committed only; who catches up waits for transactions that are open at that moment, because
they may commit in front of what is read next.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace

from monitor.core.errors import TransportError
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_port import Fault, Producer, Reader, as_transport_error, make_client
from monitor.transport.kafka_records import Outgoing
from monitor.transport.kafka_worker import Worker

Row = tuple[bytes, bytes | None]

_PARTITION = 0
# A killed appender's transaction holds readers up until the brokers drop it: five seconds later.
_DEADLINE_SECONDS = 10.0
_POLL_SECONDS = 0.2
_CLOSE_SECONDS = 2.0
_MAX_RECORDS = 5000


class KafkaLedger:
    """Partition 0 of a compacted topic, which must exist.

    Parameters
    ----------
    config
        How to reach Kafka.
    topic
        The topic's name.

    Raises
    ------
    UsageError
        When the client's package is not installed.
    """

    def __init__(self, config: KafkaConfig, topic: str) -> None:
        deadline = min(_DEADLINE_SECONDS, config.commit_deadline_seconds)
        self._config = replace(
            config,
            instance=f"ledger-{uuid.uuid4().hex}",
            commit_deadline_seconds=deadline,
            # A client may refuse to wait longer than the transaction lives.
            request_timeout_seconds=min(config.request_timeout_seconds, deadline),
        )
        self._client = make_client(self._config)
        self._topic = topic
        self._open_reader: Reader | None = None
        self._next: int | None = None
        self._producer: Producer | None = None
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
        if self._worker is None:
            self._worker = Worker("kafka-ledger")
        config = self._config
        # Connecting takes its own time at the first call.
        seconds = config.commit_deadline_seconds + config.request_timeout_seconds
        try:
            self._worker.call(f"writing to {self._topic!r}", seconds, lambda: self._write(rows))
        except Exception as error:  # the client fails in many ways; the next call begins anew
            self._drop_producer()
            raise self._error(error, "writing to") from error

    def _write(self, rows: Sequence[Row]) -> None:
        deadline = time.monotonic() + self._config.commit_deadline_seconds
        if self._producer is None:
            self._producer = self._client.producer(self._config.max_record_bytes)
        keys, values = [key for key, _ in rows], [value for _, value in rows]
        self._producer.begin()
        self._producer.send(Outgoing(self._topic, _PARTITION, keys, values))
        self._producer.flush(max(0.0, deadline - time.monotonic()))
        self._producer.commit(max(0.0, deadline - time.monotonic()))

    def _drop_producer(self) -> None:
        worker, self._worker = self._worker, None
        producer, self._producer = self._producer, None
        if worker is not None:
            if producer is not None:
                with contextlib.suppress(Exception):
                    worker.call("closing", 2 * _CLOSE_SECONDS, lambda: drop(producer))
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
            rows = _poll(reader, timeout_seconds)
            self._next = self._position(reader)
            return rows
        except Exception as error:
            self._drop_reader()
            raise self._error(error, "reading") from error

    def catch_up(self) -> Sequence[Row]:
        """Rows since the last call up to the present end; from the beginning the first time.

        Raises
        ------
        TransportError
            When the end is not reached within the request timeout.
        """
        rows: list[Row] = []
        config = self._config
        try:
            end = self._end()
            reader, since = self._reader(), time.monotonic()
            # Brokers drop an open transaction in this time; then its records count for nothing.
            patience = config.transaction_timeout_seconds + config.request_timeout_seconds
            while self._position(reader) < end:
                found = _poll(reader, _POLL_SECONDS)
                rows += found
                since = time.monotonic() if found else since
                if time.monotonic() - since > patience:
                    raise TransportError(
                        f"reading {self._topic!r}: nothing arrived for {patience:g} s"
                    )
            self._next = self._position(reader)
        except Exception as error:
            self._drop_reader()  # what was read here is not handed over: again from where we were
            raise self._error(error, "reading") from error
        return rows

    def _end(self) -> int:
        """The end of the log, when a topic that was made just now has settled down."""
        seconds = self._config.request_timeout_seconds
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self._client.log_ends(self._topic, [_PARTITION], seconds)[_PARTITION]
            except Exception as error:
                passing = self._client.fault(error)[0] is Fault.PASSING
                if not passing or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_SECONDS)

    def _reader(self) -> Reader:
        if self._open_reader is None:
            self._open_reader = self._client.reader(self._topic, [_PARTITION])
            if self._next is not None:
                self._open_reader.seek(_PARTITION, self._next)
        return self._open_reader

    def _position(self, reader: Reader) -> int:
        return reader.position(_PARTITION) or self._next or 0

    def _drop_reader(self) -> None:
        reader, self._open_reader = self._open_reader, None
        if reader is not None:
            with contextlib.suppress(Exception):
                reader.close(_POLL_SECONDS)

    def _error(self, error: BaseException, what: str) -> TransportError:
        return as_transport_error(error, f"{what} {self._topic!r}", self._config, self._client)

    def close(self) -> None:
        """Release the connections."""
        self._drop_reader()
        self._drop_producer()


def _poll(reader: Reader, seconds: float) -> list[Row]:
    found = reader.poll(_MAX_RECORDS, seconds).get(_PARTITION)
    if found is None:
        return []
    return [(key or b"", value) for key, value in zip(found.keys, found.values, strict=True)]


def drop(producer: Producer) -> None:
    """Close a producer whose transaction may be open: left so it would hold up all readers."""
    with contextlib.suppress(Exception):
        producer.abort(_CLOSE_SECONDS)
    producer.close(_CLOSE_SECONDS)
