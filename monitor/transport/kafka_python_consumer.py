"""kafka-python's consumer behind the transport's protocols, and the options of all its clients."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import SaslAuthenticationFailedError
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.structs import ConsumerGroupMetadata, MemberState

from monitor.core.errors import UsageError
from monitor.transport.kafka_config import FETCH_MIN_BYTES, KafkaConfig
from monitor.transport.kafka_headers import accept_any_header_name
from monitor.transport.kafka_oauth import TokenError, TokenSource, token_source
from monitor.transport.kafka_records import Rows
from monitor.transport.kafka_security import python_options

_METADATA_AGE_MS = 30_000
# The client's own 30 s would outlast the commit deadline after a broker's restart.
_RECONNECT_MS = 2_000
_BOOTSTRAP_SECONDS = 10.0
_POSITION_MS = 200
_JOIN_MS = 3000
_OPTION_PREFIXES = ("sasl_kerberos_", "api_version", "client_dns_", "proxy_")


class Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """Hands tokens for OAUTHBEARER to the client."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    def token(self) -> str:
        """A token that is still good. Raises what the client gives up at once for."""
        try:
            return self._source.token()
        except TokenError as error:
            raise SaslAuthenticationFailedError(str(error)) from None

    def extensions(self) -> dict[str, str]:
        """What goes to the brokers with it."""
        return dict(self._source.extensions)


def common_options(config: KafkaConfig) -> dict[str, Any]:
    """What every client is made with. Raises UsageError for an option that is not its own."""
    unknown = [name for name in config.options if not name.startswith(_OPTION_PREFIXES)]
    if unknown:
        raise UsageError(
            f"kafka.options: {', '.join(unknown)} cannot be set here; TLS and logins are "
            "kafka.security, see deploy/kafka-security.md"
        )
    login = {}
    if config.security.oauth is not None:
        login["sasl_oauth_token_provider"] = Tokens(token_source(config.security.oauth))
    return {
        "bootstrap_servers": [s.strip() for s in config.bootstrap_servers.split(",") if s.strip()],
        "client_id": config.client_id,
        "request_timeout_ms": config.request_timeout_ms,
        "metadata_max_age_ms": _METADATA_AGE_MS,
        "reconnect_backoff_max_ms": _RECONNECT_MS,
        "bootstrap_timeout_ms": int(min(_BOOTSTRAP_SECONDS, config.request_timeout_seconds) * 1000),
        **python_options(config.security),
        **login,
        **config.options,
    }


def consumer_options(config: KafkaConfig) -> dict[str, Any]:
    """What every consumer is made with: committed records only, from the beginning."""
    return {
        **common_options(config),
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "allow_auto_create_topics": False,
        "fetch_max_bytes": config.max_fetch_bytes,
        "max_partition_fetch_bytes": config.max_partition_fetch_bytes,
    }


def as_rows(records: Sequence[Any]) -> Rows:
    """The client's records of one partition as columns."""
    return Rows(
        [r.offset for r in records],
        [r.timestamp for r in records],
        [r.key for r in records],
        [r.value for r in records],
        [r.headers for r in records],
    )


class PythonReader:
    """A consumer of partitions of one topic."""

    def __init__(self, consumer: Any, topic: str) -> None:
        accept_any_header_name()
        self._consumer, self._topic = consumer, topic

    @classmethod
    def of(
        cls, config: KafkaConfig, topic: str, partitions: Sequence[int], **other: Any
    ) -> PythonReader:
        """A consumer outside the group, at the beginning of these partitions."""
        consumer = KafkaConsumer(**{**consumer_options(config), **other})
        parts = [TopicPartition(topic, p) for p in partitions]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        return cls(consumer, topic)

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    def poll(self, max_records: int, seconds: float) -> dict[int, Rows]:
        """See :class:`~monitor.transport.kafka_port.Reader`."""
        found = self._consumer.poll(timeout_ms=int(seconds * 1000), max_records=max_records)
        return {tp.partition: as_rows(records) for tp, records in found.items()}

    def seek(self, partition: int, offset: int) -> None:
        """See :class:`~monitor.transport.kafka_port.Reader`."""
        self._consumer.seek(self._tp(partition), offset)

    def position(self, partition: int) -> int | None:
        """See :class:`~monitor.transport.kafka_port.Reader`."""
        found: int | None = self._consumer.position(self._tp(partition), timeout_ms=_POSITION_MS)
        return found

    def beginnings(self, partitions: Sequence[int], seconds: float) -> dict[int, int]:
        """See :class:`~monitor.transport.kafka_port.Reader`."""
        parts = [self._tp(p) for p in partitions]
        found = self._consumer.beginning_offsets(parts, timeout_ms=int(seconds * 1000))
        return {tp.partition: int(offset) for tp, offset in found.items()}

    def ends(self, partitions: Sequence[int], seconds: float) -> dict[int, int]:
        """See :class:`~monitor.transport.kafka_port.Reader`."""
        parts = [self._tp(p) for p in partitions]
        found = self._consumer.end_offsets(parts, timeout_ms=int(seconds * 1000))
        return {tp.partition: int(offset) for tp, offset in found.items()}

    def close(self, seconds: float) -> None:
        """See :class:`~monitor.transport.kafka_port.Reader`."""
        self._consumer.close(autocommit=False, timeout_ms=int(seconds * 1000))


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


