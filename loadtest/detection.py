"""How well poison is found: this project and the tools there are, in one run.

    python loadtest/detection.py [grid|calibration|damage|…|all|view] [--quick]

grid         every stream × attack × pattern × seed, every contestant: ranking and alarms
calibration  promised against achieved false-positive shares on clean streams
damage       what a learner loses to poison, and gets back behind a gate
drift        what is held back on honest streams that drift
channels     what each channel finds alone, and what it costs the others
protection   poison in the prefix that is learned from, and 15 % of it later
all          these six; view only writes tables and plots again from what was measured

Every finished cell is a line in OUT/MODE.csv; a second run goes on where the first one stopped.
OUT/tables.md and OUT/plots.html are written at the end. Peers need `pip install .[bench]`;
without a package its peer is left out.
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
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest import streams
from loadtest.detection_cells import (
    ATTACKS,
    BATCH,
    GATE,
    PATTERNS,
    RATE,
    Options,
    attack_names,
    grid_rows,
    pattern_names,
)
from loadtest.detection_channels import channels_rows
from loadtest.detection_clean import CONTROLS, calibration_rows, drift_rows, drift_streams
from loadtest.detection_damage import ACCEPTED, DAMAGE_RATE, damage_rows
from loadtest.detection_damage import ATTACKS as DAMAGE_ATTACKS
from loadtest.detection_damage import PATTERNS as DAMAGE_PATTERNS
from loadtest.detection_peers import PEERS
from loadtest.detection_plots import plot
from loadtest.detection_protection import STAGES, protection_report, protection_rows
from loadtest.detection_reports import (
    calibration_report,
    channels_report,
    damage_report,
    drift_report,
)
from loadtest.detection_store import Store, Task, read, work_through
from loadtest.detection_view import grid_report, save

Row = dict[str, Any]


@dataclass(frozen=True)
class Mode:
    """One part of the benchmark: its cells, what tells them apart, how it is shown."""

    tasks: Callable[[Options, Store], list[Task]]
    identity: tuple[str, ...]
    report: Callable[[Sequence[Row]], str]
    title: str


def grid_tasks(options: Options, store: Store) -> list[Task]:
    tasks: list[Task] = []
    for cell in options.cells():
        left = tuple(c for c in options.contestants if (cell.key, c) not in store.done)
        if left:
            tasks.append((cell.key, functools.partial(grid_rows, cell, left, options.batch)))
    return tasks


def calibration_tasks(options: Options, store: Store) -> list[Task]:
    done = {identity[:4] for identity in store.done}
    tasks: list[Task] = []
    for seed, stream, gated in itertools.product(
        range(options.seeds), (*options.streams, *CONTROLS), (True, False)
    ):
        given = (stream, seed, options.events, gated)
        if tuple(str(part) for part in given) not in done:
            call = functools.partial(calibration_rows, *given, options.batch)
            tasks.append((f"{stream} {seed}", call))
    return tasks


def damage_tasks(options: Options, store: Store) -> list[Task]:
    """All gates of a cell at once: they share its honest, poisoned and oracle learners."""
    tasks: list[Task] = []
    for cell in options.cells():
        done = frozenset(training for key, training in store.done if key == cell.key)
        left = tuple(name for name in options.contestants if name not in done)
        if left:
            call = functools.partial(damage_rows, cell, left, options.batch, done)
            tasks.append((cell.key, call))
    return tasks


def drift_tasks(options: Options, store: Store) -> list[Task]:
    real = tuple(name for name in ("electricity",) if name in options.streams)
    tasks: list[Task] = []
    for seed, name in itertools.product(range(options.seeds), drift_streams(real)):
        if (name, str(seed), str(options.events)) not in store.done:
            call = functools.partial(drift_rows, name, seed, options.events, options.batch)
            tasks.append((f"{name} {seed}", call))
    return tasks


def channels_tasks(options: Options, store: Store) -> list[Task]:
    done = {identity[0] for identity in store.done}
    return [
        (cell.key, functools.partial(channels_rows, cell, options.batch))
        for cell in options.cells()
        if cell.key not in done
    ]


def protection_tasks(options: Options, store: Store) -> list[Task]:
    tasks: list[Task] = []
    for prefix, rate in STAGES:
        for cell in dataclasses.replace(options, rate=rate).cells():
            known = {
                who for key, before, who in store.done if (key, before) == (cell.key, str(prefix))
            }
            left = tuple(name for name in options.contestants if name not in known)
            if left:
                call = functools.partial(protection_rows, cell, prefix, left, options.batch)
                tasks.append((f"{cell.key} {prefix:g}", call))
    return tasks


MODES: dict[str, Mode] = {
    "grid": Mode(grid_tasks, ("key", "contestant"), grid_report, "Detection"),
    "calibration": Mode(
        calibration_tasks,
        ("stream", "seed", "events", "gated", "channel", "promised"),
        calibration_report,
        "Calibration",
    ),
    "damage": Mode(damage_tasks, ("key", "training"), damage_report, "Damage downstream"),
    "drift": Mode(drift_tasks, ("stream", "seed", "events"), drift_report, "Honest drift"),
    "channels": Mode(
        channels_tasks, ("key", "kind", "channel"), channels_report, "Channels and dilution"
    ),
    "protection": Mode(
        protection_tasks, ("key", "prefix", "contestant"), protection_report, "Self-protection"
    ),
}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", nargs="?", choices=(*MODES, "all", "view"), default="all")
    some: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    attacks = dict.fromkeys((*ATTACKS, *attack_names(hard=True)))
    parser.add_argument("--streams", choices=streams.names(), **some)
    parser.add_argument("--attacks", choices=tuple(attacks), **some)
    parser.add_argument("--patterns", choices=tuple(PATTERNS), **some)
    parser.add_argument("--contestants", choices=(GATE, *PEERS), **some)
    parser.add_argument("--snapped", action="store_true", help="also with values seen before")
    parser.add_argument("--hard", action="store_true", help="also harder attacks and senders")
    parser.add_argument("--seeds", type=int, help="seeds of each cell (3)")
    parser.add_argument("--rate", type=float, help=f"share of poison ({RATE}; damage: 0.15)")
    parser.add_argument("--events", type=int, help="first events of a stream (0: all)")
    parser.add_argument("--batch", type=int, default=BATCH, help="events the gate judges at once")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--quick", action="store_true", help="a part that takes < 5 minutes")
    parser.add_argument("--redo", choices=(GATE, *PEERS), help="measure this one again")
    parser.add_argument("--out", type=Path, default=Path("out/detection"), metavar="DIR")
    given = parser.parse_args(argv)
    for name in ("seeds", "jobs", "batch"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if given.rate is not None and not 0.0 < given.rate <= 0.5:
        parser.error("--rate must be above 0 and at most 0.5")
    return given


QUICK_STREAMS = ("electricity", "weather", "segments")
QUICK_EVENTS = 4_000
# What else a mode does not need all of, in a full run and in a quick one.
FULL: dict[str, dict[str, Any]] = {
    "damage": {
        "rate": DAMAGE_RATE,
        "attacks": DAMAGE_ATTACKS,
        "patterns": DAMAGE_PATTERNS,
        "contestants": (GATE, "river_lr", "knn", "cleanlab"),
    },
    "channels": {"patterns": ("burst", "stealth")},
    "protection": {"contestants": (GATE,), "patterns": ("burst", "stealth")},
}
QUICK: dict[str, dict[str, Any]] = {
    "grid": {"patterns": ("burst", "stealth")},
    "calibration": {"events": 20_000},
    "damage": {
        "events": 6_000,
        "streams": ("electricity", "weather"),
        "attacks": ("targeted", "gradient", "backdoor"),
        "contestants": (GATE, "river_lr", "cleanlab"),
    },
    "drift": {"events": 12_000},
    "channels": {"streams": ("electricity",)},
    "protection": {"attacks": ("flip", "backdoor", "gradient"), "streams": ("electricity",)},
}


def options_of(given: argparse.Namespace, mode: str) -> Options:
    """The mode's usual extent, a part of it with --quick; what was asked for goes first."""
    present = streams.names()
    usual: dict[str, Any] = {
        "streams": present,
        "attacks": attack_names(given.snapped, given.hard),
        "patterns": pattern_names(given.hard),
    }
    usual |= FULL.get(mode, {})
    if given.quick:
        usual |= {"streams": QUICK_STREAMS, "events": QUICK_EVENTS, "seeds": 1}
        usual |= QUICK.get(mode, {})
    for name in ("streams", "attacks", "patterns", "contestants", "seeds", "rate", "events"):
        asked = getattr(given, name)
        if asked is not None:
            usual[name] = tuple(asked) if isinstance(asked, list) else asked
    usual["streams"] = tuple(name for name in usual["streams"] if name in present) or present
    wanted = usual.pop("contestants", (GATE, *PEERS))
    usual["contestants"] = tuple(n for n in wanted if n not in PEERS or not PEERS[n].missing)
    return Options(batch=given.batch, **usual)


