"""How many events a second the gate judges on one core, next to river and to decoding alone.

    python loadtest/throughput.py [--json out.json] [--plot out.html]

Three contestants take turns, several times, on the same events and the same core: decoding alone
(bytes to columns of numbers), the whole gate with every detector (bytes to decision records), and
river's StandardScaler | LogisticRegression, the smallest online model there is (predict_proba_one
and learn_one on dicts that are ready, so that river pays for no JSON). Logistic regression is
binary, so river learns whether the class is one of the first half; the gate gets all classes.

Each turn begins with the same warm state. Rates are medians over turns; ratios are medians of the
ratios within a round, by CPU time, which neighbours on a shared machine disturb least.
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
import copy
import functools
import gc
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import orjson
from rich.console import Console
from rich.progress import Progress
from river import linear_model, preprocessing

import monitor.decide.judge as judge_module
import monitor.gate as gate_module
from loadtest.throughput_view import plot, show
from monitor.core.decode import Decoder
from monitor.core.types import Action, BoolArray, RawBatch, Verdict
from monitor.detectors import default_detectors
from monitor.detectors.calibration import Reference
from monitor.gate import Gate
from monitor.runtime.process import settled
from monitor.state.partition import GateState

PRIME_EVENTS = 8_192
CONTESTANTS = ("decode", "gate", "river")


@dataclass(frozen=True)
class Workload:
    """Events as bytes and as river sees them; the first ``PRIME_EVENTS`` only warm up."""

    values: list[bytes]
    features: list[dict[str, float]]
    first_half: list[bool]
    poison: BoolArray

    @property
    def bytes_each(self) -> float:
        return sum(map(len, self.values)) / len(self.values)


def make_workload(events: int, features: int, labels: int, seed: int = 0) -> Workload:
    """Class blobs with correlated columns; 1 % of labels flipped, in bursts of five sources."""
    rng = np.random.default_rng(seed)
    n = events + PRIME_EVENTS
    y = rng.integers(0, labels, n)
    centre = 1.2 * rng.normal(size=(labels, features))
    mix = np.eye(features) + 0.3 * rng.normal(size=(features, features)) / np.sqrt(features)
    x = np.round(centre[y] + rng.normal(size=(n, features)) @ mix, 6)
    poison = np.zeros(n, dtype=bool)
    for start in rng.integers(PRIME_EVENTS, n, max(1, events // 2000)).tolist():
        poison[start : start + 40 : 2] = True
    said = np.where(poison, (y + 1 + rng.integers(0, labels - 1, n)) % labels, y)
    honest = rng.zipf(1.3, n) % 500
    source = np.where(poison, 900 + rng.integers(0, 5, n), honest)
    rows = x.tolist()
    values = [
        orjson.dumps(
            {
                "id": f"evt-{i:09d}",
                "ts": 1_700_000_000 + i * 0.01,
                "source": f"acct-{s}",
                "label": f"class-{label}",
                "features": row,
            }
        )
        for i, (s, label, row) in enumerate(zip(source.tolist(), said.tolist(), rows, strict=True))
    ]
    names = [f"f{i}" for i in range(features)]
    as_dicts = [dict(zip(names, row, strict=True)) for row in rows]
    return Workload(values, as_dicts, (2 * said < labels).tolist(), poison)


@dataclass
class Turn:
    """One measured pass: seconds on the clock and of CPU, and each batch's seconds."""

    wall: float
    cpu: float
    batches: list[float] = field(default_factory=list)


