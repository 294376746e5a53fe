"""Is an attack that is spread over all partitions seen as well by several processes as by one?

    python loadtest/replicas.py [--processes 1,2,4] [--seeds 4] [--cells weather:flip:burst:5,…]

Recall at 1 % false positives of the same attacked stream, dealt out at random to the partitions of
one topic, which 1, 2 or 4 processes share; the mean over several seeds, since a few hundred poison
events and a threshold set by 1 % of the honest ones leave a standard deviation of .01 to .03. Two
more lines tell what the merged view is worth: partitions that know nothing of each other, and a
topic of one partition.

On a real broker where there is one (``KAFKA_BOOTSTRAP_SERVERS``, or deploy/kafka-local with Java
and Maven): processes of ``python -m monitor run``, fed at a steady rate. Else, and with
``--in-process``, the same gates and exchanges without a broker; what a process publishes reaches
the others one round later.
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
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from loadtest.streams import load
from monitor.core.types import RawBatch, Verdict
from monitor.gate import Gate, GateConfig
from monitor.runtime.board import Board
from monitor.runtime.inject import Attacked, inject
from monitor.state.partition import GateState
from monitor.state.recovery import Stamp, advance, begin, seal
from monitor.state.schedule import SnapshotRule, due

PARTITIONS = 4
BATCH = 256
CELLS = (
    "electricity:flip:burst:5",
    "electricity:backdoor:burst:5",
    "electricity:backdoor:spread:0",
    "electricity:gradient:spread:0",
    "weather:flip:burst:5",
    "weather:flip:spread:5",
    "weather:backdoor:spread:0",
    "shuttle:flip:spread:0",
    "shuttle:gradient:spread:0",
)
RATE, CLEAN_PREFIX = 0.03, 0.3
LARGEST_DIFFERENCE = 0.02
Floats = npt.NDArray[np.float64]


@dataclass
class Outcome:
    """What was decided about n events: ``risk`` float64[n], ``flagged`` bool[n]; and the traffic.

    ``snapshots`` were written, ``state_bytes`` altogether, for ``input_bytes`` of events.
    """

    risk: Floats
    flagged: npt.NDArray[np.bool_]
    snapshots: int = 0
    state_bytes: int = 0
    input_bytes: int = 0


@dataclass
class Line:
    """A row of the table."""

    cell: str
    how: str
    recall: float
    caught: float
    false_flags: float
    traffic: float


def attacked(cell: str, seed: int = 0, events: int | None = None) -> Attacked:
    """The stream of ``stream:attack:pattern:colluders``, cut to its first ``events``."""
    name, attack, pattern, colluders = cell.split(":")
    stream = load(name)
    if events is not None:
        stream = stream.take(np.arange(events))
    return inject(
        stream,
        attack,
        rate=RATE,
        pattern=pattern,  # type: ignore[arg-type]
        colluders=int(colluders),
        clean_prefix=CLEAN_PREFIX,
        seed=seed,
    )


def recall_at(risk: Floats, poison: npt.NDArray[np.bool_], false_positives: float = 0.01) -> float:
    """Share of the poison that is riskier than all but so many of the honest events."""
    threshold = np.quantile(risk[~poison], 1.0 - false_positives, method="higher")
    return float((risk[poison] > threshold).mean())


@dataclass
class _Place:
    """A partition: its rows of the stream, how far they were read, and what is known by then."""

    rows: npt.NDArray[np.int64]
    state: GateState
    stamp: Stamp
    at: int = 0


def in_process(
    lines: Sequence[bytes],
    homes: npt.NDArray[np.int64],
    processes: int,
    *,
    gate: Gate | None = None,
    rule: SnapshotRule | None = None,
    batch: int = BATCH,
) -> Outcome:
    """What ``processes`` decide that share the partitions ``homes`` int64[n] of the lines."""
    several = int(homes.max()) > 0
    gate = gate or Gate(GateConfig(several=several))
    rule = rule or SnapshotRule(exchange_events=512 if several else 0)
    places = {
        int(p): _Place(np.flatnonzero(homes == p), gate.start(), begin(int(p), 0))
        for p in np.unique(homes)
    }
    boards = [Board(print) for _ in range(processes)]
    size = len(lines)
    outcome = Outcome(np.zeros(size), np.zeros(size, dtype=bool), input_bytes=sum(map(len, lines)))
    while any(place.at < len(place.rows) for place in places.values()):
        heard: list[tuple[int, int, bytes]] = []
        for p, place in places.items():
            rows = place.rows[place.at : place.at + batch]
            if len(rows):
                raw = RawBatch.of([lines[i] for i in rows], start=place.at, partition=p)
                risk, flagged, sealed = _turn(gate, place, raw, boards, rule)
                outcome.risk[rows], outcome.flagged[rows] = risk, flagged
                if sealed is not None:
                    boards[p % processes].put({p: sealed})
                    heard.append((p % processes, p, sealed))
        for process, p, sealed in heard:
            outcome.snapshots += 1
            outcome.state_bytes += len(sealed)
            for other, board in enumerate(boards):
                if other != process:
                    board.put({p: sealed})
    return outcome


def _turn(
    gate: Gate, place: _Place, raw: RawBatch, boards: Sequence[Board], rule: SnapshotRule
) -> tuple[Floats, npt.NDArray[np.bool_], bytes | None]:
    """Judge a batch as the service does: risks, flags, and the snapshot if one is due."""
    p, count = raw.partition, len(raw)
    decisions, state = gate.step(place.state, raw)
    store = due(place.stamp, count, 0, rule)
    if store and rule.exchange_events:
        state = gate.exchange(state, p, boards[p % len(boards)].others(gate, p)).state
    place.at, place.state = place.at + count, state
    place.stamp = advance(place.stamp, place.at, count, policy_version=0, snapshot=store)
    flagged = (decisions.verdict == Verdict.FLAG) | (decisions.verdict == Verdict.QUARANTINE)
    return decisions.risk, flagged, seal(p, place.at, gate.dump(state)) if store else None


Runner = Callable[[Sequence[bytes], npt.NDArray[np.int64], int, bool], Outcome]


def _without_broker(
    lines: Sequence[bytes], homes: npt.NDArray[np.int64], processes: int, merged: bool
) -> Outcome:
    several = int(homes.max()) > 0
    rule = SnapshotRule(exchange_events=512 if merged and several else 0)
    return in_process(lines, homes, processes, rule=rule)


@contextlib.contextmanager
def broker() -> Iterator[str | None]:
    """The address of a broker, None where there is none."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield given
        return
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy" / "kafka-local"))
    import broker as local  # noqa: PLC0415 - a script beside the package

    with tempfile.TemporaryDirectory() as folder:
        found = local.Broker(Path(folder) / "kafka")
        try:
            found.start()
        except (local.UnavailableError, local.StartError):
            yield None
            return
        try:
            yield found.address
        finally:
            found.stop()


