"""Reads stored state and stretches of the input, outside the consumer group."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from monitor.core.errors import MonitorError, StateError, TransportError
from monitor.core.ports import Resume
from monitor.core.types import RawBatch
from monitor.transport import kafka_state
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_port import Client, Member
from monitor.transport.kafka_records import raw_batch
from monitor.transport.kafka_state import StoredState

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_RANGE_RECORDS = 5000
_STATE_RECORDS = 500
_SETTLE_SECONDS = 10.0
_STILL_READINGS = 10


def read_states(
    client: Client, config: KafkaConfig, partitions: Sequence[int]
) -> dict[int, StoredState]:
    """What the state topic holds for each partition, up to the last committed record.

    Raises
    ------
    TransportError
        When the end is not reached within the request timeout.
    StateError
        When a stored snapshot is incomplete or damaged.
    """
    latest: dict[int, dict[bytes, bytes | None]] = {p: {} for p in partitions}
    prefix = f"{config.group_id}/".encode()
    reader = client.reader(config.topics.state, partitions)
    try:
        # Under read_committed this is the end of what is settled, not of the log.
        ends = reader.ends(partitions, config.request_timeout_seconds)
        progress = Progress(config, "reading the state topic")
        # Transaction markers take up offsets without being records: only the position counts.
        while any((reader.position(p) or 0) < ends[p] for p in partitions):
            for p, rows in reader.poll(_STATE_RECORDS, _POLL_SECONDS).items():
                pairs = zip(rows.keys, rows.values, strict=True)
                latest[p].update((k, v) for k, v in pairs if k is not None and k.startswith(prefix))
            progress.made(sum(reader.position(p) or 0 for p in partitions))
    finally:
        reader.close(_POLL_SECONDS)
    return {p: kafka_state.assemble(config.group_id, rows) for p, rows in latest.items()}


def resume(
    client: Client, config: KafkaConfig, member: Member, partitions: Sequence[int]
) -> dict[int, tuple[Resume, StoredState]]:
    """Where newly assigned partitions go on, once no open transaction can change it any more.

    The previous owner may have died with a transaction half done, or may be completing one
    right now. The group coordinator answers only when no offset is pending, but the state topic
    may still lag behind it by a moment: so both are read until they agree, or until neither has
    moved for a while. The clock alone decides nothing: this process may have been suspended
    between the two readings.

    Raises
    ------
    TransportError
        When they go on changing: another instance is working on these partitions.
    """
    patience = min(_SETTLE_SECONDS, config.request_timeout_seconds)
    deadline = time.monotonic() + patience
    before: dict[int, tuple[int | None, int | None]] = {}
    still = readings = 0
    while True:
        committed = {p: _committed(config, member, p) for p in partitions}
        stored = read_states(client, config, partitions)
        apart = [
            p
            for p in partitions
            if stored[p].next_offset != committed[p] and committed[p] is not None
        ]
        seen = {p: (committed[p], stored[p].next_offset) for p in partitions}
        still, before = still + 1 if seen == before else 0, seen
        readings += 1
        late = time.monotonic() - deadline
        if not apart or (late > 0 and still >= _STILL_READINGS):
            break
        if late > patience and readings > _STILL_READINGS and not still:
            raise TransportError(
                f"the state of partitions {apart} goes on changing: another instance works on "
                "them, and this one has been away; restart the process"
            )
        time.sleep(_POLL_SECONDS)
    for p in apart:
        if stored[p].next_offset is not None:
            log.warning(
                "partition %d: input is committed up to %s but its state up to %s",
                *(p, committed[p], stored[p].next_offset),
            )
    first = _beginnings(config, member, [p for p in partitions if committed[p] is None])
    result = {}
    for p in partitions:
        state, offset = stored[p], committed[p]
        if offset is None:
            # Brokers forget the offsets of a group that was empty for days; the state is kept.
            offset = first[p] if state.next_offset is None else state.next_offset
        result[p] = (Resume(p, offset, state.stamp, state.snapshot), state)
    return result


def read_range(
    client: Client, config: KafkaConfig, partition: int, start: int, stop: int
) -> Iterator[RawBatch]:
    """The input of ``partition`` from offset ``start`` up to, not including, ``stop``.

    Raises
    ------
    StateError
        When the broker has deleted part of it.
    TransportError
        When it stops arriving.
    """
    if start >= stop:
        return
    topic = config.topics.input
    try:
        reader = client.reader(topic, [partition])
        try:
            begin = reader.beginnings([partition], config.request_timeout_seconds)[partition]
            if begin > start:
                raise StateError(
                    f"partition {partition} of {topic!r} begins at offset {begin}, but offsets "
                    f"from {start} are needed to rebuild the state: raise the topic's retention, "
                    "or start with another kafka.group_id"
                )
            reader.seek(partition, start)
            progress = Progress(config, f"reading partition {partition} of {topic!r} again")
            while (position := reader.position(partition) or start) < stop:
                progress.made(position)
                found = reader.poll(_RANGE_RECORDS, _POLL_SECONDS).get(partition)
                rows = None if found is None else found.before(stop)
                if rows is not None and rows.offsets:
                    yield raw_batch(partition, rows)[0]
        finally:
            reader.close(_POLL_SECONDS)
    except MonitorError:
        raise
    except Exception as error:  # the client's own faults too: a restart mends them
        raise TransportError(f"reading partition {partition} again: {error!r}") from error


class Progress:
    """Raises when a position stands still for longer than the request timeout."""

    def __init__(
        self, config: KafkaConfig, what: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._what, self._clock = config.request_timeout_seconds, what, clock
        self._position, self._since = -1, clock()

    def made(self, position: int) -> None:
        """Reading stands at ``position``. Raises TransportError when that is where it has stood."""
        now = self._clock()
        if position != self._position:
            self._position, self._since = position, now
        elif now - self._since > self._seconds:
            raise TransportError(
                f"{self._what}: nothing arrived for {self._seconds:g} s; are all Kafka brokers up?"
            )


def _committed(config: KafkaConfig, member: Member, partition: int) -> int | None:
    # Long enough for the brokers to drop a transaction whose owner is gone.
    seconds = config.transaction_timeout_seconds + config.request_timeout_seconds
    return member.committed(partition, seconds)


def _beginnings(config: KafkaConfig, member: Member, partitions: Sequence[int]) -> dict[int, int]:
    return member.beginnings(partitions, config.request_timeout_seconds) if partitions else {}
