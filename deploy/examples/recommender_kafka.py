#!/usr/bin/env python3
"""A recommender that learns clicks from the accepted topic, beside one that learns from all.

With Kafka and the monitor running (`poisoning-monitor run --mode enforce`):

    python deploy/examples/recommender_kafka.py --bootstrap-servers localhost:9092

The first thing it does is to write simulated feedback to the input topic: users with tastes click
on items that suit them, and a ring of six accounts pushes one item. In a service of yours only
`learn_from` counts: subscribe to the accepted topic, read committed records only, parse as before.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from river import linear_model

USERS, ITEMS, TASTES = 150, 20, 4
HONEST, ATTACK_FROM = 4000, 2000
PUSHED = "item-7"


class World:
    """Who likes what. The recommenders do not know."""

    def __init__(self) -> None:
        rng = random.Random(3)
        self.users = [[rng.gauss(0, 1) for _ in range(TASTES)] for _ in range(USERS)]
        self.items = [[rng.gauss(0, 1) for _ in range(TASTES)] for _ in range(ITEMS)]

    def features(self, user: int, item: int) -> list[float]:
        """How well the item suits each taste of the user."""
        pairs = zip(self.users[user], self.items[item], strict=True)
        return [round(taste * trait, 4) for taste, trait in pairs]

    def likes(self, user: int, item: int) -> float:
        """Probability of a click."""
        return 1 / (1 + math.exp(-2 * sum(self.features(user, item))))


def feedback(world: World) -> Iterator[dict[str, Any]]:
    """Events in the monitor's form: honest ones, and from the middle on the ring's."""
    rng = random.Random(5)
    number, pushed = 0, int(PUSHED.partition("-")[2])
    for i in range(HONEST):
        shown = [(f"user-{(user := rng.randrange(USERS))}", user, rng.randrange(ITEMS), None)]
        while i >= ATTACK_FROM and rng.random() < 0.2:
            shown.append((f"new-{rng.randrange(6)}", rng.randrange(USERS), pushed, "click"))
        for source, user, item, label in shown:
            honest = "click" if rng.random() < world.likes(user, item) else "skip"
            yield {
                "id": f"f-{number}",
                "ts": 1_700_000_000 + number,
                "source": source,
                "subject": f"item-{item}",
                "label": label or honest,
                "features": world.features(user, item),
            }
            number += 1


class Recommender:
    """Learns from feedback who will click on what, item by item."""

    def __init__(self) -> None:
        self.model = linear_model.LogisticRegression()

    @staticmethod
    def _x(features: list[float], item: str) -> dict[str, float]:
        return {item: 1.0} | {str(i): value for i, value in enumerate(features)}

    def learn(self, event: dict[str, Any]) -> None:
        """One event of the topic."""
        self.model.learn_one(
            self._x(event["features"], event["subject"]), event["label"] == "click"
        )

    def likes(self, features: list[float], item: str) -> float:
        """Its probability of a click."""
        return float(self.model.predict_proba_one(self._x(features, item)).get(True, 0.5))


def learn_from(args: argparse.Namespace, topic: str, *beside: str, until: int) -> Recommender:
    """Learn what ``topic`` brings, until it and the topics ``beside`` have brought so many.

    Your service would subscribe to the accepted topic alone, with a group, and never stop.
    """
    consumer = KafkaConsumer(
        topic,
        *beside,
        bootstrap_servers=args.bootstrap_servers,
        isolation_level="read_committed",  # what a transaction took back was never there
        auto_offset_reset="earliest",
    )
    recommender, seen, learned = Recommender(), 0, 0
    while seen < until:
        for tp, records in consumer.poll(500).items():
            seen += len(records)
            for record in records if tp.topic == topic else ():
                recommender.learn(json.loads(record.value))
                learned += 1
    consumer.close()
    print(f"{topic}: learned from {learned} of {until} events")
    return recommender


def report(name: str, recommender: Recommender, world: World) -> None:
    """Against what users really like."""
    everybody = [(user, item) for user in range(USERS) for item in range(ITEMS)]
    right, scores = 0, dict.fromkeys(range(ITEMS), 0.0)
    for user, item in everybody:
        guess = recommender.likes(world.features(user, item), f"item-{item}")
        right += (guess > 0.5) == (world.likes(user, item) > 0.5)
        scores[item] += guess / USERS
    order = sorted(scores, key=lambda item: -scores[item])
    place = [f"item-{item}" for item in order].index(PUSHED) + 1
    print(
        f"{name:8} accuracy {100 * right / len(everybody):5.1f} %, {PUSHED} at place {place:2} of "
        f"{ITEMS} with {100 * scores[int(PUSHED.partition('-')[2])]:4.1f} % expected clicks"
    )


def main() -> None:
    """Write feedback, learn twice, compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    parser.add_argument("--feedback", default="feedback", help="the monitor's input topic")
    parser.add_argument("--accepted", default="feedback.accepted")
    parser.add_argument("--quarantine", default="feedback.quarantine")
    args = parser.parse_args()
    world = World()
    truth = sum(world.likes(user, int(PUSHED.partition("-")[2])) for user in range(USERS)) / USERS
    print(f"{PUSHED} is really clicked on in {100 * truth:.1f} % of cases")

    producer = KafkaProducer(bootstrap_servers=args.bootstrap_servers)
    events = list(feedback(world))
    for event in events:
        # One source, one partition: its events stay in order.
        producer.send(args.feedback, json.dumps(event).encode(), event["source"].encode())
    producer.close()

    everything = learn_from(args, args.feedback, until=len(events))
    accepted = learn_from(args, args.accepted, args.quarantine, until=len(events))
    report("all", everything, world)
    report("accepted", accepted, world)


if __name__ == "__main__":
    main()
