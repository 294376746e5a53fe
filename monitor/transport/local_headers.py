"""Headers of recorded events, from a file beside them: files have none of their own.

One JSON object a line, ``{"key-id": …, "signature": …, "signed-at": …}`` or ``{}``, in the order of
the input's lines; what ``poisoning-monitor keys sign`` prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from monitor.core.errors import UsageError
from monitor.core.ports import Polled
from monitor.core.types import Header, IntArray, RawBatch
from monitor.transport.local import LocalTransport


class HeaderLines:
    """The lines of such a file, found by number. Raises UsageError where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
            self._starts: IntArray = np.cumsum([0, *map(len, self._file)], dtype=np.int64)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error

    def of(self, first: int, n: int) -> Sequence[Sequence[Header]]:
        """The headers of ``n`` lines from number ``first`` on; lines behind the end have none."""
        here = max(0, min(n, len(self._starts) - 1 - first))
        found: list[Sequence[Header]] = []
        if here:
            self._file.seek(int(self._starts[first]))
            found = [self._parsed(self._file.readline(), first + i) for i in range(here)]
        return [*found, *[()] * (n - here)]

    def _parsed(self, line: bytes, number: int) -> Sequence[Header]:
        try:
            made = orjson.loads(line)
            return [(str(name), text.encode()) for name, text in made.items()]
        except (orjson.JSONDecodeError, AttributeError, UnicodeEncodeError):
            raise UsageError(
                f"{self._path}: line {number + 1} is no JSON object of texts, as `keys sign` prints"
            ) from None


class WithHeaders:
    """A local transport whose records have headers; everything else is the transport's own."""

    def __init__(self, transport: LocalTransport, headers: HeaderLines) -> None:
        self._transport, self._headers = transport, headers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def poll(self, max_events: int, timeout_seconds: float) -> Polled:
        """As the transport's, with headers."""
        polled = self._transport.poll(max_events, timeout_seconds)
        return replace(polled, batches=tuple(self._with(raw) for raw in polled.batches))

    def read_range(self, partition: int, start: int, stop: int) -> Iterator[RawBatch]:
        """As the transport's, with headers."""
        for raw in self._transport.read_range(partition, start, stop):
            yield self._with(raw)

    def _with(self, raw: RawBatch) -> RawBatch:
        first = int(raw.offset[0]) if len(raw) else 0
        return replace(raw, headers=self._headers.of(first, len(raw)))
