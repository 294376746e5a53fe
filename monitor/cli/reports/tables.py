"""Tables of a report's page. Everything from outside is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from monitor.cli.report_plots import shown
from monitor.cli.reports.facts import Record, clock, seconds_of
from monitor.cli.reports.words import changed, details, what_of

LONG = 2_000


def long(text: Any) -> str:
    """A sentence, escaped."""
    return shown(text, LONG)


def link(place: str) -> str:
    """A runbook's place; a link where it is an address."""
    target = html.escape(place, quote=True)
    if not place.startswith(("https://", "http://")):
        return f"<code>{target}</code>"
    return f"<a href='{target}' rel='noreferrer'>{target}</a>"


def table_of(names: Sequence[str], rows: Iterable[Sequence[str]], classes: str) -> Iterator[str]:
    """A table; cells are HTML already, ``classes`` has one for each column."""
    kinds = classes.split()
    head = "".join(f"<th class='{k}'>{n}</th>" for k, n in zip(kinds, names, strict=True))
    yield f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>"
    for row in rows:
        cells = zip(kinds, row, strict=True)
        yield "<tr>" + "".join(f"<td class='{kind}'>{cell}</td>" for kind, cell in cells) + "</tr>"
    yield "</tbody></table></div>"


def time_of(event: Record) -> float | None:
    """An event's time."""
    return seconds_of(event["ts"])


def dot(verdict: str) -> str:
    """A verdict with its colour."""
    return f"<i class='{shown(verdict, 12)}'></i>{shown(verdict, 12)}"


def why(event: Record) -> str:
    """A decision's reasons, escaped."""
    said = (reason["text"] or f"by {reason['detector']}" for reason in event["reasons"])
    return "<br>".join(shown(text, 400) for text in said)


def incidents_card(title: str, incidents: Sequence[Record]) -> Iterator[str]:
    """A table of incidents."""
    yield f"<section class='card'><h2>{title}</h2>"
    if incidents:
        yield from table_of(
            ("id", "what", "first event", "last event", "events", "sources", "account"),
            (
                (
                    shown(one["id"]), shown(what_of(one), 80), clock(one["first"]["ts"]),
                    clock(one["last"]["ts"]), f"{one['events']:,}",
                    f"{one['sources']['estimate']:,}",
                    f"{long(one['text'])}<br>{link(one['runbook'])}",
                )
                for one in incidents
            ),
            "t t t t n n why",
        )  # fmt: skip
    else:
        yield "<p class='none'>None.</p>"
    yield "</section>"


def policy_table(changes: Iterable[Record]) -> Iterator[str]:
    """Versions of the policy with what each changed."""
    return table_of(
        ("when", "who", "version", "why", "what changed"),
        (
            (
                clock(one["when"]), long(one["who"]), f"{one['version']}", long(one["why"]),
                "<br>".join(long(text) for text in changed(one)),
            )
            for one in changes
        ),
        "t who n why why",
    )  # fmt: skip


def actions_table(actions: Iterable[Record]) -> Iterator[str]:
    """What people did."""
    return table_of(
        ("when", "who", "what", "why", "details"),
        (
            (
                clock(one["when"]), long(one["who"]), shown(one["what"], 80), long(one["why"]),
                shown(details(one), 400),
            )
            for one in actions
        ),
        "t who t why why",
    )  # fmt: skip
