"""The digest as a page and as plain text for the mail."""

from __future__ import annotations

from collections.abc import Iterator

from monitor.cli import common
from monitor.cli.desk_view import counted
from monitor.cli.report_data import FLAG, INVALID, QUARANTINE
from monitor.cli.report_page import Card, Tile, card, page_of, tile_of
from monitor.cli.report_plots import COLOURS, shown
from monitor.cli.reports.digest import Digest, Week
from monitor.cli.reports.facts import clock
from monitor.cli.reports.figures import compared
from monitor.cli.reports.page import STYLE
from monitor.cli.reports.tables import incidents_card, long, policy_table, table_of
from monitor.cli.reports.text import incident_lines, policy_lines, safe, titled, wrapped

MINUTE = "%Y-%m-%d %H:%M UTC"
UNKNOWN = "–"
CLOCKS = {"event": "by the events' own times", "wall": "by the wall clock"}
ABOUT = (
    "Both weeks are UTC. Events and incidents count by the times that the events carry; when an "
    "event was held, and what people and drills did, by the wall clock."
)


def _amount(week: Week, verdict: str) -> str:
    """A count with its share, or what is known of it."""
    if week.events is None and verdict not in week.verdicts:
        return UNKNOWN
    share = week.share(verdict)
    return f"{week.verdicts.get(verdict, 0):,}" + (
        "" if share is None else f" ({100 * share:.2f} %)"
    )


def _by_family(week: Week, family: str) -> str:
    counts = week.families.get(family, {})
    held = f"{counts.get('quarantine', 0):,}"
    return held if week.events is None else f"{held}, {counts.get('flag', 0):,}"


def _reviewed(week: Week, word: str) -> str:
    return UNKNOWN if week.reviews is None else f"{week.reviews[word]:,}"


def _recall(week: Week, family: str) -> str:
    told = week.drills.get(family)
    return UNKNOWN if told is None else f"{100 * told['recall']:.0f} % of {told['canaries']:,}"


def rows_of(digest: Digest) -> list[tuple[str, str, str]]:
    """Name, this week, the week before, under a line for each clock. Families are not escaped."""
    rows: list[tuple[str, str, str]] = []
    parts = _rows(digest)
    for which, title in CLOCKS.items():
        mine = [told for of, told in parts if digest.clocks[of] == which]
        rows += [(title, "", ""), *mine] if mine else []
    return rows


def _rows(digest: Digest) -> list[tuple[str, tuple[str, str, str]]]:
    """Rows, each with the part of the digest that it is of."""
    weeks = (digest.this, digest.before)
    rows: list[tuple[str, tuple[str, str, str]]] = []

    def add(of: str, name: str, *told: str) -> None:
        rows.append((of, (name, told[0], told[1])))

    add("events", "events", *(UNKNOWN if w.events is None else f"{w.events:,}" for w in weeks))
    for verdict, name in (
        ("quarantine", "quarantined"),
        ("flag", "flagged"),
        ("invalid", "invalid"),
    ):
        add("verdicts", name, *(_amount(week, verdict) for week in weeks))
    # A service tells of held events only.
    of = "quarantined, flagged" if digest.this.events is not None else "held"
    for family in sorted({name for week in weeks for name in week.families}):
        add("families", f"{family}: {of}", *(_by_family(week, family) for week in weeks))
    for name in sorted({name for week in weeks for name in week.incidents}):
        counts = (f"{week.incidents.get(name, 0):,}" for week in weeks)
        add("incidents", f"incidents: {name}", *counts)
    for family in sorted({name for week in weeks for name in week.drills}):
        add("drills", f"drill of {family}, held", *(_recall(week, family) for week in weeks))
    for word in ("released", "confirmed"):
        add("reviews", f"{word} by people", *(_reviewed(week, word) for week in weeks))
    return rows


def backlog_text(digest: Digest) -> str:
    """What waits for a review when the digest is made, in words; not escaped."""
    backlog = digest.backlog
    if backlog is None:
        return "How many held events wait for a review is not known here."
    if not backlog["open"]:
        return "No held event waits for a review."
    ranked = sorted(backlog["families"].items(), key=lambda item: (-item[1], item[0]))
    of = ", ".join(f"{name} {many:,}" for name, many in ranked[:5])
    older = backlog["older_than_a_week"]
    many = backlog["open"]
    waits = f"{counted(many, 'held event')} {'waits' if many == 1 else 'wait'} for a review"
    return (
        f"{waits}, {older:,} for over a week ({of}), by the wall clock at {clock(digest.made_at)}."
    )


def drills_text(digest: Digest) -> str:
    """Whether there were drills."""
    return "" if digest.this.drills else "No drill had a result this week, by the wall clock."


# -- A page ---------------------------------------------------------------------------------------


def page(digest: Digest) -> str:
    """The whole page."""
    figures = dict(_figures(digest))
    subject = f"{clock(digest.this.start, MINUTE)} to {clock(digest.this.end, MINUTE)}"
    body = _body(digest, figures)
    plain = {name: figure for name, (_, _, figure) in figures.items()}
    return page_of("Poisoning digest", subject, body, plain, STYLE)


