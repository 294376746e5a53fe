"""Labelled feedback for the compose stack: honest accounts at a steady pace, and attacks in turn.

Every cycle is calm first and then attacked, by a ring of five accounts that flips labels or stamps
a trigger; a few records are broken. What the label would have been without the attack stands in
``meta.clean``, where the monitor does not look; the example learners are scored by it.

    python deploy/compose/generator.py --bootstrap-servers localhost:9092
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaError
from river.datasets import synth
from stopping import Stop

from monitor.runtime.inject import IN_PLACE, Stream, honest_sources, inject

LABELS = ("billing", "fraud", "spam")
FEATURES = 8
SOURCES = 200
BROKEN_EVERY = 500
BROKEN = (b"{", b"\xff\xfe\x00", b'{"id": "no-label", "ts": 0, "source": "acct-1"}')
TICK_SECONDS = 0.05


def honest(count: int, cycle: int, seed: int) -> Stream:
    """``count`` events of three kinds in eight features, the same concept in every cycle."""
    rows = synth.RandomRBF(
        seed_model=seed,
        seed_sample=seed + 1 + cycle,
        n_classes=len(LABELS),
        n_features=FEATURES,
        n_centroids=12,
    )
    pairs = list(islice(rows, count))
    return Stream(
        name=f"cycle-{cycle}",
        columns=tuple(f"f{column}" for column in range(FEATURES)),
        x=np.array([list(x.values()) for x, _ in pairs], dtype=np.float64),
        y=np.array([y for _, y in pairs], dtype=np.int64),
        labels=LABELS,
        source=honest_sources(count, count=SOURCES, seed=seed + cycle),
        ts=np.arange(count, dtype=np.float64),
    )


def cycle_events(options: argparse.Namespace, cycle: int) -> Iterator[dict[str, Any]]:
    """The events of one cycle, without id and time."""
    length = options.calm + options.attack
    count = int(options.rate * length)
    clean = honest(count, cycle, options.seed)
    attack = options.attacks[cycle % len(options.attacks)]
    found = inject(
        clean,
        attack,
        rate=options.share,
        clean_prefix=min(options.calm / length, 0.95),
        seed=options.seed + cycle,
    ).stream
    # Each cycle's ring is a new one, as after its predecessor was found out.
    found = replace(
        found, source=tuple(name.replace("ring-", f"ring-{cycle}-") for name in found.source)
    )
    for row in range(count):
        yield {
            "source": found.source[row],
            "label": LABELS[int(found.y[row])],
            "features": dict(zip(found.columns, found.x[row].round(6).tolist(), strict=True)),
            "meta": {"clean": LABELS[int(clean.y[row])], "attack": attack},
        }


def records(options: argparse.Namespace, run: str) -> Iterator[tuple[bytes | None, bytes]]:
    """(key, value) without end; the time stamp is that of the moment it is asked for."""
    number = cycle = 0
    while True:
        for event in cycle_events(options, cycle):
            number += 1
            if number % BROKEN_EVERY == 0:
                yield None, BROKEN[number // BROKEN_EVERY % len(BROKEN)]
            stamped = {"id": f"{run}-{number}", "ts": round(time.time(), 3), **event}
            yield event["source"].encode(), json.dumps(stamped).encode()
        cycle += 1


def connect(options: argparse.Namespace, stop: Stop) -> KafkaProducer | None:
    """A producer, as soon as the input topic is there; None when told to stop before.

    The topic is the monitor's to create: with its settings, not with the broker's defaults.
    """
    while not stop.asked:
        try:
            producer = KafkaProducer(
                bootstrap_servers=options.bootstrap_servers, linger_ms=20, acks="all"
            )
            if producer.partitions_for(options.topic):
                return producer
            producer.close(5)
        except KafkaError as error:
            print(f"waiting for {options.topic}: {error!r}", file=sys.stderr, flush=True)
        time.sleep(1.0)
    return None


def produce(options: argparse.Namespace, producer: KafkaProducer, stop: Stop) -> int:
    """Send at the rate until told to stop, or ``--events`` are sent; how many were sent."""
    sent, began = 0, time.monotonic()
    stream = records(options, f"g{time.time_ns() // 1_000_000}")
    while not stop.asked and (options.events is None or sent < options.events):
        due = int((time.monotonic() - began) * options.rate) - sent
        if options.events is not None:
            due = min(due, options.events - sent)
        for key, value in islice(stream, max(due, 0)):
            producer.send(options.topic, value, key)
            sent += 1
        time.sleep(TICK_SECONDS)
    producer.flush(30)
    return sent


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    parser.add_argument("--topic", default="feedback")
    parser.add_argument("--rate", type=float, default=200.0, help="events a second")
    parser.add_argument("--calm", type=float, default=120.0, help="seconds before each attack")
    parser.add_argument("--attack", type=float, default=90.0, help="seconds an attack lasts")
    parser.add_argument("--share", type=float, default=0.15, help="of an attack's events")
    parser.add_argument("--attacks", nargs="+", choices=IN_PLACE, default=["flip", "backdoor"])
    parser.add_argument("--events", type=int, help="stop after so many; by default never")
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run until SIGTERM or Ctrl-C."""
    options, stop = parse(arguments), Stop()
    producer = connect(options, stop)
    if producer is not None:
        sent = produce(options, producer, stop)
        producer.close(10)
        print(f"sent {sent} records to {options.topic}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
