"""The report's plots as plain plotly figures (data and layout), without importing plotly.

Names from the stream are hostile: :func:`shown` takes out control characters and markup, because
plotly reads some HTML in its texts.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from monitor.cli.report_data import (
    ACCEPT,
    FLAG,
    INVALID,
    QUARANTINE,
    RISK_STEP,
    WORDS,
    Tally,
    risk_of,
)

COLOURS = ("#4c8dae", "#e0a526", "#d1495b", "#8d7bb5")
NAMES = ("accepted", "flagged", "quarantined", "invalid")
Figure = dict[str, Any]


def printable(text: object, limit: int = 48) -> str:
    """A name from the stream without control characters, at most ``limit`` characters."""
    plain = "".join(
        char if unicodedata.category(char)[0] not in "CZ" or char == " " else "·"
        for char in str(text)[: limit + 1]
    )
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def shown(text: object, limit: int = 48) -> str:
    """The same with markup escaped, for HTML and for plotly."""
    return html.escape(printable(text, limit), quote=True)


def layout_of(**extra: Any) -> dict[str, Any]:
    """What all figures' layouts have in common, with what ``extra`` says."""
    return {
        "margin": {"l": 56, "r": 16, "t": 12, "b": 44},
        "legend": {
            "orientation": "h",
            "y": 1.02,
            "yanchor": "bottom",
            "x": 0,
            "traceorder": "normal",
        },
        "hovermode": "closest",
        "height": 340,
        **extra,
    }


