"""The figures of the throughput script, as tables and as charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from loadtest.throughput_bench import CONTESTANTS

COLOURS = {"gate": "#0b6e4f", "peer": "#c8553d", "limit": "#9aa5b1"}
GOAL_OF_CLIENT = 0.8


def _table(title: str, first: str, *heads: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column(first)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def show(console: Console, result: dict[str, Any]) -> None:
    """Print all that was measured."""
    setup = result["setup"]
    console.print(
        f"{setup['labels']} classes, batches of {setup['batch']}, state after "
        f"{setup['prime']:,} events (a young one is judged in small parts), Python "
        f"{setup['python']}, numpy {setup['numpy']}, {setup['cores']} cores"
    )
    for found in result["alone"]:
        _show_alone(console, found, setup["repeats"])
    if len(result["alone"]) > 1:
        _show_widths(console, result["alone"])
    if result["kafka"]:
        _show_kafka(console, result["kafka"])


def _show_alone(console: Console, found: dict[str, Any], repeats: int) -> None:
    table = _table(
        f"{found['features']} features, {found['events']:,} events of {found['bytes_each']:.0f} "
        f"bytes, one core, medians of {repeats} rounds",
        *("", "events/s", "slowest", "fastest", "CPU µs", "p99 ms", "gate is"),
    )
    for name, rate in found["contestants"].items():
        times = found["gate_to"].get(name)
        table.add_row(
            CONTESTANTS[name].title,
            *(f"{rate[key]:,.0f}" for key in ("events_per_second", "slowest", "fastest")),
            f"{rate['cpu_us']:.1f}",
            f"{rate['batch_ms_p99']:.1f}",
            f"{times:.2f} ×" if times else "",
        )
    console.print(table)
    console.print(
        "CPU µs: processor time of an event. p99 ms: time of a batch. gate is: how many times as "
        "fast the gate is, by CPU time.\n"
    )
    where = _table("Where the gate's time goes", "stage", "CPU µs", "share")
    total = sum(found["stages_us"].values())
    for stage, micros in found["stages_us"].items():
        where.add_row(stage, f"{micros:.2f}", f"{micros / total:.1%}")
    console.print(where)
    said = found["verdicts"]
    console.print(
        f"Judged as usual meanwhile: {said['poison_held']:.0%} of the poison held back; of the "
        f"clean events {said['clean_held']:.2%} held back and {said['clean_flagged']:.2%} flagged."
    )


def _show_widths(console: Console, alone: list[dict[str, Any]]) -> None:
    table = _table(
        "CPU µs of an event, by number of features (in brackets: how many times as fast the gate)",
        "",
        *(str(found["features"]) for found in alone),
    )
    for name in alone[0]["contestants"]:
        cells = []
        for found in alone:
            times = found["gate_to"].get(name)
            cost = f"{found['contestants'][name]['cpu_us']:,.1f}"
            cells.append(f"{cost} ({times:.2f})" if times else cost)
        table.add_row(CONTESTANTS[name].title, *cells)
    console.print(table)


def _show_kafka(console: Console, kafka: list[dict[str, Any]]) -> None:
    table = _table(
        "End to end on a real broker, one process, one partition",
        *("features", "events/s", "CPU µs", "per CPU-second", "broker's µs"),
    )
    for found in kafka:
        for name, title in (("service", "gate service"), ("client", "client alone")):
            rate = found[name]
            broker = rate["broker_cpu_us"]
            table.add_row(
                title,
                str(found["features"]),
                f"{rate['events_per_second']:,.0f}",
                f"{rate['cpu_us']:.1f}",
                f"{1e6 / rate['cpu_us']:,.0f}",
                "" if broker is None else f"{broker:.1f}",
            )
    console.print(table)
    for found in kafka:
        console.print(
            f"{found['features']} features, {found['kafka_client']}: the service is "
            f"{found['ratio']:.2f} × as fast as the client alone by CPU time "
            f"(goal {GOAL_OF_CLIENT}), {found['ratio_wall']:.2f} × by the "
            "clock, where it shares the cores with the broker."
        )


def plot(result: dict[str, Any], path: Path) -> None:
    """Bar charts, a row for each number of features; .html stands alone."""
    from plotly import graph_objects as go  # noqa: PLC0415
    from plotly.subplots import make_subplots  # noqa: PLC0415

    panels: list[tuple[str, Any]] = []
    for found in result["alone"]:
        rates = dict(reversed(found["contestants"].items()))
        names = [CONTESTANTS[name].title for name in rates]
        title = f"CPU µs of an event, {found['features']} features (log scale)"
        colours = [COLOURS[CONTESTANTS[name].kind] for name in rates]
        values = [rate["cpu_us"] for rate in rates.values()]
        panels.append((title, go.Bar(x=values, y=names, orientation="h", marker_color=colours)))
        stages = list(found["stages_us"].items())[::-1]
        panels.append(
            (
                f"the gate: µs an event by stage, {found['features']} features",
                go.Bar(x=[s[1] for s in stages], y=[s[0] for s in stages], orientation="h"),
            )
        )
    for found in result["kafka"]:
        for key, title in (
            ("events_per_second", "events a second"),
            ("cpu_us", "CPU µs of an event"),
        ):
            values = [found["service"][key], found["client"][key]]
            bar = go.Bar(x=["gate service", "client alone"], y=values, marker_color="#0b6e4f")
            panels.append((f"{title}, end to end, {found['features']} features", bar))
    rows = len(panels) // 2
    figure = make_subplots(rows=rows, cols=2, subplot_titles=[title for title, _ in panels])
    for at, (_, bar) in enumerate(panels):
        figure.add_trace(bar, row=at // 2 + 1, col=at % 2 + 1)
        if at % 2 == 0 and at < 2 * len(result["alone"]):
            figure.update_xaxes(type="log", row=at // 2 + 1, col=1)
    figure.update_layout(
        showlegend=False, template="plotly_white", width=1300, height=max(480, 560 * rows)
    )
    figure.update_yaxes(automargin=True)
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs=True)
    else:
        figure.write_image(path)
