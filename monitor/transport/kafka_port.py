"""What the Kafka transport needs from a client library, and the errors it tells apart.

The rules of the transport (which records belong together, when a commit is refused, where a
partition goes on) are written against these protocols, once. Each adapter fits one library to them
and is the only module that imports it.
"""

from __future__ import annotations

import enum
import importlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from monitor.core.errors import TransportError, UsageError
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_diagnosis import why_unreachable
from monitor.transport.kafka_records import Outgoing, Rows

_ADAPTERS = {
    "kafka-python": ("monitor.transport.kafka_python", "kafka-python"),
    "confluent": ("monitor.transport.kafka_confluent", "poisoning-monitor[kafka-fast]"),
}


class Fault(enum.Enum):
    """What an error of a client means to the transport."""

    FENCED = "another process has the transactional id or the group instance id"
    TOO_LARGE = "a record is larger than a topic takes"
    DENIED = "the brokers do not allow it"
    LOGIN = "the brokers refuse the login"
    TIMEOUT = "no answer in time"
    UNREACHABLE = "no broker answers at all"
    PASSING = "trying again may help"
    OTHER = "anything else"


class Reader(Protocol):
    """Reads committed records of some partitions of one topic, from the beginning."""

    def poll(self, max_records: int, seconds: float) -> dict[int, Rows]:
        """What is there, by partition; waits until there is something, or for ``seconds``."""

    def seek(self, partition: int, offset: int) -> None:
        """Go on there with the next poll."""

    def position(self, partition: int) -> int | None:
        """Offset of the next record, past anything that is not one; None while unknown."""

    def beginnings(self, partitions: Sequence[int], seconds: float) -> dict[int, int]:
        """Offset of the first record that the brokers still have."""

    def ends(self, partitions: Sequence[int], seconds: float) -> dict[int, int]:
        """Offset behind the last record that is settled: committed, or aborted."""

    def close(self, seconds: float) -> None:
        """Give the connections up; leave the group."""


class Member(Reader, Protocol):
    """A member of the consumer group, which reads what the group gives it of the input topic.

    Attributes
    ----------
    noted
        What was assigned (True) and taken away (False), in order, for the transport to take out.
        It must :meth:`~Reader.seek` in assigned partitions before anything of them is read.
    is_settled
        Whether silence at the last poll meant that there was nothing to read, and not that the
        group was changing hands.
    """

    noted: deque[tuple[bool, frozenset[int]]]
    is_settled: bool

    def proof(self) -> Any | None:
        """What to commit with, so that brokers refuse it once others may have the partitions.

        None for someone without a generation, whose commits brokers do not check. Not newer than
        what :attr:`noted` tells of: a partition that was taken away, and perhaps came back, since
        the last poll must not be covered by it.
        """

    @property
    def generation(self) -> int:
        """Of the group, as :meth:`proof` would show it; negative for someone outside it."""

    def assignment(self) -> set[int]:
        """Partitions that are this member's."""

    def highwater(self, partition: int) -> int | None:
        """End of the partition as far as it is known without asking; None when it is not."""

    def committed(self, partition: int, seconds: float) -> int | None:
        """The group's offset, once no open transaction can change it; None when there is none."""


class Producer(Protocol):
    """Writes transactions. Every call may raise, and none is trusted to come back in time."""

    def begin(self) -> None:
        """Begin a transaction."""

    def send(self, records: Outgoing) -> None:
        """Add records to it; may return before anything is written."""

    def flush(self, seconds: float) -> None:
        """Wait until all records are written. Raises when one is not."""

    def offsets(self, partitions: Mapping[int, int], group: Any, seconds: float) -> None:
        """Add the input position to it, on condition that ``group`` is still current."""

    def commit(self, seconds: float) -> None:
        """Make it visible. After an error nobody knows whether it is."""

    def abort(self, seconds: float) -> None:
        """Drop it, and be ready for the next."""

    def close(self, seconds: float) -> None:
        """Give the connections up, without committing anything."""


