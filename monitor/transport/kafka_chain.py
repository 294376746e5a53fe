"""An instance's own audit chain on Kafka: records in the audit topic, its head in the control one.

Both are written in one transaction under a transactional id of the instance's, so that a process
that takes the chain over cuts off the one before, and two can never continue it side by side. The
head is kept in the compacted topic because the audit topic is too long to be read at every start.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

from monitor.core.errors import MonitorError, TransportError
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_ledger import KafkaLedger, drop
from monitor.transport.kafka_port import Producer, as_transport_error, make_client
from monitor.transport.kafka_records import Outgoing
from monitor.transport.kafka_worker import Worker

_PARTITION = 0
_CLOSE_SECONDS = 2.0


class KafkaChainLog:
    """Implements :class:`~monitor.core.ports.ChainLog` with topics.

    Parameters
    ----------
    config
        How to reach Kafka; its ``instance`` names the writer.
    chain
        The chain's name, other than that of any other instance's.
    """

    def __init__(self, config: KafkaConfig, chain: str) -> None:
        name = config.transactional_id.removeprefix(f"{config.transactional_id_prefix}-")
        self._config = replace(config, instance=f"audit-{name}")
        self._client = make_client(self._config)
        self._chain, self._key = chain, f"audit/{chain}".encode()
        self._worker: Worker | None = None
        self._producer: Producer | None = None

    def open(self) -> bytes | None:
        """Cut the process before off, and read the head."""
        self.close()
        config = self._config
        self._worker = Worker("kafka-audit")
        patience = config.transaction_timeout_seconds + config.request_timeout_seconds
        self._call("taking the audit chain over", patience, self._begin)
        ledger = KafkaLedger(config, config.topics.control)
        try:
            found = [value for key, value in ledger.catch_up() if key == self._key]
        finally:
            ledger.close()
        return found[-1] if found else None

    def _begin(self) -> None:
        self._producer = self._client.producer(self._config.max_record_bytes)

    def append(self, lines: Sequence[bytes]) -> None:
        """Add records in one transaction."""
        seconds = self._config.commit_deadline_seconds
        self._call("writing the audit chain", seconds + 1.0, lambda: self._write(lines, seconds))

    def _write(self, lines: Sequence[bytes], seconds: float) -> None:
        producer, topics = self._producer, self._config.topics
        if producer is None:
            raise TransportError("the audit chain is not open")
        deadline = time.monotonic() + seconds
        producer.begin()
        keys = [self._chain.encode()] * len(lines)
        producer.send(Outgoing(topics.audit, _PARTITION, keys, lines))
        producer.send(Outgoing(topics.control, _PARTITION, [self._key], [lines[-1]]))
        producer.flush(max(0.0, deadline - time.monotonic()))
        producer.commit(max(0.0, deadline - time.monotonic()))

    def _call(self, what: str, seconds: float, function: object) -> None:
        worker = self._worker
        if worker is None:
            raise TransportError("the audit chain is not open")
        try:
            worker.call(what, seconds, function)  # type: ignore[arg-type]
        except MonitorError:
            raise
        except Exception as error:
            raise as_transport_error(error, what, self._config, self._client) from error

    def close(self) -> None:
        """Give the connections up."""
        worker, self._worker = self._worker, None
        producer, self._producer = self._producer, None
        if worker is None:
            return
        if producer is not None:
            with contextlib.suppress(Exception):
                worker.call("closing", 2 * _CLOSE_SECONDS, lambda: drop(producer))
        worker.stop()
