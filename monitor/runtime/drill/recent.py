"""The latest accepted events of each partition, of which canaries are made."""

from __future__ import annotations

from collections import deque

import numpy as np

from monitor.core.ports import PartitionCommit
from monitor.core.types import Verdict

MAX_EVENTS = 4_096
MAX_BYTES = 16 << 20


class Templates:
    """Bounded in events and bytes. Not for several threads."""

    def __init__(self, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._max_events, self._max_bytes = max_events, max_bytes
        self._kept: deque[list[bytes]] = deque()
        self._events = self._bytes = 0

    def add(self, part: PartitionCommit) -> None:
        """Keep what was accepted after the warm-up."""
        decisions = part.decisions
        if decisions.unjudged:
            return
        rows = np.flatnonzero((decisions.verdict == Verdict.ACCEPT) & ~decisions.warmup)
        values = [part.raw.values[i] for i in rows[-self._max_events :].tolist()]
        if values:
            self._kept.append(values)
            self._events += len(values)
            self._bytes += sum(map(len, values))
        while len(self._kept) > 1 and (
            self._events - len(self._kept[0]) >= self._max_events or self._bytes > self._max_bytes
        ):
            gone = self._kept.popleft()
            self._events -= len(gone)
            self._bytes -= sum(map(len, gone))

    def values(self) -> list[bytes]:
        """What is kept, the oldest first."""
        return [value for values in self._kept for value in values][-self._max_events :]
