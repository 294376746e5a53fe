"""A report as plain text, for a terminal or the mail.

What comes from the stream is shown without control characters: a mail client or a terminal must
not be steered by a source's name.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from monitor.cli.desk_view import counted
from monitor.cli.report_plots import printable
from monitor.cli.reports.facts import PLAIN_VERDICTS, Facts, People, Record, clock
from monitor.cli.reports.words import changed, details, passed_text, rows_of, taught, what_of

WIDTH = 78
MOST, FEW = 10, 5


def text(facts: Facts) -> str:
    """The whole report."""
    return "\n".join(_lines(facts)) + "\n"


def safe(value: Any, limit: int = 1_000) -> str:
    """A value from outside in print."""
    return printable(value, limit)


def wrapped(said: Any, indent: str = "") -> list[str]:
    """A sentence in lines."""
    return textwrap.wrap(
        safe(said, 4_000), WIDTH, initial_indent=indent, subsequent_indent=indent,
        break_on_hyphens=False,
    )  # fmt: skip


def titled(title: str) -> list[str]:
    """A heading."""
    return ["", title, "-" * len(title)]


def _lines(facts: Facts) -> Iterator[str]:
    one = facts.incident
    if one is not None:
        yield f"Incident {safe(one['id'])}: {safe(what_of(one))}"
        yield from wrapped(one["text"])
        yield ""
        for name, value in rows_of(one):
            yield from wrapped(f"{name}: {value}")
        if facts.passed is not None:
            yield from wrapped(f"let through: {passed_text(facts)}")
        for said in () if facts.blast is None else taught(facts.blast, int(one["flagged"])):
            yield from wrapped(said)
        yield f"what to do: {safe(one['runbook'])}"
    else:
        yield f"From {clock(facts.start)} to {clock(facts.end)}"
    yield from _traffic(facts)
    yield from _evidence(facts.evidence[:FEW])
    title = "Other incidents of the same time" if one is not None else "Incidents"
    yield from incident_lines(title, facts.incidents)
    yield from incident_lines("Faults of the data", facts.data_faults)
    yield from _people(facts.people)
    if facts.missing:
        yield from titled("What this report cannot say")
        for said in facts.missing:
            yield from wrapped(said)


def _traffic(facts: Facts) -> Iterator[str]:
    traffic = facts.traffic
    if traffic is None or facts.incident is not None:
        return
    known = PLAIN_VERDICTS if traffic.whole else ("flag", "quarantine")
    yield ", ".join(f"{name} {traffic.verdicts.get(name, 0):,}" for name in known)
    for name, counts in sorted(traffic.families.items(), key=lambda i: -i[1]["quarantine"]):
        flagged = f", {counts['flag']:,} flagged" if traffic.whole else ""
        yield f"  {safe(name)}: {counts['quarantine']:,} held{flagged}"


def _evidence(events: list[Record]) -> Iterator[str]:
    if not events:
        return
    yield from titled("The riskiest events")
    for event in events:
        yield f"{safe(event['id'], 128)}  risk {event['risk']:.2f}  {safe(event['verdict'])}"
        for reason in event["reasons"][:2]:
            yield from wrapped(reason["text"] or f"by {reason['detector']}", "  ")


def incident_lines(title: str, incidents: list[Record]) -> Iterator[str]:
    """The largest incidents."""
    if not incidents:
        return
    yield from titled(title)
    for one in incidents[:MOST]:
        yield f"{safe(one['id'])}  {safe(what_of(one))}, {counted(one['events'])}"
        yield from wrapped(one["text"], "  ")
        yield f"  {safe(one['runbook'])}"
    if len(incidents) > MOST:
        yield f"and {len(incidents) - MOST:,} more"


def policy_lines(changes: list[Record] | None) -> Iterator[str]:
    """Versions of the policy."""
    for one in changes or ():
        yield from wrapped(
            f"{clock(one['when'])}  version {one['version']} by {one['who']}: {one['why']}"
        )
        for said in changed(one):
            yield from wrapped(said, "  ")


def _people(people: People) -> Iterator[str]:
    if not (people.policy or people.actions or people.drills):
        return
    yield from titled("Decisions by people")
    yield from policy_lines(people.policy)
    for one in (*(people.actions or ()), *(people.drills or ())):
        yield from wrapped(f"{clock(one['when'])}  {one['what']} by {one['who']}: {one['why']}")
        yield from wrapped(details(one), "  ")
