"""The audit chains on Kafka: read, outside the consumer group, and checked."""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from monitor.core.errors import MonitorError, StateError, UsageError
from monitor.state.audit import Head
from monitor.state.audit_match import place_of
from monitor.state.audit_places import Source
from monitor.state.audit_verify import Report, Verification
from monitor.state.recovery import Stamp
from monitor.transport.audit_folder import Trust
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_port import Client, as_transport_error, make_client
from monitor.transport.kafka_reader import Progress, read_states
from monitor.transport.kafka_records import Rows

_POLL_SECONDS = 0.2
_RECORDS = 20_000
_DECIDED = b',"kind":"decisions",'


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A topic from its beginnings up to some ends, by partition."""

    topic: str
    begins: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def whole(self) -> bool:
        """Whether nothing of it was deleted by the brokers."""
        return not any(self.begins.values())


class AuditTopics:
    """What there is to read for an auditor. Use it as a context manager.

    Raises
    ------
    UsageError
        When the topics are not there, or may not be read.
    TransportError
        When the brokers fail.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self.config = config
        self._client: Client = make_client(config)
        topics = config.topics
        wanted = [topics.audit, topics.decisions, topics.input]
        with self._explained("reading topics"):
            admin = self._client.admin()
            try:
                self.counts = admin.partition_counts(wanted)
            finally:
                admin.close()
        missing = [topic for topic in wanted[:2] if topic not in self.counts]
        if missing:
            raise UsageError(f"there is no topic {missing[0]!r}, or this login may not see it")

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except MonitorError:
            raise
        except Exception as error:  # the client's own, of which there are many
            raise as_transport_error(error, what, self.config, self._client) from error

    def stretch(self, topic: str) -> _Stretch:
        """All that is committed in a topic by now."""
        partitions, seconds = range(self.counts[topic]), self.config.request_timeout_seconds
        with self._explained(f"reading {topic!r}"):
            reader = self._client.reader(topic, list(partitions))
            try:
                begins = reader.beginnings(list(partitions), seconds)
                return _Stretch(topic, begins, reader.ends(list(partitions), seconds))
            finally:
                reader.close(_POLL_SECONDS)

    def rows(self, stretch: _Stretch) -> Iterator[tuple[int, Rows]]:
        """Its records, by partition, in order within each."""
        left = [p for p in stretch.ends if stretch.ends[p] > stretch.begins[p]]
        if not left:
            return
        with self._explained(f"reading {stretch.topic!r}"):
            reader = self._client.reader(stretch.topic, left)
            try:
                progress = Progress(self.config, f"reading {stretch.topic!r}")
                while any((reader.position(p) or 0) < stretch.ends[p] for p in left):
                    for p, found in reader.poll(_RECORDS, _POLL_SECONDS).items():
                        rows = found.before(stretch.ends[p])
                        if rows.offsets:
                            yield p, rows
                    progress.made(sum(reader.position(p) or 0 for p in left))
            finally:
                reader.close(_POLL_SECONDS)

    def heads(self) -> dict[int, Head]:
        """Where the committed state says that each partition's chain stands."""
        partitions = range(self.counts.get(self.config.topics.input, 0))
        if not partitions:
            raise UsageError(f"{self.config.topics.input!r} is not there, or may not be seen")
        with self._explained("reading the state topic"):
            states = read_states(self._client, self.config, list(partitions))
        found = {}
        for p, state in states.items():
            with contextlib.suppress(StateError):
                if state.stamp is not None:
                    found[p] = Stamp.decode(state.stamp).audit
        return found


def verify_topics(config: KafkaConfig, trust: Trust) -> Report:
    """Check all chains in the audit topic against the decisions topic.

    Works beside a running service: what is written meanwhile is left to the next time. The order
    matters. The state is read first, then the end of the decisions is noted, then the audit
    records are read: so they cover both. What came after goes along only as far as they reach.
    """
    topics = AuditTopics(config)
    notes: list[str] = []
    heads: Mapping[int, Head] = {}
    try:
        heads = topics.heads()
    except MonitorError as error:
        notes.append(f"not compared with the stored state: {error}")
    settled = topics.stretch(config.topics.decisions)
    audit = topics.stretch(config.topics.audit)
    lines: list[bytes] = []
    check = Verification(
        lines.__getitem__,
        trust.keys,
        trust.restarts,
        expires=not settled.whole,
        cut=not audit.whole,
    )
    for p, rows in topics.rows(audit):
        for offset, value in zip(rows.offsets, rows.values, strict=True):
            check.add(value or b"", len(lines), f"offset {offset} of {config.topics.audit}-{p}")
            lines.append(value or b"")
    for line in trust.anchors:
        check.anchor(line)
    for partition, head in heads.items():
        check.claim("the stored state", f"{config.topics.input}-{partition}", head)
    check.link()
    _compare(topics, check, settled)
    return check.report(notes)


def _compare(topics: AuditTopics, check: Verification, settled: _Stretch) -> None:
    config = topics.config
    last: dict[str, int] = {}
    for p, rows in topics.rows(topics.stretch(config.topics.decisions)):
        by_chain: dict[str, list[bytes]] = defaultdict(list)
        for offset, key, value in zip(rows.offsets, rows.keys, rows.values, strict=True):
            chain, record = _chain(config, key), value or b""
            if offset >= settled.ends[p]:
                if chain not in last:
                    last[chain] = check.last_offset(chain)
                at = place_of(record)
                if at is not None and at > last[chain]:
                    continue
            by_chain[chain].append(record)
        for chain, records in by_chain.items():
            check.decisions(chain).feed(records)


def _chain(config: KafkaConfig, key: bytes | None) -> str:
    """The chain of a decision by its key, ``partition-offset``."""
    return _named(config.topics.input, (key or b"").partition(b"-")[0])


@functools.lru_cache(maxsize=4096)
def _named(stream: str, partition: bytes) -> str:
    return f"{stream}-{partition.decode('latin-1')}"


def topics_source(config: KafkaConfig) -> Source:
    """What there is in the topics for an export, or for looking an event up."""
    topics = AuditTopics(config)
    # In this order: so that no head knows more than the decisions, nor they than their records.
    told = topics.stretch(config.topics.audit)
    settled = topics.stretch(config.topics.decisions)
    lines = [
        value or b""
        for p, rows in topics.rows(topics.stretch(config.topics.audit))
        for offset, value in zip(rows.offsets, rows.values, strict=True)
        if offset < told.ends[p] or _DECIDED in (value or b"")
    ]

    def decisions() -> Iterator[tuple[str, Sequence[bytes]]]:
        for _, rows in topics.rows(settled):
            by_chain: dict[str, list[bytes]] = defaultdict(list)
            for key, value in zip(rows.keys, rows.values, strict=True):
                by_chain[_chain(config, key)].append(value or b"")
            yield from by_chain.items()

    return Source(config.topics.input, "offset", lines, decisions)
