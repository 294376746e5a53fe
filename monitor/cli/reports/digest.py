"""A week against the week before: rates, families, incidents, drills, thresholds, the backlog.

There are two clocks. Events and incidents are placed by the times that the events carry; when an
event was held, and what people and drills did, by the wall clock. The two weeks have the same ends
on both, in UTC, and every figure says which clock it goes by. Of a live stream the clocks agree; of
a recorded one they may be years apart, and then what was done outside the weeks is counted in a
sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from monitor.cli.client import Client
from monitor.cli.report_data import Tally, read_decisions
from monitor.cli.reports.facts import DAY, Record, apart, clock, seconds_of, within
from monitor.cli.reports.folder import DECISIONS, Folder
from monitor.cli.reports.service import Asked

WEEK = 7 * DAY
TOP = 5
NO_RATES = (
    "The service keeps no count of a week's events, so there are numbers of held events (in each "
    "family that spoke) and no shares; Prometheus has them: "
    "sum by (verdict) (increase(poisoning_monitor_events_total[7d]))."
)


@dataclass(slots=True)
class Week:
    """What a week came to.

    Attributes
    ----------
    start, end
        Unix seconds, on both clocks.
    events
        All that came, by the events' own times; None where nobody keeps that.
    verdicts, families
        Counts, by verdict; by family then verdict; by the events' own times. Where ``events`` is
        None they are of held events only, by the wall clock: when they were held.
    incidents
        Incidents whose first event is of this week by its own time, by kind and family ("campaign
        backdoor").
    drills
        By family, canaries and the share that was held, of the drills that ended by the wall clock.
    reviews
        Events released and confirmed, by the wall clock.
    """

    start: float
    end: float
    events: int | None = None
    verdicts: dict[str, int] = field(default_factory=dict)
    families: dict[str, dict[str, int]] = field(default_factory=dict)
    incidents: dict[str, int] = field(default_factory=dict)
    drills: dict[str, Record] = field(default_factory=dict)
    reviews: dict[str, int] | None = None

    def share(self, verdict: str) -> float | None:
        """Share of the week's events with a verdict."""
        return self.verdicts.get(verdict, 0) / self.events if self.events else None


@dataclass(slots=True)
class Digest:
    """A week's digest.

    Attributes
    ----------
    top
        The largest incidents of the week, campaigns and drifts.
    policy
        Versions of the policy made in the week, with what each changed; None where not known.
    backlog
        Held events that nobody has decided about when the digest was made: ``open``,
        ``older_than_a_week`` by the wall clock, ``families``.
    """

    origin: str
    made_at: float
    this: Week
    before: Week
    top: list[Record] = field(default_factory=list)
    data_faults: list[Record] = field(default_factory=list)
    policy: list[Record] | None = None
    backlog: Record | None = None
    missing: list[str] = field(default_factory=list)

    @property
    def clocks(self) -> dict[str, str]:
        """Which clock each part goes by: ``event`` for the events' own times, or ``wall``."""
        counts = "wall" if self.this.events is None else "event"
        return {
            "events": "event", "verdicts": counts, "families": counts, "incidents": "event",
            "drills": "wall", "reviews": "wall", "policy": "wall", "backlog": "wall",
        }  # fmt: skip

    def as_dict(self) -> Record:
        """For JSON."""
        return {"report": "digest", "clocks": self.clocks, **asdict(self)}


def folder_digest(path: Path, end: float | None, now: float) -> Digest:
    """The digest of the week before ``end``; None for the week before the folder's last event."""
    folder = Folder(path)
    # The last event's own moment belongs to the week it ends.
    upto = folder.bounds()[1] + 1e-3 if end is None else end
    digest = _empty(str(path), upto, now)
    tallies = {id(week): Tally() for week in (digest.this, digest.before)}
    at = upto - 2 * WEEK
    for line, record in enumerate(read_decisions(path / DECISIONS)):
        known = seconds_of(record.get("ts"))
        at = at if known is None else known
        for week in (digest.this, digest.before):
            if week.start <= at < week.end:
                tallies[id(week)].add(record, line)
    for week in (digest.this, digest.before):
        counted = tallies[id(week)].as_dict()
        week.events, week.verdicts = counted["events"], counted["verdicts"]
        week.families = counted["families"]
    _sort_incidents(digest, folder.incidents)
    people, missing = folder.people(digest.before.start, max(now, upto), None)
    done = [*(people.actions or ()), *(people.drills or ())]
    decide(digest, people.policy, done)
    if people.actions is None:
        digest.this.reviews = digest.before.reviews = None
    digest.backlog = folder.backlog(now - WEEK)
    digest.missing += [*missing, *_later(digest, [*(people.policy or ()), *done])]
    return digest


def _later(digest: Digest, done: Iterable[Mapping[str, Any]]) -> list[str]:
    """What was done after the week's end, by the wall clock: of a recorded stream that is all."""
    late = [float(one["when"]) for one in done if one["when"] > digest.this.end]
    if not late:
        return []
    many = "1 action" if len(late) == 1 else f"{len(late):,} actions"
    return [
        f"By the wall clock {many} of people, drills and the policy came after this week's end, "
        f"from {clock(min(late))} to {clock(max(late))}, and {'is' if len(late) == 1 else 'are'} "
        "not in it: the stream may be a recorded one. --to TIME gives another week."
    ]


def service_digest(client: Client, end: float | None, now: float) -> Digest:
    """The digest of the week before ``end``, by default before now."""
    asked = Asked(client)
    digest = _empty(client.url, now if end is None else end, now)
    # First, and without it there is no digest: a service that is not there must not look calm.
    _sort_incidents(digest, asked.incidents())
    for week in (digest.this, digest.before):
        counts = asked.try_("Held events", partial(asked.counts, since=week.start, until=week.end))
        if counts is not None:
            week.verdicts = {"quarantine": sum(counts["status"].values())}
            week.families = {n: {"quarantine": many} for n, many in counts["family"].items()}
    policy = asked.try_(
        "Policy changes", lambda: asked.policies(digest.before.start, digest.this.end)
    )
    actions = asked.try_(
        "What people did", lambda: asked.audit(digest.before.start, digest.this.end)
    )
    decide(digest, policy, actions or [])
    if actions is None:
        digest.this.reviews = digest.before.reviews = None
    digest.backlog = asked.try_("The backlog", lambda: asked.backlog(now - WEEK))
    digest.missing += [NO_RATES, *dict.fromkeys(asked.missing)]
    return digest


def _empty(origin: str, end: float, now: float) -> Digest:
    this, before = Week(end - WEEK, end), Week(end - 2 * WEEK, end - WEEK)
    return Digest(origin, now, this, before)


def _sort_incidents(digest: Digest, incidents: Iterable[Record]) -> None:
    every = list(incidents)
    for week in (digest.this, digest.before):
        for one in every:
            if week.start <= one["first"]["ts"] < week.end:
                name = " ".join(dict.fromkeys((str(one["kind"]), str(one["family"]))))
                week.incidents[name] = week.incidents.get(name, 0) + 1
    near = [one for one in every if within(one, digest.this.start, digest.this.end)]
    campaigns, faults = apart(near)
    digest.top, digest.data_faults = campaigns[:TOP], faults[:TOP]


def decide(
    digest: Digest, policy: list[Record] | None, actions: Iterable[Mapping[str, Any]]
) -> None:
    """Sort what people did into the weeks."""
    if policy is not None:
        digest.policy = [c for c in policy if digest.this.start <= c["when"] <= digest.this.end]
    for week in (digest.this, digest.before):
        week.reviews = {"released": 0, "confirmed": 0}
    for one in actions:
        for week in (digest.this, digest.before):
            if week.start <= one["when"] < week.end:
                _take(week, one)


def _take(week: Week, action: Mapping[str, Any]) -> None:
    details = action.get("details") or {}
    word = {"release": "released", "confirm": "confirmed"}.get(action["what"])
    if word is not None and week.reviews is not None:
        week.reviews[word] += int(details.get("events", 0))
    recall = details.get("recall")
    if action["what"] in ("drill done", "drill stopped") and recall is not None:
        canaries = int(details["canaries"])
        told = week.drills.setdefault(str(details["family"]), {"canaries": 0, "recall": 0.0})
        whole = told["canaries"] + canaries
        told["recall"] = (told["recall"] * told["canaries"] + recall * canaries) / max(whole, 1)
        told["canaries"] = whole
