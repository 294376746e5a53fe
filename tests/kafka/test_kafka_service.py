"""The service as a process on a real broker: every event in exactly one place, killed or not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
import yaml
from kafka import KafkaConsumer, TopicPartition

from loadtest.reliability_fleet import PARTITIONS, events

ROOT = Path(__file__).resolve().parents[2]
EVENTS = 20_000
KILLS = 5

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(420)]


class Process:
    """``python -m monitor run``, started as an operator would."""

    def __init__(self, folder: Path, settings: dict) -> None:
        self.config = folder / "monitor.yaml"
        own = {name: {"dir": str(folder / "store")} for name in ("quarantine", "blast")}
        self.config.write_text(yaml.safe_dump({**settings, **own}))
        self.log = folder / "monitor.log"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "monitor", "run", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "PYTHONHASHSEED": "0"}
            )

    def end(self, number) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Progress:
    """Counts committed decisions as they appear."""

    def __init__(self, cluster) -> None:
        self.consumer = KafkaConsumer(
            bootstrap_servers=cluster.bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        self.consumer.assign(
            [TopicPartition(cluster.topics.decisions, p) for p in range(PARTITIONS)]
        )
        self.count = 0

    def wait(self, count, process: Process, seconds=180.0) -> None:
        deadline = time.monotonic() + seconds
        while self.count < count:
            self.count += sum(map(len, self.consumer.poll(200, max_records=5000).values()))
            code = process.process.poll()
            tail = process.log.read_text(errors="replace")[-3000:]
            assert code is None, f"the service ended with {code}:\n{tail}"
            assert time.monotonic() < deadline, f"{self.count} of {count} decided:\n{tail}"


def settings(cluster, **kafka):
    return {
        "transport": "kafka",
        "kafka": {
            "client": cluster.client,
            "bootstrap_servers": cluster.bootstrap,
            "group_id": f"g-{cluster.mark}",
            "transactional_id_prefix": cluster.mark,
            "instance": "one",
            "topics": cluster.topics.names(),
            "session_timeout_seconds": 6.0,
            "partitions": PARTITIONS,
            **kafka,
        },
        "batch": {"max_events": 500},
        "http": {"enabled": False},
    }


def produce(cluster, rows):
    """Put events in."""
    cluster.produce([(p, key, value, [("h", key)], None) for p, key, value in rows])


def feed(cluster, seed, first=EVENTS):
    """Create the topics, put the ``first`` events in, and return value and place by key, of all."""
    cluster.transport(partitions=PARTITIONS, instance="creates-the-topics").close()
    rows = list(events(EVENTS, seed))
    produce(cluster, rows[:first])
    return {key: value for _, key, value in rows}, {key: p for p, key, _ in rows}


def check(cluster, expected, places):
    """Every event is in exactly one output, unchanged, and was decided exactly once."""
    names = ("accepted", "quarantine", "invalid")
    found = {name: cluster.read(getattr(cluster.topics, name)) for name in names}
    counts = {name: len(rows) for name, rows in found.items()}
    together = [r for rows in found.values() for r in rows]
    assert sum(counts.values()) == EVENTS, counts
    assert len({r.key for r in together}) == EVENTS, counts
    assert {r.key: r.value for r in together} == expected
    assert all(r.headers[0] == ("h", r.key) for r in together)
    assert counts["invalid"] == len(range(0, EVENTS, 97))
    assert counts["accepted"] > 0.9 * EVENTS
    # Within an input partition the accepted events keep their order.
    order = {}
    for r in found["accepted"]:
        assert r.partition == places[r.key]
        order.setdefault(r.partition, []).append(int(r.key[2:]))
    assert all(keys == sorted(keys) for keys in order.values())
    decided = cluster.read(cluster.topics.decisions)
    assert len(decided) == len({r.key for r in decided}) == EVENTS
    actions = [orjson.loads(r.value)["action"] for r in decided]
    assert [actions.count(a) for a in ("pass", "hold", "reject")] == list(counts.values())


@pytest.mark.parametrize("client", ["kafka-python"], indirect=True)
def test_every_event_ends_up_in_exactly_one_place(cluster, tmp_path):
    expected, places = feed(cluster, seed=1)
    with Process(tmp_path, settings(cluster)) as process:
        Progress(cluster).wait(EVENTS, process)
        assert process.end(signal.SIGTERM) == 0
    check(cluster, expected, places)


# With the other client it is killed in tests/kafka/test_kafka_peers.py and test_kafka_faults.py.
@pytest.mark.parametrize("client", ["confluent"], indirect=True)
def test_also_when_killed_at_random_moments(cluster, tmp_path):
    expected, places = feed(cluster, seed=2)
    rng = random.Random(int(os.environ.get("KILL_SEED", "7")))
    # A static member is back in the group at once, its own session need not run out first.
    with Process(tmp_path, settings(cluster, group_instance_id="one")) as process:
        progress = Progress(cluster)
        for kill in range(KILLS):
            # After some more was committed, so that there is state to come back to each time.
            progress.wait(kill * EVENTS // (KILLS + 2) + 1, process)
            time.sleep(rng.uniform(0.0, 0.5))
            process.end(signal.SIGKILL)
            process.start()
        progress.wait(EVENTS, process)
        assert process.end(signal.SIGTERM) == 0
    check(cluster, expected, places)