def measure(cell: str, processes: Sequence[int], run: Runner, seed: int = 0) -> Iterator[Line]:
    """The lines of one cell: one partition, partitions apart, and each number of processes."""
    stream = attacked(cell, seed)
    lines, poison = stream.stream.lines(), stream.poison
    homes = np.random.default_rng(seed + 1).integers(0, PARTITIONS, len(lines))
    plans: list[tuple[str, Any, int, bool]] = [
        ("one partition", np.zeros_like(homes), 1, False),
        (f"{PARTITIONS} partitions apart", homes, 1, False),
    ]
    plans += [(f"{n} process{'es' * (n > 1)}", homes, n, True) for n in processes]
    start = int(CLEAN_PREFIX * len(lines))
    for how, where, n, merged in plans:
        outcome = run(lines, where, n, merged)
        risk, flagged, bad = outcome.risk[start:], outcome.flagged[start:], poison[start:]
        yield Line(
            cell,
            how,
            recall_at(risk, bad),
            float(flagged[bad].mean()),
            float(flagged[~bad].mean()),
            outcome.state_bytes / max(1, outcome.input_bytes),
        )


def averaged(found: Sequence[Line]) -> list[Line]:
    """One line a cell and way of judging: the mean over seeds."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in found:
        groups.setdefault((line.cell, line.how), []).append(line)
    return [
        Line(
            *key,
            *(
                float(np.mean([getattr(line, name) for line in lines]))
                for name in ("recall", "caught", "false_flags", "traffic")
            ),
        )
        for key, lines in groups.items()
    ]


def differences(found: Sequence[Line]) -> dict[str, float]:
    """By cell: the largest recall of any number of processes minus the smallest."""
    by_cell: dict[str, list[float]] = {}
    for line in found:
        if "process" in line.how:
            by_cell.setdefault(line.cell, []).append(line.recall)
    return {cell: max(recalls) - min(recalls) for cell, recalls in by_cell.items()}


def show(found: Sequence[Line], console: Console) -> None:
    """Print the table."""
    table = Table(title="recall at 1 % false positives, behind the clean prefix")
    for name in ("attack", "judged by", "recall", "flagged", "honest flagged", "state : input"):
        table.add_column(name, justify="left" if name in ("attack", "judged by") else "right")
    before = ""
    for line in found:
        cell, before = ("" if line.cell == before else line.cell), line.cell
        table.add_row(
            cell,
            line.how,
            f"{line.recall:.3f}",
            f"{line.caught:.3f}",
            f"{line.false_flags:.4f}",
            f"{line.traffic:.2f}" if line.traffic else "",
        )
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 when the processes differ by more than 0.02 anywhere."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--processes", default="1,2,4", help="numbers of processes")
    parser.add_argument(
        "--cells", default=",".join(CELLS), help="stream:attack:pattern:colluders,…"
    )
    parser.add_argument("--seeds", type=int, default=4, help="attacks a cell")
    parser.add_argument("--in-process", action="store_true", help="no broker, even if there is one")
    parser.add_argument("--json", type=Path, default=None, help="also write the lines here")
    asked = parser.parse_args(argv)
    processes = [int(n) for n in asked.processes.split(",")]
    console = Console()
    found: list[Line] = []
    with contextlib.ExitStack() as stack:
        address = None if asked.in_process else stack.enter_context(broker())
        run: Runner = _without_broker
        if address is not None:
            from loadtest.replicas_kafka import on_kafka  # noqa: PLC0415 - Kafka is optional here

            run = on_kafka(address)
        console.print(f"broker: {address or 'none, in one process'}")
        for cell in asked.cells.split(","):
            for seed in range(asked.seeds):
                for line in measure(cell, processes, run, seed):
                    found.append(line)
                    console.print(f"{line.cell}, seed {seed}, {line.how}: {line.recall:.3f}")
    found = averaged(found)
    show(found, console)
    apart = differences(found)
    console.print(f"largest difference between numbers of processes: {max(apart.values()):.3f}")
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(line) for line in found], indent=1))
    return int(max(apart.values()) > LARGEST_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(main())
