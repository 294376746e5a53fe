"""Kafka as input and output: a consumer group, and one transaction a micro-batch.

A commit writes accepted, held, refused and decision records, the state and the input position in
a single transaction, bound to this member's generation of the group (KIP-447). Whoever reads with
``read_committed`` sees all of it or nothing, and an instance that lost its partitions cannot
commit them any more.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import ConsumerGroupMetadata, MemberState, OffsetAndMetadata

from monitor.core.errors import MonitorError, TransportError
from monitor.core.ports import CommitUnit, Polled, Resume
from monitor.core.types import RawBatch
from monitor.transport import kafka_state
from monitor.transport.kafka_clients import (
    KafkaConfig,
    Rebalances,
    RefusedError,
    Worker,
    after_abort,
    as_transport_error,
    new_admin,
    new_member,
    ready_producer,
    unreachable,
)
from monitor.transport.kafka_headers import accept_any_header_name
from monitor.transport.kafka_peers import PeerReader
from monitor.transport.kafka_reader import read_range, resume
from monitor.transport.kafka_records import Origin, Topics, outgoing, raw_batch
from monitor.transport.kafka_state import StoredState
from monitor.transport.kafka_topics import ensure_topics, largest_record

__all__ = ["KafkaConfig", "KafkaTransport", "Topics"]

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0
_JOIN_MS = 3000
_NOTHING = Origin()


class KafkaTransport:
    """Reads and writes Kafka topics, exactly once from end to end.

    Not for use from several threads. After a :class:`~monitor.core.errors.TransportError` from
    :meth:`commit` either :meth:`abort` and poll again, or exit: a new process with the same
    transactional id cuts off whatever this one left open.

    Examples
    --------
    >>> KafkaConfig(instance="a").transactional_id
    'poisoning-monitor-a'
    """

    def __init__(self, config: KafkaConfig | None = None) -> None:
        self.config = config or KafkaConfig()
        self._events = Rebalances()
        self._worker: Worker | None = None
        self._member: Any = None
        self._producer: Any = None
        self._counts: dict[str, int] = {}
        self._largest = 0
        self._group = ConsumerGroupMetadata(self.config.group_id)
        self._stored: dict[int, StoredState] = {}
        self._committed: dict[int, int] = {}
        self._origins: dict[int, Origin] = {}
        self._broken: str | None = None
        self._in_transaction = False
        self._heard = 0.0
        self._seen: dict[int, int] = {}
        self._peers = PeerReader(self.config)

    def open(self) -> None:
        """Create missing topics, cut off a predecessor's open transaction, join the group.

        Raises
        ------
        TransportError
            When no broker answers, or one refuses.
        UsageError
            When topics are missing and may not be created, or an option is unknown.
        """
        accept_any_header_name()
        self._worker = Worker("kafka-commit")
        deadline = self.config.request_timeout_seconds * 3
        try:
            self._worker.call("connecting to Kafka", deadline, self._connect)
        except MonitorError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise as_transport_error(error, "connecting to Kafka", self.config) from error
        self._heard = time.monotonic()

    def _connect(self) -> None:
        try:
            admin = new_admin(self.config)
        except (kafka_errors.KafkaTimeoutError, kafka_errors.KafkaConnectionError) as error:
            raise unreachable(self.config) from error
        try:
            self._counts = ensure_topics(admin, self.config)
            self._largest = largest_record(admin, self.config)
        finally:
            admin.close()
        self._producer = ready_producer(self.config, self._largest)
        self._member = new_member(self.config, self._events)

    def _abort_transaction(self) -> None:
        self._producer = after_abort(self._producer, self.config, self._largest)

    def poll(self, max_events: int, timeout_seconds: float) -> Polled:
        """At most ``max_events`` records, at most one batch a partition.

        Returns as soon as there is something. Newly assigned partitions are reported with their
        stored state and bring their first records with a later poll.

        Raises
        ------
        TransportError
            When the brokers fail, or stop answering for longer than the request timeout.
        """
        self._usable("reading")
        try:
            fetched = self._fetch(max_events, timeout_seconds)
            assigned, revoked = self._rebalance()
            moved = {*revoked, *(r.partition for r in assigned)}
            batches = [self._batch(p, rows) for p, rows in fetched.items() if p not in moved]
            self._starving(bool(batches or moved))
            return Polled(batches, assigned, revoked, lag_events=self._lag())
        except MonitorError:
            raise
        except Exception as error:  # the client's own faults too: a restart mends them
            raise as_transport_error(error, "reading from Kafka", self.config) from error

    @property
    def n_partitions(self) -> int:
        """Partitions of the input, wherever they are read."""
        return self._counts.get(self.config.topics.input, 1)

    def published(self) -> dict[int, bytes]:
        """Snapshots of any partition that became visible since the last call.

        Raises
        ------
        TransportError
            When the brokers fail.
        """
        self._usable("reading the state topic")
        return self._peers.published(self.n_partitions)

    def _fetch(self, max_events: int, timeout_seconds: float) -> dict[int, list[Any]]:
        """Poll, and note the membership that the records were read under.

        A rebalance that ends while nobody polls is lost on the client, which then asks for the
        next one: with short polls two instances keep each other busy like that for ever. So a
        rebalance once begun is waited for.
        """
        found = self._member.poll(timeout_ms=int(timeout_seconds * 1000), max_records=max_events)
        self._group = self._member.group_metadata()
        if not found and self._group.state == MemberState.REBALANCING:
            found = self._member.poll(timeout_ms=_JOIN_MS, max_records=max_events)
            self._group = self._member.group_metadata()
        if found and not self._is_member():
            # Thrown out of the group a moment ago: these may be another instance's by now.
            self._rewind(sorted(tp.partition for tp in found if tp.partition in self._committed))
            return {}
        return {tp.partition: rows for tp, rows in found.items()}

    def _is_member(self) -> bool:
        """Whether a commit would be checked against the group; without it the brokers do not."""
        return bool(self._group.state == MemberState.STABLE and self._group.generation_id >= 0)

    def _batch(self, partition: int, rows: Sequence[Any]) -> RawBatch:
        batch, self._origins[partition] = raw_batch(partition, rows)
        return batch

    def _rebalance(self) -> tuple[list[Resume], list[int]]:
        """Carry out what the listener noted: forget what is gone, load what is new."""
        gone: set[int] = set()
        new: set[int] = set()
        while self._events.noted:
            is_assignment, partitions = self._events.noted.popleft()
            if is_assignment:
                new |= partitions
            else:
                gone |= partitions & self._committed.keys()
                new -= partitions
        for p in gone:
            for table in (self._committed, self._stored, self._origins, self._seen):
                table.pop(p, None)
        if not new:
            return [], sorted(gone)
        self._room_for_state(max(new) + 1)
        found = resume(self.config, self._member, sorted(new))
        for p, (where, state) in found.items():
            self._committed[p], self._stored[p] = where.next_offset, state
        self._rewind(sorted(new))
        return [where for where, _ in found.values()], sorted(gone)

    def _room_for_state(self, need: int) -> None:
        """Someone may have added partitions to the input while the service runs."""
        if need <= self._counts[self.config.topics.state]:
            return

        def grow() -> None:
            admin = new_admin(self.config)
            try:
                self._counts = ensure_topics(admin, self.config)
            finally:
                admin.close()

        self._call("adding partitions to the state topic", grow)

    def _lag(self) -> int | None:
        """Records in the assigned partitions that were not read yet, None when unknown."""
        total = 0
        for p in self._committed:
            tp = self._tp(p)
            high = self._member.highwater(tp)
            position = self._member.position(tp, timeout_ms=0)
            if high is None or position is None:
                return None
            total += max(0, high - position)
        return total

    def _starving(self, heard: bool) -> None:
        """Raise when silence is due to the brokers or the client, not to an idle input."""
        now = time.monotonic()
        if heard:
            self._heard, self._seen = now, {}
            return
        if now - self._heard < self.config.request_timeout_seconds:
            return
        parts = [self._tp(p) for p in self._committed] or [self._tp(0)]
        ends = self._member.end_offsets(parts, timeout_ms=self.config.request_timeout_ms)
        self._heard = time.monotonic()
        if self._group.state != MemberState.STABLE:
            return  # the client fetches nothing while another instance is slow to rejoin
        for p in self._committed:
            position = self._member.position(self._tp(p), timeout_ms=0)
            waiting = position is not None and ends[self._tp(p)] > position
            if waiting and self._seen.get(p) == position:
                raise TransportError(
                    f"partition {p} of {self.config.topics.input!r} has records after offset "
                    f"{position} that do not arrive; restart the process"
                )
            self._seen[p] = position if waiting else -1

    def read_range(self, partition: int, start: int, stop: int) -> Iterator[RawBatch]:
        """The input from offset ``start`` up to, not including, ``stop``, for recovery.

        Raises
        ------
        StateError
            When the broker has deleted part of it.
        TransportError
            When it stops arriving.
        """
        return read_range(self.config, partition, start, stop)

    def commit(self, unit: CommitUnit) -> None:
        """Make a judged micro-batch visible as one transaction.

        Raises
        ------
        TransportError
            When it could not be written within the commit deadline, or another process took over.
            Nothing of the unit is visible then, unless the connection broke in the very last
            step; a restart finds out which.
        """
        self._usable("committing")
        lost = [p.raw.partition for p in unit.parts if p.raw.partition not in self._committed]
        if lost or not self._is_member():
            which = lost or [p.raw.partition for p in unit.parts]
            raise RefusedError(f"committing: partitions {which} may be another instance's by now")
        after: dict[int, StoredState] = {}
        try:
            self._call("committing", lambda: self._transact(unit, after))
        except Exception as error:
            failure = as_transport_error(error, "committing", self.config)
            if not self._drop_transaction(failure):
                failure = TransportError(str(failure))
            raise failure from error
        self._stored |= after
        for part in unit.parts:
            self._committed[part.raw.partition] = part.next_offset
            self._origins.pop(part.raw.partition, None)

    def _transact(self, unit: CommitUnit, after: dict[int, StoredState]) -> None:
        producer, topics = self._producer, self.config.topics
        deadline = time.monotonic() + self.config.commit_deadline_seconds
        self._in_transaction = True
        producer.begin_transaction()
        futures = []
        for part in unit.parts:
            p = part.raw.partition
            origin = self._origins.get(p, _NOTHING)
            records = outgoing(part, origin, topics, self._counts, time.time())
            for to, place, key, value, headers, at in records:
                futures.append(producer.send(to, value, key, headers, place, at))
            rows, after[p] = kafka_state.records(
                *(self.config.group_id, part.next_offset, part.stamp, part.snapshot),
                self._stored[p],
            )
            for key, value in rows:
                futures.append(producer.send(topics.state, value, key, None, p))
        producer.flush(max(0.0, deadline - time.monotonic()))
        for future in futures:
            future.get(max(0.0, deadline - time.monotonic()))
        offsets = {
            self._tp(part.raw.partition): OffsetAndMetadata(part.next_offset, "", -1)
            for part in unit.parts
        }
        producer.send_offsets_to_transaction(offsets, self._group)
        # From here on a failure leaves open whether the transaction took place.
        self._broken = "the outcome of the last commit is unknown"
        producer.commit_transaction()
        self._broken, self._in_transaction = None, False

    def _drop_transaction(self, failure: TransportError) -> bool:
        """Abort after a failed commit; whether that went well. If not, only a restart helps."""
        if self._broken is None and self._in_transaction:
            try:
                self._call("aborting", self._abort_transaction)
                self._in_transaction = False
            except Exception:
                self._broken = str(failure)
        return self._broken is None

    def abort(self) -> None:
        """Drop what was polled since the last commit and read it again with the next poll.

        Raises
        ------
        TransportError
            When the transaction cannot be aborted; only a restart helps then.
        """
        self._usable("aborting")
        self._origins.clear()
        self._rewind(sorted(self._committed))

    def _rewind(self, partitions: Sequence[int]) -> None:
        owned = self._member.assignment()
        for p in partitions:
            if self._tp(p) in owned:
                self._member.seek(self._tp(p), self._committed[p])

    def close(self) -> None:
        """Leave the group and close. An open transaction is aborted, never committed."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        self._peers.close()
        for what, seconds, step in self._closing():
            with contextlib.suppress(Exception):
                worker.call(what, seconds, step)
        worker.stop()
        self._producer = self._member = None
        self._committed.clear()

    def _closing(self) -> Iterator[tuple[str, float, Callable[[], Any]]]:
        milliseconds = int(_CLOSE_SECONDS * 1000)
        if self._producer is not None:
            if self._in_transaction and self._broken is None:
                yield "aborting", _CLOSE_SECONDS, self._producer.abort_transaction
            yield "closing", 2 * _CLOSE_SECONDS, lambda: self._producer.close(_CLOSE_SECONDS)
        if self._member is not None:
            member = self._member
            yield (
                *("leaving the group", 2 * _CLOSE_SECONDS),
                lambda: member.close(autocommit=False, timeout_ms=milliseconds),
            )

    def _call(self, what: str, function: Callable[[], None]) -> None:
        if self._worker is None:
            raise TransportError(f"{what}: the transport is not open")
        # The client's own deadlines come first where it keeps them; this one always holds.
        self._worker.call(what, self.config.commit_deadline_seconds + 1.0, function)

    def _usable(self, what: str) -> None:
        if self._worker is None:
            raise TransportError(f"{what}: the transport is not open")
        if self._broken is not None:
            raise TransportError(f"{what}: not possible, {self._broken}; restart the process")

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self.config.topics.input, partition)