class PythonMember(PythonReader):
    """A consumer in the group. Cooperative-sticky: only partitions that move are interrupted."""

    def __init__(self, config: KafkaConfig) -> None:
        listener = Rebalances()
        consumer = KafkaConsumer(
            **consumer_options(config),
            group_id=config.group_id,
            group_instance_id=config.group_instance_id,
            fetch_min_bytes=FETCH_MIN_BYTES,
            fetch_max_wait_ms=config.fetch_wait_ms,
            partition_assignment_strategy=[CooperativeStickyAssignor],
            session_timeout_ms=int(config.session_timeout_seconds * 1000),
            heartbeat_interval_ms=config.heartbeat_ms,
            max_poll_interval_ms=int(config.max_poll_interval_seconds * 1000),
        )
        super().__init__(consumer, config.topics.input)
        consumer.subscribe([config.topics.input], listener=listener)
        self.noted = listener.noted
        self._group: Any = ConsumerGroupMetadata(config.group_id)
        # The client can lose its first request for the topic's partitions; as leader of the group
        # it would then assign nothing to anybody until the next refresh.
        while not consumer.partitions_for_topic(config.topics.input):
            time.sleep(0.1)

    def poll(self, max_records: int, seconds: float) -> dict[int, Rows]:
        """See :class:`~monitor.transport.kafka_port.Reader`.

        A rebalance that ends while nobody polls is lost on the client, which then asks for the
        next one: with short polls two instances keep each other busy like that for ever. So a
        rebalance once begun is waited for.
        """
        found = super().poll(max_records, seconds)
        self._group = self._consumer.group_metadata()
        if not found and self._group.state == MemberState.REBALANCING:
            found = super().poll(max_records, _JOIN_MS / 1000)
            self._group = self._consumer.group_metadata()
        return found

    def proof(self) -> Any | None:
        """See :class:`~monitor.transport.kafka_port.Member`. The client joins in between polls."""
        known = self.is_settled and self._group.generation_id >= 0
        return self._group if known else None

    @property
    def generation(self) -> int:
        """See :class:`~monitor.transport.kafka_port.Member`."""
        return int(self._group.generation_id)

    @property
    def is_settled(self) -> bool:
        """See :class:`~monitor.transport.kafka_port.Member`."""
        return bool(self._group.state == MemberState.STABLE)

    def assignment(self) -> set[int]:
        """See :class:`~monitor.transport.kafka_port.Member`."""
        return {tp.partition for tp in self._consumer.assignment()}

    def position(self, partition: int) -> int | None:
        """See :class:`~monitor.transport.kafka_port.Reader`. Asks nobody."""
        found: int | None = self._consumer.position(self._tp(partition), timeout_ms=0)
        return found

    def highwater(self, partition: int) -> int | None:
        """See :class:`~monitor.transport.kafka_port.Member`."""
        found: int | None = self._consumer.highwater(self._tp(partition))
        return found

    def committed(self, partition: int, seconds: float) -> int | None:
        """See :class:`~monitor.transport.kafka_port.Member`."""
        timeout_ms = int(seconds * 1000)
        found: int | None = self._consumer.committed(self._tp(partition), timeout_ms=timeout_ms)
        return found
