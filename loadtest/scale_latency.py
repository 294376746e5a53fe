"""How long an event takes through the service at half of what it can do, and whether that grows.

From the record's own time, which the producer sets when it hands it over, until a consumer that
reads only what is committed has it from ``feedback.accepted``; both on this machine, by one clock.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event as Flag
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from loadtest.speed_kafka import (
    GLANCE_SECONDS,
    Input,
    Place,
    cpu_seconds,
    resident_megabytes,
    running,
    service,
    watch,
)
from loadtest.throughput_load import Workload

TICK_SECONDS = 0.005
SETTLE_SECONDS = 5.0
"""At the start of the steady load, not counted."""
GOAL_MS = 100.0


def feed(place: Place, values: Sequence[bytes], per_second: float, go: Flag) -> None:
    """Send ``values`` at a steady rate, in a process of its own so that nobody waits for it."""
    producer = Producer(
        {"bootstrap.servers": place.address, "linger.ms": 2, "acks": "all", "log_level": 2}
    )
    go.wait()
    began, sent = time.monotonic(), 0
    while sent < len(values):
        owed = min(len(values), int((time.monotonic() - began) * per_second) + 1)
        for i in range(sent, owed):
            producer.produce(place.topics.input, values[i], b"%d" % i, i % place.partitions)
        sent = owed
        producer.poll(0)
        time.sleep(TICK_SECONDS)
    producer.flush(60)


@dataclass
class Seen:
    """Delays in seconds, by when the event arrived, and the process's memory and CPU time."""

    at: list[float] = field(default_factory=list)
    delay: list[float] = field(default_factory=list)
    process: list[tuple[float, float, float]] = field(default_factory=list)


def _follow(place: Place) -> Consumer:
    """Reads what is accepted from now on."""
    consumer = Consumer(
        {
            "bootstrap.servers": place.address,
            "group.id": f"learner-{place.mark}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 5,
            "log_level": 2,
        }
    )
    topic, parts = place.topics.accepted, []
    for p in range(place.partitions):
        end = consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1]
        parts.append(TopicPartition(topic, p, end))
    consumer.assign(parts)
    return consumer


def _listen(
    consumer: Consumer,
    process: subprocess.Popen[bytes],
    seconds: float,
    tell: Callable[[int], None],
) -> Seen:
    seen, began, looked = Seen(), time.time(), 0.0
    while (now := time.time()) - began < seconds:
        rows = consumer.consume(500, 0.02)
        arrived = time.time()
        for row in rows:
            if row.error() is None:
                seen.at.append(arrived - began)
                seen.delay.append(arrived - row.timestamp()[1] / 1000)
        if now - looked >= 1.0:
            looked = now
            memory, cpu = resident_megabytes(process.pid), cpu_seconds(process.pid)
            seen.process.append((now - began, memory, cpu))
            tell(int(now - began))
        if process.poll() is not None:
            raise RuntimeError("the service has ended")
    return seen


def percentiles(seen: Seen, per_second: float) -> dict[str, Any]:
    """What was seen, in figures; milliseconds, megabytes."""
    at, delay = np.array(seen.at), 1e3 * np.array(seen.delay)
    counted = delay[at >= SETTLE_SECONDS]
    if not len(counted):
        raise RuntimeError("nothing was accepted")
    second = at.astype(np.int64)
    over_time = []
    for when, memory, cpu in seen.process:
        of = delay[second == int(when)]
        if len(of):
            row = {"second": when, "resident_megabytes": memory, "cpu_seconds": cpu}
            over_time.append(row | _points(of, (50, 99)))
    first, last = seen.process[0], seen.process[-1]
    span = at.max() - SETTLE_SECONDS
    return {
        "asked_per_second": per_second,
        "accepted_per_second": float(len(counted) / span) if span > 0 else 0.0,
        **_points(counted, (50, 90, 99, 99.9)),
        "largest": float(counted.max()),
        "cpu_share": (last[2] - first[2]) / (last[0] - first[0]),
        "over_time": over_time,
    }


def _points(delay: Any, at: Sequence[float]) -> dict[str, float]:
    return {f"p{q:g}": float(np.percentile(delay, q)) for q in at}


def half_load(
    place: Place,
    load: Workload,
    rate: float,
    more: dict[str, Any],
    tell: Callable[[int], None],
) -> dict[str, Any]:
    """Prime one service, then send it ``load``'s measured events at ``rate`` a second."""
    place.create()
    prepared = Input(place, load.values[: load.prime])
    context = multiprocessing.get_context("spawn")
    go = context.Event()
    rest = load.values[load.prime :]
    feeder = context.Process(target=feed, args=(place, rest, rate, go), daemon=True)
    feeder.start()
    try:
        with running([service(place, "s", more)]) as processes:
            prepared.show()
            watch(place, processes, load.prime, lambda _: None)
            time.sleep(10 * GLANCE_SECONDS)
            consumer = _follow(place)
            go.set()
            try:
                seen = _listen(consumer, processes[0], len(rest) / rate, tell)
            finally:
                consumer.close()
    finally:
        feeder.kill()
        feeder.join()
        _forget(place)
    return percentiles(seen, rate)


def _forget(place: Place) -> None:
    """Take the topics away again: later measurements share the broker."""
    admin = AdminClient({"bootstrap.servers": place.address})
    for done in admin.delete_topics(list(place.topics.names().values())).values():
        done.exception(10)
