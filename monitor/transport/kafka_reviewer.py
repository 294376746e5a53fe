"""Reviews on Kafka: what goes to the learner, and the record of it, in one transaction.

All instances share one transactional id. Whoever begins cuts off everybody else's open
transaction and waits until it is settled; so after that the reviews ledger, read to its end,
holds every review there is, and no further one can be added by anybody who began before.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from kafka import errors as kafka_errors

from monitor.core.errors import MonitorError, TransportError
from monitor.core.held import Reviews
from monitor.transport.kafka_clients import (
    KafkaConfig,
    RefusedError,
    Worker,
    as_transport_error,
    new_admin,
    ready_producer,
)
from monitor.transport.kafka_headers import RawName, accept_any_header_name
from monitor.transport.kafka_records import nullable
from monitor.transport.kafka_topics import largest_record, partition_counts

T = TypeVar("T")
INSTANCE = "reviews"
"""Second half of the shared transactional id; no instance may be called so."""
_CLOSE_SECONDS = 2.0
_FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.InvalidProducerIdMappingError,
)


class KafkaReviewer:
    """Reviews one after the other, among all instances. Thread-safe."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = replace(config, instance=INSTANCE)
        self._lock = threading.Lock()
        self._home: dict[str, int] = {}
        self._largest = 0

    def exclusively(self, job: Callable[[], Reviews | None]) -> None:
        """Cut the others off, run ``job``, and commit what it returns in one transaction.

        Raises
        ------
        TransportError
            When the brokers fail; with ``retry`` when another one cut this one off. Either way
            it may have been committed, when the connection broke in the very last step.
        """
        with self._lock:
            worker = Worker("kafka-reviews")
            made: list[Any] = []
            # A predecessor's transaction that hangs is waited for.
            patience = self._config.transaction_timeout_seconds
            patience += self._config.request_timeout_seconds
            try:
                worker.call("beginning a review", patience, lambda: self._begin(made))
                reviews = job()
                if reviews is not None:
                    commit = self._config.commit_deadline_seconds + 1.0
                    worker.call("reviewing", commit, lambda: self._commit(made[0], reviews))
            except MonitorError:
                raise
            except Exception as error:
                raise _refusal(error, self._config) from error
            finally:
                with contextlib.suppress(MonitorError):
                    worker.call("closing", 2 * _CLOSE_SECONDS, lambda: _close(made))
                worker.stop()

    def _begin(self, made: list[Any]) -> None:
        accept_any_header_name()
        if not self._home:
            topics = self._config.topics
            admin = new_admin(self._config)
            try:
                self._largest = largest_record(admin, self._config)
                found = partition_counts(admin, [topics.accepted, topics.reviews])
            finally:
                admin.close()
            if len(found) < 2:
                raise TransportError("reviewing: the topics are not there yet; start the service")
            self._home = found
        made.append(ready_producer(self._config, self._largest))

    def _commit(self, producer: Any, reviews: Reviews) -> None:
        try:
            self._transact(producer, reviews)
        except Exception:
            # Left open it would hold up whoever reads the learner's topic.
            with contextlib.suppress(Exception):
                producer.abort_transaction()
            raise

    def _transact(self, producer: Any, reviews: Reviews) -> None:
        topics = self._config.topics
        deadline = time.monotonic() + self._config.commit_deadline_seconds
        producer.begin_transaction()
        sent = []
        for original in reviews.released:
            home = original.partition % self._home[topics.accepted]
            value, headers = (
                original.value,
                [(_name(name), item) for name, item in original.headers],
            )
            if value is None and original.key is None:
                value = b""  # the client cannot send a record with neither
            if any(item is None for _, item in headers):
                headers = nullable(headers)
            at = original.timestamp
            sent.append(producer.send(topics.accepted, value, original.key, headers, home, at))
        for key, row in reviews.rows:
            sent.append(producer.send(topics.reviews, row, key, None, 0))
        producer.flush(max(0.0, deadline - time.monotonic()))
        for future in sent:
            future.get(max(0.0, deadline - time.monotonic()))
        producer.commit_transaction()


def _name(name: str | bytes) -> str:
    return RawName.of(name) if isinstance(name, bytes) else name


def _close(made: list[Any]) -> None:
    for producer in made:
        with contextlib.suppress(Exception):
            producer.close(_CLOSE_SECONDS)


def _refusal(error: Exception, config: KafkaConfig) -> TransportError:
    """The error in words; being cut off by another reviewer is a reason to try again."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, _FENCED):
            return RefusedError("reviewing: somebody else reviewed at the same moment")
        wrapped = [item for item in inner.args if isinstance(item, BaseException)]
        inner = wrapped[0] if wrapped else inner.__cause__
    return as_transport_error(error, "reviewing", config)
