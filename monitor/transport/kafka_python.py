"""kafka-python behind the transport's protocols."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.structs import OffsetAndMetadata

from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_headers import nullable
from monitor.transport.kafka_port import Fault, NewTopic
from monitor.transport.kafka_python_consumer import PythonMember, PythonReader, common_options
from monitor.transport.kafka_records import Outgoing

# Once a partition has a full batch waiting, the client wakes its sender at every further record,
# which costs several times the record itself. So batches are as large as brokers take by default
# (1,048,588 bytes), and nothing is sent before the flush, by which time all is there.
_BATCH_BYTES = 1_000_000
_LINGER_MS = 1000
# A transaction often meets the end of the one before, which brokers are still writing. The client's
# 100 ms were most of the delay of an event at half load (p99 305 -> 137 ms).
_RETRY_MS = 5
_CLOSE_SECONDS = 5.0
_LOGINS = 3
_SPLIT_SECONDS = 0.01

_FAULTS: tuple[tuple[Fault, tuple[type[BaseException], ...]], ...] = (
    (
        Fault.FENCED,
        (
            kafka_errors.ProducerFencedError,
            kafka_errors.InvalidProducerEpochError,
            kafka_errors.FencedInstanceIdError,
        ),
    ),
    (
        Fault.TOO_LARGE,
        (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError),
    ),
    (Fault.DENIED, (kafka_errors.AuthorizationError,)),
    (
        Fault.LOGIN,
        (
            kafka_errors.SaslAuthenticationFailedError,
            kafka_errors.UnsupportedSaslMechanismError,
            kafka_errors.IllegalSaslStateError,
        ),
    ),
    (Fault.TIMEOUT, (kafka_errors.KafkaTimeoutError,)),
    (Fault.UNREACHABLE, (kafka_errors.KafkaConnectionError,)),
    (
        Fault.PASSING,
        (
            kafka_errors.RetriableError,
            kafka_errors.CommitFailedError,
            kafka_errors.IllegalGenerationError,
            kafka_errors.UnknownMemberIdError,
            kafka_errors.RebalanceInProgressError,
            kafka_errors.TransactionAbortableError,
        ),
    ),
)
_NO_ERROR = 0
_TOPIC_EXISTS = 36


class PythonProducer:
    """A transactional producer."""

    def __init__(self, config: KafkaConfig, max_record_bytes: int) -> None:
        self._config, self._max_record_bytes = config, max_record_bytes
        self._futures: list[Any] = []
        self._client: Any = self._ready()

    def _ready(self) -> Any:
        config = self._config
        deadline_ms = int(config.commit_deadline_seconds * 1000)
        # The client wants room for a second attempt within the delivery deadline.
        attempt_ms = min(config.request_timeout_ms, deadline_ms // 2 - _LINGER_MS)
        client = KafkaProducer(
            **common_options(config) | {"request_timeout_ms": attempt_ms},
            transactional_id=config.transactional_id,
            transaction_timeout_ms=int(config.transaction_timeout_seconds * 1000),
            delivery_timeout_ms=deadline_ms,
            max_block_ms=config.request_timeout_ms,
            max_request_size=self._max_record_bytes,
            batch_size=_BATCH_BYTES,
            linger_ms=_LINGER_MS,
            retry_backoff_ms=_RETRY_MS,
            compression_type=config.compression,
            allow_auto_create_topics=False,
        )
        try:
            client.init_transactions()
        except BaseException:
            # Its threads would go on looking for the brokers for ever.
            with contextlib.suppress(Exception):
                client.close(0)
            raise
        return client

    def begin(self) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        self._futures = []
        if self._client is None:
            self._client = self._ready()
        self._client.begin_transaction()

    def send(self, records: Outgoing) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        send, keep = self._client.send, self._futures.append
        topic, partition, keys, values, headers, times = records
        none = itertools.repeat(None)
        for key, value, pairs, at in zip(
            keys, values, headers or none, times or none, strict=False
        ):
            found = list(pairs) if pairs else None
            if found and any(item is None for _, item in found):
                found = nullable(found)
            keep(send(topic, value, key, found, partition, at))

    def flush(self, seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._client.flush(max(0.0, deadline - time.monotonic()))
                break
            except kafka_errors.UnknownError:
                # So it says "not done" of a batch that it has split because it was too large.
                if time.monotonic() > deadline:
                    raise
                time.sleep(_SPLIT_SECONDS)
        for future in self._futures:
            if not future.succeeded():
                future.get(max(0.0, deadline - time.monotonic()))

    def offsets(self, partitions: Mapping[int, int], group: Any, seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        topic = self._config.topics.input
        offsets = {
            TopicPartition(topic, p): OffsetAndMetadata(offset, "", -1)
            for p, offset in partitions.items()
        }
        self._client.send_offsets_to_transaction(offsets, group)

    def commit(self, seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        self._client.commit_transaction()

    def abort(self, seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`.

        kafka-python 3.0.12 keeps offsets that the group refused and sends them along with the next
        transaction's: under the new generation they are taken, and set the group back. So the
        next transaction gets another client.
        """
        self._futures = []
        if self._client is not None:
            self._client.abort_transaction()
            self._client.close(_CLOSE_SECONDS)
            self._client = None

    def close(self, seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Producer`."""
        if self._client is not None:
            self._client.close(seconds)


class PythonAdmin:
    """A client that lists and creates topics."""

    def __init__(self, config: KafkaConfig) -> None:
        self._client = KafkaAdminClient(**common_options(config))
        self._timeout_ms = config.request_timeout_ms

    def partition_counts(self, topics: Sequence[str]) -> dict[str, int]:
        """See :class:`~monitor.transport.kafka_port.Admin`."""
        existing = set(self._client.list_topics()) & set(topics)
        if not existing:
            return {}
        found = self._client.describe_topics(sorted(existing))
        return {t["name"]: len(t["partitions"]) for t in found if t["error_code"] == _NO_ERROR}

    def largest_message(self, topic: str) -> int | None:
        """See :class:`~monitor.transport.kafka_port.Admin`."""
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        try:
            found = self._client.describe_configs([resource], config_filter="all")
            return int(found["topic"][topic]["max.message.bytes"]["value"])
        except (kafka_errors.KafkaError, KeyError, TypeError, ValueError):
            return None

    def create(self, topics: Mapping[str, NewTopic]) -> dict[str, str]:
        """See :class:`~monitor.transport.kafka_port.Admin`."""
        wanted = {
            name: {
                "num_partitions": topic.partitions,
                "replication_factor": topic.replicas,
                "configs": topic.configs,
            }
            for name, topic in topics.items()
        }
        answer = self._client.create_topics(
            wanted, timeout_ms=self._timeout_ms, raise_errors=False, wait_for_metadata=False
        )
        return {
            t["name"]: t.get("error_message") or kafka_errors.for_code(t["error_code"]).__name__
            for t in answer["topics"]
            if t["error_code"] not in (_NO_ERROR, _TOPIC_EXISTS)
        }

    def grow(self, topic: str, partitions: int) -> None:
        """See :class:`~monitor.transport.kafka_port.Admin`."""
        self._client.create_partitions({topic: partitions}, raise_errors=False)

    def wait_for(self, counts: Mapping[str, int], seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Admin`."""
        self._client.wait_for_topics(sorted(counts), timeout_ms=int(seconds * 1000))

    def close(self) -> None:
        """See :class:`~monitor.transport.kafka_port.Admin`."""
        self._client.close()


class Adapter:
    """Makes kafka-python's clients from the settings."""

    def __init__(self, config: KafkaConfig) -> None:
        common_options(config)
        self._config = config

    def admin(self) -> PythonAdmin:
        """See :class:`~monitor.transport.kafka_port.Client`."""
        try:
            return PythonAdmin(self._config)
        except kafka_errors.KafkaTimeoutError:
            if self._config.security.mechanism is not None:
                log_in(self._config)
            raise

    def producer(self, max_record_bytes: int) -> PythonProducer:
        """See :class:`~monitor.transport.kafka_port.Client`."""
        return PythonProducer(self._config, max_record_bytes)

    def member(self) -> PythonMember:
        """See :class:`~monitor.transport.kafka_port.Client`."""
        return PythonMember(self._config)

    def reader(self, topic: str, partitions: Sequence[int]) -> PythonReader:
        """See :class:`~monitor.transport.kafka_port.Client`."""
        return PythonReader.of(self._config, topic, partitions)

    def log_ends(self, topic: str, partitions: Sequence[int], seconds: float) -> dict[int, int]:
        """See :class:`~monitor.transport.kafka_port.Client`."""
        other = {"isolation_level": "read_uncommitted"}
        reader = PythonReader.of(self._config, topic, partitions, **other)
        try:
            return reader.ends(partitions, seconds)
        finally:
            reader.close(_CLOSE_SECONDS)

    def fault(self, error: BaseException) -> tuple[Fault, str]:
        """See :class:`~monitor.transport.kafka_port.Client`."""
        cause = _cause(error)
        text = f"{type(cause).__name__}: {cause}"
        for fault, kinds in _FAULTS:
            if isinstance(cause, kinds):
                if fault is Fault.LOGIN:
                    return fault, str(cause.args[0] if cause.args else type(cause).__name__)
                return fault, type(cause).__name__ if fault is Fault.DENIED else text
        return Fault.OTHER, text


def log_in(config: KafkaConfig) -> None:
    """Log in at the first broker and raise what it says, if it says something.

    The client's own way in tries again until its deadline, and then knows of nothing but that.
    Over TLS it often sees that the broker has hung up before it has read why.
    """
    for _ in range(_LOGINS):
        try:
            return _log_in_once(config)
        except kafka_errors.KafkaConnectionError:
            continue
    return None


def _log_in_once(config: KafkaConfig) -> None:
    options = common_options(config)
    del options["bootstrap_timeout_ms"]
    net = NetworkSelector()
    manager = KafkaConnectionManager(net, **options)

    async def attempt() -> None:
        first = manager.cluster.bootstrap_brokers()[0]
        await manager.get_connection(
            first.node_id,
            timeout_ms=int(_CLOSE_SECONDS * 1000),
            pop_on_close=False,
            refresh_metadata_on_err=False,
        )

    try:
        net.run(attempt)
    finally:
        manager.close()
        net.close()


def _cause(error: BaseException) -> BaseException:
    """The client wraps the first error of a transaction in a later, vaguer one."""
    for inner in (*error.args, error.__cause__):
        if isinstance(inner, BaseException):
            return _cause(inner)
    return error
