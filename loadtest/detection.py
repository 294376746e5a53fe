"""How well poison is found: this project and the tools there are, in one run.

    python loadtest/detection.py [grid|calibration|damage|drift|channels|all|view] [--quick]

grid         every stream × attack × pattern × seed, every contestant: ranking and alarms
calibration  promised against achieved false-positive shares on clean streams
damage       what a learner loses to poison, and gets back behind a gate
drift        what is held back on honest streams that drift
channels     what each channel finds alone, and what it costs the others
all          these five; view only writes tables and plots again from what was measured

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
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest import streams
from loadtest.detection_cells import (
    BATCH,
    GATE,
    PATTERNS,
    RATE,
    USUAL_PATTERNS,
    Options,
    attack_names,
    grid_rows,
)
from loadtest.detection_peers import PEERS
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


MODES: dict[str, Mode] = {
    "grid": Mode(grid_tasks, ("key", "contestant"), grid_report, "Detection"),
}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", nargs="?", choices=(*MODES, "all", "view"), default="all")
    some = {"nargs": "+", "metavar": "NAME"}
    attacks = attack_names(snapped=True)
    parser.add_argument("--streams", choices=streams.names(), **some)
    parser.add_argument("--attacks", choices=attacks, **some)
    parser.add_argument("--patterns", choices=tuple(PATTERNS), **some)
    parser.add_argument("--contestants", choices=(GATE, *PEERS), **some)
    parser.add_argument("--snapped", action="store_true", help="also with values seen before")
    parser.add_argument("--seeds", type=int, help="seeds of each cell (3)")
    parser.add_argument("--rate", type=float, help=f"share of poison ({RATE}; damage: 0.15)")
    parser.add_argument("--events", type=int, help="first events of a stream (0: all)")
    parser.add_argument("--batch", type=int, default=BATCH, help="events the gate judges at once")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--quick", action="store_true", help="a part that takes < 5 minutes")
    parser.add_argument("--redo", metavar="CONTESTANT", help="measure this one again")
    parser.add_argument("--out", type=Path, default=Path("out/detection"), metavar="DIR")
    given = parser.parse_args(argv)
    for name in ("seeds", "jobs", "batch"):
        if (getattr(given, name) or 1) < 1:
            parser.error(f"--{name} must be at least 1")
    if given.rate is not None and not 0.0 < given.rate <= 0.5:
        parser.error("--rate must be above 0 and at most 0.5")
    return given


QUICK_STREAMS = ("electricity", "weather", "segments", "bananas", "phishing")
QUICK_EVENTS = 4_000


def options_of(given: argparse.Namespace) -> Options:
    quick = given.quick
    names = streams.names()
    usual = tuple(name for name in names if name in QUICK_STREAMS)[:4] if quick else names
    wanted = tuple(given.contestants or (GATE, *PEERS))
    present = []
    for name in wanted:
        missing = PEERS[name].missing if name in PEERS else ()
        if missing:
            print(f"{name} is left out: {', '.join(missing)} missing (pip install .[bench])")
        else:
            present.append(name)
    patterns = ("burst", "stealth") if quick else USUAL_PATTERNS
    return Options(
        streams=tuple(given.streams or usual),
        attacks=tuple(given.attacks or attack_names(given.snapped)),
        patterns=tuple(given.patterns or patterns),
        contestants=tuple(present),
        seeds=given.seeds or (1 if quick else 3),
        rate=given.rate or RATE,
        events=(QUICK_EVENTS if quick else 0) if given.events is None else given.events,
        batch=given.batch,
    )


def measure(name: str, given: argparse.Namespace, options: Options) -> None:
    mode = MODES[name]
    store = Store(given.out / f"{name}.csv", mode.identity)
    if given.redo:
        for column in ("contestant", "training"):
            store.forget(column, given.redo)
    tasks = mode.tasks(options, store)
    work_through(tasks, store, jobs=given.jobs, title=name)


def show(out: Path) -> None:
    """Tables of everything measured so far."""
    sections = ["# Detection benchmark\n"]
    for name, mode in MODES.items():
        rows = read(out / f"{name}.csv")
        if rows:
            sections.append(f"## {mode.title}\n\n{mode.report(rows)}")
    save(out / "tables.md", sections)
    print(f"tables: {out / 'tables.md'}")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    if given.mode != "view":
        options = options_of(given)
        for name in MODES if given.mode == "all" else (given.mode,):
            measure(name, given, options)
    given.out.mkdir(parents=True, exist_ok=True)
    show(given.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; run again to go on", file=sys.stderr)
        sys.exit(130)
