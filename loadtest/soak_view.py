"""The soak test's readings, as a table and as curves over the stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

CURVES = (
    ("resident_megabytes", "resident memory, MB"),
    ("state_megabytes", "stored state, MB"),
    ("cpu_us", "CPU time of an event, µs"),
    ("batch_ms_p99", "99th percentile of a batch, ms"),
)


def show(console: Console, result: dict[str, Any]) -> None:
    """One row a stream, then the limits that were broken."""
    table = Table(box=box.SIMPLE_HEAD)
    heads = ("events", "memory", "limit", "state", "limit", "µs early", "µs late", "back in")
    table.add_column("stream", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for stream in result["streams"]:
        rows, limits = stream["readings"], stream["limits"]
        if not rows:
            continue
        table.add_row(
            stream["name"],
            f"{stream['shape']['events']:,}",
            f"{max(r['resident_megabytes'] for r in rows):.0f}",
            f"{limits['resident_megabytes']:.0f}",
            f"{max(r['state_megabytes'] for r in rows):.1f}",
            f"{limits['state_megabytes']:.0f}",
            f"{rows[len(rows) // 3]['cpu_us']:.0f}",
            f"{rows[-1]['cpu_us']:.0f}",
            f"{stream['recovery'].get('restore_seconds', float('nan')):.1f} s",
        )
    console.print(table)
    console.print("Memory and state in MB, at their largest. µs: CPU time of an event.")
    for stream in result["streams"]:
        found = stream["recovery"]
        if found:
            console.print(
                f"{stream['name']}: {found['replayed_events']:,} events judged again to recover, "
                f"state {'identical' if found['recovered'] else 'DIFFERENT'}"
            )
        for text in stream["broken"]:
            console.print(f"[red]{stream['name']}: {text}")


def plot(result: dict[str, Any], path: Path) -> None:
    """A row of curves for each stream, in one self-contained page."""
    from plotly import graph_objects as go  # noqa: PLC0415
    from plotly.subplots import make_subplots  # noqa: PLC0415

    streams = [stream for stream in result["streams"] if stream["readings"]]
    titles = [f"{stream['name']}: {title}" for stream in streams for _, title in CURVES]
    figure = make_subplots(rows=len(streams), cols=len(CURVES), subplot_titles=titles)
    for row, stream in enumerate(streams, 1):
        at = [reading["events"] for reading in stream["readings"]]
        for column, (key, _) in enumerate(CURVES, 1):
            values = [reading[key] for reading in stream["readings"]]
            figure.add_trace(go.Scatter(x=at, y=values, mode="lines"), row=row, col=column)
            figure.update_yaxes(rangemode="tozero", row=row, col=column)
            if (limit := stream["limits"].get(key)) is not None:
                figure.add_hline(y=limit, line_dash="dot", row=row, col=column)
    figure.update_layout(showlegend=False, height=320 * len(streams), template="plotly_white")
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs=True)
    else:
        figure.write_image(path)
