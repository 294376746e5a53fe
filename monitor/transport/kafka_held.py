"""Reads the quarantine topic: every partition, outside any group, committed records only."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from monitor.core.held import HeldBatch, HeldRecord, Original
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_follower import TopicFollower
from monitor.transport.kafka_records import FIRST_HOLD_HEADER, Rows

log = logging.getLogger(__name__)


class KafkaHeld(TopicFollower):
    """The quarantine topic as a :class:`~monitor.core.ports.HeldSource`; parts are partitions.

    Raises
    ------
    UsageError
        When the client's package is not installed.
    """

    def __init__(self, config: KafkaConfig) -> None:
        super().__init__(config, config.topics.quarantine)

    def read(self, timeout_seconds: float) -> HeldBatch:
        """The next records, a few hundred at most.

        Raises
        ------
        TransportError
            When the brokers fail; ``start`` again then.
        """
        found = self.poll(timeout_seconds)
        return HeldBatch([r for rows in found.values() for r in held_records(rows)], self.places)


def held_records(rows: Rows) -> Iterator[HeldRecord]:
    """What records of the quarantine topic tell; those that no monitor put there are left out."""
    columns = (rows.offsets, rows.keys, rows.values, rows.headers, rows.timestamps)
    for offset, key, value, headers, at in zip(*columns, strict=True):
        try:
            record = _held_record(key, value, headers or [], at)
        except (KeyError, ValueError):
            log.warning("record %d of the quarantine cannot be read and is left out", offset)
            continue
        if record is not None:
            yield record


def _held_record(
    key: bytes | None, value: bytes | None, headers: Any, timestamp: int
) -> HeldRecord | None:
    """Our headers stand behind the record's own, however those are called.

    They begin with the last one named ``monitor-risk``.
    """
    names = [str(name) for name, _ in headers]
    if FIRST_HOLD_HEADER not in names:
        return None
    first = len(names) - 1 - names[::-1].index(FIRST_HOLD_HEADER)
    ours = {name: pair[1] or b"" for name, pair in zip(names[first:], headers[first:], strict=True)}
    original = Original(
        partition=int(ours["monitor-partition"]),
        offset=int(ours["monitor-offset"]),
        value=value,
        key=key,
        headers=tuple(headers[:first]),
        timestamp=timestamp,
    )
    return HeldRecord(
        original=original,
        decision=ours.get("monitor-decision", b""),
        held_at=int(ours.get("monitor-held-at", b"0")) / 1000 or None,
        risk=float(ours[FIRST_HOLD_HEADER]),
        reason=ours.get("monitor-reason", b"").decode("utf-8", "replace"),
    )
