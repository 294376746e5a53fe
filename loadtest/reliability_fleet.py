"""Monitor processes on a real broker, what is fed to them, and the ledger of what came of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml
from confluent_kafka import Producer
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from monitor.transport.kafka import KafkaConfig, KafkaTransport, Topics

ROOT = Path(__file__).resolve().parents[1]
PARTITIONS = 4
TRICKLE_SECONDS = 0.05
RESTARTS = (3,)
"""Exit codes after which an orchestrator starts the process again."""


def events(count: int, seed: int) -> Iterator[tuple[int, bytes, bytes]]:
    """(partition, key, value): a two-class stream with flipped labels and broken records."""
    rng = random.Random(seed)
    for i in range(count):
        label = i % 2
        flipped = rng.random() < 0.02
        event = {
            "id": f"e-{i}",
            "ts": 1_700_000_000 + i * 0.05,
            "source": f"acct-{rng.randrange(5) if flipped else 5 + rng.randrange(200)}",
            "label": 1 - label if flipped else label,
            "features": [round(rng.gauss(3.0 * label * (j % 2), 1.0), 4) for j in range(8)],
        }
        value = orjson.dumps(event)
        if i % 97 == 0:
            value = [b"{", b"\xff\xfe", b'{"id":"x"}', value[:-1] + b',"weight":-1}'][i % 4]
        yield rng.randrange(PARTITIONS), b"e-%d" % i, value


class Feeder:
    """Produces the events in a thread, each exactly once (idempotent), at most so fast.

    With a rate, the last fifth only trickles until ``finish`` is called: so there is something to
    commit until the last fault has shown its effect, however slow the machine.
    """

    def __init__(self, address: str, topic: str, count: int, per_second: float | None) -> None:
        self.sent = 0
        self._stop, self._hurry = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._of = (address, topic, count, per_second)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        address, topic, count, per_second = self._of
        producer = Producer(
            {
                "bootstrap.servers": address,
                "enable.idempotence": True,
                "linger.ms": 20,
                "message.timeout.ms": 300_000,
                "log_level": 2,
            }
        )
        began = time.monotonic()
        try:
            for partition, key, value in events(count, 1):
                while True:
                    try:
                        producer.produce(topic, value, key, partition, headers={"h": key})
                        break
                    except BufferError:
                        producer.poll(0.1)
                self.sent += 1
                producer.poll(0)
                if per_second and self.sent % 100 == 0:
                    ahead = self.sent / per_second - (time.monotonic() - began)
                    if self._stop.wait(max(0.0, ahead)):
                        return
                if per_second and self.sent > 0.8 * count:
                    self._hurry.wait(TRICKLE_SECONDS)
            left = producer.flush(300)
            if left:
                raise RuntimeError(f"{left} events could not be produced")
        except BaseException as error:
            self._error = error

    def finish(self) -> None:
        """Wait until everything is produced."""
        self._hurry.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Give up."""
        self._hurry.set()
        self._stop.set()


class Member:
    """One ``python -m monitor run``, as an orchestrator would start it."""

    def __init__(self, name: str, settings: dict[str, Any], folder: Path) -> None:
        self.name = name
        self.config = folder / f"{name}.yaml"
        self.config.write_text(yaml.safe_dump(settings))
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.wanted = False
        self.codes: Counter[int] = Counter()

    def start(self) -> None:
        command = [sys.executable, "-m", "monitor", "run", "--config", str(self.config)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path}
            )
        self.wanted = True

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.process is not None and self.alive:
            self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def end(self, seconds: float = 60.0) -> int:
        """Ask it to stop, and its exit code."""
        self.wanted = False
        if self.process is None:
            return 0
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9

    def tail(self, size: int = 3000) -> str:
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""


