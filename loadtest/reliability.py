"""What becomes of events when processes and brokers die: the reliability table.

    python loadtest/reliability.py [--quick] [--only kill,broker] [--json out.json] [--table out.md]

Starts a real Kafka on this machine (Java 17 and Maven, see deploy/kafka-local), feeds a stream to
several `python -m monitor run` in one consumer group, and injects faults while they work. Then
every input record is held against the outputs as a read_committed learner sees them: lost is what
went in and did not come out, doubled what came out more than once. Processes that end with exit
code 3 are started again, as an orchestrator does. Exit code 1 when anything is lost or doubled.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import contextlib
import importlib.util
import json
import logging
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.reliability_fleet import Feeder, Fleet, Ledger
from loadtest.reliability_view import markdown, show

BROKER = Path(__file__).resolve().parents[1] / "deploy" / "kafka-local" / "broker.py"
MAX_POLL_SECONDS = 6.0
Tell = Callable[[int], None]


def broker_module() -> Any:
    """deploy/kafka-local/broker.py, which is a script and not in a package."""
    name = "kafka_local_broker"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BROKER)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@dataclass(frozen=True)
class Size:
    """How much of everything: (quick, full)."""

    events: int
    faults: int
    per_second: float | None = None


@dataclass
class Setting:
    """What a scenario has at hand."""

    broker: Any
    folder: Path
    size: Size
    rng: random.Random
    tell: Tell
    fault: Callable[[], None]
    client: str = "kafka-python"

    def fleet(self, **kafka: Any) -> Fleet:
        """Processes with this setting's client."""
        return Fleet(self.broker.address, self.folder, kafka={"client": self.client, **kafka})


@contextlib.contextmanager
def fed(at: Setting, fleet: Fleet) -> Iterator[Feeder]:
    """Feed the scenario's events meanwhile; at the end wait until each is decided."""
    size = at.size
    feeder = Feeder(fleet.address, fleet.topics.input, size.events, size.per_second)
    try:
        yield feeder
        feeder.finish()
        fleet.until(size.events, at.tell)
    finally:
        feeder.stop()
        fleet.close()


def share(at: Setting, number: int) -> int:
    """Decisions after which fault ``number`` comes: spread over the stream."""
    return int(0.8 * number * at.size.events / (at.size.faults + 2)) + 1


def kill(at: Setting) -> Fleet:
    """SIGKILL of one of three processes at random moments; one of them is a dynamic member."""
    fleet = at.fleet()
    with fed(at, fleet):
        members = [fleet.add("one"), fleet.add("two"), fleet.add("three", static=False)]
        for number in range(at.size.faults):
            fleet.until(share(at, number), at.tell)
            fleet.rest(at.rng.uniform(0.0, 0.5), at.tell)
            victim = at.rng.choice(members)
            victim.kill()
            victim.start()
            at.fault()
    return fleet


def restart_broker(at: Setting) -> Fleet:
    """The only broker is stopped or killed, is away for some seconds, and comes back."""
    fleet = at.fleet()
    with fed(at, fleet):
        fleet.add("one")
        fleet.add("two")
        # A static member that dies between giving partitions up and joining again leaves them to
        # nobody until the next rebalance: a broker does not ask for one when it comes back.
        fleet.joined(at.tell)
        for number in range(at.size.faults):
            fleet.until(share(at, number), at.tell)
            (at.broker.kill if number % 2 else at.broker.stop)()
            time.sleep(at.rng.uniform(0.0, 4.0))
            at.broker.start()
            at.fault()
    return fleet


def stop_and_continue(at: Setting) -> Fleet:
    """SIGSTOP for longer than max.poll.interval, so that others take over; then SIGCONT."""
    fleet = at.fleet(max_poll_interval_seconds=MAX_POLL_SECONDS)
    with fed(at, fleet):
        members = [fleet.add("one", static=False), fleet.add("two", static=False)]
        for number in range(at.size.faults):
            fleet.until(share(at, number), at.tell)
            victim = members[number % 2]
            victim.signal(signal.SIGSTOP)
            fleet.rest(1.5 * MAX_POLL_SECONDS, at.tell)
            victim.signal(signal.SIGCONT)
            at.fault()
            fleet.rest(2.0, at.tell)
    return fleet


def twin(at: Setting) -> Fleet:
    """A second process with the transactional id of a running one: the older is fenced."""
    fleet = at.fleet()
    with fed(at, fleet):
        oldest = fleet.add("twin-0", like="one", static=False)
        for number in range(at.size.faults):
            fleet.until(share(at, number), at.tell)
            oldest.wanted = False
            newer = fleet.add(f"twin-{number + 1}", like="one", static=False)
            deadline = time.monotonic() + 90
            while oldest.alive and time.monotonic() < deadline:
                fleet.tend()
                at.tell(fleet.decided)
            if oldest.alive or oldest.process is None or oldest.process.returncode != 3:
                raise RuntimeError(f"the older twin was not fenced:\n{oldest.tail()}")
            fleet.restarts[3] += 1
            at.fault()
            oldest = newer
    return fleet


