"""Numbers out of events and into columns, while the events are still in the processor's cache.

A decoded event keeps each of its numbers in an object of its own. For a batch those are megabytes,
which cost more to come back to, and to free, than to make. So where a stream's features are numbers
only, each event's are packed as soon as it is decoded, and dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from struct import Struct, error
from typing import Any

import numpy as np

from monitor.core.events import TAKEN, Event, Features, Packed
from monitor.core.types import FloatArray

NO_FIT = (error, KeyError, TypeError)


@dataclass(frozen=True, eq=False)
class Packing:
    """How the features of a stream that has only numbers are packed.

    ``array``: whether events carry an array or an object; ``names``: the features in order.
    """

    array: bool
    names: tuple[str, ...]

    @cached_property
    def _pick(self) -> Callable[[Any], Sequence[Any]]:
        """From an object to its values in order."""
        if len(self.names) == 1:
            (name,) = self.names
            return lambda row: (row[name],)
        return itemgetter(*self.names) if self.names else lambda _: ()

    @cached_property
    def _pack(self) -> Callable[..., bytes]:
        return Struct(f"={len(self.names)}d").pack

    def rows(self, rows: Sequence[Features]) -> FloatArray | None:
        """float64[n, d] of complete rows; None where one is not, or has a text."""
        if not self.array and sum(map(len, rows)) != len(self.names) * len(rows):
            return None
        try:
            return self.numbers(rows)
        except NO_FIT:
            # A wrong length, a missing name, a text or null: the slow path says which.
            return None

    def numbers(self, rows: Sequence[Features]) -> FloatArray:
        """float64[n, d] of rows that have at least these; raises one of ``NO_FIT`` elsewhere."""
        pack, pick = self._pack, self._pick
        if self.array:
            return self._joined([pack(*row) for row in rows])
        return self._joined([pack(*pick(row)) for row in rows])

    def decoded(
        self, decode: Callable[[bytes], Event], values: Iterable[bytes]
    ) -> tuple[list[Event], Packed]:
        """Events of all ``values``, and their numbers, which the events have no more.

        Raises whatever ``decode`` does.
        """
        events: list[Event] = []
        data: list[bytes] = []
        odd: list[int] = []
        add, put, pack, pick = events.append, data.append, self._pack, self._pick
        array, width = self.array, len(self.names)
        for value in values:
            event = decode(value)
            add(event)
            features: Any = event.features
            try:
                if not array:
                    if len(features) != width:
                        raise KeyError
                    features = pick(features)
                put(pack(*features))
            except NO_FIT:
                odd.append(len(data))
                put(bytes(8 * width))
            else:
                event.features = TAKEN
        return events, Packed(self, self._joined(data), odd)

    def packed(self, events: Sequence[Event]) -> Packed:
        """The same of decoded events."""
        remaining = iter(events)
        return self.decoded(lambda _: next(remaining), [b""] * len(events))[1]

    def _joined(self, data: list[bytes]) -> FloatArray:
        x = np.frombuffer(b"".join(data), dtype=np.float64).reshape(len(data), len(self.names))
        # A zero has no sign here.
        return np.asarray(x + 0.0)