def level_line(level: float, text: str, colour: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A threshold across the figure: the shape, and the note beside it."""
    line = {"color": colour, "width": 1.5, "dash": "dash"}
    shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": level, "y1": level}
    note = {
        "xref": "paper",
        "x": 1,
        "y": level,
        "xanchor": "left",
        "yanchor": "middle",
        "showarrow": False,
        "text": text,
        "font": {"color": colour, "size": 11},
    }
    return shape | {"line": line}, note


def risk_over_time(tally: Tally, policy: Mapping[str, Any]) -> Figure:
    """Every sampled event's risk over the stream, with the policy's thresholds."""
    calm = tally.calm.points()
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "accepted (sample)" if len(calm) < tally.verdicts[ACCEPT] else "accepted",
            "x": [line + 1 for line, _ in calm],
            "y": [round(risk, 3) for _, risk in calm],
            "marker": {"color": COLOURS[ACCEPT], "size": 4, "opacity": 0.35},
            "hovertemplate": "event %{x}<br>risk %{y:.2f}<extra>accepted</extra>",
        }
    ]
    alarms = tally.alarms.points()
    for verdict in (FLAG, QUARANTINE):
        points = [point for point in alarms if point[2] == verdict]
        whole = len(points) == tally.verdicts[verdict]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": NAMES[verdict] + ("" if whole else " (sample)"),
                "x": [point[0] + 1 for point in points],
                "y": [round(point[1], 3) for point in points],
                "customdata": [f"{shown(point[3])} · {shown(point[4], 32)}" for point in points],
                "marker": {"color": COLOURS[verdict], "size": 6, "opacity": 0.75},
                "hovertemplate": "event %{x}<br>risk %{y:.2f}<br>%{customdata}"
                f"<extra>{NAMES[verdict]}</extra>",
            }
        )
    lines = [
        level_line(risk_of(policy["flag_at"]), f" flag at {policy['flag_at']:g}", COLOURS[FLAG]),
        level_line(
            risk_of(policy["quarantine_at"]),
            f" quarantine at {policy['quarantine_at']:g}",
            COLOURS[QUARANTINE],
        ),
    ]
    layout = layout_of(
        height=400,
        margin={"l": 56, "r": 130, "t": 12, "b": 44},
        xaxis={"title": {"text": "event"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "risk"}, "rangemode": "tozero"},
        shapes=[shape for shape, _ in lines],
        annotations=[note for _, note in lines],
    )
    return {"data": traces, "layout": layout}


def verdicts_over_time(tally: Tally) -> Figure:
    """Share of events that were not simply accepted, over the stream."""
    width = tally.timeline.width
    x = [bucket * width + 1 for bucket in range(len(tally.timeline.counts))]
    traces = [
        {
            "type": "bar",
            "name": NAMES[verdict],
            "x": x,
            "y": [
                round(100 * counts[verdict] / max(1, sum(counts)), 3)
                for counts in tally.timeline.counts
            ],
            "width": width,
            "offset": 0,
            "marker": {"color": COLOURS[verdict], "line": {"width": 0}},
            "hovertemplate": "%{y:.1f} % from event %{x}<extra>" + NAMES[verdict] + "</extra>",
        }
        for verdict in (QUARANTINE, FLAG, INVALID)
        if tally.verdicts[verdict]
    ]
    layout = layout_of(
        barmode="stack",
        bargap=0,
        xaxis={"title": {"text": f"event (bars of {width:,})"}},
        yaxis={"title": {"text": "share of events"}, "ticksuffix": " %", "rangemode": "tozero"},
    )
    return {"data": traces, "layout": layout}


def bars(
    rows: Sequence[tuple[str, list[int]]], verdicts: Sequence[int], title: str, kind: str = "linear"
) -> Figure:
    """Horizontal stacked bars, first row on top. Positions are numbers: names may repeat."""
    places = list(range(len(rows)))
    names = [shown(name, 28) for name, _ in rows]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": NAMES[verdict],
            "y": places,
            "x": [counts[verdict] for _, counts in rows],
            "customdata": names,
            "marker": {"color": COLOURS[verdict], "line": {"width": 0}},
            "hovertemplate": "%{customdata}: %{x:,}<extra>" + NAMES[verdict] + "</extra>",
        }
        for verdict in verdicts
    ]
    layout = layout_of(
        barmode="stack",
        height=max(220, 100 + 24 * len(rows)),
        xaxis={"title": {"text": title}, "type": kind, "rangemode": "tozero"},
        yaxis={
            "tickvals": places,
            "ticktext": names,
            "autorange": "reversed",
            "automargin": True,
            "type": "linear",
            "showgrid": False,
            "zeroline": False,
        },
    )
    return {"data": traces, "layout": layout}


def by_class(tally: Tally) -> Figure:
    """Verdicts by label, the most frequent labels on top."""
    rows = sorted(tally.classes.items(), key=lambda item: (-sum(item[1]), item[0]))[:20]
    return bars(rows, (ACCEPT, FLAG, QUARANTINE), "events")


def by_source(tally: Tally) -> Figure:
    """What was not simply accepted, by source, next to how much each source sent."""
    rows = [
        (name, counts)
        for name, counts in tally.top_sources(15)
        if counts[QUARANTINE] or counts[FLAG]
    ] or tally.top_sources(15)
    figure = bars(rows, (QUARANTINE, FLAG), "events")
    figure["data"][-1] |= {
        "text": [f" {c[QUARANTINE]:,} of {sum(c):,} held back" for _, c in rows],
        "textposition": "outside",
        "cliponaxis": False,
    }
    longest = max((counts[QUARANTINE] + counts[FLAG] for _, counts in rows), default=0)
    figure["layout"]["xaxis"]["range"] = [0, max(1, longest) * 1.8]
    return figure


def by_family(tally: Tally) -> Figure:
    """Flagged and quarantined events by the family that spoke loudest."""
    rows = sorted(tally.families.items(), key=lambda item: (-sum(item[1]), item[0]))
    return bars(rows, (QUARANTINE, FLAG), "events")


def by_detector(tally: Tally) -> Figure:
    """How often each detector is among the reasons."""
    rows = sorted(tally.detectors.items(), key=lambda item: (-sum(item[1]), item[0]))
    return bars(rows, (QUARANTINE, FLAG), "events it gave a reason for")


def risk_distribution(tally: Tally) -> Figure:
    """Share of events at or above each risk, next to what ordinary traffic would give."""
    counts = [0] * (max([0, *(bin_ for risks in tally.risks for bin_ in risks)]) + 2)
    for risks in tally.risks:
        for bin_, count in risks.items():
            counts[bin_] += count
    total = max(1, sum(counts))
    above, shares = 0, [0.0] * len(counts)
    for bin_ in range(len(counts) - 1, -1, -1):
        above += counts[bin_]
        shares[bin_] = above / total
    x = [round(bin_ * RISK_STEP, 2) for bin_, share in enumerate(shares) if share > 0]
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "this stream",
            "x": x,
            "y": [share for share in shares if share > 0],
            "line": {"color": COLOURS[QUARANTINE], "width": 2, "shape": "hv"},
            "hovertemplate": "%{y:.3%} of events at risk %{x} or more<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "ordinary traffic",
            "x": x[: 1 + round(6 / RISK_STEP)],
            "y": [10.0**-risk for risk in x[: 1 + round(6 / RISK_STEP)]],
            "line": {"color": "#888888", "width": 1.5, "dash": "dot"},
            "hoverinfo": "skip",
        },
    ]
    layout = layout_of(
        xaxis={"title": {"text": "risk"}},
        yaxis={
            "title": {"text": "share at or above"},
            "type": "log",
            "automargin": True,
            "tickvals": [10.0**-power for power in range(9)],
            "ticktext": [f"{10.0 ** (2 - power):g} %" for power in range(9)],
        },
    )
    return {"data": traces, "layout": layout}


def risk_histogram(tally: Tally) -> Figure:
    """Number of events by risk and verdict, on a logarithmic scale."""
    last = max([0, *(bin_ for risks in tally.risks for bin_ in risks)])
    x = [round(bin_ * RISK_STEP, 2) for bin_ in range(last + 1)]
    traces = [
        {
            "type": "bar",
            "name": NAMES[verdict],
            "x": x,
            "y": [tally.risks[verdict].get(bin_, 0) for bin_ in range(last + 1)],
            "width": RISK_STEP,
            "offset": 0,
            "marker": {"color": COLOURS[verdict], "line": {"width": 0}},
            "hovertemplate": "%{y:,} events at risk %{x}<extra>" + NAMES[verdict] + "</extra>",
        }
        for verdict in (ACCEPT, FLAG, QUARANTINE)
    ]
    layout = layout_of(
        barmode="overlay",
        bargap=0,
        xaxis={"title": {"text": "risk"}},
        yaxis={"title": {"text": "events"}, "type": "log"},
    )
    return {"data": traces, "layout": layout}


def throughput(points: Sequence[tuple[float, int]]) -> Figure:
    """Events a second over the run; points are (seconds since start, events so far)."""
    step = max(1, len(points) // 120)
    x, y = [], []
    for (t0, n0), (t1, n1) in pairwise([*points[::step], points[-1]]):
        if t1 > t0:
            x.append(round(t1, 3))
            y.append(round((n1 - n0) / (t1 - t0), 1))
    trace = {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "fill": "tozeroy",
        "line": {"color": COLOURS[ACCEPT], "width": 1.5},
        "hovertemplate": "%{y:,.0f} events/s after %{x:.1f} s<extra></extra>",
    }
    layout = layout_of(
        height=260,
        xaxis={"title": {"text": "seconds"}},
        yaxis={"title": {"text": "events/s"}, "rangemode": "tozero"},
        showlegend=False,
    )
    return {"data": [trace], "layout": layout}


assert len(NAMES) == len(WORDS) == len(COLOURS)