class Bench:
    """The contestants, each at the same warm state, pass after pass."""

    def __init__(self, load: Workload, batch: int) -> None:
        self.load = load
        self.events = len(load.values) - PRIME_EVENTS
        self.batches = [
            RawBatch.of(load.values[i : i + batch], start=i)
            for i in range(PRIME_EVENTS, len(load.values), batch)
        ]
        self.gate = Gate()
        self.primed = self._prime(batch)
        self.model: Any = preprocessing.StandardScaler() | linear_model.LogisticRegression()
        for x, y in zip(load.features[:PRIME_EVENTS], load.first_half[:PRIME_EVENTS], strict=True):
            self.model.learn_one(x, y)

    def _prime(self, batch: int) -> GateState:
        state = self.gate.start()
        for i in range(0, PRIME_EVENTS, batch):
            raw = RawBatch.of(self.load.values[i : min(i + batch, PRIME_EVENTS)], start=i)
            _, state = self.gate.step(state, raw)
        return state

    def decode(self, gate: Gate) -> Iterator[None]:
        decoder = Decoder(gate.config.limits, gate.config.hash_seed)
        schema = self.primed.schema
        assert schema is not None, "priming must outlast the warm-up"
        for raw in self.batches:
            decoder.columns(decoder.parse(raw, schema.layout), schema, self.primed.labels)
            yield

    def judge(self, gate: Gate) -> Iterator[None]:
        state = self.primed
        for raw in self.batches:
            _, state = gate.step(state, raw)
            yield

    def learn(self, _: Gate) -> Iterator[None]:
        model = copy.deepcopy(self.model)
        load, size = self.load, len(self.batches[0])
        for i in range(PRIME_EVENTS, len(load.features), size):
            for x, y in zip(
                load.features[i : i + size], load.first_half[i : i + size], strict=True
            ):
                model.predict_proba_one(x)
                model.learn_one(x, y)
            yield

    def turn(self, contestant: str) -> Turn:
        work = {"decode": self.decode, "gate": self.judge, "river": self.learn}[contestant]
        return timed(work(self.gate))

    def verdicts(self) -> dict[str, float]:
        """What the gate made of the workload, as a sign that it really judges."""
        state, held, flagged = self.primed, [], []
        for raw in self.batches:
            decisions, state = self.gate.step(state, raw)
            held.append(decisions.action == Action.HOLD)
            flagged.append(decisions.verdict == Verdict.FLAG)
        poison = self.load.poison[PRIME_EVENTS:]
        hold, flag = np.concatenate(held), np.concatenate(flagged)
        return {
            "poison_held": float(hold[poison].mean()),
            "clean_held": float(hold[~poison].mean()),
            "clean_flagged": float(flag[~poison].mean()),
        }


def timed(work: Iterator[None]) -> Turn:
    gc.collect()
    marks = [time.perf_counter()]
    cpu = time.process_time()
    for _ in work:
        marks.append(time.perf_counter())
    cpu = time.process_time() - cpu
    return Turn(marks[-1] - marks[0], cpu, np.diff(marks).tolist())


class StageClock:
    """Adds up where the gate's processor time goes, by wrapping its parts for one pass."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        self.seconds.setdefault(name, 0.0)

        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.process_time() - began

        return measured


class TimedDetector:
    """A detector whose methods are measured; everything else is the detector's own."""

    def __init__(self, detector: Any, clock: StageClock) -> None:
        self._detector = detector
        for method in ("score", "observe", "explain"):
            wrapped = clock.wrap(f"{detector.name}: {method}", getattr(detector, method))
            setattr(self, method, wrapped)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)


@contextlib.contextmanager
def replaced(target: Any, name: str, clock: StageClock, stage: str) -> Iterator[None]:
    original = getattr(target, name)
    setattr(target, name, clock.wrap(stage, original))
    try:
        yield
    finally:
        setattr(target, name, original)


def stages(bench: Bench) -> dict[str, float]:
    """Processor time by stage, in microseconds an event, from one pass of their own."""
    clock = StageClock()
    with contextlib.ExitStack() as stack:
        for target, name, stage in (
            (Decoder, "parse", "decode: parse"),
            (Decoder, "columns", "decode: columns"),
            (Reference, "read", "calibration: p-value"),
            (Reference, "admit", "calibration: learn"),
            (judge_module, "combine", "combine channels"),
            (gate_module, "encode_decisions", "encode decisions"),
        ):
            stack.enter_context(replaced(target, name, clock, stage))
        detectors: Sequence[Any] = [TimedDetector(d, clock) for d in default_detectors()]
        turn = timed(bench.judge(Gate(detectors=detectors)))
    clock.seconds["the rest"] = turn.cpu - sum(clock.seconds.values())
    scale = 1e6 / bench.events
    ranked = sorted(clock.seconds.items(), key=lambda item: -item[1])
    return {name: seconds * scale for name, seconds in ranked if seconds > 0.0}


