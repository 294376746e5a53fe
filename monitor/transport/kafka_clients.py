"""Settings of the Kafka transport, the clients made from them, and their errors in words."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kafka import (
    ConsumerRebalanceListener,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    TopicPartition,
)
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from monitor.core.errors import TransportError, UsageError
from monitor.transport.kafka_records import Topics

T = TypeVar("T")
MIB = 1 << 20

# Once a partition has a full batch waiting, the client wakes its sender at every further record,
# which costs several times the record itself. So batches are as large as brokers take by default
# (1,048,588 bytes), and nothing is sent before the flush, by which time all is there.
_BATCH_BYTES = 1_000_000
_LINGER_MS = 1000
_FETCH_MIN_BYTES = 64 * 1024
_METADATA_AGE_MS = 30_000
# The client's own 30 s would outlast the commit deadline after a broker's restart.
_RECONNECT_MS = 2_000
_BOOTSTRAP_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_OPTION_PREFIXES = ("security_", "sasl_", "ssl_", "api_version", "client_dns_", "proxy_")

_FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.FencedInstanceIdError,
)
_PASSING = (
    kafka_errors.RetriableError,
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.TransactionAbortableError,
)
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """How to reach Kafka and how to share the work with other instances.

    Attributes
    ----------
    bootstrap_servers
        Brokers to start from, ``host:port``, separated by commas.
    group_id
        Consumer group. Instances with the same one share the partitions; stored state belongs
        to the group.
    client_id
        Name shown in the brokers' logs and metrics.
    transactional_id_prefix, instance
        Together the transactional id. ``instance`` must differ between instances that run at the
        same time, and stay the same when one is restarted, so that the restarted one cuts off
        what its predecessor left open; empty means this machine's host name.
    group_instance_id
        Makes the instance a static member: a restart within the session timeout moves no
        partitions. None means a dynamic member.
    topics
        Topic names.
    create_topics, partitions, replication_factor
        Whether missing topics are created, and how. Outputs get as many partitions as an input
        that exists already.
    options
        Passed to every client: ``security_protocol``, ``sasl_*``, ``ssl_*`` and the like.
    request_timeout_seconds
        Deadline of a single request, of opening, and of loading the state of a partition.
    commit_deadline_seconds
        Deadline of a whole commit. Brokers drop a transaction shortly after it.
    session_timeout_seconds
        Silence after which brokers give an instance's partitions to others.
    max_poll_interval_seconds
        Longest time between two polls; a slower instance loses its partitions.
    fetch_wait_seconds
        How long brokers may hold back records so that more of them come together. Delays an
        event by at most this, and only while there are few.
    max_fetch_bytes, max_partition_fetch_bytes
        Bounds on what one fetch brings, in all and of one partition.
    max_record_bytes
        Largest record that can be written. Raised to what the input topic allows.
    compression
        ``gzip``, ``zstd``, ``lz4``, ``snappy`` or None, for everything written.
    """

    bootstrap_servers: str = "localhost:9092"
    group_id: str = "poisoning-monitor"
    client_id: str = "poisoning-monitor"
    transactional_id_prefix: str = "poisoning-monitor"
    instance: str = ""
    group_instance_id: str | None = None
    topics: Topics = field(default_factory=Topics)
    create_topics: bool = True
    partitions: int = 4
    replication_factor: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    request_timeout_seconds: float = 30.0
    commit_deadline_seconds: float = 30.0
    session_timeout_seconds: float = 15.0
    max_poll_interval_seconds: float = 300.0
    fetch_wait_seconds: float = 0.05
    max_fetch_bytes: int = 32 * MIB
    max_partition_fetch_bytes: int = 4 * MIB
    max_record_bytes: int = 2 * MIB
    compression: str | None = None

    @property
    def transactional_id(self) -> str:
        """The transactional id of this instance."""
        return f"{self.transactional_id_prefix}-{self.instance or socket.gethostname()}"

    @property
    def transaction_timeout_seconds(self) -> float:
        """When brokers drop a transaction that nobody finished."""
        return self.commit_deadline_seconds + 5.0

    @property
    def request_timeout_ms(self) -> int:
        """The request timeout as the client wants it."""
        return int(self.request_timeout_seconds * 1000)


def _common(config: KafkaConfig) -> dict[str, Any]:
    unknown = [name for name in config.options if not name.startswith(_OPTION_PREFIXES)]
    if unknown:
        raise UsageError(
            f"kafka.options: {', '.join(unknown)} cannot be set here; use security_protocol, "
            "sasl_* and ssl_* as kafka-python names them"
        )
    return {
        "bootstrap_servers": [s.strip() for s in config.bootstrap_servers.split(",") if s.strip()],
        "client_id": config.client_id,
        "request_timeout_ms": config.request_timeout_ms,
        "metadata_max_age_ms": _METADATA_AGE_MS,
        "reconnect_backoff_max_ms": _RECONNECT_MS,
        "bootstrap_timeout_ms": int(min(_BOOTSTRAP_SECONDS, config.request_timeout_seconds) * 1000),
        **config.options,
    }


def consumer_options(config: KafkaConfig) -> dict[str, Any]:
    """What every consumer is made with: committed records only, from the beginning."""
    return {
        **_common(config),
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "allow_auto_create_topics": False,
        "fetch_max_bytes": config.max_fetch_bytes,
        "max_partition_fetch_bytes": config.max_partition_fetch_bytes,
    }


def new_reader(config: KafkaConfig, partition: TopicPartition, *others: TopicPartition) -> Any:
    """A consumer outside the group, for state and recovery."""
    consumer = KafkaConsumer(**consumer_options(config))
    consumer.assign([partition, *others])
    return consumer


class Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes rebalances down; it is called on the client's I/O loop, where nothing may block."""

    def __init__(self) -> None:
        self.noted: deque[tuple[bool, frozenset[int]]] = deque()

    def on_partitions_assigned(self, assigned: Any) -> None:
        """These came."""
        self.noted.append((True, frozenset(tp.partition for tp in assigned)))

    def on_partitions_revoked(self, revoked: Any) -> None:
        """These go."""
        self.noted.append((False, frozenset(tp.partition for tp in revoked)))

    def on_partitions_lost(self, lost: Any) -> None:
        """These are gone already."""
        self.on_partitions_revoked(lost)


