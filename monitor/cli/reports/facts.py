"""What a report says, in plain values: the JSON is this, page and text are made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from monitor.admin.desk_schemas import moment
from monitor.config.policy_diff import policy_diff
from monitor.core.errors import UsageError
from monitor.core.incident import IncidentKind
from monitor.core.runbooks import runbook

Record = dict[str, Any]
PLAIN_VERDICTS = ("accept", "flag", "quarantine", "invalid")
DAY = 86_400.0


@dataclass(slots=True)
class Passed:
    """What reached the learner of an incident.

    Attributes
    ----------
    judged_by
        ``sources`` where some sources sent most of the incident: then all that they sent counts.
        ``incident`` where nobody stands out: then only events that are the incident's.
    before, after
        Events that passed before the first one was held, and from then on.
    flagged
        How many of both were at least flagged.
    noticed
        When the first one was held, by the event's own time; None when none was.
    events
        The first few of them.
    others
        With ``sources``: events of the incident that passed, of everybody else; not in the above.
    """

    judged_by: str
    before: int = 0
    after: int = 0
    flagged: int = 0
    noticed: float | None = None
    events: list[Record] = field(default_factory=list)
    others: int = 0


@dataclass(slots=True)
class Traffic:
    """What was counted in the time of the report.

    Attributes
    ----------
    whole
        Whether all events are counted; else only those that were held or flagged are known.
    verdicts, families, classes, codes, sources
        Counts: by verdict; by family, class and source then by verdict; by reject code.
    timeline
        ``start`` and ``step`` in seconds, and by verdict, and for the incident (``mine``), a
        count for each step.
    risk
        (Unix seconds, risk, verdict, whether it is the incident's) of a sample of the events.
    """

    whole: bool
    verdicts: dict[str, int] = field(default_factory=dict)
    families: dict[str, dict[str, int]] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    sources: list[Record] = field(default_factory=list)
    timeline: Record = field(default_factory=dict)
    risk: list[tuple[float, float, str, bool]] = field(default_factory=list)

    @property
    def events(self) -> int:
        """All that were counted."""
        return sum(self.verdicts.values())


@dataclass(slots=True)
class People:
    """What people decided; None where nobody keeps it."""

    policy: list[Record] | None = None
    actions: list[Record] | None = None
    drills: list[Record] | None = None
    reviews: dict[str, int] | None = None


@dataclass(slots=True)
class Facts:
    """A report on an incident or a stretch of time.

    Attributes
    ----------
    report
        ``incident`` or ``period``.
    origin
        The folder or the address it was made from.
    start, end, made_at
        Unix seconds; ``start`` and ``end`` as far as they are known.
    incident
        The incident, with ``runbook``; None in a report on a stretch of time.
    incidents, data_faults
        Those of the same time; faults of the data apart from the others.
    evidence
        Decision records of the riskiest events.
    blast
        Accepted events like the incident's, and what checkpoints of the model have learned of them,
        as ``blast --incident`` says; None where nobody can tell.
    missing
        What could not be known, and why: sentences.
    """

    report: str
    origin: str
    made_at: float
    start: float | None = None
    end: float | None = None
    incident: Record | None = None
    incidents: list[Record] = field(default_factory=list)
    data_faults: list[Record] = field(default_factory=list)
    traffic: Traffic | None = None
    passed: Passed | None = None
    blast: Record | None = None
    evidence: list[Record] = field(default_factory=list)
    people: People = field(default_factory=People)
    missing: list[str] = field(default_factory=list)

    def as_dict(self) -> Record:
        """For JSON."""
        return asdict(self)


def instant(text: str, option: str) -> float:
    """Unix seconds of an option's time. Raises UsageError.

    Examples
    --------
    >>> instant("2026-05-01T12:00:00Z", "--from"), instant("12.5", "--to")
    (1777636800.0, 12.5)
    """
    try:
        return float(moment(text))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option}: {text!r} {error}") from error


def seconds_of(value: Any) -> float | None:
    """An event's time in Unix seconds; None where it has none that can be read."""
    if isinstance(value, (int, float)):
        return float(value)
    try:
        return float(moment(value))
    except (ValueError, TypeError, OverflowError):
        return None


def clock(seconds: float | None, form: str = "%Y-%m-%d %H:%M:%S UTC") -> str:
    """A time for people.

    Examples
    --------
    >>> clock(0.0), clock(None), clock(1e18)
    ('1970-01-01 00:00:00 UTC', '–', '1000000000000000000 s')
    """
    if seconds is None:
        return "–"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime(form)
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s"


def lasting(seconds: float) -> str:
    """A length of time for people.

    Examples
    --------
    >>> lasting(42.0), lasting(3_700.0), lasting(200_000.0)
    ('42 s', '1 h 1 min', '2 d 7 h')
    """
    whole = int(max(seconds, 0.0))
    for unit, name, below, smaller in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // below} {smaller}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def within(incident: Mapping[str, Any], start: float, end: float) -> bool:
    """Whether an incident's events reach into the time from ``start`` to ``end``."""
    return bool(incident["first"]["ts"] <= end and incident["last"]["ts"] >= start)


def apart(incidents: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """Campaigns and drifts, and faults of the data; the largest first."""
    ranked = sorted(incidents, key=lambda one: (-one["events"], one["id"]))
    faults = [one for one in ranked if one["kind"] == IncidentKind.DATA_FAULT]
    return [one for one in ranked if one["kind"] != IncidentKind.DATA_FAULT], faults


def backlog_of(counts: Callable[..., Mapping[str, Mapping[str, int]]], before: float) -> Record:
    """What is open, and how much of it was held ``before``; ``counts`` takes ``until``."""
    everything = counts()
    return {
        "open": sum(everything["status"].values()),
        "older_than_a_week": sum(counts(until=before)["status"].values()),
        "families": dict(everything["family"]),
    }


def versions(changes: Sequence[Record], start: float, end: float) -> list[Record]:
    """The policy's versions made in a time, with what each changed. ``changes`` by version."""
    found = []
    documents = {change["version"]: change["policy"] for change in changes}
    for change in changes:
        if not start <= change["when"] <= end:
            continue
        before = documents.get(change["version"] - 1)
        differences = [] if before is None else policy_diff(before, change["policy"])
        rest = {name: value for name, value in change.items() if name != "policy"}
        found.append(rest | {"differences": [asdict(one) for one in differences]})
    return found


def sorted_actions(people: People, actions: Iterable[Record]) -> None:
    """Have drills stand apart, and leave out what the policy's versions say already."""
    every = list(actions)
    people.drills = [one for one in every if str(one["what"]).startswith("drill ")]
    known = ("drill ", "policy ") if people.policy is not None else ("drill ",)
    people.actions = [one for one in every if not str(one["what"]).startswith(known)]


def with_runbooks(incidents: Iterable[Record], base: str) -> None:
    """Have each incident's ``runbook`` say where its page can be read, below ``base``."""
    for one in incidents:
        one["runbook"] = runbook(str(one["kind"]), str(one["family"]), base)
