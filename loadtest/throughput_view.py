"""The figures of the throughput script, as tables and as charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

TITLES = {"decode": "decoding alone", "gate": "the whole gate", "river": "river"}


def show(console: Console, result: dict[str, Any]) -> None:
    setup = result["setup"]
    console.print(
        f"{setup['events']:,} events of {setup['bytes_each']:.0f} bytes, "
        f"{setup['features']} features, {setup['labels']} classes, batches of {setup['batch']}, "
        f"{setup['repeats']} rounds, one core, Python {setup['python']}"
    )
    table = Table()
    table.add_column("", no_wrap=True)
    for head in ("events/s", "slowest", "fastest", "CPU µs", "p99 ms", "gate is"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, rate in result["contestants"].items():
        versus = {"river": "gate_to_river", "decode": "gate_to_decode"}.get(name)
        table.add_row(
            TITLES[name],
            f"{rate['events_per_second']:,.0f}",
            f"{rate['slowest']:,.0f}",
            f"{rate['fastest']:,.0f}",
            f"{1e6 / rate['events_per_cpu_second']:.1f}",
            f"{rate['batch_ms_p99']:.1f}",
            f"{result[versus]:.2f} ×" if versus else "",
        )
    console.print(table)
    console.print(
        "CPU µs: processor time of one event. p99 ms: time of a batch. gate is: how many times "
        "as fast the gate is.\n"
    )
    where = Table(title="Where the gate's time goes")
    where.add_column("stage")
    where.add_column("CPU µs", justify="right")
    where.add_column("share", justify="right")
    total = sum(result["stages_us"].values())
    for stage, micros in result["stages_us"].items():
        where.add_row(stage, f"{micros:.2f}", f"{micros / total:.1%}")
    console.print(where)
    said = result["verdicts"]
    console.print(
        f"Judged as usual meanwhile: {said['poison_held']:.0%} of the poison held back; of the "
        f"clean events {said['clean_held']:.2%} held back and {said['clean_flagged']:.2%} flagged."
    )


def plot(result: dict[str, Any], path: Path) -> None:
    """Two bar charts; .html stands alone, .png and .svg need the package kaleido."""
    from plotly import graph_objects as go  # noqa: PLC0415
    from plotly.subplots import make_subplots  # noqa: PLC0415

    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("events a second, one core", "gate: µs an event by stage")
    )
    rates = result["contestants"]
    figure.add_bar(
        x=[TITLES[name] for name in rates],
        y=[rate["events_per_second"] for rate in rates.values()],
        error_y={
            "symmetric": False,
            "array": [r["fastest"] - r["events_per_second"] for r in rates.values()],
            "arrayminus": [r["events_per_second"] - r["slowest"] for r in rates.values()],
        },
        marker_color=["#9aa5b1", "#0b6e4f", "#c8553d"],
        row=1,
        col=1,
    )
    named = list(result["stages_us"].items())[::-1]
    figure.add_trace(
        go.Bar(
            x=[micros for _, micros in named],
            y=[stage for stage, _ in named],
            orientation="h",
            marker_color="#0b6e4f",
        ),
        row=1,
        col=2,
    )
    figure.update_layout(showlegend=False, template="plotly_white", width=1200, height=560)
    figure.update_yaxes(automargin=True)
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs=True)
    else:
        figure.write_image(path)
