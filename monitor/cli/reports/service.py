"""Facts from the running service, by its HTTP interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from monitor.cli.client import Client
from monitor.cli.reports.counting import TOLD, Counting, Of
from monitor.cli.reports.facts import (
    Facts,
    People,
    Record,
    apart,
    backlog_of,
    sorted_actions,
    versions,
    within,
)
from monitor.core.errors import MonitorError, UsageError
from monitor.core.runbooks import runbook

T = TypeVar("T")
PAGE, MOST_HELD, MOST_AUDIT = 500, 5_000, 5_000
MOST_FLAGGED = 1_000
AROUND, LEAST_AROUND = 0.15, 30.0
NOT_WHOLE = (
    "The service keeps no list of what it accepted: timeline, risk and sources show events that "
    "were held, and the latest that were flagged. A report on the folder of a local run or of a "
    "replay (--dir) has all of them."
)
SHOWN = 20
TAUGHT = "What the incident has taught the model"


class Asked:
    """Questions to the service; what it cannot answer becomes a sentence."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.missing: list[str] = []

    def try_(self, what: str, ask: Callable[[], T]) -> T | None:
        """The answer, or None and a sentence in ``missing``."""
        try:
            return ask()
        except MonitorError as error:
            self.missing.append(f"{what} could not be read: {error}")
            return None

    def incident(self, identifier: str) -> Record:
        """One incident. Raises UsageError where it is not known."""
        if not identifier.replace("-", "").isalnum():
            raise UsageError(
                f"--incident: {identifier!r}; an identifier looks like i-31f4e4244fe04b64"
            )
        return _with_runbook(self.client.get(f"/v1/incidents/{identifier}"))

    def incidents(self) -> list[Record]:
        """All that the service knows."""
        pages = self._pages("/v1/incidents", limit=PAGE)
        return [_with_runbook(one) for page in pages for one in page["items"]]

    def held(self, **chosen: Any) -> list[Record]:
        """Held events as decision records, the latest few thousand."""
        found: list[Record] = []
        for page in self._pages("/v1/quarantine", limit=PAGE, **chosen):
            found += page["items"]
            if len(found) >= MOST_HELD:
                if page["total"] > len(found):
                    self.missing.append(
                        f"Of {page['total']:,} held events the latest {len(found):,} were read."
                    )
                break
        return found

    def counts(self, **chosen: Any) -> dict[str, dict[str, int]]:
        """Numbers of held events, by family and by status among others."""
        return dict(self.client.get("/v1/quarantine/counts", **chosen))

    def backlog(self, before: float) -> Record:
        """Held events that nobody has decided about, and how many were held ``before``."""
        return backlog_of(partial(self.counts, status="open"), before)

    def flagged(self) -> list[Record]:
        """The latest decision records that were flagged and passed."""
        given = self.client.get("/v1/events/flagged", limit=MOST_FLAGGED, verdict="flag")
        return list(given["events"])

    def audit(self, start: float, end: float) -> list[Record]:
        """What people did from ``start`` to ``end``, the latest first."""
        found: list[Record] = []
        before: float | None = None
        while len(found) < MOST_AUDIT:
            page = self.client.get("/v1/audit", limit=PAGE, before=before)
            found += page["entries"]
            before = page["before"]
            if before is None or before < start:
                break
        return [entry for entry in found if start <= entry["when"] <= end]

    def policies(self, start: float, end: float) -> list[Record]:
        """The policy's versions made in a time, with what each changed."""
        changes = self.client.get("/v1/policy/history", limit=PAGE)["versions"]
        return versions(list(reversed(changes)), start, end)

    def people(self, start: float, end: float, incident: str | None) -> People:
        """What people decided."""
        people = People(self.try_("Policy changes", partial(self.policies, start, end)))
        actions = self.try_("What people did", partial(self.audit, start, end))
        if actions is not None:
            sorted_actions(people, actions)
        if incident is not None:
            counts = self.try_("Reviews", partial(self.counts, incident=incident))
            people.reviews = None if counts is None else dict(counts["status"])
        return people

    def _pages(self, path: str, **chosen: Any) -> Iterator[Record]:
        cursor = None
        while True:
            page = self.client.get(path, **chosen, cursor=cursor)
            yield page
            cursor = page["cursor"]
            if not cursor:
                return


