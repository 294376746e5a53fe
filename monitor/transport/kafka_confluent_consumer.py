"""confluent-kafka's consumer behind the transport's protocols, and the options of its clients."""

from __future__ import annotations

import logging
import struct
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from monitor.core.errors import UsageError
from monitor.transport.kafka_config import FETCH_MIN_BYTES, KafkaConfig
from monitor.transport.kafka_records import Rows
from monitor.transport.kafka_security import librdkafka_options

T = TypeVar("T")

log = logging.getLogger("kafka.confluent")

OPTIONS = {
    "ssl_ciphers": "ssl.cipher.suites",
    "sasl_kerberos_service_name": "sasl.kerberos.service.name",
    "client_dns_lookup": "client.dns.lookup",
}
"""librdkafka's names for what ``kafka.options`` names as kafka-python does."""
_METADATA_AGE_MS = 30_000
_RECONNECT_MS = 2_000
_MESSAGE_BYTES = 1_000_000
_RECEIVE_BYTES = 100_000_000
_FETCH_BACKOFF_MS = 20
_READER_WAIT_MS = 100
_SLICE_SECONDS = 0.05
_SEEK_SECONDS = 5.0
_RETRY_SECONDS = 0.01
_MOST_MESSAGES = 1_000_000
# The form in which the library gives away group metadata: magic, generation, names.
_GROUP = struct.Struct("=7si")
_GROUP_MAGIC = b"CGMDv2:"
# Not worth more than a line in the log: the client goes on by itself, or starvation is noticed.
_PASSING = (
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)


def other_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """``kafka.options`` in librdkafka's words.

    Raises
    ------
    UsageError
        For one that it has no word for.

    Examples
    --------
    >>> other_options({"client_dns_lookup": "use_all_dns_ips"})
    {'client.dns.lookup': 'use_all_dns_ips'}
    """
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise UsageError(
            f"kafka.options: {', '.join(unknown)} cannot be set with kafka.client: confluent; "
            f"it knows {', '.join(OPTIONS)}; TLS and logins are kafka.security, see "
            "deploy/kafka-security.md"
        )
    return {OPTIONS[name]: value for name, value in options.items()}


def common_options(config: KafkaConfig) -> dict[str, Any]:
    """What every client is made with."""
    return {
        "bootstrap.servers": config.bootstrap_servers,
        "client.id": config.client_id,
        "socket.timeout.ms": max(config.request_timeout_ms, 10 * config.fetch_wait_ms),
        "reconnect.backoff.max.ms": _RECONNECT_MS,
        "topic.metadata.refresh.interval.ms": _METADATA_AGE_MS,
        "metadata.max.age.ms": 3 * _METADATA_AGE_MS,
        **librdkafka_options(config.security),
        **other_options(config.options),
    }


def consumer_options(config: KafkaConfig) -> dict[str, Any]:
    """What every consumer is made with: committed records only, from the beginning."""
    most = max(config.max_fetch_bytes, _MESSAGE_BYTES)
    return {
        **common_options(config),
        "group.id": config.group_id,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "allow.auto.create.topics": False,
        # Tells where a partition ends, behind transaction markers too, which are not records.
        "enable.partition.eof": True,
        "check.crcs": True,
        # The end of a partition is told by a fetch that brings nothing, which waits this long.
        "fetch.wait.max.ms": _READER_WAIT_MS,
        "fetch.max.bytes": most,
        "receive.message.max.bytes": max(_RECEIVE_BYTES, most + 512),
        "max.partition.fetch.bytes": config.max_partition_fetch_bytes,
        "queued.max.messages.kbytes": 2 * most // 1024,
        # After its queue was full the client would otherwise not fetch for a second.
        "fetch.queue.backoff.ms": _FETCH_BACKOFF_MS,
    }


