"""What the Kafka tests share: fresh names, plain clients, and hand-made commit units."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
import uuid
from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from monitor.core.ports import CommitUnit, PartitionCommit
from monitor.core.types import Action, DecisionBatch, Mode, Reason, Verdict
from monitor.transport.kafka import KafkaConfig, KafkaTransport, Topics
from monitor.transport.kafka_port import RefusedError

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ("kafka-python", "confluent")


def broker_module():
    """deploy/kafka-local/broker.py, which is a script and not in the package."""
    name = "kafka_local_broker"
    if name not in sys.modules:
        path = ROOT / "deploy" / "kafka-local" / "broker.py"
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


class Cluster:
    """One test's corner of the broker."""

    def __init__(self, bootstrap: str, client: str = "kafka-python") -> None:
        self.bootstrap, self.client = bootstrap, client
        self.mark = f"m{uuid.uuid4().hex[:8]}"  # a bare 12e4 would be a number in YAML
        names = {role: f"{self.mark}.{name}" for role, name in Topics().names().items()}
        self.topics = Topics(**names)
        self.opened: deque[KafkaTransport] = deque()

    def config(self, **changes) -> KafkaConfig:
        base = KafkaConfig(
            client=self.client,
            bootstrap_servers=self.bootstrap,
            group_id=f"g-{self.mark}",
            transactional_id_prefix=self.mark,
            instance="one",
            topics=self.topics,
            partitions=2,
            request_timeout_seconds=10.0,
            commit_deadline_seconds=10.0,
            session_timeout_seconds=6.0,
        )
        return replace(base, **changes)

    def transport(self, **changes) -> KafkaTransport:
        """An open transport, closed after the test."""
        made = KafkaTransport(self.config(**changes))
        self.opened.append(made)
        made.open()
        return made

    def produce(self, records, topic=None) -> None:
        """Send (partition, key, value, headers, milliseconds) rows to the input."""
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=20, batch_size=1 << 18)
        sent = [
            producer.send(topic or self.topics.input, value, key, headers, partition, at)
            for partition, key, value, headers, at in records
        ]
        producer.flush(30)
        for future in sent:
            future.get(10)
        producer.close(5)

    def read(self, topic, **options) -> list:
        """Every committed record of a topic, in partition order."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4 << 20,
            **options,
        )
        try:
            parts = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
            consumer.assign(parts)
            ends = consumer.end_offsets(parts, timeout_ms=10_000)
            rows = []
            while any(consumer.position(tp, timeout_ms=1000) < ends[tp] for tp in parts):
                for found in consumer.poll(500, max_records=10_000).values():
                    rows += found
            return sorted(rows, key=lambda r: (r.partition, r.offset))
        finally:
            consumer.close(autocommit=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        while self.opened:
            self.opened.pop().close()


def poll_until(transport, count, seconds=20.0):
    """Poll until ``count`` records came, and return (batches by poll, resumes)."""
    batches, resumes, left = [], [], seconds
    while sum(map(len, batches)) < count and left > 0:
        polled = transport.poll(1000, 0.5)
        resumes += polled.assigned
        batches += polled.batches
        left -= 0.5
    return batches, resumes


def judge(raw, actions=None):
    """A decision batch as the gate would make it: ``actions`` by row, PASS where not named."""
    n = len(raw)
    action = np.full(n, int(Action.PASS), dtype=np.uint8)
    verdict = np.full(n, int(Verdict.ACCEPT), dtype=np.uint8)
    reject = np.zeros(n, dtype=np.uint8)
    reasons = {}
    for row, to in (actions or {}).items():
        action[row] = int(to)
        verdict[row] = int(Verdict.QUARANTINE if to == Action.HOLD else Verdict.INVALID)
        reject[row] = 0 if to == Action.HOLD else 2
        reasons[row] = (Reason("test", 3.0, 0.001, 0.001, f"row {row} looks odd – très"),)
    return DecisionBatch(
        partition=raw.partition,
        offset=raw.offset,
        risk=np.full(n, 3.25),
        channel=np.full(n, 255, dtype=np.uint8),
        verdict=verdict,
        action=action,
        reject=reject,
        warmup=np.zeros(n, dtype=np.bool_),
        p_value=np.full((n, 1), np.nan),
        channels=("test",),
        reasons=reasons,
        policy_version=1,
        mode=Mode.ENFORCE,
        records=[b'{"offset":%d}' % offset for offset in raw.offset.tolist()],
    )


def unit(*batches, actions=None, stamp=b"stamp", snapshot=None):
    """A commit unit of whole raw batches."""
    parts = [
        PartitionCommit(raw, judge(raw, actions), raw.next_offset, stamp, snapshot)
        for raw in batches
    ]
    return CommitUnit(tuple(parts))


class Looping:
    """Polls and commits in a thread, as the service does, until the end of the block."""

    def __init__(self, transport) -> None:
        self.transport, self.done, self.resumed, self.revoked = transport, [], [], []
        self._stop, self._error = threading.Event(), None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                polled = self.transport.poll(100, 0.05)
                self.resumed += polled.assigned
                self.revoked += polled.revoked
                if polled.batches:
                    self._commit(polled.batches)
            self.transport.close()
        except Exception as error:
            self._error = error

    def _commit(self, batches) -> None:
        try:
            self.transport.commit(unit(*batches, snapshot=b"snapshot"))
        except RefusedError:  # a rebalance between poll and commit: the service goes back, too
            self.transport.abort()
        else:
            self.done += [v for b in batches for v in b.values]

    def wait(self, condition, seconds=30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self._error is not None:
                raise self._error
            assert time.monotonic() < deadline, (len(self.done), self.resumed, self.revoked)
            time.sleep(0.05)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(30)
        if self._error is not None:
            raise self._error
