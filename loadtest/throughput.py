"""How many events a second one core judges, beside river's models and beside the bare minimum.

    python loadtest/throughput.py [--features 16 64 256] [--json out.json] [--plot out.html]
    python loadtest/throughput.py --kafka [--client kafka-python|confluent]

**The gate alone.** Contestants take turns on the same events and the same core: the whole gate with
every detector (bytes to decision records); models of river that judge and learn each event, given
dicts that are ready, so that they pay for no JSON; and limits: decoding alone, encoding decisions
alone, and a covariance a class in numpy. Each turn begins with the same warm state. The gate's has
seen 65,536 events (``--prime``): a young state is judged in parts of an eighth of what it has seen,
and would be measured in those. Binary models learn whether the class is one of the first half.

**End to end** (``--kafka``). The service as a process of its own, its input waiting on a real
broker, and beside it a process that only consumes and produces the same messages through the same
client: each event as it came and a decision as long as the gate's, in transactions as large.

Rates are medians over rounds; ratios are medians of the ratios within a round, by CPU time, which
neighbours on a shared machine disturb least. The broker competes for the cores end to end: there
the rates by CPU time are what one core for the service alone would give.
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
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from loadtest.throughput_bench import CONTESTANTS, Bench, Turn
from loadtest.throughput_load import make_workload
from loadtest.throughput_stages import stages
from loadtest.throughput_view import plot, show
from monitor.config.sections import BatchSettings
from monitor.runtime.process import settled

PRIME_EVENTS = 65_536
LEAST_EVENTS = 4_096


def race(
    bench: Bench, names: Sequence[str], repeats: int, progress: Progress
) -> dict[str, list[Turn]]:
    """All contestants, interleaved; a first round that is not counted warms the caches."""
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    task = progress.add_task("measuring", total=(repeats + 1) * len(names))
    for repeat in range(repeats + 1):
        first = repeat % len(names)
        for name in [*names[first:], *names[:first]]:
            progress.update(task, description=CONTESTANTS[name].title)
            turn = bench.turn(name)
            if repeat:
                turns[name].append(turn)
            progress.advance(task)
    progress.remove_task(task)
    return turns


def rates(turns: Sequence[Turn]) -> dict[str, Any]:
    """Medians over turns, in events a second of the clock and of CPU time."""
    wall = np.array([turn.events / turn.wall for turn in turns])
    cpu = np.array([turn.events / turn.cpu for turn in turns])
    batch = np.concatenate([turn.batches for turn in turns]) * 1e3
    return {
        "events_per_second": float(np.median(wall)),
        "events_per_cpu_second": float(np.median(cpu)),
        "cpu_us": float(np.median(1e6 / cpu)),
        "slowest": float(wall.min()),
        "fastest": float(wall.max()),
        "batch_ms_p50": float(np.percentile(batch, 50)),
        "batch_ms_p99": float(np.percentile(batch, 99)),
        "cpu_us_turns": [turn.cpu_us for turn in turns],
    }


def ratio(a: Sequence[Turn], b: Sequence[Turn]) -> float:
    """How many times as fast a is as b: the median over rounds, by CPU time of an event."""
    return float(np.median([y.cpu_us / x.cpu_us for x, y in zip(a, b, strict=True)]))


def summary(turns: dict[str, list[Turn]]) -> dict[str, Any]:
    """Rates by contestant, and how the gate compares with each of the others."""
    others = [name for name in turns if name != "gate"]
    return {
        "contestants": {name: rates(own) for name, own in turns.items()},
        "gate_to": {name: ratio(turns["gate"], turns[name]) for name in others},
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--events", type=int, help="measured events a turn with 16 features (default 20,000; "
        "with --kafka 40,000)")  # fmt: skip
    add("--prime", type=int, default=PRIME_EVENTS, help="events before, that make the state mature")
    add("--features", type=int, nargs="+", default=[16], help="numbers in an event; several: each")
    add("--labels", type=int, default=10, help="classes")
    add("--batch", type=int, default=BatchSettings().max_events, help="events in a micro-batch")
    add("--repeats", type=int, default=5, help="counted rounds (3 at most with --kafka)")
    add("--without", nargs="*", default=[], choices=[n for n in CONTESTANTS if n != "gate"])
    add("--kafka", action="store_true", help="end to end, on a real broker, instead")
    add("--client", help="the service's setting kafka.client, with --kafka")
    add("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    add("--plot", type=Path, metavar="FILE", help="write charts to FILE (.html)")
    add("--at-least", type=float, metavar="RATIO", help="exit with 1 unless the gate is so many "
        "times as fast as river, or, with --kafka, as consuming and producing alone")  # fmt: skip
    given = parser.parse_args(argv)
    if given.events is None:
        given.events = 40_000 if given.kafka else 20_000
    for name in ("events", "batch", "repeats"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if min(given.features) < 1:
        parser.error("--features must be at least 1")
    if given.labels < 2:
        parser.error("--labels must be at least 2")
    if given.prime < 1_024:
        parser.error("--prime must be at least 1024: a gate that still warms up judges nothing")
    if given.client and not given.kafka:
        parser.error("--client is for --kafka")
    return given


def scaled(events: int, features: int) -> int:
    """Measured events with so many features: fewer when they are many, but some batches."""
    return min(events, max(LEAST_EVENTS, events * 16 // features))


@contextmanager
def pinned() -> Iterator[None]:
    """Within this, keep to one core, where the system lets a process choose."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def gate_alone(given: argparse.Namespace, features: int, progress: Progress) -> dict[str, Any]:
    """The figures with so many features."""
    events = scaled(given.events, features)
    task = progress.add_task(f"{features} features: making events", total=None)
    load = make_workload(events, features, given.labels, prime=given.prime)
    progress.update(task, description=f"{features} features: priming")
    bench = Bench(load, given.batch)
    progress.remove_task(task)
    names = [name for name in CONTESTANTS if name not in given.without]
    turns = race(bench, names, given.repeats, progress)
    return {
        "features": features,
        "events": events,
        "bytes_each": load.bytes_each,
        **summary(turns),
        "stages_us": stages(bench),
        "verdicts": bench.verdicts(),
    }


def measure(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Everything that was asked for."""
    options = ("events", "prime", "features", "labels", "batch", "repeats", "client")
    setup = {name: getattr(given, name) for name in options}
    setup |= {"python": platform.python_version(), "numpy": np.__version__}
    setup |= {"machine": platform.machine(), "cores": os.cpu_count()}
    result: dict[str, Any] = {"setup": setup, "alone": [], "kafka": []}
    with Progress(console=console, transient=True) as progress:
        if given.kafka:
            from loadtest.throughput_kafka import end_to_end  # noqa: PLC0415 - Kafka is optional

            result["kafka"] = end_to_end(given, progress)
            return result
        # As the service runs its loop; river runs under it too.
        with pinned(), settled():
            result["alone"] = [gate_alone(given, n, progress) for n in given.features]
    return result


def reached(result: dict[str, Any]) -> float:
    """What ``--at-least`` looks at: the smallest over the numbers of features."""
    found = [found["gate_to"].get("river", np.nan) for found in result["alone"]]
    return min(found + [found["ratio"] for found in result["kafka"]])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 when slower than ``--at-least`` asks."""
    given = arguments(argv)
    result = measure(given, Console(stderr=True))
    show(Console(), result)
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if given.plot is not None:
        plot(result, given.plot)
    if given.at_least is not None and not reached(result) >= given.at_least:
        print(f"only {reached(result):.2f} × as fast", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
