"""Hears what any partition's owner writes to the state topic, outside the consumer group.

Reads committed records only, from the beginning, and puts a snapshot together once its stamp has
come, which is the last record of its transaction. Chunks are kept until then and no longer.
"""

from __future__ import annotations

import contextlib
import logging
import time

from monitor.core.errors import StateError
from monitor.transport import kafka_state
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_port import Client, Reader, as_transport_error
from monitor.transport.kafka_state import SnapshotRef

log = logging.getLogger(__name__)

MAX_PENDING_BYTES = 1 << 30
"""Largest snapshot of a partition that is waited for."""
_POLL_SECONDS = 0.2
_MAX_RECORDS = 2000


class Pieces:
    """The chunks of one partition that wait for their stamp.

    Examples
    --------
    >>> pieces = Pieces("g")
    >>> rows, _ = kafka_state.records("g", 7, b"stamp", b"abc", kafka_state.StoredState())
    >>> [pieces.add(key, value) for key, value in rows]
    [None, b'abc']
    """

    def __init__(self, group: str, max_bytes: int = MAX_PENDING_BYTES) -> None:
        self._group, self._max_bytes = group, max_bytes
        self._rows: dict[bytes, bytes | None] = {}
        self._bytes = 0
        self._taken: SnapshotRef | None = None

    def add(self, key: bytes, value: bytes | None) -> bytes | None:
        """The snapshot that this record completes; None for any other.

        Raises
        ------
        StateError
            For a stamp that cannot be read, or a snapshot that is damaged or too large.
        """
        if not key.startswith(f"{self._group}/".encode()):
            return None
        if key != f"{self._group}/stamp".encode():
            before = self._rows.pop(key, None)
            self._bytes += len(value or b"") - len(before or b"")
            if value is not None and self._bytes <= self._max_bytes:
                self._rows[key] = value
            return None
        if value is None:
            return None
        ref = kafka_state.decode_stamp(value)[2]
        if ref is None or ref == self._taken:
            return None
        self._taken = ref
        rows, self._rows, size, self._bytes = self._rows, {}, self._bytes, 0
        if max(size, ref.length) > self._max_bytes:
            raise StateError(f"it is larger than {self._max_bytes} bytes")
        return kafka_state.assemble(self._group, {**rows, key: value}).snapshot


class PeerReader:
    """A consumer of the state topic's partitions, opened when it is first asked."""

    def __init__(self, client: Client, config: KafkaConfig) -> None:
        self._client, self._config = client, config
        self._pieces: dict[int, Pieces] = {}
        self._reader: Reader | None = None
        self._ends: dict[int, int] = {}

    def published(self, n_partitions: int) -> dict[int, bytes]:
        """The snapshots of partitions 0 to ``n_partitions`` that came since the last call.

        All there are by the first call, and when there are more partitions than before.

        Raises
        ------
        TransportError
            When the brokers fail.
        """
        found: dict[int, bytes] = {}
        try:
            if n_partitions != len(self._pieces):
                self.close()
                self._catch_up(n_partitions, found)
            elif self._reader is not None:
                self._take(self._reader, 0.0, found)
        except Exception as error:  # the client fails in many ways; the next call begins anew
            self.close()
            what = "reading the state topic"
            raise as_transport_error(error, what, self._config, self._client) from error
        return found

    def _catch_up(self, n_partitions: int, found: dict[int, bytes]) -> None:
        partitions = range(n_partitions)
        self._pieces = {p: Pieces(self._config.group_id) for p in partitions}
        reader = self._reader = self._client.reader(self._config.topics.state, partitions)
        deadline = time.monotonic() + self._config.request_timeout_seconds
        self._ends = reader.ends(partitions, self._config.request_timeout_seconds)
        while any((reader.position(p) or 0) < self._ends[p] for p in partitions):
            if time.monotonic() > deadline:
                # What the others know helps; it is no reason to hold up the stream.
                log.warning("the state topic has not been read to its end yet; going on")
                return
            self._take(reader, _POLL_SECONDS, found)

    def _take(self, reader: Reader, seconds: float, found: dict[int, bytes]) -> None:
        for p, rows in reader.poll(_MAX_RECORDS, seconds).items():
            for offset, key, value in zip(rows.offsets, rows.keys, rows.values, strict=True):
                try:
                    snapshot = self._pieces[p].add(key or b"", value)
                except StateError as error:
                    # Compaction has removed parts of what was there before we came.
                    level = logging.DEBUG if offset < self._ends[p] else logging.WARNING
                    log.log(level, "what partition %d published: %s", p, error)
                    continue
                if snapshot is not None:
                    found[p] = snapshot

    def close(self) -> None:
        """Release the connection; a later call of :meth:`published` begins anew."""
        reader, self._reader, self._pieces = self._reader, None, {}
        if reader is not None:
            with contextlib.suppress(Exception):
                reader.close(_POLL_SECONDS)
