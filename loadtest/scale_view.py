"""The figures of the scaling script, as tables and as charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from loadtest.scale_latency import GOAL_MS


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def rows_of(result: dict[str, Any], part: str) -> list[Any]:
    """What was found, by rising number."""
    return [result[part][key] for key in sorted(result[part], key=float)]


def show(console: Console, result: dict[str, Any]) -> None:
    """Print all that is there."""
    setup = result["setup"]
    console.print(
        f"{setup['features']} features, {setup['labels']} classes, batches of {setup['batch']}, "
        f"{setup['cores']} cores, client {setup['client'] or 'as by default'}"
    )
    if result["processes"]:
        _show_processes(console, result)
    if result["costs"]:
        _show_costs(console, rows_of(result, "costs"))
    if result["exchange"]:
        _show_exchange(console, result["exchange"]["costs"])
    for found in rows_of(result, "latency"):
        _show_latency(console, found)


def _show_processes(console: Console, result: dict[str, Any]) -> None:
    from loadtest.scale import speed_ups  # noqa: PLC0415 - which shows by this module

    rows = rows_of(result, "processes")
    table = _table(
        f"Processes on one broker, {result['setup']['partitions']} partitions",
        *("processes", "events/s", "speed-up", "CPU µs", "events/s, own cores", "speed-up"),
        "broker's µs",
    )
    for row, up in zip(rows, speed_ups(rows), strict=True):
        broker = row["broker_cpu_us"]
        table.add_row(
            str(row["processes"]),
            f"{row['events_per_second']:,.0f}",
            f"{up['by_clock']:.2f}",
            f"{row['cpu_us']:.1f}",
            f"{row['events_per_second_own_cores']:,.0f}",
            f"{up['by_cpu']:.2f}",
            "" if broker is None else f"{broker:.1f}",
        )
    console.print(table)
    console.print(
        "events/s: by the clock, the broker and all processes on this machine's cores. Own cores: "
        "by CPU time, if each process had one to itself and the broker were elsewhere.\n"
    )


def _show_costs(console: Console, streams: list[list[dict[str, Any]]]) -> None:
    table = _table(
        "Cost of an event by what went before, the gate alone, one core",
        *("sources", "after events", "CPU µs", "state MB", "stored MB", "storing, s", "memory MB"),
    )
    for rows in streams:
        for row in rows:
            table.add_row(
                f"{row['sources']:,}",
                f"{row['events']:,}",
                f"{row['cpu_us']:.1f}",
                f"{row['state_megabytes']:.1f}",
                f"{row['snapshot_megabytes']:.1f}",
                f"{row['snapshot_cpu_seconds']:.2f}",
                f"{row['resident_megabytes']:.0f}",
            )
    console.print(table)
    console.print(
        "CPU µs: median over the batches of the 20,000 events before. Memory: of this process, "
        "which ran all streams one after the other.\n"
    )


def _show_exchange(console: Console, found: dict[str, Any]) -> None:
    merging = ", ".join(f"{1e3 * s:.0f} with {n}" for n, s in found["merging_seconds"].items())
    storing = f"{1e3 * found['storing_seconds']:.0f} ({found['stored_megabytes']:.1f} MB)"
    with_view = (
        f"{1e3 * found['storing_with_view_seconds']:.0f} "
        f"({found['stored_with_view_megabytes']:.1f} MB)"
    )
    console.print(
        f"Exchange, after {found['events_each']:,} events a partition, CPU ms: storing {storing}, "
        f"with a view {with_view}; reading another's {1e3 * found['reading_seconds']:.0f}; merging "
        f"{merging} others. An event {found['step_us_alone']:.1f} µs alone, "
        f"{found['step_us_with_view']:.1f} with a view.\n"
    )


def _show_latency(console: Console, found: dict[str, Any]) -> None:
    verdict = "met" if found["p99"] <= GOAL_MS else "missed"
    console.print(
        f"Latency at {found['asked_per_second']:,.0f} events/s "
        f"({found['accepted_per_second']:,.0f} accepted, "
        f"{found['cpu_share']:.0%} of a core): p50 {found['p50']:.0f} ms, p90 "
        f"{found['p90']:.0f}, p99 {found['p99']:.0f} (goal {GOAL_MS:.0f}: {verdict}), p99.9 "
        f"{found['p99.9']:.0f}, largest {found['largest']:.0f}"
    )
    rows = found["over_time"]
    if rows:
        memory = [row["resident_megabytes"] for row in rows]
        console.print(f"Memory meanwhile: {memory[0]:.0f} MB at first, {memory[-1]:.0f} at last.")


def plot(result: dict[str, Any], path: Path) -> None:
    """Curves in one self-contained page."""
    from plotly import graph_objects as go  # noqa: PLC0415
    from plotly.subplots import make_subplots  # noqa: PLC0415

    titles = (
        "events a second by processes",
        "CPU µs of an event by events before it",
        "delay at half load, ms",
        "memory at half load, MB",
    )
    figure = make_subplots(rows=2, cols=2, subplot_titles=titles)

    def line(row: int, col: int, x: list[Any], y: list[Any], name: str) -> None:
        trace = go.Scatter(x=x, y=y, name=name, mode="lines+markers")
        figure.add_trace(trace, row=row, col=col)
        figure.update_yaxes(rangemode="tozero", row=row, col=col)

    rows = rows_of(result, "processes")
    x = [row["processes"] for row in rows]
    line(1, 1, x, [row["events_per_second"] for row in rows], "by the clock, shared cores")
    own = [row["events_per_second_own_cores"] for row in rows]
    line(1, 1, x, own, "by CPU time, own cores")
    for stream in rows_of(result, "costs"):
        at, cost = [r["events"] for r in stream], [r["cpu_us"] for r in stream]
        line(1, 2, at, cost, f"{stream[0]['sources']:,} sources")
    figure.update_xaxes(type="log", row=1, col=2)
    for found in rows_of(result, "latency"):
        seconds = [row["second"] for row in found["over_time"]]
        for key in ("p50", "p99"):
            values = [row[key] for row in found["over_time"]]
            line(2, 1, seconds, values, f"{key} at {found['asked_per_second']:,.0f}/s")
        memory = [row["resident_megabytes"] for row in found["over_time"]]
        line(2, 2, seconds, memory, "memory")
    if result["latency"]:
        figure.add_hline(y=GOAL_MS, line_dash="dot", row=2, col=1)
    figure.update_layout(template="plotly_white", width=1300, height=900)
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs=True)
    else:
        figure.write_image(path)
