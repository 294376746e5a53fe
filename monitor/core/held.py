"""A held record on its way into the quarantine store, and back out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monitor.core.blast import Retraction
from monitor.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Original:
    """A record as it came, down to the byte; what the learner gets when it is released.

    ``timestamp`` is milliseconds since 1970 as the transport set it, None where it sets none.
    ``value`` is None where the record's was null.
    """

    partition: int
    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[Any, bytes | None]] = ()
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """A record that was held back, with the decision record that says why.

    ``held_at`` is Unix seconds, None where nobody wrote it down. ``decision`` is the JSON, empty
    where it is not with the record; then ``risk`` and ``reason`` are what is known of it.
    """

    original: Original
    decision: bytes
    held_at: float | None = None
    risk: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HeldBatch:
    """What one reading brought, and where reading goes on after it, by part of the source.

    ``judged`` events were looked at on the way, where the source sees all of them.
    """

    records: Sequence[HeldRecord] = ()
    places: Mapping[int, int] = field(default_factory=dict)
    judged: int = 0


@dataclass(frozen=True, slots=True)
class Reviews:
    """What becomes visible together: rows of the reviews ledger, and events for the learner.

    ``retracted`` are records that take accepted events back.
    """

    rows: Sequence[tuple[bytes, bytes | None]] = ()
    released: Sequence[Original] = ()
    retracted: Sequence[Retraction] = ()


def held_key(partition: int, offset: int) -> str:
    """The name of a held event: ``partition-offset``."""
    return f"{partition}-{offset}"


def parse_key(key: str) -> tuple[int, int]:
    """Undo :func:`held_key`.

    Raises
    ------
    UsageError
        For anything else.

    Examples
    --------
    >>> parse_key(held_key(3, 14))
    (3, 14)
    """
    partition, dash, offset = key.partition("-")
    plain = dash and partition.isascii() and partition.isdigit() and offset.isascii()
    if not (plain and offset.isdigit() and len(partition) < 10 and len(offset) < 19):
        raise UsageError(f"{key[:80]!r} is no key of an event: keys look like 0-12345")
    return int(partition), int(offset)