class Fleet:
    """Some members in one consumer group, restarted when they end as an orchestrator would.

    Parameters
    ----------
    address
        Bootstrap servers.
    folder
        For settings and logs.
    replicas
        Copies of each topic.
    kafka
        More settings of the section ``kafka``, for all members; ``client`` may be ``mixed`` for
        one after the other.
    """

    def __init__(
        self, address: str, folder: Path, *, replicas: int = 1, kafka: dict[str, Any] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address, self.folder = address, folder
        self.mark = f"m{uuid.uuid4().hex[:8]}"  # a bare 12e4 would be a number in YAML
        self.topics = Topics(**{k: f"{self.mark}.{v}" for k, v in Topics().names().items()})
        self._kafka = {
            "bootstrap_servers": address,
            "group_id": f"g-{self.mark}",
            "transactional_id_prefix": self.mark,
            "topics": self.topics.names(),
            "session_timeout_seconds": 6.0,
            "request_timeout_seconds": 15.0,
            "commit_deadline_seconds": 15.0,
            "partitions": PARTITIONS,
            "replication_factor": replicas,
            **(kafka or {}),
        }
        self.members: list[Member] = []
        self.restarts: Counter[int] = Counter()
        self.decided = 0
        self._create()
        self._consumer = self._follow()

    def _create(self) -> None:
        config = KafkaConfig(
            bootstrap_servers=self.address,
            group_id=f"creates-{self.mark}",
            transactional_id_prefix=f"creates-{self.mark}",
            topics=self.topics,
            partitions=PARTITIONS,
            replication_factor=self._kafka["replication_factor"],
        )
        transport = KafkaTransport(config)
        transport.open()
        transport.close()

    def _follow(self) -> Any:
        consumer = self._reader()
        consumer.assign([TopicPartition(self.topics.decisions, p) for p in range(PARTITIONS)])
        return consumer

    def _reader(self) -> Any:
        return KafkaConsumer(
            bootstrap_servers=self.address.split(","),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=4 << 20,
            reconnect_backoff_max_ms=1000,
        )

    def add(self, name: str, *, like: str | None = None, static: bool = True) -> Member:
        """Start one more member; ``like`` gives it the transactional id of another."""
        kafka = {**self._kafka, "instance": like or name}
        if kafka.get("client") == "mixed":
            kafka["client"] = ("kafka-python", "confluent")[len(self.members) % 2]
        if static:
            kafka["group_instance_id"] = like or name
        settings = {
            "transport": "kafka",
            "kafka": kafka,
            "batch": {"max_events": 500},
            "quarantine": {"dir": str(Path(self.folder) / f"store-{like or name}")},
            "http": {"enabled": False},
            "log": {"format": "text"},
        }
        member = Member(name, settings, self.folder)
        self.members.append(member)
        member.start()
        return member

    def joined(self, tell: Callable[[int], None], seconds: float = 90.0) -> None:
        """Wait until every member has partitions of its own."""
        deadline = time.monotonic() + seconds
        while any("partition ready" not in member.tail(1 << 20) for member in self.members):
            self.rest(0.2, tell)
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all have joined:\n{self.members[-1].tail()}")

    def tend(self) -> None:
        """Count what was committed since; start again what ended and may be started again."""
        try:
            found = self._consumer.poll(100, max_records=20_000)
            self.decided += sum(map(len, found.values()))
        except kafka_errors.KafkaError:
            pass
        for member in self.members:
            if member.wanted and not member.alive and member.process is not None:
                code = member.process.returncode
                if code not in RESTARTS:
                    raise RuntimeError(f"{member.name} ended with {code}:\n{member.tail()}")
                self.restarts[code] += 1
                member.codes[code] += 1
                member.start()

    def until(self, decided: int, tell: Callable[[int], None], *, seconds: float = 300.0) -> None:
        """Tend until so many decisions are committed. Raises RuntimeError when they are not."""
        deadline = time.monotonic() + seconds
        while self.decided < decided:
            self.tend()
            tell(self.decided)
            if time.monotonic() > deadline:
                tails = "\n".join(f"--- {m.name}\n{m.tail(1500)}" for m in self.members)
                raise RuntimeError(f"{self.decided} of {decided} events decided\n{tails}")

    def rest(self, seconds: float, tell: Callable[[int], None]) -> None:
        """Tend for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.tend()
            tell(self.decided)

    def close(self) -> None:
        """Stop every member and the counting."""
        for member in self.members:
            member.signal(signal.SIGCONT)
            member.end()
        self._consumer.close(autocommit=False)

    def read(self, topic: str) -> list[Any]:
        """Every committed record of a topic."""
        consumer = self._reader()
        try:
            parts = [TopicPartition(topic, p) for p in range(PARTITIONS)]
            consumer.assign(parts)
            ends = consumer.end_offsets(parts, timeout_ms=30_000)
            rows: list[Any] = []
            while any((consumer.position(tp, timeout_ms=5000) or 0) < ends[tp] for tp in parts):
                for found in consumer.poll(500, max_records=20_000).values():
                    rows += found
            return rows
        finally:
            consumer.close(autocommit=False)

    def ledger(self) -> Ledger:
        """Hold everything that went in against everything that came out."""
        fed = self.read(self.topics.input)
        outputs = {
            name: self.read(getattr(self.topics, name))
            for name in ("accepted", "quarantine", "invalid")
        }
        decisions = [orjson.loads(r.value) for r in self.read(self.topics.decisions)]
        return Ledger.of(fed, outputs, decisions)


@dataclass
class Ledger:
    """How many events went in and came out, and what is wrong with that."""

    events_in: int
    events_out: int
    by_output: dict[str, int]
    lost: int
    doubled: int
    changed: int
    out_of_order: int
    decisions_lost: int
    decisions_doubled: int
    restarts: dict[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        wrong = (self.lost, self.doubled, self.changed, self.out_of_order)
        return not any((*wrong, self.decisions_lost, self.decisions_doubled))

    @classmethod
    def of(
        cls, fed: list[Any], outputs: dict[str, list[Any]], decisions: list[dict[str, Any]]
    ) -> Ledger:
        """Records are told apart by key and compared by value and headers."""
        want = Counter(r.key for r in fed)
        out = [r for rows in outputs.values() for r in rows]
        got = Counter(r.key for r in out)
        value = {r.key: (r.value, list(r.headers)[:1], r.partition) for r in fed}
        changed = sum(value.get(r.key) != (r.value, list(r.headers)[:1], r.partition) for r in out)
        place = {r.key: r.offset for r in fed}
        at: Counter[int] = Counter()
        disorder = 0
        for r in outputs["accepted"]:
            disorder += place.get(r.key, -1) < at[r.partition]
            at[r.partition] = place.get(r.key, -1)
        places = Counter((r.partition, r.offset) for r in fed)
        decided = Counter((d["partition"], d["offset"]) for d in decisions)
        return cls(
            events_in=len(fed),
            events_out=len(out),
            by_output={name: len(rows) for name, rows in outputs.items()},
            lost=(want - got).total(),
            doubled=(got - want).total(),
            changed=changed,
            out_of_order=disorder,
            decisions_lost=(places - decided).total(),
            decisions_doubled=(decided - places).total(),
        )
