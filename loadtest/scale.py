"""Does it scale? Processes on a real broker, long streams, many sources, and delay at half load.

    python loadtest/scale.py [--json scale.json] [--plot scale.html] [--only processes,costs,…]
    python loadtest/scaling_figures.py scale.json      # the arithmetic of SCALING.md

`processes`: 1 to N real service processes in one group on one real broker, four partitions, input
that waits for them (see speed_kafka.py). `costs`: what an event costs after 10^4 to 10^6 events
(10^7 with --full), and with 10^3 to 10^6 sources. `exchange`: what partitions pay for knowing of
each other. `latency`: one process on one partition at half
the rate it reached, or `--rate`, from the record's time to a read_committed learner.

Two figures of speed, and they differ on a small machine: by the **clock**, where the broker and the
processes share the cores, and by the processes' own **CPU time**, which says what they would do if
each had a core to itself. The first is what this machine does, the second what to plan with.

Each finding is written into the JSON at once; with --resume those that are there are not measured
again.
"""
# ruff: noqa: E402 - the thread limits below must stand before numpy is imported

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import contextlib
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.scale_costs import lengths, one_stream
from loadtest.scale_exchange import exchange_costs
from loadtest.scale_latency import SETTLE_SECONDS, half_load
from loadtest.scale_view import plot, show
from loadtest.speed_kafka import Input, Place, broker, rates, running, service, watch
from loadtest.throughput_load import Workload, make_workload
from monitor.config.sections import BatchSettings

PARTS = ("processes", "costs", "exchange", "latency")
FEATURES, LABELS = 16, 10
PRIME_EVENTS = 65_536
EXCHANGING = 8
SOURCES = (1_000, 10_000, 100_000, 1_000_000)
Tell = Callable[[int], None]


class Findings:
    """What was measured, kept in a file as it comes."""

    def __init__(self, path: Path | None, setup: dict[str, Any], *, resume: bool) -> None:
        self._path = path
        self.result: dict[str, Any] = {"setup": setup, **{part: {} for part in PARTS}}
        if resume and path is not None and path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            if before["setup"] == setup:
                self.result = before

    def keep(self, part: str, key: str, found: Callable[[], Any]) -> Any:
        """What is known under ``key``; else what ``found`` finds."""
        known = self.result[part]
        if key not in known:
            known[key] = found()
            if self._path is not None:
                text = json.dumps(self.result, indent=1) + "\n"
                self._path.write_text(text, encoding="utf-8")
        return known[key]


def processes(
    place: Place, load: Workload, count: int, more: dict[str, Any], tell: Tell
) -> dict[str, Any]:
    """What so many processes do."""
    place.create()
    prepared = Input(place, load.values)
    commands = [service(place, f"p{n}", more) for n in range(count)]
    with running(commands) as started:
        prepared.show()
        samples = watch(place, started, len(load.values), tell)
    found = rates(samples, load.prime, broker=place.broker_pid is not None)
    own = count * found["events_per_cpu_second"]
    return {"processes": count, **found, "events_per_second_own_cores": own}