def members(at: Setting) -> Fleet:
    """Five members join and leave, one after the other, gently."""
    fleet = at.fleet()
    with fed(at, fleet):
        fleet.add("stays", static=False)
        here = []
        for number in range(at.size.faults):
            fleet.until(share(at, number), at.tell)
            if number % 2 == 0 or not here:
                here.append(fleet.add(f"guest-{number}", static=False))
            else:
                code = here.pop(0).end()
                if code not in (0, 3, -signal.SIGTERM):  # still starting: it has no handler yet
                    raise RuntimeError(f"a member left with {code}")
            at.fault()
            fleet.rest(1.0, at.tell)
    return fleet


def three_brokers(at: Setting) -> Fleet:
    """Three brokers, replication 3, 2 in sync: one is stopped or killed, and comes back."""
    module = broker_module()
    cluster = module.BrokerCluster(at.folder / "cluster")
    cluster.start()
    try:
        fleet = Fleet(cluster.address, at.folder, replicas=3, kafka={"client": at.client})
        with fed(at, fleet):
            fleet.add("one")
            fleet.add("two")
            for number in range(at.size.faults):
                fleet.until(share(at, number), at.tell)
                broker = cluster.brokers[number % 3]
                (broker.kill if number % 2 else broker.stop)()
                fleet.rest(at.rng.uniform(2.0, 6.0), at.tell)
                broker.start()
                at.fault()
                fleet.rest(3.0, at.tell)
        fleet.kept = fleet.ledger()  # type: ignore[attr-defined]
        return fleet
    finally:
        cluster.stop()


Scenario = Callable[[Setting], Fleet]
SCENARIOS: dict[str, tuple[str, Scenario, Size, Size]] = {
    "kill": (
        "SIGKILL of one of 3 processes",
        kill,
        Size(16_000, 6),
        Size(100_000, 50),
    ),
    "broker": (
        "the only broker stopped or killed, and restarted",
        restart_broker,
        Size(12_000, 1, 1500),
        Size(40_000, 4, 1500),
    ),
    "stop": (
        f"SIGSTOP for 1.5 × max.poll.interval ({MAX_POLL_SECONDS:g} s), then SIGCONT",
        stop_and_continue,
        Size(10_000, 1, 1000),
        Size(40_000, 4, 1000),
    ),
    "twin": (
        "a second process with the same transactional id",
        twin,
        Size(6_000, 1, 1000),
        Size(24_000, 4, 1000),
    ),
    "members": (
        "a member joins or leaves",
        members,
        Size(8_000, 2, 1000),
        Size(40_000, 10, 1200),
    ),
    "three": (
        "one of 3 brokers stopped or killed, and restarted",
        three_brokers,
        Size(12_000, 1, 1500),
        Size(40_000, 4, 1500),
    ),
}


@dataclass
class Row:
    """One line of the table."""

    name: str
    fault: str
    injected: int
    seconds: float
    ledger: Ledger


def run(
    name: str, broker: Any, folder: Path, progress: Progress, *, quick: bool, client: str
) -> Row:
    """Inject one kind of fault and count."""
    words, scenario, small, full = SCENARIOS[name]
    size = small if quick else full
    task = progress.add_task(name, total=size.events, faults=f"0/{size.faults} faults")
    injected = 0

    def fault() -> None:
        nonlocal injected
        injected += 1
        progress.update(task, faults=f"{injected}/{size.faults} faults")

    began = time.monotonic()
    fleet = scenario(
        Setting(
            broker,
            folder / name,
            size,
            random.Random(name),
            lambda decided: progress.update(task, completed=decided),
            fault,
            client,
        )
    )
    ledger = getattr(fleet, "kept", None) or fleet.ledger()
    ledger.restarts = {str(code): n for code, n in sorted(fleet.restarts.items())}
    state = "nothing lost or doubled" if ledger.clean else "[red]NOT CLEAN"
    progress.update(task, completed=size.events, faults=f"{injected} faults: {state}")
    return Row(name, words, injected, time.monotonic() - began, ledger)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer faults, about two minutes")
    parser.add_argument("--only", help=f"some of {','.join(SCENARIOS)}")
    parser.add_argument(
        "--client",
        default="kafka-python",
        choices=["kafka-python", "confluent", "mixed"],
        help="kafka.client of the processes, or mixed (default kafka-python)",
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--table", type=Path, help="write the table here, as Markdown")
    parser.add_argument("--keep", type=Path, help="keep logs and broker data in this folder")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    console = Console()
    temporary = None if args.keep else tempfile.TemporaryDirectory(prefix="reliability-")
    folder = args.keep.absolute() if args.keep else Path(temporary.name)  # type: ignore[union-attr]
    # The same way out for SIGTERM as for Ctrl-C: brokers and members are stopped, not left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    module = broker_module()
    broker = module.Broker(folder / "kafka")
    try:
        broker.start()
    except module.UnavailableError as error:
        console.print(f"Kafka cannot be had here: {error}")
        return module.UNAVAILABLE
    rows: list[Row] = []
    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[faults]}"),
    )
    try:
        with Progress(*columns, console=console) as progress:
            for name in names:
                rows.append(
                    run(name, broker, folder, progress, quick=args.quick, client=args.client)
                )
    finally:
        broker.stop()
        if temporary is not None:
            temporary.cleanup()
    result = {
        "quick": args.quick,
        "client": args.client,
        "kafka": broker.version,
        "rows": [asdict(row) for row in rows],
    }
    show(console, result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.table:
        args.table.write_text(markdown(result))
    return 0 if all(row.ledger.clean for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
