"""Reads a whole topic: every partition, outside any group, committed records only."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping

from monitor.core.errors import TransportError
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_port import Reader, as_transport_error, make_client
from monitor.transport.kafka_records import Rows

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 0.2
_LOOK_SECONDS = 30.0


class TopicFollower:
    """Goes through a topic from where reading stood; heirs make something of the records.

    Parameters
    ----------
    config
        How to reach Kafka.
    topic
        The topic's name.
    max_records
        Most records that one poll brings.

    Raises
    ------
    UsageError
        When the client's package is not installed.
    """

    def __init__(self, config: KafkaConfig, topic: str, max_records: int = 500) -> None:
        self._config, self._topic, self._max_records = config, topic, max_records
        self._client = make_client(config)
        self._reader: Reader | None = None
        self._places: dict[int, int] = {}
        self._begins: dict[int, int] = {}
        self._anew: list[int] = []
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
        seconds = self._config.request_timeout_seconds
        ends = reader.ends(partitions, seconds)
        self._begins = reader.beginnings(partitions, seconds)
        self._places = {p: places.get(p, 0) for p in partitions}
        self._anew = [p for p, place in self._places.items() if place > ends[p]]
        for p in self._anew:
            log.warning("%s was made anew: reading partition %d again", self._topic, p)
            self._places[p] = 0
        for p, place in self._places.items():
            if place:
                # What the brokers have deleted already is passed over.
                reader.seek(p, place)
        self._looked = time.monotonic()

    def _count(self) -> int:
        admin = self._client.admin()
        try:
            return admin.partition_counts([self._topic]).get(self._topic, 0)
        finally:
            admin.close()

    def poll(self, timeout_seconds: float) -> dict[int, Rows]:
        """The next records by partition; :attr:`places` is behind them then.

        Raises
        ------
        TransportError
            When the brokers fail; ``start`` again then.
        """
        reader = self._reader
        if reader is None:
            raise TransportError(f"reading {self._topic!r}: start() comes first")
        try:
            found = reader.poll(self._max_records, timeout_seconds)
            for p in self._places:
                self._places[p] = reader.position(p) or self._places[p]
            if not found and time.monotonic() - self._looked > _LOOK_SECONDS:
                self._looked = time.monotonic()
                if self._count() > len(self._places):  # somebody added partitions
                    self.start(dict(self._places))
            return found
        except Exception as error:  # the client fails in many ways
            raise self._error(error) from error

    @property
    def places(self) -> dict[int, int]:
        """Where reading goes on, by partition."""
        return dict(self._places)

    def _error(self, error: BaseException) -> TransportError:
        return as_transport_error(error, f"reading {self._topic!r}", self._config, self._client)

    def close(self) -> None:
        """Release the connection."""
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(Exception):
                reader.close(_CLOSE_SECONDS)