def _figures(digest: Digest) -> Iterator[tuple[str, Card]]:
    weeks = (digest.this, digest.before)
    names = sorted({name for week in weeks for name in week.families})
    if names:
        rows = [
            (
                shown(name),
                float(digest.before.families.get(name, {}).get("quarantine", 0)),
                float(digest.this.families.get(name, {}).get("quarantine", 0)),
            )
            for name in names
        ]
        yield (
            "family",
            (
                "Held back by family",
                f"Against the week before, {CLOCKS[digest.clocks['families']]}.",
                compared(rows, "events"),
            ),
        )
    drilled = sorted({name for week in weeks for name in week.drills})
    if drilled:
        rows = [
            (
                shown(name),
                100.0 * float(digest.before.drills.get(name, {}).get("recall", 0.0)),
                100.0 * float(digest.this.drills.get(name, {}).get("recall", 0.0)),
            )
            for name in drilled
        ]
        remark = "Share of the marked attacks that would have been held, by the wall clock."
        yield "drill", ("Drills", remark, compared(rows, "per cent held"))


def _tiles(digest: Digest) -> list[Tile]:
    this, before = digest.this, digest.before
    backlog = UNKNOWN if digest.backlog is None else f"{digest.backlog['open']:,}"
    begun, earlier = sum(this.incidents.values()), sum(before.incidents.values())
    held, was = _amount(this, "quarantine"), _amount(before, "quarantine")
    flagged, were = _amount(this, "flag"), _amount(before, "flag")
    by = CLOCKS[digest.clocks["verdicts"]]
    return [
        ("quarantined", held, f"{was} the week before, {by}", COLOURS[QUARANTINE]),
        ("flagged", flagged, f"{were} the week before, {by}", COLOURS[FLAG]),
        (
            "incidents",
            f"{begun:,}",
            f"{earlier:,} the week before, {CLOCKS['event']}",
            COLOURS[INVALID],
        ),
        ("waiting for review", backlog, "held events, now", COLOURS[INVALID]),
    ]


def _body(digest: Digest, figures: dict[str, Card]) -> Iterator[str]:
    yield "<section class='tiles'>" + "".join(map(tile_of, _tiles(digest))) + "</section>"
    yield "<section class='card'><h2>This week and the week before</h2>"
    rows = ((shown(name), shown(a), shown(b)) for name, a, b in rows_of(digest))
    yield f"<p class='none'>{long(ABOUT)}</p>"
    yield from table_of(("", "this week", "week before"), rows, "t n n")
    yield f"<p class='none'>{long(backlog_text(digest))} {drills_text(digest)}</p></section>"
    if figures:
        yield "<section class='plots'>"
        yield from (card(name, found) for name, found in figures.items())
        yield "</section>"
    yield from incidents_card("The largest incidents", digest.top)
    yield from incidents_card("Faults of the data", digest.data_faults)
    yield "<section class='card'><h2>Changes of the policy, by the wall clock</h2>"
    if digest.policy:
        yield from policy_table(digest.policy)
    else:
        none = "None this week." if digest.policy is not None else "Not known here."
        yield f"<p class='none'>{none}</p>"
    yield "</section>"
    if digest.missing:
        yield "<section class='card'><h2>What this digest cannot say</h2><ul class='missing'>"
        yield from (f"<li>{long(said)}</li>" for said in digest.missing)
        yield "</ul></section>"
    made = clock(digest.made_at, "%Y-%m-%d %H:%M UTC")
    who = f"{common.PACKAGE} {common.version()}"
    yield f"<footer>{shown(digest.origin, 200)} · {who} · {made}</footer>"


# -- Plain text -----------------------------------------------------------------------------------


def text(digest: Digest) -> str:
    """For the mail."""
    return "\n".join(_lines(digest)) + "\n"


def _lines(digest: Digest) -> Iterator[str]:
    start, end = (clock(at, MINUTE) for at in (digest.this.start, digest.this.end))
    yield f"Poisoning digest, {start} to {end}"
    yield from wrapped(ABOUT)
    yield ""
    rows = [("", "this week", "week before"), *rows_of(digest)]
    wide = [max(len(safe(row[at], 40)) for row in rows) for at in range(3)]
    for name, this, before in rows:
        yield f"{safe(name, 40):<{wide[0]}}  {this:>{wide[1]}}  {before:>{wide[2]}}".rstrip()
    yield ""
    yield from wrapped(f"{backlog_text(digest)} {drills_text(digest)}".strip())
    yield from incident_lines("The largest incidents", digest.top)
    yield from incident_lines("Faults of the data", digest.data_faults)
    if digest.policy:
        yield from titled("Changes of the policy, by the wall clock")
        yield from policy_lines(digest.policy)
    if digest.missing:
        yield from titled("What this digest cannot say")
        for said in digest.missing:
            yield from wrapped(said)