class ConfluentReader:
    """A consumer of partitions of one topic."""

    def __init__(self, config: KafkaConfig, topic: str, options: dict[str, Any]) -> None:
        self._config, self._topic = config, topic
        self._consumer = Consumer(options, logger=log)
        self._positions: dict[int, int] = {}
        self._held_back: set[int] = set()
        self.noted: deque[tuple[bool, frozenset[int]]] = deque()

    @classmethod
    def of(
        cls, config: KafkaConfig, topic: str, partitions: Sequence[int], **other: Any
    ) -> ConfluentReader:
        """A consumer outside the group, at the beginning of these partitions."""
        made = cls(config, topic, {**consumer_options(config), **other})
        made._consumer.assign([made._tp(p, OFFSET_BEGINNING) for p in partitions])
        return made

    def _tp(self, partition: int, *offset: int) -> TopicPartition:
        return TopicPartition(self._topic, partition, *offset)

    def poll(self, max_records: int, seconds: float) -> dict[int, Rows]:
        """See :class:`~monitor.transport.kafka_port.Reader`.

        The library's own call for many messages waits until it has as many: so the first is
        waited for, and what is there by then comes with it.
        """
        consumer, more = self._consumer, min(max_records - 1, _MOST_MESSAGES)
        deadline = time.monotonic() + seconds
        while True:
            wait = max(0.0, min(_SLICE_SECONDS, deadline - time.monotonic()))
            first = consumer.poll(wait)
            if first is not None:
                found = self._rows([first, *(consumer.consume(more, 0) if more > 0 else ())])
                if found:
                    return found
            if self.noted or time.monotonic() >= deadline:
                return {}

    def _rows(self, messages: list[Message]) -> dict[int, Rows]:
        found: dict[int, list[Message]] = {}
        ends: dict[int, int] = {}
        for message in messages:
            error = message.error()
            partition = message.partition()
            if error is None:
                if partition not in found:
                    found[partition] = []
                found[partition].append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[partition] = message.offset()
            else:
                _complain(error)
        rows = {p: self._columns(p, some) for p, some in found.items()}
        for p, some in rows.items():
            self._positions[p] = some.offsets[-1] + 1
        for p, end in ends.items():
            self._positions[p] = max(end, self._positions.get(p, end))
        return rows

    def _columns(self, partition: int, messages: list[Message]) -> Rows:
        offsets: list[Any] = [*map(Message.offset, messages)]
        try:
            headers: list[Any] = [found or [] for found in map(Message.headers, messages)]
        except (SystemError, UnicodeError):
            # A name that is not UTF-8. The message must not be asked again: what the library
            # would hand out then is no valid Python object.
            headers = self._headers_otherwise(partition, offsets)
        return Rows(
            offsets,
            [at for _, at in map(Message.timestamp, messages)],
            [*map(Message.key, messages)],
            [*map(Message.value, messages)],
            headers,
        )

    def _headers_otherwise(self, partition: int, offsets: list[int]) -> list[Any]:
        """The same by way of kafka-python, with U+FFFD where a name is not UTF-8."""
        # Here, because it is slow to import and hardly ever needed.
        from monitor.transport.kafka_python_consumer import PythonReader  # noqa: PLC0415

        reader = PythonReader.of(self._config, self._topic, [partition])
        found: dict[int, list[tuple[str, bytes | None]]] = {}
        deadline = time.monotonic() + self._config.request_timeout_seconds
        try:
            reader.seek(partition, offsets[0])
            while (reader.position(partition) or 0) <= offsets[-1]:
                if time.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
                for rows in reader.poll(len(offsets), _SLICE_SECONDS).values():
                    for offset, pairs in zip(rows.offsets, rows.headers, strict=True):
                        found[offset] = [(str(name), value) for name, value in pairs]
        finally:
            reader.close(_SLICE_SECONDS)
        return [found[offset] for offset in offsets]

    def seek(self, partition: int, offset: int) -> None:
        """See :class:`~monitor.transport.kafka_port.Reader`."""
        deadline = time.monotonic() + _SEEK_SECONDS
        place = self._tp(partition, offset)
        # A moment after the assignment it is not known everywhere yet.
        _patiently(
            lambda: self._consumer.seek(place), (KafkaError._STATE,), deadline, _RETRY_SECONDS
        )
        self._positions[partition] = offset
        if partition in self._held_back:
            self._held_back.discard(partition)
            self._consumer.resume([self._tp(partition)])

    def position(self, partition: int) -> int | None:
        """See :class:`~monitor.transport.kafka_port.Reader`."""
        return self._positions.get(partition)

    def _watermarks(self, partitions: Sequence[int], seconds: float) -> list[tuple[int, int]]:
        deadline = time.monotonic() + seconds
        return [self._watermark(partition, deadline) for partition in partitions]

    def _watermark(self, partition: int, deadline: float) -> tuple[int, int]:
        """A partition's ends. While its leader changes, the client does not ask again by itself."""

        def ask() -> Any:
            left = max(0.1, deadline - time.monotonic())
            return self._consumer.get_watermark_offsets(self._tp(partition), left)

        answer = _patiently(ask, _PASSING, deadline, _SLICE_SECONDS)
        if answer is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        low, high = answer
        return low, high

    def beginnings(self, partitions: Sequence[int], seconds: float) -> dict[int, int]:
        """See :class:`~monitor.transport.kafka_port.Reader`."""
        marks = self._watermarks(partitions, seconds)
        return {p: low for p, (low, _) in zip(partitions, marks, strict=True)}

    def ends(self, partitions: Sequence[int], seconds: float) -> dict[int, int]:
        """See :class:`~monitor.transport.kafka_port.Reader`."""
        marks = self._watermarks(partitions, seconds)
        return {p: high for p, (_, high) in zip(partitions, marks, strict=True)}

    def close(self, seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Reader`."""
        self._consumer.close()


class ConfluentMember(ConfluentReader):
    """A consumer in the group. Cooperative-sticky: only partitions that move are interrupted."""

    def __init__(self, config: KafkaConfig) -> None:
        session_ms = int(config.session_timeout_seconds * 1000)
        options = consumer_options(config) | {
            "fetch.min.bytes": FETCH_MIN_BYTES,
            "fetch.wait.max.ms": config.fetch_wait_ms,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": config.heartbeat_ms,
            "max.poll.interval.ms": max(session_ms, int(config.max_poll_interval_seconds * 1000)),
        }
        if config.group_instance_id is not None:
            options["group.instance.id"] = config.group_instance_id
        super().__init__(config, config.topics.input, options)
        while not self._consumer.list_topics(self._topic, 1.0).topics[self._topic].partitions:
            time.sleep(0.1)
        self._consumer.subscribe(
            [self._topic], on_assign=self._came, on_revoke=self._went, on_lost=self._went
        )

    def _came(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        # Held back until the transport knows where to go on. The offset given here is read from
        # by nobody; without one the client would ask for the group's before it could seek.
        consumer.incremental_assign([self._tp(tp.partition, 0) for tp in parts])
        consumer.pause(parts)
        partitions = frozenset(tp.partition for tp in parts)
        self._held_back |= partitions
        self.noted.append((True, partitions))

    def _went(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        partitions = frozenset(tp.partition for tp in parts)
        self._held_back -= partitions
        for p in partitions:
            self._positions.pop(p, None)
        self.noted.append((False, partitions))

    def proof(self) -> Any | None:
        """See :class:`~monitor.transport.kafka_port.Member`.

        As of now: the library may have a newer generation than at the last poll, but what that
        takes away it keeps until the next one has told so, and nobody else is given it before.
        """
        group, generation = self._membership()
        return group if generation >= 0 else None

    @property
    def generation(self) -> int:
        """See :class:`~monitor.transport.kafka_port.Member`."""
        return self._membership()[1]

    def _membership(self) -> tuple[Any, int]:
        """The library's word for this membership, and its generation."""
        group = self._consumer.consumer_group_metadata()
        if isinstance(group, bytes) and group.startswith(_GROUP_MAGIC):
            return group, int(_GROUP.unpack_from(group)[1])
        return group, 0 if self._consumer.memberid() else -1  # another version of the library

    @property
    def is_settled(self) -> bool:
        """See :class:`~monitor.transport.kafka_port.Member`. It reads on during rebalances."""
        return self.proof() is not None

    def assignment(self) -> set[int]:
        """See :class:`~monitor.transport.kafka_port.Member`."""
        return {tp.partition for tp in self._consumer.assignment()}

    def highwater(self, partition: int) -> int | None:
        """See :class:`~monitor.transport.kafka_port.Member`."""
        high = self._consumer.get_watermark_offsets(self._tp(partition), cached=True)[1]
        return high if high >= 0 else None

    def committed(self, partition: int, seconds: float) -> int | None:
        """See :class:`~monitor.transport.kafka_port.Member`."""
        deadline = time.monotonic() + seconds

        def ask() -> int | None:
            left = max(0.1, deadline - time.monotonic())
            (found,) = self._consumer.committed([self._tp(partition)], left)
            if found.error is not None:
                raise KafkaException(found.error)
            return found.offset if found.offset >= 0 else None

        return _patiently(ask, (KafkaError.UNSTABLE_OFFSET_COMMIT,), deadline, _SLICE_SECONDS)


def _patiently(
    ask: Callable[[], T], passing: Collection[int], deadline: float, pause_seconds: float
) -> T:
    """What ``ask`` gives, asked again until then while it fails with a code that passes."""
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in passing or time.monotonic() > deadline:
                raise
        time.sleep(pause_seconds)


def _complain(error: KafkaError) -> None:
    if error.fatal() or not (error.retriable() or error.code() in _PASSING):
        raise KafkaException(error)
    log.warning("%s", error.str())
