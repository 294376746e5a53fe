"""Reads the accepted topic: what the learner reads, committed records only.

The records are as they came, so nothing tells where they stood in the input, and their header
``key-id`` says who signed them. Whether that signature was good is for the gate to say: one that
was verified is always among those that say so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from monitor.core.blast import NOWHERE, AcceptedBatch
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_follower import TopicFollower

_MAX_RECORDS = 2000
_ENDS_SECONDS = 10.0
_KEY_ID = "key-id"
_MAX_KEY_ID_BYTES = 128


class KafkaAccepted(TopicFollower):
    """The accepted topic as a :class:`~monitor.core.ports.AcceptedSource`; parts are partitions.

    Raises
    ------
    UsageError
        When the client's package is not installed.
    """

    def __init__(self, config: KafkaConfig) -> None:
        super().__init__(config, config.topics.accepted, _MAX_RECORDS)
        self._ends: dict[int, int] = {}
        self._asked = float("-inf")

    def read(self, timeout_seconds: float) -> AcceptedBatch:
        """The next events, some thousand at most.

        An event was accepted at its record's time: what the producer or the broker of the input
        set. A released one keeps that.

        Raises
        ------
        TransportError
            When the brokers fail; ``start`` again then.
        """
        if self._anew:
            self._anew = []
            return AcceptedBatch(anew=True)
        found = self.poll(timeout_seconds)
        now = time.time()
        part, pos, at, values = list[int](), list[int](), list[float](), list[bytes]()
        keys: list[str | None] = []
        for partition, rows in sorted(found.items()):
            part += [partition] * len(rows.offsets)
            pos += rows.offsets
            at += [stamp / 1000 if stamp > 0 else now for stamp in rows.timestamps]
            values += [value or b"" for value in rows.values]
            keys += map(_key_of, rows.headers)
        return AcceptedBatch(
            part,
            pos,
            at,
            values,
            [NOWHERE] * len(part),
            self.places,
            self._begins,
            self._behind(),
            keys=keys,
        )

    def ends(self) -> Mapping[int, int]:
        """Behind the last record of each partition that is committed or aborted, asked anew.

        Raises
        ------
        TransportError
            When the brokers fail.
        """
        if self._reader is None:  # what was heard before is out of date
            return {}
        self._asked = float("-inf")
        self._behind()
        return dict(self._ends)

    def _behind(self) -> int:
        """About how many records wait; transactions' own marks count with them."""
        reader, now = self._reader, time.monotonic()
        if reader is not None and now - self._asked > _ENDS_SECONDS:
            self._asked = now
            try:
                seconds = self._config.request_timeout_seconds
                self._ends = reader.ends(list(self._places), seconds)
            except Exception as error:  # the client fails in many ways
                raise self._error(error) from error
        return sum(max(0, end - self._places.get(p, 0)) for p, end in self._ends.items())


def _key_of(headers: Any) -> str | None:
    """The key that the headers name; None unless one does, once, as keys can be called."""
    found = [value for name, value in headers or () if name == _KEY_ID]
    if len(found) != 1 or not found[0] or len(found[0]) > _MAX_KEY_ID_BYTES:
        return None
    text = bytes(found[0]).decode("ascii", "replace")
    return text if text.isascii() and text.isprintable() else None