def race(bench: Bench, repeats: int, progress: Progress) -> dict[str, list[Turn]]:
    """All contestants, interleaved; a first round that is not counted warms the caches."""
    turns: dict[str, list[Turn]] = {name: [] for name in CONTESTANTS}
    task = progress.add_task("measuring", total=(repeats + 1) * len(CONTESTANTS))
    for repeat in range(repeats + 1):
        for name in CONTESTANTS[repeat % 3 :] + CONTESTANTS[: repeat % 3]:
            turn = bench.turn(name)
            if repeat:
                turns[name].append(turn)
            progress.advance(task)
    return turns


def summary(bench: Bench, turns: dict[str, list[Turn]]) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    for name, all_turns in turns.items():
        wall = bench.events / np.array([turn.wall for turn in all_turns])
        cpu = bench.events / np.array([turn.cpu for turn in all_turns])
        batch = np.concatenate([turn.batches for turn in all_turns]) * 1e3
        rates[name] = {
            "events_per_second": float(np.median(wall)),
            "events_per_cpu_second": float(np.median(cpu)),
            "slowest": float(wall.min()),
            "fastest": float(wall.max()),
            "batch_ms_p50": float(np.percentile(batch, 50)),
            "batch_ms_p99": float(np.percentile(batch, 99)),
        }
    return {
        "contestants": rates,
        "gate_to_river": ratio(turns, "gate", "river"),
        "gate_to_decode": ratio(turns, "gate", "decode"),
        "turns": {name: [asdict(t) for t in ts] for name, ts in turns.items()},
    }


def ratio(turns: dict[str, list[Turn]], a: str, b: str) -> float:
    """How many times as fast a is as b: the median over rounds, by CPU time."""
    return float(np.median([y.cpu / x.cpu for x, y in zip(turns[a], turns[b], strict=True)]))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000, help="measured events a turn")
    parser.add_argument("--features", type=int, default=16, help="numbers in an event")
    parser.add_argument("--labels", type=int, default=10, help="classes")
    parser.add_argument("--batch", type=int, default=2048, help="events in a micro-batch")
    parser.add_argument("--repeats", type=int, default=5, help="counted rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write charts to FILE (.html)")
    parser.add_argument(
        "--at-least",
        type=float,
        metavar="RATIO",
        help="exit with 1 unless the gate is this many times as fast as river",
    )
    given = parser.parse_args(argv)
    for name in ("events", "features", "batch", "repeats"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if given.labels < 2:
        parser.error("--labels must be at least 2")
    return given


def pin() -> None:
    """Keep to one core, where the system lets a process choose."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measure(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("making events", total=None)
        load = make_workload(given.events, given.features, given.labels)
        bench = Bench(load, given.batch)
        progress.remove_task(task)
        turns = race(bench, given.repeats, progress)
    options = ("events", "features", "labels", "batch", "repeats")
    setup = {name: getattr(given, name) for name in options}
    setup |= {"bytes_each": load.bytes_each, "python": platform.python_version()}
    setup |= {"numpy": np.__version__, "machine": platform.machine()}
    return {
        "setup": setup,
        **summary(bench, turns),
        "stages_us": stages(bench),
        "verdicts": bench.verdicts(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    pin()
    # As the service runs its loop; river runs under it too.
    with settled():
        result = measure(given, Console(stderr=True))
    show(Console(), result)
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if given.plot is not None:
        plot(result, given.plot)
    if given.at_least is not None and result["gate_to_river"] < given.at_least:
        print(f"the gate is only {result['gate_to_river']:.2f} × as fast", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
