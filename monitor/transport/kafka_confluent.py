"""confluent-kafka (librdkafka) behind the transport's protocols."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions
from confluent_kafka.admin import NewTopic as LibraryTopic

from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_confluent_consumer import (
    ConfluentMember,
    ConfluentReader,
    common_options,
    log,
)
from monitor.transport.kafka_port import Fault, NewTopic
from monitor.transport.kafka_records import Outgoing

_BATCH_BYTES = 1_000_000
_BATCH_RECORDS = 100_000
# Ends with the flush; until then the client's own threads need not look at half a batch.
_LINGER_MS = 100
_NO_LIMIT_KIB = 2_147_483_647
_CONNECT_SECONDS = 10.0
_RETRY_SECONDS = 0.1
_SLICE_SECONDS = 1.0

_FAULTS = {
    Fault.FENCED: (
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
    ),
    Fault.TOO_LARGE: (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE),
    Fault.DENIED: (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    ),
    Fault.LOGIN: (
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
    ),
    Fault.TIMEOUT: (
        KafkaError._TIMED_OUT,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError.REQUEST_TIMED_OUT,
    ),
    Fault.UNREACHABLE: (
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._SSL,
        KafkaError.NETWORK_EXCEPTION,
    ),
    Fault.PASSING: (
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    ),
}
_NO_USE = (KafkaError._AUTHENTICATION, KafkaError._SSL)
_FAULT_OF = {code: fault for fault, codes in _FAULTS.items() for code in codes}


class ConfluentProducer:
    """A transactional producer."""

    def __init__(self, config: KafkaConfig, max_record_bytes: int) -> None:
        self._topic = config.topics.input
        deadline_ms = int(config.commit_deadline_seconds * 1000)
        options = common_options(config) | {
            "transactional.id": config.transactional_id,
            "transaction.timeout.ms": int(config.transaction_timeout_seconds * 1000),
            "message.timeout.ms": deadline_ms,
            "message.max.bytes": max(max_record_bytes, _BATCH_BYTES),
            "batch.size": _BATCH_BYTES,
            "batch.num.messages": _BATCH_RECORDS,
            "linger.ms": _LINGER_MS,
            "compression.type": config.compression or "none",
            # What one transaction holds is bounded by the batch it came from.
            "queue.buffering.max.messages": 0,
            "queue.buffering.max.kbytes": _NO_LIMIT_KIB,
            # Nothing is called for a record, written or not: one that is not fails the transaction,
            # and the next step of it raises the reason.
            "delivery.report.only.error": True,
        }
        self._client: Any = Producer(options, logger=log)
        self._client.init_transactions(config.request_timeout_seconds)

    def begin(self) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        self._client.begin_transaction()

    def send(self, records: Outgoing) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        produce = self._client.produce
        topic, partition, keys, values, headers, times = records
        if headers is None and times is None:
            for key, value in zip(keys, values, strict=True):
                produce(topic, value, key, partition)
            return
        now, none = itertools.repeat(0), itertools.repeat(None)
        for key, value, pairs, at in zip(keys, values, headers or none, times or now, strict=False):
            produce(topic, value, key, partition, None, None, at or 0, pairs or None)

    def flush(self, seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        left = self._client.flush(seconds)
        if left:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def offsets(self, partitions: Mapping[int, int], group: Any, seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        offsets = [TopicPartition(self._topic, p, offset) for p, offset in partitions.items()]
        self._client.send_offsets_to_transaction(offsets, group, seconds)

    def commit(self, seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        self._client.commit_transaction(seconds)

    def abort(self, seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        self._client.abort_transaction(seconds)

    def close(self, seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        client, self._client = self._client, None
        if client is not None:
            client.purge()
            client.flush(seconds)


class ConfluentAdmin:
    """A client that lists and creates topics."""

    def __init__(self, config: KafkaConfig) -> None:
        self._seconds = config.request_timeout_seconds
        self._refused: KafkaError | None = None
        options = common_options(config) | {"error_cb": self._failed}
        self._client = AdminClient(options, logger=log)
        self._connect(min(_CONNECT_SECONDS, self._seconds))

    def _failed(self, error: KafkaError) -> None:
        if error.code() in _NO_USE:
            self._refused = error

    def _connect(self, seconds: float) -> None:
        """Wait for an answer, but not for one that cannot come: the library tries for ever."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            try:
                self._client.list_topics(timeout=max(_RETRY_SECONDS, min(_SLICE_SECONDS, left)))
                return
            except KafkaException:
                self._client.poll(0)
                if self._refused is not None:
                    raise KafkaException(self._refused) from None
                if left <= _SLICE_SECONDS:
                    raise

    def partition_counts(self, topics: Sequence[str]) -> dict[str, int]:
        """See :class:`~monitor.transport.kafka_port.Admin`."""
        present = self._client.list_topics(timeout=self._seconds).topics
        return {
            name: len(present[name].partitions)
            for name in topics
            if name in present and present[name].error is None
        }

    def largest_message(self, topic: str) -> int | None:
        """See :class:`~monitor.transport.kafka_port.Admin`."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        try:
            (answer,) = self._client.describe_configs(
                [resource], request_timeout=self._seconds
            ).values()
            return int(answer.result(self._seconds)["max.message.bytes"].value)
        except (KafkaException, TimeoutError, KeyError, TypeError, ValueError):
            return None

    def create(self, topics: Mapping[str, NewTopic]) -> dict[str, str]:
        """See :class:`~monitor.transport.kafka_port.Admin`."""
        wanted = [
            LibraryTopic(name, topic.partitions, topic.replicas, config=topic.configs)
            for name, topic in topics.items()
        ]
        refused = {}
        answers = self._client.create_topics(wanted, request_timeout=self._seconds)
        for name, answer in answers.items():
            try:
                answer.result(self._seconds)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    refused[name] = error.args[0].str()
        return refused

    def grow(self, topic: str, partitions: int) -> None:
        """See :class:`~monitor.transport.kafka_port.Admin`."""
        wanted = [NewPartitions(topic, partitions)]
        for answer in self._client.create_partitions(wanted).values():
            with contextlib.suppress(KafkaException):  # another instance may have been first
                answer.result(self._seconds)

    def wait_for(self, counts: Mapping[str, int], seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Admin`."""
        deadline = time.monotonic() + seconds
        while True:
            present = self._client.list_topics(timeout=self._seconds).topics
            led = {
                name: sum(part.leader >= 0 for part in topic.partitions.values())
                for name, topic in present.items()
            }
            if all(led.get(name, 0) >= count for name, count in counts.items()):
                return
            if time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            time.sleep(_RETRY_SECONDS)

    def close(self) -> None:
        """See :class:`~monitor.transport.kafka_port.Admin`."""


