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
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from monitor.core.errors import MonitorError, TransportError
from monitor.core.ports import CommitUnit, Polled, Resume
from monitor.core.types import RawBatch
from monitor.transport import kafka_state
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_peers import PeerReader
from monitor.transport.kafka_port import (
    Client,
    Fault,
    Member,
    Producer,
    RefusedError,
    as_transport_error,
    make_client,
    unreachable,
)
from monitor.transport.kafka_reader import read_range, resume
from monitor.transport.kafka_records import Outgoing, Rows, Topics, outgoing, raw_batch
from monitor.transport.kafka_state import StoredState
from monitor.transport.kafka_topics import ensure_topics, largest_record
from monitor.transport.kafka_worker import Worker

__all__ = ["KafkaConfig", "KafkaTransport", "Topics"]

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0
_ABORT_SECONDS = 10.0
_NO_NULLS: frozenset[int] = frozenset()


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

    def __init__(self, config: KafkaConfig | None = None, client: Client | None = None) -> None:
        self.config = config or KafkaConfig()
        self._client = make_client(self.config) if client is None else client
        self._worker: Worker | None = None
        self._member: Member | None = None
        self._producer: Producer | None = None
        self._counts: dict[str, int] = {}
        self._stored: dict[int, StoredState] = {}
        self._committed: dict[int, int] = {}
        self._nulls: dict[int, frozenset[int]] = {}
        self._generation = -1
        self._broken: str | None = None
        self._in_transaction = False
        self._heard = 0.0
        self._seen: dict[int, int] = {}
        self._peers = PeerReader(self._client, self.config)

    def open(self) -> None:
        """Create missing topics, cut off a predecessor's open transaction, join the group.

        Raises
        ------
        TransportError
            When no broker answers, or one refuses.
        UsageError
            When topics are missing and may not be created, or an option is unknown.
        """
        self._worker = Worker("kafka-commit")
        deadline = self.config.request_timeout_seconds * 3
        try:
            self._worker.call("connecting to Kafka", deadline, self._connect)
        except MonitorError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise self._error(error, "connecting to Kafka") from error
        self._heard = time.monotonic()

    def _connect(self) -> None:
        try:
            admin = self._client.admin()
        except Exception as error:
            if self._client.fault(error)[0] in (Fault.TIMEOUT, Fault.UNREACHABLE):
                raise unreachable(self.config) from error
            raise
        try:
            self._counts = ensure_topics(admin, self.config)
            largest = largest_record(admin, self.config)
        finally:
            admin.close()
        self._producer = self._client.producer(largest)
        self._member = self._client.member()

    def poll(self, max_events: int, timeout_seconds: float) -> Polled:
        """At most ``max_events`` records, at most one batch a partition.

        Returns as soon as there is something. Newly assigned partitions are reported with their
        stored state and bring their first records with a later poll.

        Raises
        ------
        TransportError
            When the brokers fail, or stop answering for longer than the request timeout.
        """
        member = self._usable("reading")
        try:
            fetched = self._fetch(member, max_events, timeout_seconds)
            assigned, revoked = self._rebalance(member)
            stale = self._verify(member, [r.partition for r in assigned])
            assigned, revoked = [*assigned, *stale], [*revoked, *(r.partition for r in stale)]
            moved = {*revoked, *(r.partition for r in assigned)}
            batches = [self._batch(p, rows) for p, rows in fetched.items() if p not in moved]
            self._starving(member, bool(batches or moved))
            return Polled(batches, assigned, revoked, lag_events=self._lag(member))
        except MonitorError:
            raise
        except Exception as error:  # the client's own faults too: a restart mends them
            raise self._error(error, "reading from Kafka") from error

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

    def _fetch(self, member: Member, max_events: int, seconds: float) -> dict[int, Rows]:
        found = member.poll(max_events, seconds)
        if found and member.proof() is None:
            # Thrown out of the group a moment ago: these may be another instance's by now.
            self._rewind(member, sorted(found.keys() & self._committed.keys()))
            return {}
        return found

    def _batch(self, partition: int, rows: Rows) -> RawBatch:
        batch, self._nulls[partition] = raw_batch(partition, rows)
        return batch

    def _rebalance(self, member: Member) -> tuple[list[Resume], list[int]]:
        """Carry out what the listener noted: forget what is gone, load what is new."""
        gone: set[int] = set()
        new: set[int] = set()
        while member.noted:
            is_assignment, partitions = member.noted.popleft()
            if is_assignment:
                new |= partitions
            else:
                gone |= partitions & self._committed.keys()
                new -= partitions
        for p in gone:
            for table in (self._committed, self._stored, self._nulls, self._seen):
                table.pop(p, None)
        if not new:
            return [], sorted(gone)
        self._room_for_state(max(new) + 1)
        return self._load(member, sorted(new)), sorted(gone)

    def _load(self, member: Member, partitions: Sequence[int]) -> list[Resume]:
        """Where ``partitions`` go on, and go on there."""
        found = resume(self._client, self.config, member, partitions)
        for p, (where, state) in found.items():
            self._committed[p], self._stored[p] = where.next_offset, state
        self._rewind(member, partitions)
        return [where for where, _ in found.values()]

    def _verify(self, member: Member, loaded: Collection[int]) -> list[Resume]:
        """Load anew what others have worked on in the meantime, in a generation not seen before.

        A client that fell out of the group while it was joining keeps its partitions and says
        nothing (kafka-python 3.0.12 tells of a loss only where it begins to join), with positions
        from before. Within a generation nobody else can commit what is this member's.
        """
        generation = member.generation
        if generation < 0 or generation == self._generation:
            return []
        seconds = self.config.request_timeout_seconds
        mine = sorted(self._committed.keys() - set(loaded))
        now = {p: member.committed(p, seconds) for p in mine}
        stale = [p for p in mine if now[p] not in (None, self._committed[p])]
        if stale:
            log.warning("partitions %s were another instance's for a while: loading them", stale)
        resumed = self._load(member, stale) if stale else []
        self._generation = generation
        return resumed

    def _room_for_state(self, need: int) -> None:
        """Someone may have added partitions to the input while the service runs."""
        if need <= self._counts[self.config.topics.state]:
            return

        def grow() -> None:
            admin = self._client.admin()
            try:
                self._counts = ensure_topics(admin, self.config)
            finally:
                admin.close()

        self._call("adding partitions to the state topic", grow)

    def _lag(self, member: Member) -> int | None:
        """Records in the assigned partitions that were not read yet, None when unknown."""
        total = 0
        for p in self._committed:
            high, position = member.highwater(p), member.position(p)
            if high is None or position is None:
                return None
            total += max(0, high - position)
        return total

    def _starving(self, member: Member, heard: bool) -> None:
        """Raise when silence is due to the brokers or the client, not to an idle input."""
        now = time.monotonic()
        if heard:
            self._heard, self._seen = now, {}
            return
        if now - self._heard < self.config.request_timeout_seconds:
            return
        ends = member.ends([*self._committed] or [0], self.config.request_timeout_seconds)
        self._heard = time.monotonic()
        if not member.is_settled:
            return  # the client fetches nothing while another instance is slow to rejoin
        for p in self._committed:
            position = member.position(p)
            waiting = position is not None and ends[p] > position
            if waiting and self._seen.get(p) == position:
                raise TransportError(
                    f"partition {p} of {self.config.topics.input!r} has records after offset "
                    f"{position} that do not arrive; restart the process"
                )
            self._seen[p] = position if waiting and position is not None else -1

    def read_range(self, partition: int, start: int, stop: int) -> Iterator[RawBatch]:
        """The input from offset ``start`` up to, not including, ``stop``, for recovery.

        Raises
        ------
        StateError
            When the broker has deleted part of it.
        TransportError
            When it stops arriving.
        """
        return read_range(self._client, self.config, partition, start, stop)

    def commit(self, unit: CommitUnit) -> None:
        """Make a judged micro-batch visible as one transaction.

        Raises
        ------
        TransportError
            When it could not be written within the commit deadline, or another process took over.
            Nothing of the unit is visible then, unless the connection broke in the very last
            step; a restart finds out which.
        """
        member = self._usable("committing")
        lost = [p.raw.partition for p in unit.parts if p.raw.partition not in self._committed]
        group = member.proof()
        if lost or group is None or member.generation != self._generation:
            which = lost or [p.raw.partition for p in unit.parts]
            raise RefusedError(f"committing: partitions {which} may be another instance's by now")
        after: dict[int, StoredState] = {}
        try:
            self._call("committing", lambda: self._transact(unit, group, after))
        except Exception as error:
            failure = self._error(error, "committing")
            if not self._drop_transaction(failure):
                failure = TransportError(str(failure))
            raise failure from error
        self._stored |= after
        for part in unit.parts:
            self._committed[part.raw.partition] = part.next_offset
            self._nulls.pop(part.raw.partition, None)

    def _transact(self, unit: CommitUnit, group: Any, after: dict[int, StoredState]) -> None:
        producer, topics = self._producer, self.config.topics
        assert producer is not None
        deadline = time.monotonic() + self.config.commit_deadline_seconds

        def left() -> float:
            return max(0.0, deadline - time.monotonic())

        self._in_transaction = True
        producer.begin()
        for part in unit.parts:
            p = part.raw.partition
            nulls = self._nulls.get(p, _NO_NULLS)
            for records in outgoing(part, nulls, topics, self._counts, time.time()):
                producer.send(records)
            rows, after[p] = kafka_state.records(
                *(self.config.group_id, part.next_offset, part.stamp, part.snapshot),
                self._stored[p],
            )
            keys, values = zip(*rows, strict=True)
            producer.send(Outgoing(topics.state, p, keys, values))
        producer.flush(left())
        producer.offsets({p.raw.partition: p.next_offset for p in unit.parts}, group, left())
        # From here on a failure leaves open whether the transaction took place.
        self._broken = "the outcome of the last commit is unknown"
        producer.commit(left())
        self._broken, self._in_transaction = None, False

    def _drop_transaction(self, failure: TransportError) -> bool:
        """Abort after a failed commit; whether that went well. If not, only a restart helps."""
        producer = self._producer
        if self._broken is None and self._in_transaction and producer is not None:
            try:
                self._call("aborting", lambda: producer.abort(_ABORT_SECONDS))
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
        member = self._usable("aborting")
        self._nulls.clear()
        try:
            self._rewind(member, sorted(self._committed))
        except Exception as error:
            raise self._error(error, "aborting") from error

    def _rewind(self, member: Member, partitions: Sequence[int]) -> None:
        owned = member.assignment()
        for p in partitions:
            if p in owned:
                member.seek(p, self._committed[p])

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
        producer, member = self._producer, self._member
        if producer is not None:
            if self._in_transaction and self._broken is None:
                yield "aborting", _CLOSE_SECONDS, lambda: producer.abort(_CLOSE_SECONDS)
            yield "closing", 2 * _CLOSE_SECONDS, lambda: producer.close(_CLOSE_SECONDS)
        if member is not None:
            yield "leaving the group", 2 * _CLOSE_SECONDS, lambda: member.close(_CLOSE_SECONDS)

    def _call(self, what: str, function: Callable[[], None]) -> None:
        if self._worker is None:
            raise TransportError(f"{what}: the transport is not open")
        # The client's own deadlines come first where it keeps them; this one always holds.
        self._worker.call(what, self.config.commit_deadline_seconds + 1.0, function)

    def _usable(self, what: str) -> Member:
        if self._worker is None or self._member is None:
            raise TransportError(f"{what}: the transport is not open")
        if self._broken is not None:
            raise TransportError(f"{what}: not possible, {self._broken}; restart the process")
        return self._member

    def _error(self, error: BaseException, what: str) -> TransportError:
        return as_transport_error(error, what, self.config, self._client)