def speed_ups(rows: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """How many times as fast as the first row each is, by the clock and by CPU time.

    Examples
    --------
    >>> one = {"processes": 1, "events_per_second": 10.0, "cpu_us": 50.0}
    >>> two = {"processes": 2, "events_per_second": 15.0, "cpu_us": 55.0}
    >>> [round(row["by_cpu"], 2) for row in speed_ups([one, two])]
    [1.0, 1.82]
    """
    first = rows[0]
    return [
        {
            "processes": row["processes"],
            "by_clock": row["events_per_second"] / first["events_per_second"],
            "by_cpu": row["processes"] / first["processes"] * first["cpu_us"] / row["cpu_us"],
        }
        for row in rows
    ]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    add("--processes", type=int, nargs="+", default=[1, 2, 4], help="numbers of processes")
    add("--partitions", type=int, default=4, help="of the input, for `processes`")
    add("--events", type=int, default=80_000, help="measured events for `processes`")
    add("--prime", type=int, default=PRIME_EVENTS, help="events before, that make states mature")
    add("--batch", type=int, default=BatchSettings().max_events, help="most events of a batch")
    add("--client", help="the service's setting kafka.client")
    add("--most-events", type=int, default=1_000_000, help="longest stream of `costs`")
    add("--full", action="store_true", help="streams to 10^7 events: an hour")
    add("--sources", type=int, nargs="+", default=list(SOURCES), help="numbers of sources")
    add("--rate", type=float, help="events a second for `latency`; default: half the measured")
    add("--seconds", type=float, default=60.0, help="length of `latency`")
    add("--linger", type=int, metavar="MS", help="try another batch.linger_milliseconds")
    add("--fetch-wait", type=float, metavar="S", help="try another kafka.fetch_wait_seconds")
    add("--exchange", type=int, metavar="N", help="try another state.exchange_min_events; 0: none")
    add("--json", type=Path, metavar="FILE", help="write all figures to FILE, as they come")
    add("--plot", type=Path, metavar="FILE", help="write charts to FILE (.html)")
    add("--resume", action="store_true", help="measure only what FILE does not have yet")
    given = parser.parse_args(argv)
    given.only = given.only.split(",")
    if unknown := [part for part in given.only if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if max(given.processes) > given.partitions:
        parser.error("more processes than partitions: some would have nothing to do")
    if given.seconds <= SETTLE_SECONDS:
        parser.error(f"--seconds must be more than {SETTLE_SECONDS:g}, which are not counted")
    if given.resume and given.json is None:
        parser.error("--resume needs --json")
    if given.full:
        given.most_events = 10_000_000
    given.processes = sorted(set(given.processes))
    return given


def overrides(given: argparse.Namespace) -> dict[str, Any]:
    """Settings of the services that are not as by default."""
    more: dict[str, Any] = {"batch": {"max_events": given.batch}, "kafka": {}}
    if given.linger is not None:
        more["batch"]["linger_milliseconds"] = given.linger
    if given.fetch_wait is not None:
        more["kafka"]["fetch_wait_seconds"] = given.fetch_wait
    if given.exchange is not None:
        more["state"] = {"exchange_min_events": given.exchange}
    return more


@contextlib.contextmanager
def bar(progress: Progress, name: str, total: float) -> Iterator[Tell]:
    """A progress bar, as a function that is told how far things are."""
    task = progress.add_task(name, total=total)
    yield lambda done: progress.update(task, completed=done)
    progress.remove_task(task)


def run_processes(
    given: argparse.Namespace, found: Findings, where: tuple[str, int | None], progress: Progress
) -> None:
    """Each number of processes, on the same events."""
    load = make_workload(given.events, FEATURES, LABELS, prime=given.prime)
    for count in given.processes:
        place = Place(where[0], given.partitions, given.client, where[1])
        with bar(progress, f"{count} process(es)", len(load.values)) as tell:
            found.keep(
                "processes",
                str(count),
                lambda: processes(place, load, count, overrides(given), tell),  # noqa: B023
            )


def run_costs(given: argparse.Namespace, found: Findings, progress: Progress) -> None:
    """Each number of sources; the largest goes on to the longest stream."""
    streams = lengths(given.sources)
    most = max(given.sources)
    streams[most] = max(given.most_events, streams[most] if most <= given.most_events else 0)
    for sources, events in streams.items():
        with bar(progress, f"{sources:,} sources", events) as tell:
            found.keep("costs", str(sources), lambda: one_stream(sources, events, tell))  # noqa: B023


def run_latency(
    given: argparse.Namespace, found: Findings, where: tuple[str, int | None], progress: Progress
) -> None:
    """One process on one partition, at half of what it can do."""
    rate = given.rate or half_of(found.result["processes"])
    events = int(rate * given.seconds)
    load = make_workload(events, FEATURES, LABELS, prime=given.prime)
    place = Place(where[0], 1, given.client, where[1])
    with bar(progress, f"latency at {rate:,.0f} events/s", given.seconds) as tell:
        found.keep(
            "latency", f"{rate:.0f}", lambda: half_load(place, load, rate, overrides(given), tell)
        )


def half_of(measured: dict[str, Any]) -> float:
    """Half the rate by the clock of the fewest processes. Raises SystemExit when there is none."""
    if not measured:
        raise SystemExit("latency needs --rate, or `processes` measured before")
    fewest = measured[min(measured, key=int)]
    return float(fewest["events_per_second"]) / fewest["processes"] / 2


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    given = arguments(argv)
    setup = {
        name: getattr(given, name)
        for name in (
            "partitions",
            "events",
            "prime",
            "batch",
            "client",
            "linger",
            "fetch_wait",
            "exchange",
        )
    }
    setup |= {"python": platform.python_version(), "numpy": np.__version__}
    setup |= {"cores": os.cpu_count(), "features": FEATURES, "labels": LABELS}
    found = Findings(given.json, setup, resume=given.resume)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        if {"processes", "latency"} & set(given.only):
            with broker() as where:
                if "processes" in given.only:
                    run_processes(given, found, where, progress)
                if "latency" in given.only:
                    run_latency(given, found, where, progress)
        if "costs" in given.only:
            run_costs(given, found, progress)
        if "exchange" in given.only:
            with bar(progress, "exchange", EXCHANGING) as tell:
                found.keep(
                    "exchange", "costs", lambda: exchange_costs(EXCHANGING, given.prime // 4, tell)
                )
    show(Console(), found.result)
    if given.plot is not None:
        plot(found.result, given.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