def _original(error: BaseException) -> BaseException:
    """What a call failed with.

    confluent-kafka has Python log what librdkafka says, also while an error is on its way already
    (its issue 1708). The interpreter then reports a SystemError, caused by that error.
    """
    while isinstance(error, SystemError) and error.__cause__ is not None:
        error = error.__cause__
    return error


class Adapter:
    """Makes confluent-kafka's clients from the settings."""

    def __init__(self, config: KafkaConfig) -> None:
        common_options(config)
        self._config = config

    def admin(self) -> ConfluentAdmin:
        """See :class:`~monitor.transport.kafka_port.Client`."""
        return ConfluentAdmin(self._config)

    def producer(self, max_record_bytes: int) -> ConfluentProducer:
        """See :class:`~monitor.transport.kafka_port.Client`."""
        return ConfluentProducer(self._config, max_record_bytes)

    def member(self) -> ConfluentMember:
        """See :class:`~monitor.transport.kafka_port.Client`."""
        return ConfluentMember(self._config)

    def reader(self, topic: str, partitions: Sequence[int]) -> ConfluentReader:
        """See :class:`~monitor.transport.kafka_port.Client`."""
        return ConfluentReader.of(self._config, topic, partitions)

    def log_ends(self, topic: str, partitions: Sequence[int], seconds: float) -> dict[int, int]:
        """See :class:`~monitor.transport.kafka_port.Client`."""
        other = {"isolation.level": "read_uncommitted"}
        reader = ConfluentReader.of(self._config, topic, partitions, **other)
        try:
            return reader.ends(partitions, seconds)
        finally:
            reader.close(_RETRY_SECONDS)

    def fault(self, error: BaseException) -> tuple[Fault, str]:
        """See :class:`~monitor.transport.kafka_port.Client`."""
        error = _original(error)
        cause = error.args[0] if error.args else None
        if not isinstance(error, KafkaException) or not isinstance(cause, KafkaError):
            return Fault.OTHER, f"{type(error).__name__}: {error}"
        text = f"{cause.name()}: {cause.str()}"
        fault = _FAULT_OF.get(cause.code())
        if fault is Fault.DENIED:
            return fault, cause.name()
        if fault is Fault.LOGIN:
            return fault, cause.str()
        if (
            fault is None
            and not cause.fatal()
            and (cause.retriable() or cause.txn_requires_abort())
        ):
            fault = Fault.PASSING
        return fault or Fault.OTHER, text
