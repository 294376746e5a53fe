"""The part of :mod:`loadtest.replicas` that runs real processes on a real broker."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import yaml
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from loadtest.replicas import BATCH, Outcome, Runner
from monitor.transport.kafka_records import Topics

ROOT = Path(__file__).resolve().parents[1]
EVENTS_PER_SECOND = 2500.0
START_SECONDS, STUCK_SECONDS = 90.0, 120.0
SUSPICIOUS = ("flag", "quarantine")


def on_kafka(address: str) -> Runner:
    """Runs the monitor on the broker at ``address``."""

    def run(
        lines: Sequence[bytes], homes: npt.NDArray[np.int64], processes: int, merged: bool
    ) -> Outcome:
        mark = uuid.uuid4().hex[:8]
        names = {role: f"{mark}.{name}" for role, name in Topics().names().items()}
        partitions = int(homes.max()) + 1
        _create(address, names, partitions)
        settings = _settings(address, mark, names)
        settings["state"] = {"exchange_min_events": 512 if merged else 0}
        with _processes(settings, processes) as started:
            consumer = _reader(address, names["decisions"], partitions)
            _feed(address, names["feedback"], lines, homes)
            rows = [np.flatnonzero(homes == p) for p in range(partitions)]
            outcome = _collect(consumer, rows, started)
        outcome.input_bytes = sum(map(len, lines))
        outcome.state_bytes = _bytes_of(address, names["state"], partitions)
        return outcome

    return run


def _create(address: str, names: dict[str, str], partitions: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=address)
    admin.create_topics([NewTopic(names["input"], num_partitions=partitions, replication_factor=1)])
    admin.close()
    names["feedback"] = names["input"]


def _settings(address: str, mark: str, names: dict[str, str]) -> dict[str, Any]:
    topics = {role: name for role, name in names.items() if role != "feedback"}
    return {
        "transport": "kafka",
        "kafka": {
            "bootstrap_servers": address,
            "group_id": f"g-{mark}",
            "transactional_id_prefix": mark,
            "topics": topics,
        },
        "batch": {"max_events": BATCH},
        "http": {"enabled": False},
    }


@contextlib.contextmanager
def _processes(settings: dict[str, Any], count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Started, and ended again."""
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for n in range(count):
            config = Path(folder) / f"{n}.yaml"
            own = {**settings, "kafka": {**settings["kafka"], "instance": f"p{n}"}}
            own["quarantine"] = {"dir": str(Path(folder) / f"store-{n}")}
            config.write_text(yaml.safe_dump(own))
            with (Path(folder) / f"{n}.log").open("ab") as log:
                command = [sys.executable, "-m", "monitor", "run", "--config", str(config)]
                started.append(
                    subprocess.Popen(
                        command,
                        cwd=ROOT,
                        stdout=log,
                        stderr=log,
                        env={**os.environ, "PYTHONPATH": str(ROOT)},
                    )
                )
        try:
            deadline = time.monotonic() + START_SECONDS
            logs = [Path(folder) / f"{n}.log" for n in range(count)]
            while not all("partition ready" in log.read_text(errors="replace") for log in logs):
                if time.monotonic() > deadline:
                    raise RuntimeError("\n".join(log.read_text()[-2000:] for log in logs))
                time.sleep(0.2)
            yield started
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(60)


def _reader(address: str, topic: str, partitions: int) -> Any:
    consumer = KafkaConsumer(
        bootstrap_servers=address,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    consumer.assign([TopicPartition(topic, p) for p in range(partitions)])
    return consumer


def _feed(address: str, topic: str, lines: Sequence[bytes], homes: npt.NDArray[np.int64]) -> None:
    """Send the lines in order at a steady rate, the line's number as the key."""
    producer = KafkaProducer(bootstrap_servers=address, linger_ms=5)
    began = time.monotonic()
    for i, line in enumerate(lines):
        producer.send(topic, line, b"%d" % i, None, int(homes[i]))
        if i % 100 == 99:
            time.sleep(max(0.0, began + i / EVENTS_PER_SECOND - time.monotonic()))
    producer.flush(60)
    producer.close(5)


def _collect(
    consumer: Any, rows_of: list[npt.NDArray[np.int64]], started: list[subprocess.Popen[bytes]]
) -> Outcome:
    """Every event's risk and whether it was flagged, by the lines' numbers in each partition."""
    count = sum(map(len, rows_of))
    outcome = Outcome(np.full(count, np.nan), np.zeros(count, dtype=bool))
    missing, heard = count, time.monotonic()
    while missing > 0:
        for rows in consumer.poll(200, max_records=5000).values():
            heard = time.monotonic()
            for row in rows:
                decision = orjson.loads(row.value)
                at = rows_of[decision["partition"]][decision["offset"]]
                missing -= bool(np.isnan(outcome.risk[at]))
                outcome.risk[at] = decision["risk"]
                outcome.flagged[at] = decision["verdict"] in SUSPICIOUS
        if any(process.poll() is not None for process in started):
            raise RuntimeError("a process ended")
        if time.monotonic() - heard > STUCK_SECONDS:
            raise RuntimeError(f"{missing} events were not decided about")
    consumer.close()
    return outcome


def _bytes_of(address: str, topic: str, partitions: int) -> int:
    """Bytes of all values ever written to ``topic``, as far as compaction has left them."""
    consumer = _reader(address, topic, partitions)
    tps = [TopicPartition(topic, p) for p in range(partitions)]
    ends, total = consumer.end_offsets(tps), 0
    while any((consumer.position(tp) or 0) < ends[tp] for tp in tps):
        for rows in consumer.poll(500).values():
            total += sum(len(row.value or b"") for row in rows)
    consumer.close()
    return total