def incident_facts(client: Client, identifier: str, now: float) -> Facts:
    """The facts about one incident that the service at hand has."""
    asked = Asked(client)
    found = asked.incident(identifier)
    ids = {found["id"], *(part["id"] for part in found.get("parts", ()))}
    first, last = float(found["first"]["ts"]), float(found["last"]["ts"])
    around = max(AROUND * (last - first), LEAST_AROUND)
    held = asked.try_(
        "Held events", lambda: [e for i in sorted(ids) for e in asked.held(incident=i)]
    )
    flagged = asked.try_("Flagged events", asked.flagged) or []
    chosen = [one for one in flagged if one.get("incident") in ids]
    counting = Counting(first - around, last + around, Of.incident(found), whole=False)
    facts = _facts(asked, counting, (held or [], chosen), now)
    facts.report, facts.incident = "incident", found
    facts.incidents = [one for one in facts.incidents if one["id"] not in ids]
    facts.data_faults = [one for one in facts.data_faults if one["id"] not in ids]
    facts.people = asked.people(first - around, max(now, last), found["id"])
    what = {"incident": found["id"], "shown": SHOWN}
    facts.blast = asked.try_(TAUGHT, partial(client.post, "/v1/blast", what))
    facts.missing += [NOT_WHOLE, *asked.missing]
    return facts


def period_facts(client: Client, start: float, end: float, now: float) -> Facts:
    """The facts about the time from ``start`` to ``end``; held events by when they were held."""
    asked = Asked(client)
    incidents = asked.incidents()
    held = asked.try_("Held events", lambda: asked.held(since=start, until=end)) or []
    flagged = asked.try_("Flagged events", asked.flagged) or []
    counting = Counting(start, end, whole=False)
    facts = _facts(asked, counting, (held, flagged), now, incidents)
    counts = asked.try_("Families", partial(asked.counts, since=start, until=end))
    if counts is not None and facts.traffic is not None:  # an overview names them without an order
        facts.traffic.families = {n: {"quarantine": c} for n, c in counts["family"].items()}
    facts.people = asked.people(start, end, None)
    facts.missing += [NOT_WHOLE, *asked.missing]
    return facts


def _facts(
    asked: Asked,
    counting: Counting,
    events: tuple[list[Record], list[Record]],
    now: float,
    incidents: list[Record] | None = None,
) -> Facts:
    held, flagged = events
    records = [_as_record(one) for one in held] + flagged
    # In a period by when they were held, so that an event of an odd clock is not lost.
    for record in sorted(records, key=lambda one: float(one["ts"] or 0.0)):
        counting.add(record)
    if incidents is None:
        incidents = asked.try_("Other incidents", asked.incidents) or []
    near = [one for one in incidents if within(one, counting.start, counting.end)]
    campaigns, faults = apart(near)
    return Facts(
        "period",
        asked.client.url,
        now,
        counting.start,
        counting.end,
        incidents=campaigns,
        data_faults=faults,
        traffic=counting.traffic(),
        evidence=_with_reasons(asked, counting.evidence()),
    )


def _with_reasons(asked: Asked, evidence: list[Record]) -> list[Record]:
    """The riskiest held events with the sentences that the overview lacks."""
    for record in evidence[:TOLD]:
        if record["verdict"] != "quarantine":
            continue
        key = f"{record['partition']}-{record['offset']}"
        ask = partial(asked.client.get, f"/v1/quarantine/events/{key}")
        whole = asked.try_(f"Event {key}", ask)
        if whole is not None:
            record["reasons"] = [
                {name: reason.get(name) for name in ("detector", "p_value", "text")}
                for reason in whole["decision"].get("reasons", ())
            ]
    return evidence


def _as_record(held: Mapping[str, Any]) -> Record:
    """A held event of the overview as a decision record."""
    return {
        "id": held["event_id"],
        "ts": held["ts"],
        "source": held["source"],
        "label": held["label"],
        "partition": held["partition"],
        "offset": held["offset"],
        "verdict": "quarantine",
        "action": "hold",
        "risk": held["risk"],
        "families": held["families"],
        "reasons": [{"detector": name, "text": ""} for name in held["detectors"]],
        "incident": held["incident"],
    }


def _with_runbook(incident: Record) -> Record:
    return incident | {"runbook": runbook(str(incident["kind"]), str(incident["family"]))}
