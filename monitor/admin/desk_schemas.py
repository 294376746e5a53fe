"""What the desk's routes take and give. The records of :mod:`monitor.core.desk` are the authority.

A policy document is opaque here: the desk checks it, and says what is wrong in a sentence.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
)

from monitor.core.desk import HeldFilter, ReviewStatus
from monitor.core.drill import MAX_RATE_PER_SECOND, MAX_SECONDS, DrillPlan

MAX_KEYS = 10_000
MAX_PAGE = 500
VERSION = 2**31 - 1
KEY = r"^\d{1,10}-\d{1,19}$"


def _no_nul(text: str) -> str:
    # Stores keep text in which it may not stand.
    if "\0" in text:
        raise ValueError("must not hold the character NUL")
    return text


def moment(value: Any) -> Any:
    """Unix seconds of a number or RFC 3339 text; without a zone it is UTC."""
    wrong = "must be Unix seconds, or a time like 2026-05-01T12:00:00Z"
    if isinstance(value, bool):  # a number to Python
        raise ValueError(wrong)
    if not isinstance(value, str):
        return value
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        if not math.isfinite(seconds):  # as JSON it would become null: no bound at all
            raise ValueError(wrong)
        return seconds
    try:
        said = datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError(wrong) from error
    aware = said if said.tzinfo is not None else said.replace(tzinfo=UTC)
    return aware.timestamp()


Text = Annotated[str, StringConstraints(max_length=256), AfterValidator(_no_nul)]
Why = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=500),
    AfterValidator(_no_nul),
]
Key = Annotated[str, StringConstraints(pattern=KEY)]
Moment = Annotated[FiniteFloat, BeforeValidator(moment)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FilterIn(_In):
    """Which held events are meant. All given must hold; unknown names are refused."""

    keys: list[Key] | None = Field(
        default=None, max_length=MAX_KEYS, description="`partition-offset` of each."
    )
    since: Moment | None = Field(default=None, description="Held back at this time or later.")
    until: Moment | None = Field(default=None, description="Held back before this time.")
    source: Text | None = None
    subject: Text | None = None
    label: Text | None = Field(default=None, description="As text.")
    detector: Text | None = Field(default=None, description="Named in the reasons.")
    family: Text | None = Field(default=None, description="Whose channel spoke against it.")
    risk_at_least: FiniteFloat | None = None
    incident: Text | None = None
    status: ReviewStatus | None = None
    text: Text | None = Field(default=None, description="Part of the id, source, subject or label.")

    def chosen(self) -> HeldFilter:
        """As the desk wants it."""
        values = {name: getattr(self, name) for name in FilterIn.model_fields}
        if self.keys is not None:
            values["keys"] = tuple(self.keys)
        return HeldFilter(**values)


class SearchIn(FilterIn):
    """A page of the chosen events."""

    limit: int = Field(default=50, ge=1, le=MAX_PAGE, description="At most so many.")
    cursor: str | None = Field(
        default=None, max_length=1024, description="Of the page before; other filters void it."
    )


class ReviewIn(_In):
    """What to do with which events, and why."""

    filter: FilterIn = Field(default_factory=FilterIn)
    all: bool = Field(default=False, description="Needed with an empty filter.")
    why: Why
    dry_run: bool = Field(default=False, description="true only says what would be done.")


class EraseIn(_In):
    """Whose events to remove, and why."""

    source: Annotated[Text, StringConstraints(min_length=1)]
    why: Why
    dry_run: bool = False


class DocumentIn(_In):
    """A whole policy document."""

    policy: dict[str, Any]


class ChangeIn(DocumentIn):
    """A whole policy document, and why."""

    why: Why


class RollbackIn(_In):
    """An earlier version, and why."""

    to: int = Field(ge=1, le=VERSION)
    why: Why


class RejectIn(_In):
    """Why a proposal is dropped."""

    why: Why


class LoginIn(_In):
    """A token."""

    token: str = Field(max_length=512)


class _Out(BaseModel):
    model_config = ConfigDict(extra="allow")


class ChangeOut(_Out):
    """One version of the policy, or a proposal that waits."""

    proposal: str
    version: int
    base: int
    kind: str = Field(description="start, edit, rollback, expiry or review.")
    state: str = Field(
        description="applied, waiting, rejected or overtaken; unchanged where a change of keys "
        "or a rollback asks for what the policy says already."
    )
    who: str
    why: str
    when: float
    policy: dict[str, Any]
    approved_by: str | None = None


class HistoryOut(_Out):
    """Applied versions, the latest first."""

    versions: list[ChangeOut]
    before: int | None = Field(description="Asks for those behind them; null at the end.")


class WaitingOut(_Out):
    """Proposals that wait for a second person."""

    waiting: list[ChangeOut]


class DifferenceOut(_Out):
    """One value that differs."""

    path: str
    before: Any
    after: Any


class DiffOut(_Out):
    """What differs between two versions."""

    a: int
    b: int
    differences: list[DifferenceOut]


class PreviewOut(_Out):
    """What a document would change."""

    base: int = Field(description="The version it was compared with.")
    differences: list[DifferenceOut]


class WhatIfOut(_Out):
    """What another policy would have made of the latest events here."""

    events: int
    before: dict[str, int] = Field(description="Events by verdict under the present policy.")
    after: dict[str, int]
    by_label: dict[str, tuple[int, int]] = Field(description="Held before, held after.")
    by_source: dict[str, tuple[int, int]] = Field(description="The largest few.")
    by_family: dict[str, tuple[int, int]]
    flips: list[dict[str, Any]] = Field(description="Events whose verdict changes, riskiest first.")
    n_flips: int
    promised: dict[str, float] = Field(description="Shares that the policy asks for.")
    observed: dict[str, float] = Field(description="Shares of these events.")
    seconds: float


class AppliedOut(_Out):
    """By which version each instance judges."""

    current: int
    instances: list[dict[str, Any]]


class RisksOut(_Out):
    """Histogram of the latest events' risk."""

    edges: list[float]
    counts: dict[str, list[int]]


