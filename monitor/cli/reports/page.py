"""The page of a report on an incident or a stretch of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from monitor.cli import common
from monitor.cli.desk_view import counted
from monitor.cli.report_data import ACCEPT, FLAG, INVALID, QUARANTINE, WORDS
from monitor.cli.report_page import Card, Tile, card, page_of, tile_of
from monitor.cli.report_plots import COLOURS, shown
from monitor.cli.reports.facts import Facts, People, Record, clock, lasting
from monitor.cli.reports.figures import figures_of
from monitor.cli.reports.tables import (
    actions_table,
    dot,
    incidents_card,
    link,
    long,
    policy_table,
    table_of,
    time_of,
    why,
)
from monitor.cli.reports.words import passed_text, rows_of, taught, what_of
from monitor.core.incident import IncidentKind

WIDE = ("timeline", "risk")
STYLE = """
.lead{font-size:16px;margin:14px 2px;max-width:980px;overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:10px 0 0}
.facts dt{color:var(--dim)}
.facts dd{margin:0;overflow-wrap:anywhere}
.missing{color:var(--dim);margin:6px 0 0;padding-left:18px;overflow-wrap:anywhere}
.none{color:var(--dim);margin:8px 0 0}
.plots .card:only-child{column-span:all}
a{color:inherit}
th.n{text-align:right}
"""


def page(facts: Facts) -> str:
    """The whole page."""
    figures = figures_of(facts)
    body = _incident(facts, figures) if facts.incident else _period(facts, figures)
    title = "Incident report" if facts.incident else "Poisoning report"
    subject = (
        f"{shown(facts.incident['id'])} · {shown(what_of(facts.incident), 80)}"
        if facts.incident
        else f"{clock(facts.start)} to {clock(facts.end)}"
    )
    whole = (*body, *_after(facts))
    return page_of(title, subject, whole, {n: f for n, (_, _, f) in figures.items()}, STYLE)


# -- An incident ----------------------------------------------------------------------------------


def _incident(facts: Facts, figures: Mapping[str, Card]) -> Iterator[str]:
    one = facts.incident
    assert one is not None
    yield "<section class='tiles'>" + "".join(map(tile_of, _tiles(facts, one))) + "</section>"
    yield f"<p class='lead'>{long(one['text'])}</p>"
    yield f"<p class='policy'>What to do: {link(one['runbook'])}</p>"
    yield from _common(one)
    yield from _plots(figures)
    yield from _passed(facts)
    yield from _taught(facts.blast, int(one["flagged"]))
    yield from _evidence(facts)


def _taught(blast: Record | None, flagged: int) -> Iterator[str]:
    if blast is None:
        return
    yield "<section class='card'><h2>What it has taught the model</h2>"
    yield from (f"<p class='none'>{long(said)}</p>" for said in taught(blast, flagged))
    rows = [
        (name, ", ".join(f"{key} ({many:,})" for key, many in blast[name]["top"].items()))
        for name in ("sources", "labels", "subjects")
        if blast[name]["distinct"]
    ]
    if rows:
        told = "".join(f"<dt>{name}</dt><dd>{long(said)}</dd>" for name, said in rows)
        yield f"<dl class='facts'>{told}</dl>"
    yield "</section>"


def _tiles(facts: Facts, one: Record) -> list[Tile]:
    passed = facts.passed
    let = "–" if passed is None else f"{passed.before + passed.after:,}"
    before = "not known here"
    if passed is not None:
        some = f"{passed.before:,} of them before it was noticed"
        before = some if passed.before + passed.after else "of its sources' events"
    first, last = float(one["first"]["ts"]), float(one["last"]["ts"])
    sure = f"{100 * float(one['confidence']):.0f} % sure"
    tiles = [
        ("family", str(one["family"]), sure, COLOURS[INVALID]),
        ("events", f"{one['events']:,}", f"within {lasting(last - first)}", COLOURS[FLAG]),
        (
            "quarantined",
            f"{one['quarantined']:,}",
            f"{one['flagged']:,} flagged",
            COLOURS[QUARANTINE],
        ),
        ("let through", let, before, COLOURS[ACCEPT]),
        ("sources", f"{one['sources']['estimate']:,}", "about", COLOURS[INVALID]),
        ("influence", f"{one['influence']:,.0f}", "ordinary events' worth", COLOURS[FLAG]),
    ]
    return tiles[:1] if one["kind"] == IncidentKind.DATA_FAULT else tiles


def _common(one: Record) -> Iterator[str]:
    yield "<section class='card'><h2>What it is</h2><dl class='facts'>"
    for name, value in rows_of(one):
        yield f"<dt>{name}</dt><dd>{long(value)}</dd>"
    yield "</dl></section>"


def _passed(facts: Facts) -> Iterator[str]:
    passed = facts.passed
    if passed is None:
        return
    yield "<section class='card'><h2>Let through</h2>"
    yield f"<p class='none'>{passed_text(facts)}</p>"
    hostile = [row for row in facts.traffic.sources if "mine" in row] if facts.traffic else []
    if hostile:
        yield from table_of(
            (
                "source",
                "first event",
                "sent",
                "of the incident",
                "held",
                "passed before",
                "after",
                "",
            ),
            (
                (
                    long(row["source"]),
                    clock(row["first"]),
                    f"{sum(row[word] for word in WORDS):,}",
                    f"{row['mine']:,}",
                    f"{row['quarantine']:,}",
                    f"{row['passed_before']:,}",
                    f"{row['passed_after']:,}",
                    "" if row["hostile"] else "mostly ordinary: not counted",
                )
                for row in hostile
            ),
            "who t n n n n n t",
        )
    if passed.events:
        yield "<p class='none'>The first that passed:</p>"
        yield from table_of(
            ("time", "id", "source", "label", "verdict", "risk"),
            (
                (
                    clock(time_of(event)), long(event["id"]), long(event["source"]),
                    shown(event["label"], 32), dot(event["verdict"]), f"{event['risk']:.2f}",
                )
                for event in passed.events
            ),
            "t who who who t n",
        )  # fmt: skip
    yield "</section>"


# -- A stretch of time ----------------------------------------------------------------------------


def _period(facts: Facts, figures: Mapping[str, Card]) -> Iterator[str]:
    traffic = facts.traffic
    if traffic is not None:
        yield "<section class='tiles'>"
        for verdict, name in enumerate(("accepted", "flagged", "quarantined", "invalid")):
            count = traffic.verdicts.get(WORDS[verdict], 0)
            unknown = verdict in (ACCEPT, INVALID) and not traffic.whole
            share = f"{100 * count / max(1, traffic.events):.2f} % of {traffic.events:,}"
            told = (
                ("–", "not known here")
                if unknown
                else (f"{count:,}", share if traffic.whole else "")
            )
            yield tile_of((name, *told, COLOURS[verdict]))
        many = len(facts.incidents)
        yield tile_of(
            ("incidents", f"{many:,}", f"{len(facts.data_faults):,} data faults", COLOURS[INVALID])
        )
        yield "</section>"
    yield from _plots(figures)
    yield from _evidence(facts)
    if traffic is not None and traffic.codes:
        yield "<section class='card'><h2>Invalid records</h2>"
        rows = sorted(traffic.codes.items(), key=lambda item: (-item[1], item[0]))
        yield from table_of(("code", "records"), ((shown(c), f"{n:,}") for c, n in rows), "t n")
        yield "</section>"


# -- Both -----------------------------------------------------------------------------------------


def _plots(figures: Mapping[str, Card]) -> Iterator[str]:
    yield from (card(name, figures[name]) for name in figures if name in WIDE)
    narrow = [name for name in figures if name not in WIDE]
    if narrow:
        yield "<section class='plots'>"
        yield from (card(name, figures[name]) for name in narrow)
        yield "</section>"


def _evidence(facts: Facts) -> Iterator[str]:
    if not facts.evidence:
        return
    yield f"<section class='card'><h2>The {counted(len(facts.evidence), 'riskiest event')}</h2>"
    yield from table_of(
        ("time", "id", "risk", "verdict", "family", "source", "label", "why"),
        (
            (
                clock(time_of(event)), long(event["id"]), f"{event['risk']:.2f}",
                dot(event["verdict"]), shown(", ".join(event["families"] or ()), 80),
                long(event["source"]), shown(event["label"], 32), why(event),
            )
            for event in facts.evidence
        ),
        "t who n t t who who why",
    )  # fmt: skip
    yield "</section>"


def _after(facts: Facts) -> Iterator[str]:
    title = "Other incidents of the same time" if facts.incident else "Incidents"
    yield from incidents_card(title, facts.incidents)
    yield from incidents_card("Faults of the data in this time", facts.data_faults)
    yield from _people(facts.people, facts.incident is not None)
    if facts.missing:
        yield "<section class='card'><h2>What this report cannot say</h2><ul class='missing'>"
        yield from (f"<li>{long(text)}</li>" for text in facts.missing)
        yield "</ul></section>"
    yield (
        f"<footer>{shown(facts.origin, 200)} · {common.PACKAGE} {common.version()} · written "
        f"{clock(facts.made_at, '%Y-%m-%d %H:%M UTC')}</footer>"
    )


def _people(people: People, about: bool) -> Iterator[str]:
    yield "<section class='card'><h2>Decisions by people</h2>"
    if people.reviews is not None and about:
        told = ", ".join(f"{shown(name)} {n:,}" for name, n in sorted(people.reviews.items()))
        yield f"<p class='none'>Held events of the incident, as reviewed: {told or 'none'}.</p>"
    if people.policy:
        yield from policy_table(people.policy)
    elif people.policy is not None:
        yield "<p class='none'>The policy did not change in this time.</p>"
    for rows, none in (
        (people.actions, "No review, release or login in this time."),
        (people.drills, "No drill in this time."),
    ):
        if rows:
            yield from actions_table(rows)
        elif rows is not None:
            yield f"<p class='none'>{none}</p>"
    if people.policy is None and people.actions is None:
        yield "<p class='none'>Not known here.</p>"
    yield "</section>"
