"""Does anything grow? Memory, state, latency and cost per event while the stream goes on and on.

    python loadtest/soak.py [--quick] [--only many,wide] [--json out.json] [--plot out.html]

Two streams, each through the whole service in a process of its own: `many` has 1,000,000 distinct
sources and ids, 1,000,000 subjects and 1,000 labels; `wide` has 4,096 features and 1,000 labels.
At the end the process is, as it were, killed: its state comes back from the last snapshot and the
input since, and must be the same to the bit. Exit code 1 when a limit below is broken.
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
import multiprocessing
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.soak_stream import Endless, Shape
from loadtest.soak_view import plot, show
from monitor.core.ports import CommitUnit
from monitor.gate import Gate
from monitor.runtime.service import Service
from monitor.runtime.status import Status
from monitor.state.recovery import Stamp
from monitor.telemetry.metrics import Metrics

BATCH = 2048


@dataclass(frozen=True)
class Limits:
    """What must hold, whatever the length of the stream.

    Attributes
    ----------
    resident_megabytes
        Most memory of the process, at any time.
    state_megabytes
        Largest stored state of the partition.
    growth
        Most by which the state may grow over the second half of the stream.
    slowdown
        Most by which an event may cost more CPU time in the last third than in the middle one.
    recovery_seconds
        Longest that the state may take to come back.
    """

    resident_megabytes: float
    state_megabytes: float
    growth: float = 1.25
    slowdown: float = 1.5
    recovery_seconds: float = 10.0


@dataclass(frozen=True)
class Part:
    """One stream: in full, how many events in the quick form, a reading every so many."""

    shape: Shape
    quick_events: int
    every: int
    snapshot_every_batches: int
    limits: Limits


PARTS = {
    "many": Part(
        Shape(events=1_120_000, features=16, labels=1000, sources=1_000_000),
        quick_events=340_000,
        every=20_480,
        snapshot_every_batches=128,
        limits=Limits(resident_megabytes=520, state_megabytes=56),
    ),
    "wide": Part(
        Shape(events=24_576, features=4096, labels=1000, sources=1_000_000),
        quick_events=8_192,
        every=2_048,
        snapshot_every_batches=3,
        limits=Limits(resident_megabytes=1900, state_megabytes=224),
    ),
}


def resident_megabytes() -> float:
    """Memory of this process now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not tell the memory of a process")


class Meter:
    """Takes a reading every so many events, as an observer of the service."""

    def __init__(self, every: int, send: Connection) -> None:
        self.every, self.send = every, send
        self.events, self.state_bytes, self.cpu = 0, 0, 0.0
        self.began = 0
        self.latency: list[float] = []

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        for part in unit.parts:
            self.events += len(part.raw)
            if part.snapshot is not None:
                self.state_bytes = len(part.snapshot)
        self.latency.append(seconds["gate"])
        if self.events - self.began >= self.every:
            n = self.events - self.began
            self.send.send(
                {
                    "events": self.events,
                    "resident_megabytes": resident_megabytes(),
                    "state_megabytes": self.state_bytes / 1e6,
                    "cpu_us": 1e6 * self.cpu / n,
                    "batch_ms_p50": 1e3 * float(np.percentile(self.latency, 50)),
                    "batch_ms_p99": 1e3 * float(np.percentile(self.latency, 99)),
                }
            )
            self.latency, self.cpu, self.began = [], 0.0, self.events


class TimedGate(Gate):
    """A gate whose CPU time is counted, that of making the stream is not."""

    meter: Meter

    def step(self, state: Any, raw: Any) -> Any:
        began = time.process_time()
        result = super().step(state, raw)
        self.meter.cpu += time.process_time() - began
        return result


