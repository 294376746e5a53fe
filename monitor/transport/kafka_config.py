"""Settings of the Kafka transport, whichever client it uses."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from monitor.transport.kafka_records import Topics
from monitor.transport.kafka_security import Security

MIB = 1 << 20
FETCH_MIN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """How to reach Kafka and how to share the work with other instances.

    Attributes
    ----------
    client
        Which package talks to the brokers: ``kafka-python``, or ``confluent`` for
        confluent-kafka, which takes a fraction of the processor time. Everything visible from
        outside is the same with both, and members with either may share one group.
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
    security
        TLS and logins.
    options
        For every connection, what ``security`` does not cover, as kafka-python names it.
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

    client: Literal["kafka-python", "confluent"] = "kafka-python"
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
    security: Security = field(default_factory=Security)
    options: Mapping[str, Any] = field(default_factory=dict)
    request_timeout_seconds: float = 30.0
    commit_deadline_seconds: float = 30.0
    session_timeout_seconds: float = 15.0
    max_poll_interval_seconds: float = 300.0
    fetch_wait_seconds: float = 0.02
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

    @property
    def fetch_wait_ms(self) -> int:
        """How long a fetch may wait for ``FETCH_MIN_BYTES``."""
        return int(self.fetch_wait_seconds * 1000)

    @property
    def heartbeat_ms(self) -> int:
        """Also the time in which members learn of a rebalance."""
        return int(min(1.0, self.session_timeout_seconds / 5) * 1000)
