"""The plots of a report on an incident or a stretch of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monitor.cli.report_data import ACCEPT, FLAG, INVALID, QUARANTINE, WORDS
from monitor.cli.report_page import Card
from monitor.cli.report_plots import COLOURS, NAMES, Figure, bars, layout_of
from monitor.cli.reports.facts import Facts, Record, Traffic, clock

MINE = "#7a1f2b"
STAMP = "%Y-%m-%d %H:%M:%S"


def figures_of(facts: Facts) -> dict[str, Card]:
    """Title, remark and figure of each plot there is something to show in, by its name."""
    traffic, found = facts.traffic, dict[str, Card]()
    if traffic is None or not traffic.events:
        return found
    about = facts.incident is not None
    known = "" if traffic.whole else " What was accepted is not known here."
    remark = (
        "Events in each step of time, by what became of them. The dark line is the incident."
        if about
        else "Events in each step of time, by what became of them."
    )
    found["timeline"] = ("Timeline", remark + known, timeline(traffic, about))
    if traffic.risk:
        remark = (
            "A sample of the events. 2 is what one ordinary event in 100 reaches, 3 one in 1,000."
        )
        found["risk"] = ("Risk", remark, risk(traffic, about))
    if traffic.sources:
        whose = "The sources that sent most of it" if about else "The sources with most held back"
        found["source"] = (
            "Sources",
            f"{whose}, by what became of all they sent.",
            sources(traffic),
        )
    if traffic.families and not about:
        remark = (
            "The strongest evidence of each event."
            if traffic.whole
            else "Held events, counted in each family that spoke."
        )
        found["family"] = ("Families", remark, families(traffic))
    return found


def timeline(traffic: Traffic, about: bool) -> Figure:
    """Events by step of time; with ``about``, the incident's share as a line."""
    bins = traffic.timeline
    x = [clock(bins["start"] + i * bins["step"], STAMP) for i in range(len(bins["accept"]))]
    order = [QUARANTINE, FLAG, INVALID, *([ACCEPT] if traffic.whole else [])]
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "name": NAMES[verdict],
            "x": x,
            "y": bins[WORDS[verdict]],
            "marker": {
                "color": COLOURS[verdict],
                "line": {"width": 0},
                "opacity": 0.45 if verdict == ACCEPT else 1.0,
            },
            "hovertemplate": "%{y:,} from %{x}<extra>" + NAMES[verdict] + "</extra>",
        }
        for verdict in order
        if any(bins[WORDS[verdict]])
    ]
    if about:
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "this incident",
                "x": x,
                "y": bins["mine"],
                "line": {"color": MINE, "width": 2, "shape": "hvh"},
                "hovertemplate": "%{y:,} from %{x}<extra>this incident</extra>",
            }
        )
    layout = layout_of(
        barmode="stack",
        bargap=0.05,
        xaxis=_axis(traffic),
        yaxis={"title": {"text": "events"}, "rangemode": "tozero"},
    )
    return {"data": traces, "layout": layout}


def risk(traffic: Traffic, about: bool) -> Figure:
    """Every sampled event's risk over time, the incident's apart."""
    groups: list[tuple[str, str, int, float, Sequence[tuple[float, float, str, bool]]]] = []
    for verdict in (ACCEPT, FLAG, QUARANTINE):
        points = [p for p in traffic.risk if p[2] == WORDS[verdict] and not p[3]]
        name = f"others, {NAMES[verdict]}" if about else NAMES[verdict]
        opacity = 0.35 if verdict == ACCEPT else 0.75
        groups.append((name, COLOURS[verdict], 4 if verdict == ACCEPT else 5, opacity, points))
    groups.append(("this incident", MINE, 7, 0.85, [p for p in traffic.risk if p[3]]))
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [clock(at, STAMP) for at, _, _, _ in points],
            "y": [value for _, value, _, _ in points],
            "marker": {"color": colour, "size": size, "opacity": opacity},
            "hovertemplate": "risk %{y:.2f} at %{x}<extra>" + name + "</extra>",
        }
        for name, colour, size, opacity, points in groups
        if points
    ]
    layout = layout_of(
        xaxis=_axis(traffic),
        yaxis={"title": {"text": "risk"}, "rangemode": "tozero"},
    )
    return {"data": traces, "layout": layout}


def sources(traffic: Traffic) -> Figure:
    """What became of all that each source sent."""
    rows = [(str(row["source"]), _counts(row)) for row in traffic.sources]
    verdicts = (QUARANTINE, FLAG, ACCEPT) if traffic.whole else (QUARANTINE, FLAG)
    return bars(rows, verdicts, "events")


def families(traffic: Traffic) -> Figure:
    """Flagged and held events by family."""
    rows = [(name, _counts(counts)) for name, counts in traffic.families.items()]
    rows.sort(key=lambda item: (-sum(item[1]), item[0]))
    return bars(rows, (QUARANTINE, FLAG), "events")


def compared(rows: Sequence[tuple[str, float, float]], title: str) -> Figure:
    """Pairs of bars: the week before and this week."""
    names = [name for name, _, _ in rows]
    traces = [
        {
            "type": "bar",
            "name": name,
            "x": names,
            "y": [row[at] for row in rows],
            "marker": {"color": colour},
            "hovertemplate": "%{x}: %{y:,}<extra>" + name + "</extra>",
        }
        for name, at, colour in (
            ("week before", 1, "#9aa5b4"),
            ("this week", 2, COLOURS[QUARANTINE]),
        )
    ]
    layout = layout_of(
        barmode="group",
        height=300,
        xaxis={"type": "category"},
        yaxis={"title": {"text": title}, "rangemode": "tozero"},
    )
    return {"data": traces, "layout": layout}


def _axis(traffic: Traffic) -> dict[str, Any]:
    """The time of the report, the same in all its plots."""
    bins = traffic.timeline
    ends = (bins["start"], bins["start"] + bins["step"] * len(bins["accept"]))
    title = {"text": "the events' own time, UTC"}
    return {"title": title, "type": "date", "range": [clock(end, STAMP) for end in ends]}


def _counts(row: Record) -> list[int]:
    return [int(row.get(word, 0)) for word in WORDS]