class HeldOut(_Out):
    """An event that was held back."""

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
    families: list[str]
    detectors: list[str]
    policy_version: int
    incident: str | None
    status: ReviewStatus
    reviewed_by: str | None
    reviewed_at: float | None
    review_reason: str | None


class HeldWholeOut(HeldOut):
    """A held event with its bytes and its decision."""

    decision: dict[str, Any]
    value: str | None = Field(description="The original bytes as text; null if they are none.")
    value_base64: str = Field(description="The original bytes.")


class HeldPageOut(_Out):
    """Held events, the latest first."""

    items: list[HeldOut]
    total: int
    cursor: str | None = Field(description="Asks for those behind them; null at the end.")


class OutcomeOut(_Out):
    """What a review did, or would do."""

    verb: str
    dry_run: bool
    done: list[str]
    already: list[str]
    refused: dict[str, str]
    by_source: dict[str, int]
    by_label: dict[str, int]


class ErasedOut(_Out):
    """How many events were removed, or would be."""

    source: str
    dry_run: bool
    events: int


class ObservedOut(_Out):
    """The observed false-positive share beside the promised one."""

    promised: float
    judged: int
    held: int
    released: int
    confirmed: int
    at_least: float
    estimated: float | None


class AuditOut(_Out):
    """What people did, the latest first."""

    entries: list[dict[str, Any]]
    before: float | None = Field(description="Asks for those behind them; null at the end.")


class SessionOut(_Out):
    """Who is there."""

    name: str
    role: str
    csrf: str | None = Field(description="Changes bring it in x-csrf-token; null outside sessions.")
    until: float | None


class DrillIn(_In):
    """What to try, and why."""

    family: Text = Field(description="label_flip, backdoor, clean_label, …")
    attack: Text = Field(
        default="", description="One of `inject`'s that is of the family; empty: its usual one."
    )
    rate_per_second: FiniteFloat = Field(default=1.0, gt=0.0, le=MAX_RATE_PER_SECOND)
    seconds: FiniteFloat = Field(default=60.0, gt=0.0, le=MAX_SECONDS)
    sources: Text = Field(
        default="5", description="A number of made-up accounts, ordinary, fresh, hijacked."
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    why: Why

    def plan(self) -> DrillPlan:
        """As the desk wants it. Raises UsageError."""
        return DrillPlan(**self.model_dump(exclude={"why"}))


class DrillOut(_Out):
    """A drill and what came of it so far."""

    id: str
    state: str = Field(description="running, done, stopped or failed.")
    wanted: int
    sent: int = Field(description="Canaries judged so far.")
    held: int
    flagged: int
    passed: int
    recall: float | None = Field(
        description="Share of the judged canaries that would be held; null when none was judged."
    )
    noticed: float | None = Field(description="Share that was at least flagged.")
    delay_canaries: int | None = Field(description="Canaries before the first one was held.")
    note: str = Field(description="What went wrong, or why nothing was judged; often empty.")


class DrillsOut(_Out):
    """The latest drills, the latest first."""

    drills: list[DrillOut]
