"""The benchmark in charts: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plotly import graph_objects as go

from loadtest.detection_cells import GATE
from loadtest.detection_clean import PROMISES
from loadtest.detection_damage import ACCEPTED
from loadtest.detection_reports import mean, names, values
from loadtest.detection_view import (
    TITLES,
    Row,
    best_peers,
    by_cell,
    contestants,
    interval,
    number,
    of,
)

OURS, POISON, CLEAN = "#0b6e4f", "#c8553d", "#9aa5b1"
OTHERS = ("#33658a", "#86bbd8", "#f6ae2d", "#758e4f", "#8e7dbe", "#b08968", "#9aa5b1")
COLOURS = {GATE: OURS, ACCEPTED: "#7fb69f", "poisoned": POISON, "clean": CLEAN, "oracle": "#444"}


def _colour(name: str, i: int) -> str:
    return COLOURS.get(name, OTHERS[i % len(OTHERS)])


def recall(rows: Sequence[Row]) -> go.Figure:
    """Recall at 1 % false positives by attack and pattern, a bar a contestant."""
    everyone = [*rows, *best_peers(rows)]
    kinds = dict.fromkeys((str(row["attack"]), str(row["pattern"])) for row in rows)
    figure = go.Figure()
    for i, name in enumerate(contestants(everyone)):
        middle, low, high = [], [], []
        for attack, pattern in kinds:
            mine = of(everyone, attack=attack, pattern=pattern, contestant=name)
            m, a, b = interval(by_cell(mine, "recall_1pct").values())
            middle.append(m)
            low.append(m - a)
            high.append(b - m)
        figure.add_bar(
            name=TITLES.get(name, name),
            x=[f"{attack}<br>{pattern}" for attack, pattern in kinds],
            y=middle,
            error_y={"symmetric": False, "array": high, "arrayminus": low, "thickness": 1},
            marker_color=_colour(name, i),
        )
    figure.update_layout(title="Recall at 1 % false positives, 95 % bootstrap intervals")
    figure.update_yaxes(range=[0, 1.05])
    return figure


def calibration(rows: Sequence[Row]) -> go.Figure:
    """Promised against achieved shares, a line a stream; the diagonal is a kept promise."""
    own = of(rows, channel="all")
    figure = go.Figure()
    for i, stream in enumerate(names(own, "stream")):
        for gated, dash in (("True", "solid"), ("False", "dot")):
            mine = of(own, stream=stream, gated=gated)
            if not mine:
                continue
            at = [[row for row in mine if number(row, "promised") == p] for p in PROMISES]
            figure.add_scatter(
                name=f"{stream}, {'gated' if gated == 'True' else 'not gated'}",
                x=list(PROMISES),
                y=[mean(found, "achieved") for found in at],
                text=[f"worst window {max(values(f, 'worst'), default=0):.3%}" for f in at],
                mode="lines+markers",
                line={"dash": dash, "color": OTHERS[i % len(OTHERS)]},
            )
    ends = [min(PROMISES), max(PROMISES)]
    band = {"mode": "lines", "line": {"color": "#bbb", "width": 1}, "hoverinfo": "skip"}
    figure.add_scatter(x=ends, y=[0.7 * p for p in ends], showlegend=False, **band)
    figure.add_scatter(
        x=ends, y=[1.3 * p for p in ends], name="±30 %", fill="tonexty", fillcolor="#eee", **band
    )
    figure.update_layout(title="Clean streams: promised and achieved share of alarms")
    figure.update_xaxes(type="log", title="promised", tickformat="~%")
    figure.update_yaxes(type="log", title="achieved", tickformat="~%")
    return figure


def damage(rows: Sequence[Row], measure: str, title: str) -> go.Figure:
    """Accuracy, or success, by attack, pattern and learner; a bar a way of training."""
    mine = [row for row in rows if row.get(measure) not in (None, "")]
    kinds = dict.fromkeys((str(r["attack"]), str(r["pattern"]), str(r["learner"])) for r in mine)
    figure = go.Figure()
    for i, training in enumerate(names(mine, "training")):
        own = of(mine, training=training)
        figure.add_bar(
            name=training,
            x=["<br>".join(kind) for kind in kinds],
            y=[
                mean(of(own, attack=attack, pattern=pattern, learner=learner), measure)
                for attack, pattern, learner in kinds
            ],
            marker_color=_colour(training, i),
        )
    figure.update_layout(title=title)
    return figure


def channels(rows: Sequence[Row]) -> go.Figure:
    """Recall of each channel alone, attack by attack, next to all of them."""
    attacks = names(rows, "attack")
    alone = names(of(rows, kind="alone"), "channel")
    table = [
        [mean(of(rows, kind="alone", channel=c, attack=a), "recall_1pct") for a in attacks]
        for c in alone
    ]
    table.append([mean(of(rows, kind="all", attack=a), "recall_1pct") for a in attacks])
    figure = go.Figure(
        go.Heatmap(
            x=attacks,
            y=[*alone, "all"],
            z=table,
            zmin=0,
            zmax=1,
            colorscale=[[0, "#f7f7f7"], [1, OURS]],
            texttemplate="%{z:.2f}",
        )
    )
    figure.update_layout(title="Recall at 1 % false positives of each channel alone")
    return figure


def drift(rows: Sequence[Row]) -> go.Figure:
    figure = go.Figure()
    streams = names(rows, "stream")
    for name, colour in (("flagged", CLEAN), ("held", POISON)):
        y = [mean(of(rows, stream=stream), name) for stream in streams]
        figure.add_bar(name=name, x=streams, y=y, marker_color=colour)
    figure.add_hline(y=0.001, line_dash="dot", annotation_text="held: at most 0.1 %")
    figure.update_layout(title="Honest drift: share of events flagged and held")
    figure.update_yaxes(type="log", tickformat="~%")
    return figure


def figures(rows: Mapping[str, Sequence[Row]]) -> list[Any]:
    made: list[Any] = []
    if rows.get("grid"):
        made.append(recall(rows["grid"]))
    if rows.get("calibration"):
        made.append(calibration(rows["calibration"]))
    if rows.get("damage"):
        title = "Prequential accuracy on clean events, by what the learner was trained on"
        made.append(damage(rows["damage"], "accuracy", title))
        if values(rows["damage"], "success"):
            made.append(damage(rows["damage"], "success", "Success of a planted backdoor"))
    if rows.get("drift"):
        made.append(drift(rows["drift"]))
    if rows.get("channels"):
        made.append(channels(rows["channels"]))
    return made


def plot(rows: Mapping[str, Sequence[Row]], path: Path) -> None:
    """All charts, one under the other, with plotly itself inside the file."""
    parts = []
    for i, figure in enumerate(figures(rows)):
        figure.update_layout(template="plotly_white", barmode="group", height=520)
        parts.append(figure.to_html(full_html=False, include_plotlyjs=i == 0))
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<title>Detection benchmark</title></head>"
        '<body style="font-family:sans-serif;max-width:1280px;margin:auto">'
        f"<h1>Detection benchmark</h1>{''.join(parts)}</body></html>\n"
    )
    path.write_text(page, encoding="utf-8")