def say_missing(given: argparse.Namespace) -> None:
    for name in given.contestants or PEERS:
        missing = PEERS[name].missing if name in PEERS else ()
        if missing:
            print(f"{name} is left out: {', '.join(missing)} missing (pip install .[bench])")


def measured_by(row: Row) -> str:
    """Whose figure it is; modes without other contestants are the gate's alone."""
    who = str(row.get("contestant") or row.get("training") or GATE)
    return GATE if who == ACCEPTED else who


def measure(name: str, given: argparse.Namespace) -> None:
    mode = MODES[name]
    store = Store(given.out / f"{name}.csv", mode.identity)
    if given.redo:
        store.forget(lambda row: measured_by(row) == given.redo)
    tasks = mode.tasks(options_of(given, name), store)
    if tasks:
        work_through(tasks, store, jobs=given.jobs, title=name)


def show(out: Path) -> None:
    """Tables and plots of everything measured so far."""
    out.mkdir(parents=True, exist_ok=True)
    rows = {name: read(out / f"{name}.csv") for name in MODES}
    sections = ["# Detection benchmark\n"]
    for name, mode in MODES.items():
        if rows[name]:
            sections.append(f"## {mode.title}\n\n{mode.report(rows[name])}")
    save(out / "tables.md", sections)
    plot(rows, out / "plots.html")
    print(f"tables: {out / 'tables.md'}\nplots: {out / 'plots.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    if given.mode != "view":
        say_missing(given)
        for name in MODES if given.mode == "all" else (given.mode,):
            measure(name, given)
    show(given.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; run again to go on", file=sys.stderr)
        sys.exit(130)