class NewTopic(NamedTuple):
    """A topic to be created."""

    partitions: int
    replicas: int
    configs: dict[str, str]


class Admin(Protocol):
    """Looks at topics and creates them."""

    def partition_counts(self, topics: Sequence[str]) -> dict[str, int]:
        """Number of partitions of each of these topics that exists."""

    def largest_message(self, topic: str) -> int | None:
        """``max.message.bytes`` of a topic; None when the brokers do not say."""

    def create(self, topics: Mapping[str, NewTopic]) -> dict[str, str]:
        """Create topics that are not there by now. Returns why not, by name, where refused."""

    def grow(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions."""

    def wait_for(self, counts: Mapping[str, int], seconds: float) -> None:
        """Wait until the brokers tell of these topics with as many partitions."""

    def close(self) -> None:
        """Give the connections up."""


class Client(Protocol):
    """One library."""

    def admin(self) -> Admin:
        """Connect. Raises when no broker answers."""

    def producer(self, max_record_bytes: int) -> Producer:
        """A producer that has cut off its predecessors with the same transactional id."""

    def member(self) -> Member:
        """Join the group, cooperatively. Blocks until the input topic is known."""

    def reader(self, topic: str, partitions: Sequence[int]) -> Reader:
        """A consumer outside the group."""

    def log_ends(self, topic: str, partitions: Sequence[int], seconds: float) -> dict[int, int]:
        """Offset behind the last record that was written, in a transaction still open or not."""

    def fault(self, error: BaseException) -> tuple[Fault, str]:
        """What the library's error means, and what to call it."""


def make_client(config: KafkaConfig) -> Client:
    """The client that ``config.client`` names.

    Raises
    ------
    UsageError
        When its package is not installed, or an option is not for it.
    """
    module, package = _ADAPTERS[config.client]
    try:
        adapter = importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"kafka.client: {config.client} needs a package that cannot be imported ({error}); "
            f"pip install '{package}'"
        ) from error
    return cast("Client", adapter.Adapter(config))


class RefusedError(TransportError):
    """A commit that was taken back cleanly, for a reason that may have passed."""

    retry = True


def unreachable(config: KafkaConfig) -> TransportError:
    """The error for brokers that do not answer. Looks into why, which may take seconds."""
    why = why_unreachable(config)
    if why is not None:
        return TransportError(f"connecting to Kafka: {why}")
    return TransportError(
        f"no Kafka broker answers at {config.bootstrap_servers}: start it, or set "
        "kafka.bootstrap_servers (and kafka.security when it asks for TLS or a login)"
    )


_ADVICE = {
    Fault.FENCED: "fenced, another process took over the transactional id {id!r}; stop one of the "
    "two, or give each its own kafka.instance",
    Fault.TOO_LARGE: "a record is larger than a topic takes; raise max.message.bytes of the "
    "output topics above the input's, by 64 KiB for the added headers",
    Fault.DENIED: "the brokers refuse it ({text}); grant this client the topics, the group and "
    "the transactional id, see deploy/kafka-security.md",
    Fault.LOGIN: "no login for {login} ({text}); check kafka.security, and that the brokers know "
    "this name for this mechanism",
}


def as_transport_error(
    error: BaseException, what: str, config: KafkaConfig, client: Client
) -> TransportError:
    """What went wrong, in one line that says what to do.

    A :class:`RefusedError` when trying again may help, provided that nothing was left half done.
    """
    if isinstance(error, TransportError):
        return error
    fault, text = client.fault(error)
    advice = _ADVICE.get(fault)
    if advice is not None:
        names = {"text": text, "id": config.transactional_id, "login": config.security.login}
        return TransportError(f"{what}: {advice.format(**names)}")
    if fault is Fault.TIMEOUT:
        return RefusedError(f"{what}: no answer in time from {config.bootstrap_servers}")
    kind = RefusedError if fault in (Fault.PASSING, Fault.UNREACHABLE) else TransportError
    return kind(f"{what}: {text}")
