"""Reads the quarantine topic: every partition, outside any group, committed records only."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from monitor.core.errors import TransportError
from monitor.core.held import HeldBatch, HeldRecord, Original
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_port import Reader, as_transport_error, make_client
from monitor.transport.kafka_records import FIRST_HOLD_HEADER, Rows

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 0.2
_MAX_RECORDS = 500
_LOOK_SECONDS = 30.0


class KafkaHeld:
    """The quarantine topic as a :class:`~monitor.core.ports.HeldSource`; parts are partitions.

    Raises
    ------
    UsageError
        When the client's package is not installed.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._client = make_client(config)
        self._topic = config.topics.quarantine
        self._reader: Reader | None = None
        self._places: dict[int, int] = {}
        self._looked = 0.0

    def start(self, places: Mapping[int, int]) -> None:
        """Go on at these offsets, at the beginning of partitions without one.

        Raises
        ------
        TransportError
            When the brokers fail, or the topic is not there (yet).
        """
        self.close()
        try:
            self._open(places)
        except Exception as error:
            self.close()
            raise self._error(error) from error

    def _open(self, places: Mapping[int, int]) -> None:
        count = self._count()
        if not count:
            raise TransportError(f"there is no topic {self._topic!r} yet")
        partitions = range(count)
        self._reader = reader = self._client.reader(self._topic, partitions)
        ends = reader.ends(partitions, self._config.request_timeout_seconds)
        self._places = {p: places.get(p, 0) for p in partitions}
        for p, place in self._places.items():
            if place > ends[p]:
                log.warning("%s was made anew: reading partition %d again", self._topic, p)
                self._places[p] = 0
            elif place:
                # What the brokers have deleted already is passed over.
                reader.seek(p, place)
        self._looked = time.monotonic()

    def _count(self) -> int:
        admin = self._client.admin()
        try:
            return admin.partition_counts([self._topic]).get(self._topic, 0)
        finally:
            admin.close()

    def read(self, timeout_seconds: float) -> HeldBatch:
        """The next records, a few hundred at most.

        Raises
        ------
        TransportError
            When the brokers fail; ``start`` again then.
        """
        reader = self._reader
        if reader is None:
            raise TransportError(f"reading {self._topic!r}: start() comes first")
        try:
            found = reader.poll(_MAX_RECORDS, timeout_seconds)
            records = [record for rows in found.values() for record in held_records(rows)]
            for p in self._places:
                self._places[p] = reader.position(p) or self._places[p]
            batch = HeldBatch(records, dict(self._places))
            if not found and time.monotonic() - self._looked > _LOOK_SECONDS:
                self._looked = time.monotonic()
                if self._count() > len(self._places):  # somebody added partitions
                    self.start(batch.places)
            return batch
        except Exception as error:  # the client fails in many ways
            raise self._error(error) from error

    def _error(self, error: BaseException) -> TransportError:
        return as_transport_error(error, f"reading {self._topic!r}", self._config, self._client)

    def close(self) -> None:
        """Release the connection."""
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(Exception):
                reader.close(_CLOSE_SECONDS)


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
