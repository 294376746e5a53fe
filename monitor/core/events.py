"""One event as it is decoded, and a batch of them before any schema is known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from monitor.core.limits import Limits
from monitor.core.types import ByteArray, FloatArray, IntArray, Label

Cell = float | str | bool | None
Features = list[float] | dict[str, Cell]

# Instead of features that have been packed, by identity.
TAKEN: Features = []
MAX_LABEL_CHARS = 256
INT64_MAX = 2**63 - 1


class Event(msgspec.Struct, gc=False):
    """A labelled feedback event (wire contract; unknown further fields are ignored).

    ``ts`` is Unix seconds, or an aware datetime when the event had an RFC 3339 text. ``meta`` is
    decoded only to be sure that a strict parser further down accepts it.
    """

    id: str
    ts: int | float | datetime
    source: str
    label: Label
    features: Features
    subject: str | None = None
    prediction: float | list[float] | dict[str, float] | None = None
    gradient: list[float] | None = None
    weight: float | None = None
    meta: Any = None


def event_decoder(limits: Limits) -> msgspec.json.Decoder[Event]:
    """A typed decoder with the bounds of ``limits`` compiled in."""
    first, last = limits.min_ts_seconds, limits.max_ts_seconds
    whole = Annotated[int, Meta(ge=math.ceil(first), le=math.floor(last))]
    number = Annotated[float, Meta(ge=first, le=last)]
    when = Annotated[datetime, Meta(tz=True)]
    some = Meta(min_length=1, max_length=limits.max_features)
    text = Annotated[str, Meta(min_length=1, max_length=MAX_LABEL_CHARS)]
    whole_label = Annotated[int, Meta(ge=-INT64_MAX - 1, le=INT64_MAX)]
    few = Meta(max_length=limits.max_features)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        ("id", Annotated[str, Meta(min_length=1, max_length=limits.max_id_chars)]),
        ("ts", whole | number | when),
        ("source", Annotated[str, Meta(min_length=1, max_length=limits.max_source_chars)]),
        ("label", text | whole_label | bool),
        ("features", Annotated[list[float], some] | Annotated[dict[str, Cell], some]),
        ("subject", Annotated[str, Meta(max_length=limits.max_subject_chars)] | None, None),
        (
            "prediction",
            float | Annotated[list[float], few] | Annotated[dict[str, float], few] | None,
            None,
        ),
        (
            "gradient",
            Annotated[list[float], Meta(min_length=1, max_length=limits.max_features)] | None,
            None,
        ),
        ("weight", Annotated[float, Meta(gt=0)] | None, None),
        ("meta", Any, None),
    ]
    bounded = msgspec.defstruct("BoundedEvent", fields, bases=(Event,), gc=False)
    return msgspec.json.Decoder(cast("type[Event]", bounded))


@dataclass(frozen=True, slots=True)
class Partial:
    """What could be read of an invalid record, for its decision; None where nothing could."""

    id: str | None = None
    ts: float | str | datetime | None = None
    source: str | None = None
    label: Label | None = None


@dataclass(frozen=True, slots=True)
class Packed:
    """Numbers that were taken out of m events.

    Attributes
    ----------
    by
        The :class:`~monitor.core.packing.Packing` that did it.
    x
        float64[m, d], in the order of the stream's columns.
    odd
        Rows that did not fit: their events still have their features, and ``x`` has zeros.
    """

    by: object
    x: FloatArray
    odd: list[int]

    def rows(self, kept: list[int]) -> Packed:
        """Those of ``kept``, in increasing order."""
        odd = set(self.odd)
        return Packed(self.by, self.x[kept], [i for i, row in enumerate(kept) if row in odd])


@dataclass(frozen=True, slots=True)
class Parsed:
    """A raw batch of n records after typed decoding, before the schema is applied.

    Attributes
    ----------
    offset
        int64[n], as in the raw batch.
    reject
        uint8[n], values of ``RejectCode``; 0 for the m records that are events.
    detail
        For each refused row, one sentence that says what is wrong and what is expected.
    row
        int64[m], increasing: the row of each event.
    events
        m decoded events.
    time_ns
        int64[m], time stamps in nanoseconds since 1970.
    partial
        For refused rows, what could still be read.
    packed
        The events' features where they have been taken out of them already.
    """

    offset: IntArray
    reject: ByteArray
    detail: Mapping[int, str]
    row: IntArray
    events: list[Event]
    time_ns: IntArray
    partial: Mapping[int, Partial] = field(default_factory=dict)
    packed: Packed | None = None

    def forget_features(self) -> None:
        """Free what is in columns by now, for owners of the batch.

        Freeing thousands of numbers is several times slower once they have left the cache.
        """
        if self.packed is not None:
            return
        for event in self.events:
            event.features = TAKEN

    def features(self) -> list[Features]:
        """The ``features`` of the m events, in order, to learn a schema from."""
        return [event.features for event in self.events]

    def gradient_dim(self) -> int | None:
        """The commonest length of the gradients, None when no event has one."""
        return commonest_length(event.gradient for event in self.events)


def commonest_length(vectors: Iterable[list[float] | None]) -> int | None:
    """The commonest length of ``vectors``, the first of several; None without any.

    Not the first one's: a single event could then have all honest gradients refused.
    """
    counts = Counter(len(values) for values in vectors if values is not None)
    return max(counts, key=counts.__getitem__, default=None)
