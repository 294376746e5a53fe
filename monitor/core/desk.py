"""What people at the desk see and do: held events, reviews, policy changes. Plain records.

The stores and followers fill them, the HTTP interface, the console and the terminal show them.
Times are Unix seconds of the machine that recorded them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from monitor.core.errors import UsageError


class ReviewStatus(StrEnum):
    """What people have said about a held event."""

    OPEN = "open"
    RELEASED = "released"
    CONFIRMED = "confirmed"


class ConflictError(UsageError):
    """Somebody changed it meanwhile: look again, then decide again."""


class ForbiddenError(UsageError):
    """Whoever asks may not do this."""


class MissingError(UsageError):
    """There is no such thing (any more)."""


@dataclass(frozen=True, slots=True)
class Held:
    """An event that was held back, as the quarantine knows it.

    Attributes
    ----------
    key
        ``partition-offset``: names the event everywhere, also as idempotency key of its release.
    held_at
        When it was held back.
    event_id, source, subject, label, ts
        What the event said; ``label`` as text, ``ts`` in Unix seconds of the event's own clock.
    risk
        −log10 of the tail probability.
    families, detectors
        Channels that spoke against it, and the detectors named in the reasons.
    policy_version
        The policy that held it.
    incident
        Identifier of its incident, None without one.
    status, reviewed_by, reviewed_at, review_reason
        What people said of it.
    decision
        The whole decision record (reasons with their evidence).
    value
        The original bytes; empty where only an overview was asked for.
    """

    key: str
    partition: int
    offset: int
    held_at: float
    event_id: str
    source: str
    subject: str | None
    label: str
    ts: float
    risk: float
    families: tuple[str, ...]
    detectors: tuple[str, ...]
    policy_version: int
    incident: str | None = None
    status: ReviewStatus = ReviewStatus.OPEN
    reviewed_by: str | None = None
    reviewed_at: float | None = None
    review_reason: str | None = None
    decision: Mapping[str, Any] = field(default_factory=dict)
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class HeldFilter:
    """Which held events are meant; what is None does not matter. All given must hold."""

    keys: tuple[str, ...] | None = None
    since: float | None = None
    until: float | None = None
    source: str | None = None
    subject: str | None = None
    label: str | None = None
    detector: str | None = None
    family: str | None = None
    risk_at_least: float | None = None
    incident: str | None = None
    status: ReviewStatus | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class HeldPage:
    """Held events, the latest first; ``cursor`` asks for those behind them, None at the end."""

    items: Sequence[Held]
    total: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class ReviewOutcome:
    """What a bulk review did, or would do (``dry_run``).

    ``done`` are the keys it changed, ``already`` those that were in that state before, ``refused``
    says by key why not.
    """

    verb: str
    dry_run: bool
    done: tuple[str, ...]
    already: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    by_source: Mapping[str, int] = field(default_factory=dict)
    by_label: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observed:
    """What reviews say of the promise.

    ``judged`` events since the store began, ``held`` of them; of these ``released`` were false
    alarms and ``confirmed`` poison. ``at_least`` is released / judged, ``estimated`` takes the
    unreviewed ones to be like the reviewed; None before the first review.
    """

    promised: float
    judged: int
    held: int
    released: int
    confirmed: int
    at_least: float
    estimated: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """One version of the policy, or a proposal that waits.

    ``kind`` is ``start``, ``edit``, ``rollback``, ``expiry`` or ``review``; ``state`` is
    ``applied``, ``waiting`` (for a second person), ``rejected`` or ``overtaken`` (its base was no
    longer the latest). ``policy`` is the whole document as plain values.
    """

    proposal: str
    version: int
    base: int
    kind: str
    state: str
    who: str
    why: str
    when: float
    policy: Mapping[str, Any]
    approved_by: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs between two policies; None where it is absent."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Applied:
    """Which policy an instance judges by, as it said itself."""

    instance: str
    version: int
    when: float


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What another policy would have made of the latest events here.

    ``events`` were judged under the present policy as ``before`` says (verdict word → count) and
    would be as ``after`` says. ``by_label``, ``by_source`` (the largest few) and ``by_family`` give
    (held before, held after). ``flips`` are events whose verdict would change, riskiest first, at
    most a few hundred; ``n_flips`` counts all. ``promised`` and ``observed`` are shares held back:
    what the policy asks for, and what would have been held of these events.
    """

    events: int
    before: Mapping[str, int]
    after: Mapping[str, int]
    by_label: Mapping[str, tuple[int, int]]
    by_source: Mapping[str, tuple[int, int]]
    by_family: Mapping[str, tuple[int, int]]
    flips: Sequence[Mapping[str, Any]]
    n_flips: int
    promised: Mapping[str, float]
    observed: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that somebody did: a change, a review, an erasure, a login."""

    when: float
    who: str
    what: str
    why: str
    details: Mapping[str, Any] = field(default_factory=dict)
