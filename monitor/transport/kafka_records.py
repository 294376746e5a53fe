"""What a Kafka record becomes here, and what leaves for which topic. Pure functions, no client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from monitor.core.errors import RejectCode
from monitor.core.ports import PartitionCommit
from monitor.core.types import Action, RawBatch

MAX_REASON_BYTES = 1024
MAX_DECISION_BYTES = 40 * 1024
"""Of a decision record that goes along with a held one; brokers bound the whole record."""
FIRST_HOLD_HEADER = "monitor-risk"


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of the topics the service reads and writes."""

    input: str = "feedback"
    accepted: str = "feedback.accepted"
    quarantine: str = "feedback.quarantine"
    invalid: str = "feedback.invalid"
    decisions: str = "monitor.decisions"
    alerts: str = "monitor.alerts"
    audit: str = "monitor.audit"
    state: str = "monitor.state"
    control: str = "monitor.control"
    reviews: str = "monitor.reviews"

    def names(self) -> dict[str, str]:
        """Topic name by role, in a fixed order."""
        return {role: getattr(self, role) for role in self.__slots__}


class Outgoing(NamedTuple):
    """One record to be produced. ``timestamp`` is milliseconds since 1970, None for now."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[Any]
    timestamp: int | None


@dataclass(frozen=True, slots=True)
class Origin:
    """What a raw batch cannot carry: record times, and which values were null.

    Attributes
    ----------
    timestamps
        Milliseconds since 1970 by offset, as the producer or the broker set them.
    null_values
        Offsets of records whose value was null; the raw batch shows them as empty.
    """

    timestamps: Mapping[int, int] = field(default_factory=dict)
    null_values: frozenset[int] = frozenset()


class NullHeader(tuple[str, None]):
    """A header whose value is null.

    The client reads null header values but refuses to send them: its check looks at item 1,
    its encoder unpacks the pair and does write null. So item 1 is shown as empty, while
    unpacking gives None, and the header leaves as it came.
    """

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)
        return b"" if item is None else item


class NullableHeaders(list[Any]):
    """Headers of which some are :class:`NullHeader`.

    The client adds up the sizes of all values of a list that is not empty, for its statistics
    only, and fails on null; its encoder asks for the length. So this list passes for empty.
    """

    def __bool__(self) -> bool:
        return False


def raw_batch(partition: int, records: Sequence[Any]) -> tuple[RawBatch, Origin]:
    """Turn the client's records of one partition, in offset order, into a raw batch."""
    nulls = frozenset(r.offset for r in records if r.value is None)
    batch = RawBatch(
        partition=partition,
        offset=np.fromiter((r.offset for r in records), dtype=np.int64, count=len(records)),
        values=[b"" if r.value is None else r.value for r in records],
        keys=[r.key for r in records],
        headers=[r.headers for r in records],
    )
    return batch, Origin({r.offset: r.timestamp for r in records}, nulls)


def outgoing(
    part: PartitionCommit,
    origin: Origin,
    topics: Topics,
    partitions: Mapping[str, int],
    held_at: float = 0.0,
) -> Iterator[Outgoing]:
    """Every record that one judged batch sends out, the state topic's excepted.

    Accepted records leave as they came: key, value, headers and time. Held and refused ones
    keep their original bytes and headers too, with the reason in further headers; held ones with
    the whole decision record, so that their topic alone tells all about them.

    Parameters
    ----------
    part
        The judged batch; ``decisions`` has a row for every raw record.
    origin
        What :func:`raw_batch` returned beside the raw batch.
    partitions
        Number of partitions by topic. A record goes to the partition it came from, modulo
        that number, so that order within a key survives.
    held_at
        Unix seconds.
    """
    raw, decisions = part.raw, part.decisions
    home = {topic: raw.partition % count for topic, count in partitions.items()}
    routes = {
        int(Action.PASS): topics.accepted,
        int(Action.HOLD): topics.quarantine,
        int(Action.REJECT): topics.invalid,
    }
    prefix = f"{raw.partition}-"
    target = topics.decisions
    for row, (offset, action) in enumerate(
        zip(raw.offset.tolist(), decisions.action.tolist(), strict=True)
    ):
        value = None if offset in origin.null_values else raw.values[row]
        key = raw.keys[row] if raw.keys else None
        headers = list(raw.headers[row]) if raw.headers else []
        if action != Action.PASS:
            headers += _hold_headers(part, topics, row, int(action))
        if action == Action.HOLD:
            headers += _decision_headers(decisions.records[row], held_at)
        if any(h[1] is None for h in headers):
            headers = nullable(headers)
        if value is None and key is None:
            value = b""  # the client cannot send a record with neither
        topic = routes[action]
        yield Outgoing(topic, home[topic], key, value, headers, origin.timestamps.get(offset))
        yield Outgoing(
            target,
            home[target],
            f"{prefix}{offset}".encode(),
            decisions.records[row],
            [],
            None,
        )


def nullable(headers: Sequence[Any]) -> NullableHeaders:
    """``headers`` in a form in which the client also sends null values."""
    return NullableHeaders(NullHeader(h) if h[1] is None else h for h in headers)


def _hold_headers(
    part: PartitionCommit, topics: Topics, row: int, action: int
) -> list[tuple[str, bytes]]:
    """Why a record is not among the accepted ones, and where it came from."""
    reasons = part.decisions.reasons.get(row, ())
    text = reasons[0].text.encode("utf-8", "replace")[:MAX_REASON_BYTES] if reasons else b""
    if action == Action.REJECT:
        code = RejectCode(int(part.decisions.reject[row])).word.encode()
        why = [("monitor-error-code", code), ("monitor-error", text)]
    else:
        risk = f"{float(part.decisions.risk[row]):.6g}".encode()
        why = [(FIRST_HOLD_HEADER, risk), ("monitor-reason", text)]
    return [
        *why,
        ("monitor-topic", topics.input.encode()),
        ("monitor-partition", str(part.raw.partition).encode()),
        ("monitor-offset", str(int(part.raw.offset[row])).encode()),
    ]


def _decision_headers(record: bytes, held_at: float) -> Iterator[tuple[str, bytes]]:
    yield "monitor-held-at", str(int(held_at * 1000)).encode()
    if len(record) <= MAX_DECISION_BYTES:
        yield "monitor-decision", record