def new_member(config: KafkaConfig, listener: Any) -> Any:
    """A consumer of the input topic in the consumer group. Blocks until the topic is known.

    Cooperative-sticky, so that a rebalance interrupts only the partitions that move.
    """
    consumer = KafkaConsumer(
        **consumer_options(config),
        group_id=config.group_id,
        group_instance_id=config.group_instance_id,
        fetch_min_bytes=_FETCH_MIN_BYTES,
        fetch_max_wait_ms=int(config.fetch_wait_seconds * 1000),
        partition_assignment_strategy=[CooperativeStickyAssignor],
        session_timeout_ms=int(config.session_timeout_seconds * 1000),
        # Also the time in which members learn of a rebalance, during which nothing is read.
        heartbeat_interval_ms=int(min(1.0, config.session_timeout_seconds / 5) * 1000),
        max_poll_interval_ms=int(config.max_poll_interval_seconds * 1000),
    )
    consumer.subscribe([config.topics.input], listener=listener)
    # The client can lose its first request for the topic's partitions; as leader of the group it
    # would then assign nothing to anybody until the next refresh.
    while not consumer.partitions_for_topic(config.topics.input):
        time.sleep(0.1)
    return consumer


def new_producer(config: KafkaConfig, max_record_bytes: int) -> Any:
    """The transactional producer. Not ready before ``init_transactions``."""
    deadline_ms = int(config.commit_deadline_seconds * 1000)
    # The client wants room for a second attempt within the delivery deadline.
    attempt_ms = min(config.request_timeout_ms, deadline_ms // 2 - _LINGER_MS)
    return KafkaProducer(
        **_common(config) | {"request_timeout_ms": attempt_ms},
        transactional_id=config.transactional_id,
        transaction_timeout_ms=int(config.transaction_timeout_seconds * 1000),
        delivery_timeout_ms=deadline_ms,
        max_block_ms=config.request_timeout_ms,
        max_request_size=max_record_bytes,
        batch_size=_BATCH_BYTES,
        linger_ms=_LINGER_MS,
        compression_type=config.compression,
        allow_auto_create_topics=False,
    )


def ready_producer(config: KafkaConfig, max_record_bytes: int) -> Any:
    """A transactional producer that has cut off its predecessors."""
    producer = new_producer(config, max_record_bytes)
    producer.init_transactions()
    return producer


def after_abort(producer: Any, config: KafkaConfig, max_record_bytes: int) -> Any:
    """Abort the transaction of ``producer``; another one to go on with.

    kafka-python 3.0.12 keeps offsets that the group refused and sends them along with the next
    transaction's: under the new generation they are taken, and set the group back.
    """
    producer.abort_transaction()
    producer.close(_CLOSE_SECONDS)
    return ready_producer(config, max_record_bytes)


def new_admin(config: KafkaConfig) -> Any:
    """A client that lists and creates topics."""
    return KafkaAdminClient(**_common(config))


def unreachable(config: KafkaConfig) -> TransportError:
    """The error for brokers that do not answer."""
    return TransportError(
        f"no Kafka broker answers at {config.bootstrap_servers}: start it, or set "
        "kafka.bootstrap_servers (and kafka.options when it asks for TLS or a login)"
    )


class RefusedError(TransportError):
    """A commit that was taken back cleanly, for a reason that may have passed."""

    retry = True


def as_transport_error(error: BaseException, what: str, config: KafkaConfig) -> TransportError:
    """What went wrong, in one line that says what to do.

    A :class:`RefusedError` when trying again may help, provided that nothing was left half done.
    """
    if isinstance(error, TransportError):
        return error
    cause = _cause(error)
    if isinstance(cause, _FENCED):
        return TransportError(
            f"{what}: fenced, another process took over the transactional id "
            f"{config.transactional_id!r}; stop one of the two, or give each its own kafka.instance"
        )
    if isinstance(cause, _TOO_LARGE):
        return TransportError(
            f"{what}: a record is larger than a topic takes; raise max.message.bytes of the "
            "output topics above the input's, by 64 KiB for the added headers"
        )
    if isinstance(cause, kafka_errors.AuthorizationError):
        return TransportError(
            f"{what}: the brokers refuse it ({type(cause).__name__}); grant this client the "
            "topics, the group and the transactional id"
        )
    if isinstance(cause, kafka_errors.KafkaTimeoutError):
        return RefusedError(f"{what}: no answer in time from {config.bootstrap_servers}")
    kind = RefusedError if isinstance(cause, _PASSING) else TransportError
    return kind(f"{what}: {type(cause).__name__}: {cause}")


def _cause(error: BaseException) -> BaseException:
    """The client wraps the first error of a transaction in a later, vaguer one."""
    for inner in (*error.args, error.__cause__):
        if isinstance(inner, BaseException):
            return _cause(inner)
    return error


class Worker:
    """One daemon thread that runs calls one by one, each with a deadline of our own.

    The client's blocking calls have no deadline or do not keep it (a partition leader that
    left the metadata leaves futures open for ever), so the caller waits here and gives up.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stuck: str | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def call(self, what: str, seconds: float, function: Callable[[], T]) -> T:
        """Run ``function`` and return its result, or raise its error.

        Raises
        ------
        TransportError
            When it has not finished after ``seconds``, and from then on always.
        """
        if self._stuck is not None:
            raise TransportError(f"{what}: not possible, {self._stuck}; restart the process")
        results: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                results.put((function(), None))
            except BaseException as error:  # handed over to the waiting thread
                results.put((None, error))

        self._calls.put(run)
        try:
            result, error = results.get(timeout=seconds)
        except queue.Empty:
            self._stuck = f"{what} did not finish within {seconds:g} s"
            raise TransportError(f"{self._stuck}: are the Kafka brokers up?") from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def stop(self) -> None:
        """End the thread after the calls already made; a stuck one is left behind."""
        self._calls.put(None)
