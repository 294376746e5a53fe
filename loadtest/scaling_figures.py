"""The arithmetic of SCALING.md: what a rate takes in cores, partitions, memory and traffic.

    python loadtest/scaling_figures.py scale.json [--rate 1000000] [--load 0.6]

Everything is computed from what loadtest/scale.py measured, and each line shows how.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from monitor.config.sections import StateSettings

BYTES_IN, BYTES_DECISION = 260, 230


@dataclass(frozen=True)
class Line:
    """A figure: what, how it comes about, and how much."""

    what: str
    how: str
    value: float
    unit: str


def cost_of(result: dict[str, Any]) -> tuple[float, float]:
    """CPU µs of an event in the service, with the fewest processes and with the most."""
    keys = sorted(result["processes"], key=int)
    return tuple(float(result["processes"][key]["cpu_us"]) for key in (keys[0], keys[-1]))  # type: ignore[return-value]


def figures(result: dict[str, Any], rate: float, load: float) -> list[Line]:
    """What ``rate`` events a second take when a core may be busy for ``load`` of the time."""
    cost = max(cost_of(result))
    found = result["exchange"]["costs"]
    interval = StateSettings().snapshot_every_events
    cores = rate * cost / 1e6
    most = load * 1e6 / cost
    partitions = math.ceil(rate / most)
    snapshots = rate / interval
    each, stored = found["merging_seconds_each"], found["stored_megabytes"]
    exchange = partitions * each + found["storing_with_view_seconds"]
    reading = snapshots * found["reading_seconds"]
    merging = snapshots / partitions * exchange
    broker = [row["broker_cpu_us"] for row in result["processes"].values()]
    lines = [
        Line("an event in the service", "measured, the dearest number of processes", cost, "µs"),
        Line("busy cores", f"{rate:,.0f}/s × {cost:.1f} µs", cores, "cores"),
        Line("one process may take", f"{load:g} s/s ÷ {cost:.1f} µs", most, "events/s"),
        Line(
            "partitions, a process and a core each",
            f"{rate:,.0f} ÷ {most:,.0f}, rounded up",
            partitions,
            "",
        ),
        Line("input", f"{rate:,.0f}/s × {BYTES_IN} B", rate * BYTES_IN / 1e6, "MB/s"),
        Line(
            "output: events as they came, and decisions",
            f"{rate:,.0f}/s × ({BYTES_IN} + {BYTES_DECISION}) B",
            rate * (BYTES_IN + BYTES_DECISION) / 1e6,
            "MB/s",
        ),
        Line("snapshots", f"{rate:,.0f}/s ÷ {interval:,} events", snapshots, "a second"),
        Line(
            "state topic, written",
            f"{snapshots:.1f}/s × {found['stored_with_view_megabytes']:.1f} MB with a view",
            snapshots * found["stored_with_view_megabytes"],
            "MB/s",
        ),
        Line(
            "state topic, read by every process",
            f"{snapshots:.1f}/s × {found['stored_with_view_megabytes']:.1f} MB",
            snapshots * found["stored_with_view_megabytes"],
            "MB/s each",
        ),
        Line(
            "state topic, read by all",
            f"{partitions} processes × that",
            partitions * snapshots * found["stored_with_view_megabytes"],
            "MB/s",
        ),
        Line(
            "a core's share for reading the others",
            f"{snapshots:.1f}/s × {found['reading_seconds']:.3f} s",
            reading,
            "of a core",
        ),
        Line(
            "an exchange",
            f"{partitions} × {each:.4f} s + {found['storing_with_view_seconds']:.3f} s",
            exchange,
            "CPU s, during which a partition waits",
        ),
        Line(
            "a core's share for exchanges",
            f"{snapshots:.1f}/s ÷ {partitions} × {exchange:.2f} s",
            merging,
            "of a core",
        ),
        Line(
            "memory for the others' summaries",
            f"{partitions} × {found['state_megabytes']:.1f} MB",
            partitions * found["state_megabytes"],
            "MB a process",
        ),
        Line("one snapshot alone", "measured, without a view", stored, "MB"),
    ]
    if None not in broker:
        highest = max(broker)
        lines.append(
            Line(
                "brokers, before replication",
                f"{rate:,.0f}/s × {highest:.1f} µs",
                rate * highest / 1e6,
                "cores",
            )
        )
    return lines


def young(found: dict[str, Any], events: float, least: int) -> float:
    """µs an event that exchanges cost a partition after so many events: every sixteenth of them.

    Examples
    --------
    >>> found = {"merging_seconds": {"3": 0.03}, "storing_with_view_seconds": 0.03}
    >>> round(young(found, 160_000, 512), 2)
    6.0
    """
    last = list(found["merging_seconds"].values())[-1]
    every = min(max(least, events / 16), StateSettings().snapshot_every_events)
    return float(1e6 * (last + found["storing_with_view_seconds"]) / every)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("json", type=Path, help="what scale.py --json wrote")
    parser.add_argument("--rate", type=float, default=1e6, help="events a second")
    parser.add_argument("--load", type=float, default=0.6, help="how busy a core may be")
    given = parser.parse_args(argv)
    if not 0.0 < given.load <= 1.0:
        parser.error("--load must lie between 0 and 1")
    result = json.loads(given.json.read_text(encoding="utf-8"))
    if not result.get("processes") or not result.get("exchange"):
        print("measure first: scale.py --only processes,exchange --json FILE", file=sys.stderr)
        return 2
    for line in figures(result, given.rate, given.load):
        print(f"{line.what:44} {line.value:>12,.3g} {line.unit:12} = {line.how}")
    found, least = result["exchange"]["costs"], StateSettings().exchange_min_events
    print("\nExchanges while a partition is young, µs an event:")
    for events in (10_000, 100_000, 1_000_000, 10_000_000):
        print(f"  after {events:>10,} events of it: {young(found, events, least):8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
