"""Processes on a real broker whose input waits for them: how fast they get through it.

The input is produced in one transaction before the processes start, and committed when all of them
hold their partitions. So nobody begins early, and nothing is produced while they are measured.
Their progress is read from the offsets they commit, their processor time from the kernel; both only
look and cost next to nothing. What comes before the first mark (``prime``) is not counted.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.transport.kafka_records import Topics

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS, STUCK_SECONDS = 120.0, 120.0
GLANCE_SECONDS = 0.05
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, its ended threads included."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_megabytes(pid: int) -> float:
    """Memory of a process now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has ended")


@dataclass(frozen=True)
class Place:
    """Topics of their own on a broker.

    Attributes
    ----------
    address
        Bootstrap servers.
    partitions
        Of the input and the outputs.
    client
        The service's setting ``kafka.client``; None leaves it out.
    broker_pid
        None where the broker is not of this machine.
    """

    address: str
    partitions: int
    client: str | None = None
    broker_pid: int | None = None
    mark: str = field(default_factory=lambda: f"s{uuid.uuid4().hex[:8]}")

    @property
    def topics(self) -> Topics:
        return Topics(**{role: f"{self.mark}.{name}" for role, name in Topics().names().items()})

    @property
    def group(self) -> str:
        return f"g-{self.mark}"

    def create(self) -> None:
        """Make the input; the service makes the rest."""
        admin = AdminClient({"bootstrap.servers": self.address})
        topic = NewTopic(self.topics.input, num_partitions=self.partitions, replication_factor=1)
        for made in admin.create_topics([topic]).values():
            made.result(30)

    def settings(self, instance: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
        """Of a service here: the defaults, but for names."""
        kafka: dict[str, Any] = {
            "bootstrap_servers": self.address,
            "group_id": self.group,
            "transactional_id_prefix": self.mark,
            "instance": instance,
            "topics": self.topics.names(),
            "partitions": self.partitions,
        }
        if self.client is not None:
            kafka["client"] = self.client
        found: dict[str, Any] = {
            "transport": "kafka",
            "kafka": kafka,
            "http": {"enabled": False},
            "log": {"format": "text"},
        }
        for section, values in (more or {}).items():
            found[section] = {**found.get(section, {}), **values}
        return found


class Input:
    """Records in an open transaction: there, but not to be seen before :meth:`show`."""

    def __init__(self, place: Place, values: Sequence[bytes], first: int = 0) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": place.address,
                "transactional.id": f"input-{place.mark}-{first}",
                "transaction.timeout.ms": 600_000,
                "linger.ms": 20,
                "batch.size": 500_000,
                "queue.buffering.max.kbytes": 200_000,
                "log_level": 2,
            }
        )
        self._producer.init_transactions(60)
        self._producer.begin_transaction()
        topic = place.topics.input
        for i, value in enumerate(values):
            while True:
                try:
                    self._producer.produce(topic, value, b"%d" % i, (first + i) % place.partitions)
                    break
                except BufferError:
                    self._producer.poll(0.1)
            if i % 1000 == 0:
                self._producer.poll(0)
        if self._producer.flush(120):
            raise RuntimeError("the input could not be produced")

    def show(self) -> None:
        """Let them be read."""
        self._producer.commit_transaction(60)


