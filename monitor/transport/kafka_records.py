"""What a Kafka record becomes here, and what leaves for which topic. Pure functions, no client."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    retractions: str = "feedback.retractions"
    checkpoints: str = "monitor.checkpoints"

    def names(self) -> dict[str, str]:
        """Topic name by role, in a fixed order."""
        return {role: getattr(self, role) for role in self.__slots__}


@dataclass(slots=True)
class Rows:
    """Records of one partition in offset order, in columns of equal length.

    Attributes
    ----------
    offsets, timestamps
        Position, and milliseconds since 1970 as the producer or the broker set them.
    keys, values, headers
        As on the wire; headers are lists of (name, value) pairs.
    """

    offsets: list[int]
    timestamps: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Any]

    def before(self, stop: int) -> Rows:
        """Those with an offset below ``stop``."""
        n = bisect.bisect_left(self.offsets, stop)
        if n == len(self.offsets):
            return self
        return Rows(
            self.offsets[:n], self.timestamps[:n], self.keys[:n], self.values[:n], self.headers[:n]
        )


class Outgoing(NamedTuple):
    """Records to be produced to one partition, in this order; columns of equal length.

    ``headers`` is None when none has any. ``timestamps`` are milliseconds since 1970; None, in
    place of one or of all, means now.
    """

    topic: str
    partition: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Sequence[Any]] | None = None
    timestamps: Sequence[int | None] | None = None


def raw_batch(partition: int, rows: Rows) -> tuple[RawBatch, frozenset[int]]:
    """Turn the records of one partition into a raw batch, and what it cannot carry.

    That is the offsets of records whose value was null; the raw batch shows them as empty.
    """
    values: Any = rows.values
    nulls: frozenset[int] = frozenset()
    if None in values:
        pairs = zip(rows.offsets, values, strict=True)
        nulls = frozenset(offset for offset, value in pairs if value is None)
        values = [b"" if value is None else value for value in values]
    offset = np.array(rows.offsets, dtype=np.int64)
    batch = RawBatch(partition, offset, values, rows.keys, rows.headers, rows.timestamps)
    return batch, nulls


def outgoing(
    part: PartitionCommit,
    nulls: frozenset[int],
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
    nulls
        What :func:`raw_batch` returned beside the raw batch.
    partitions
        Number of partitions by topic. A record goes to the partition it came from, modulo
        that number, so that order within a key survives.
    held_at
        Unix seconds.
    """
    raw, decisions = part.raw, part.decisions
    n, offsets = len(raw), raw.offset.tolist()
    keys = raw.keys or [None] * n
    values = _original_values(raw, offsets, keys, nulls)
    columns = _Columns(keys, values, raw.headers, raw.timestamps)
    for action, topic in (
        (Action.PASS, topics.accepted),
        (Action.HOLD, topics.quarantine),
        (Action.REJECT, topics.invalid),
    ):
        chosen = np.flatnonzero(decisions.action == int(action))
        if len(chosen):
            rows = chosen.tolist()
            found = columns if len(rows) == n else columns.of(rows)
            if action != Action.PASS:
                before = found.headers or [()] * len(rows)
                headers = [
                    [*had, *_hold_headers(part, topics, row, int(action))]
                    for row, had in zip(rows, before, strict=True)
                ]
                if action == Action.HOLD:
                    for row, ours in zip(rows, headers, strict=True):
                        ours.extend(_decision_headers(decisions.records[row], held_at))
                found = found._replace(headers=headers)
            yield Outgoing(topic, raw.partition % partitions[topic], *found)
    prefix = f"{raw.partition}-".encode()
    names = [b"%b%d" % (prefix, offset) for offset in offsets]
    home = raw.partition % partitions[topics.decisions]
    yield Outgoing(topics.decisions, home, names, decisions.records)
    if decisions.changes:
        # Keyed by incident, so that the changes of one stay in order.
        home = raw.partition % partitions[topics.alerts]
        told = [(c.incident["id"].encode(), c.encoded()) for c in decisions.changes]
        yield Outgoing(topics.alerts, home, *zip(*told, strict=True))
    if part.audit:
        home = raw.partition % partitions[topics.audit]
        yield Outgoing(topics.audit, home, [part.chain.encode()] * len(part.audit), part.audit)


class _Columns(NamedTuple):
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Sequence[Any]] | None
    timestamps: Sequence[int | None] | None

    def of(self, rows: list[int]) -> _Columns:
        def pick(column: Any) -> Any:
            return None if column is None else [column[row] for row in rows]

        return _Columns(*map(pick, self))


def _original_values(
    raw: RawBatch, offsets: list[int], keys: Sequence[bytes | None], nulls: frozenset[int]
) -> Sequence[bytes | None]:
    if not nulls:
        return raw.values
    # A record with neither key nor value is one that not every client can send.
    return [
        None if offset in nulls and key is not None else value
        for offset, key, value in zip(offsets, keys, raw.values, strict=True)
    ]


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
