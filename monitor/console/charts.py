"""Charts, and their colours in the light and in the dark."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

from nicegui import ui

LIGHT = {
    "ink": "#566272", "line": "#dde2e8", "card": "#ffffff", "text": "#17212e",
    "accept": "#7fb69d", "flag": "#d08a1d", "quarantine": "#d0405b", "invalid": "#8b96a3",
}  # fmt: skip
DARK = {
    "ink": "#9fabb9", "line": "#28323e", "card": "#1d2630", "text": "#e7ecf2",
    "accept": "#3f8f69", "flag": "#f0b457", "quarantine": "#ff7d90", "invalid": "#9aa7b5",
}  # fmt: skip
# Apart from each other also for people who see colours otherwise (Okabe and Ito, 2008).
SERIES = ("#cc5c7a", "#4f8fd0", "#2f9e7a", "#d99a2b", "#8d7bd6", "#56b4e9", "#a0703a", "#7d8894")
DAY_SECONDS = 86_400
FONT = "Roboto, system-ui, sans-serif"


def _colours(dark: bool) -> dict[str, str]:
    return DARK if dark else LIGHT


def _axes(dark: bool) -> dict[str, Any]:
    """What of a chart changes with the light."""
    c = _colours(dark)
    label = {"color": c["ink"], "fontFamily": FONT, "fontSize": 12}
    axis = {
        "axisLabel": dict(label),
        "axisLine": {"lineStyle": {"color": c["line"]}},
        "axisTick": {"show": False},
        "nameTextStyle": label,
    }
    return {
        "textStyle": {"fontFamily": FONT},
        "xAxis": deepcopy(axis) | {"splitLine": {"show": False}},
        "yAxis": deepcopy(axis) | {"splitLine": {"lineStyle": {"color": c["line"]}}},
        "legend": {"textStyle": label, "inactiveColor": c["line"]},
        "tooltip": {
            "backgroundColor": c["card"], "borderColor": c["line"],
            "textStyle": {"color": c["text"], "fontFamily": FONT, "fontSize": 12},
        },
    }  # fmt: skip


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = dict(value) if isinstance(value, Mapping) else value
    return into


def rates(dark: bool, names: Sequence[str]) -> ui.echart:
    """A chart of rates over time; a line for each name."""
    options = _merge(
        _axes(dark),
        {
            "animation": False,
            "grid": {"left": 44, "right": 12, "top": 34, "bottom": 26},
            "legend": {
                "top": 0,
                "left": 0,
                "icon": "roundRect",
                "itemWidth": 12,
                "itemHeight": 4,
                "type": "scroll",
            },
            "tooltip": {"trigger": "axis"},
            "xAxis": {"type": "time", "axisLabel": {"hideOverlap": True}, "splitNumber": 4},
            "yAxis": {"type": "value", "min": 0, "minInterval": 1, "splitNumber": 3},
            "series": [],
        },
    )
    chart = ui.echart(options, renderer="svg").style("height: 200px; width: 100%")
    chart.props["aria-hidden"] = "true"
    feed(chart, {name: [] for name in names}, dark)
    return chart


def feed(
    chart: ui.echart, points: Mapping[str, Sequence[tuple[float, float]]], dark: bool | None = None
) -> None:
    """Show these points (milliseconds, value)."""
    before = {one["name"]: one for one in chart.options["series"]}
    series = []
    for number, (name, values) in enumerate(points.items()):
        colour = _colours(bool(dark)).get(name, SERIES[number % len(SERIES)])
        style = before.get(name.replace("_", " "), {}).get("itemStyle", {"color": colour})
        series.append(
            {
                "name": name.replace("_", " "),
                "type": "line",
                "showSymbol": False,
                "areaStyle": {"opacity": 0.12},
                "lineStyle": {"width": 2},
                "itemStyle": style,
                "data": [list(point) for point in values],
            }
        )
    chart.options["series"] = series


def recolour(chart: ui.echart, dark: bool) -> None:
    """Turn the light on or off."""
    _merge(chart.options, _axes(dark))
    for one in chart.options["series"]:
        colour = _colours(dark).get(one["name"])
        if colour is not None:
            one["itemStyle"] = {"color": colour}


def histogram(dark: bool) -> ui.echart:
    """A chart of how many of the latest events have which risk, by verdict."""
    options = _merge(
        _axes(dark),
        {
            "animation": False,
            "grid": {"left": 52, "right": 20, "top": 32, "bottom": 44},
            "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}},
            "legend": {"show": False},
            "xAxis": {"type": "category", "data": [], "axisLabel": {"show": False}},
            "yAxis": {"type": "log", "min": 0.8, "axisLabel": {}, "minInterval": 1},
            "series": [],
        },
    )  # fmt: skip
    return ui.echart(options, renderer="svg")


def fill_histogram(chart: ui.echart, risks: Mapping[str, Any], dark: bool) -> None:
    """Show a histogram as :meth:`PolicyDesk.risks` gives it."""
    edges = [float(edge) for edge in risks["edges"]]
    pairs = pairwise(edges)
    chart.options["xAxis"]["data"] = [f"risk {low:.1f} to {high:.1f}" for low, high in pairs]
    counts = risks["counts"]
    words = [word for word in ("accept", "flag", "quarantine") if word in counts]
    chart.options["series"] = [
        {
            "name": word,
            "type": "bar",
            "barGap": "-100%",
            "barCategoryGap": "12%",
            "itemStyle": {"color": _colours(dark)[word], "borderRadius": [2, 2, 0, 0]},
            # A logarithm has no place for nought.
            "data": [n or None for n in counts[word]],
        }
        for word in words
    ]


def timeline(dark: bool, told: Mapping[str, Any]) -> ui.echart:
    """A chart of an incident's events by time, as the account has them: held ones below, others."""
    start, width = float(told["start"]), float(told["seconds"])
    held = [int(n) for n in told["quarantined"]]
    flagged = [int(n) - h for n, h in zip(told["events"], held, strict=True)]
    form = "%H:%M:%S" if width * len(held) < DAY_SECONDS else "%d %b %H:%M"
    names = [time.strftime(form, time.gmtime(start + i * width)) for i in range(len(held))]
    options = _merge(
        _axes(dark),
        {
            "animation": False,
            "grid": {"left": 44, "right": 12, "top": 34, "bottom": 26},
            "legend": {"top": 0, "left": 0, "icon": "roundRect", "itemWidth": 12, "itemHeight": 8},
            "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}},
            "xAxis": {"type": "category", "data": names, "axisLabel": {"hideOverlap": True}},
            "yAxis": {"type": "value", "min": 0, "minInterval": 1, "splitNumber": 3},
            "series": [
                {
                    "name": name,
                    "type": "bar",
                    "stack": "all",
                    "barMaxWidth": 24,
                    "barCategoryGap": "15%",
                    "itemStyle": {"color": _colours(dark)[name]},
                    "data": values,
                }
                for name, values in (("quarantine", held), ("flag", flagged))
            ],
        },
    )
    chart = ui.echart(options, renderer="svg").style("height: 200px; width: 100%")
    chart.props["aria-hidden"] = "true"
    return chart