@contextlib.contextmanager
def running(
    commands: Sequence[Callable[[Path], list[str]]], ready: str = "partition ready"
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes, each ready for its partitions by what it logs; ended at the end."""
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logs = [folder / f"{n}.log" for n in range(len(commands))]
        try:
            for n, command in enumerate(commands):
                with logs[n].open("wb") as log:
                    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
                    environment = {**os.environ, "PYTHONPATH": path}
                    started.append(
                        subprocess.Popen(
                            *(command(folder),),
                            cwd=ROOT,
                            stdout=log,
                            stderr=log,
                            env=environment,
                        )
                    )
            deadline = time.monotonic() + START_SECONDS
            while not all(ready in log.read_text(errors="replace") for log in logs):
                if time.monotonic() > deadline or any(p.poll() is not None for p in started):
                    tails = "\n".join(log.read_text(errors="replace")[-3000:] for log in logs)
                    raise RuntimeError(f"a process is not ready:\n{tails}")
                time.sleep(0.1)
            yield started
        except RuntimeError as error:
            tails = "\n".join(
                log.read_text(errors="replace")[-1500:] for log in logs if log.exists()
            )
            raise RuntimeError(f"{error}\n{tails}") from error
        finally:
            for process in started:
                process.terminate()
            for process in started:
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def service(place: Place, instance: str, more: dict[str, Any] | None = None) -> Any:
    """The command of a service here."""

    def command(folder: Path) -> list[str]:
        config = folder / f"{instance}.yaml"
        config.write_text(yaml.safe_dump(place.settings(instance, more)))
        return [sys.executable, "-m", "monitor", "run", "--config", str(config)]

    return command


class Progress:
    """How far a group has come, by the offsets it has committed."""

    def __init__(self, place: Place) -> None:
        self._parts = [TopicPartition(place.topics.input, p) for p in range(place.partitions)]
        self._consumer = Consumer(
            {"bootstrap.servers": place.address, "group.id": place.group, "log_level": 2}
        )

    def events(self) -> int:
        """Committed events, of all partitions."""
        try:
            found = self._consumer.committed(self._parts, timeout=10)
        except KafkaException:  # the coordinator is just moving in
            return 0
        return sum(max(0, tp.offset) for tp in found)

    def close(self) -> None:
        self._consumer.close()


@dataclass(frozen=True)
class Sample:
    """One glance: seconds on the clock, events committed, and CPU seconds of each process."""

    at: float
    events: int
    cpu: tuple[float, ...]
    broker: float


def watch(
    place: Place,
    processes: Sequence[subprocess.Popen[bytes]],
    total: int,
    tell: Callable[[int], None],
) -> list[Sample]:
    """Glances until ``total`` events are committed. Raises RuntimeError when they never are."""
    progress, samples = Progress(place), []
    moved, before = time.monotonic(), -1
    try:
        while before < total:
            events = progress.events()
            broker = 0.0 if place.broker_pid is None else cpu_seconds(place.broker_pid)
            cpu = tuple(cpu_seconds(process.pid) for process in processes)
            samples.append(Sample(time.monotonic(), events, cpu, broker))
            tell(events)
            if events > before:
                moved, before = time.monotonic(), events
            if any(process.poll() is not None for process in processes):
                raise RuntimeError("a process has ended")
            if time.monotonic() - moved > STUCK_SECONDS:
                raise RuntimeError(f"stuck at {events} of {total} events")
            time.sleep(GLANCE_SECONDS)
    finally:
        progress.close()
    return samples


def rates(samples: Sequence[Sample], prime: int, *, broker: bool) -> dict[str, Any]:
    """What the glances say of the events after the first ``prime``.

    The first glance behind the mark, and the one at which the end was reached, bound what is
    counted: both show a moment at which something had just been committed.
    """
    end = next(i for i, s in enumerate(samples) if s.events == samples[-1].events)
    start = next(i for i, s in enumerate(samples) if s.events >= prime)
    if end <= start:
        raise ValueError("all was committed at once: measure more events")
    first, last = samples[start], samples[end]
    events, wall = last.events - first.events, last.at - first.at
    each = np.array(last.cpu) - np.array(first.cpu)
    cpu = float(each.sum())
    return {
        "events": events,
        "seconds": wall,
        "events_per_second": events / wall,
        "cpu_us": 1e6 * cpu / events,
        "events_per_cpu_second": events / cpu,
        "cpu_share": [float(share) for share in each / wall],
        "broker_cpu_us": 1e6 * (last.broker - first.broker) / events if broker else None,
    }


@contextlib.contextmanager
def broker() -> Iterator[tuple[str, int | None]]:
    """Address and process id of a broker. Raises SystemExit where there is none."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield given, None
        return
    sys.path.insert(0, str(ROOT / "deploy" / "kafka-local"))
    import broker as local  # noqa: PLC0415 - a script beside the package

    with tempfile.TemporaryDirectory() as folder:
        found = local.Broker(Path(folder) / "kafka")
        try:
            found.start()
        except local.UnavailableError as error:
            raise SystemExit(f"no broker: {error}; or set KAFKA_BOOTSTRAP_SERVERS") from error
        try:
            yield found.address, found._process.pid
        finally:
            found.stop()