def child(shape: Shape, every: int, snapshots: int, send: Connection) -> None:
    """Run one stream to its end, then recover; readings, then the outcome, go into ``send``."""
    meter, transport = Meter(every, send), Endless(shape)
    service, status = _service(transport, meter, snapshots)
    service.run(threading.Event())
    held = service._held[0]
    gate = Gate()
    expected = gate.digest(held.state)
    del service, held
    began = time.perf_counter()
    again, status = _service(transport, Meter(1 << 60, send), snapshots)
    again.run(threading.Event())  # at the end of the input: it only recovers
    took = status.snapshot()["stage_seconds"]["restore"]
    send.send(
        {
            "recovered": gate.digest(again._held[0].state) == expected,
            "restore_seconds": took,
            "start_seconds": time.perf_counter() - began,
            "replayed_events": sum(Stamp.decode(transport.stamp or b"").counts),
            "decided": transport.records,
        }
    )


def _service(transport: Endless, meter: Meter, snapshots: int) -> tuple[Service[Any], Status]:
    status, gate = Status(), TimedGate()
    gate.meter = meter
    metrics = Metrics(status=status.snapshot)
    observers = (status, metrics, meter)
    service = Service(
        *(gate, transport),
        observers=observers,
        on_status=status,
        batch_events=BATCH,
        snapshot_every_batches=snapshots,
    )
    return service, status


@dataclass
class Outcome:
    """What one stream showed, and which limits it broke."""

    name: str
    shape: Shape
    limits: Limits
    readings: list[dict[str, float]] = field(default_factory=list)
    recovery: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Fill in ``broken``."""
        limits, rows = self.limits, self.readings
        third, half = max(1, len(rows) // 3), len(rows) // 2
        peak = max(r["resident_megabytes"] for r in rows)
        state = max(r["state_megabytes"] for r in rows)
        cost = [r["cpu_us"] for r in rows]
        slower = float(np.median(cost[-third:]) / np.median(cost[third : 2 * third] or cost))
        middle = rows[half]["state_megabytes"]
        growth = rows[-1]["state_megabytes"] / middle if middle else 1.0
        self._bound("resident memory, MB", peak, limits.resident_megabytes)
        self._bound("stored state, MB", state, limits.state_megabytes)
        self._bound("growth of the state over the second half", growth, limits.growth)
        self._bound("cost of an event, last third to middle", slower, limits.slowdown)
        back = self.recovery.get("restore_seconds", 0.0)
        self._bound("recovery, seconds", back, limits.recovery_seconds)
        if not self.recovery.get("recovered"):
            self.broken.append("the recovered state is not the one that was lost")
        if self.recovery.get("decided") != self.shape.events:
            self.broken.append(f"{self.recovery.get('decided')} of {self.shape.events} decided")

    def _bound(self, what: str, value: float, most: float) -> None:
        if value > most:
            self.broken.append(f"{what}: {value:.2f}, the limit is {most:g}")


def run(name: str, progress: Progress, *, quick: bool) -> Outcome:
    """One stream in a process of its own."""
    part = PARTS[name]
    events = part.quick_events if quick else part.shape.events
    shape = Shape(**asdict(part.shape) | {"events": events})
    outcome = Outcome(name, shape, part.limits)
    task = progress.add_task(name, total=events, said="")
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(
        target=child, args=(shape, part.every, part.snapshot_every_batches, send), daemon=True
    )
    process.start()
    send.close()
    try:
        while True:
            reading = receive.recv()
            if "recovered" in reading:
                outcome.recovery = reading
                break
            outcome.readings.append(reading)
            progress.update(
                task,
                completed=reading["events"],
                said=f"{reading['resident_megabytes']:.0f} MB, {reading['cpu_us']:.0f} µs an event",
            )
    except EOFError:
        outcome.broken.append("the process died")
    process.join()
    progress.update(task, completed=events)
    if outcome.readings:
        outcome.judge()
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a shorter stream, under 2 minutes")
    parser.add_argument("--only", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="write a plot here (.html)")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no such stream: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    console = Console()
    columns = (
        TextColumn("{task.description:5}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=console) as progress:
        outcomes = [run(name, progress, quick=args.quick) for name in names]
    result = {"quick": args.quick, "streams": [asdict(outcome) for outcome in outcomes]}
    show(console, result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.plot:
        plot(result, args.plot)
    return 1 if any(outcome.broken for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
