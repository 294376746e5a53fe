"""An online learner behind the gate: river, on ``feedback.accepted``, an event at a time.

It predicts first and learns then, and says every few seconds how often it was right about what the
label should have been (``meta.clean`` of the generator; an event without it counts by its own
label). Run it on ``feedback`` to see what the same learner does without the gate.

    python deploy/compose/learner.py --bootstrap-servers localhost:9092 --topic feedback.accepted
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError
from river import compose, linear_model, multiclass, preprocessing
from stopping import Stop

LATEST = 5000


def make_model() -> Any:
    """Scaled features into one logistic regression a class."""
    each = linear_model.LogisticRegression()
    return compose.Pipeline(preprocessing.StandardScaler(), multiclass.OneVsRestClassifier(each))


class Learner:
    """A model, and how often it was right lately, before it learned each event."""

    def __init__(self) -> None:
        self.model = make_model()
        self.learned = self.unread = 0
        self._right: deque[bool] = deque(maxlen=LATEST)

    def take(self, value: bytes) -> None:
        """Predict, compare, learn. What is no event is counted and left out.

        Behind the gate there is none of that; on the raw topic there is.
        """
        try:
            event = json.loads(value)
            x = {name: float(number) for name, number in event["features"].items()}
            label = event["label"]
            clean = (event.get("meta") or {}).get("clean", label)
        except (ValueError, TypeError, KeyError, AttributeError):
            self.unread += 1
            return
        self._right.append(self.model.predict_one(x) == clean)
        self.model.learn_one(x, label)
        self.learned += 1

    def report(self, topic: str) -> str:
        """One line, JSON."""
        right = round(sum(self._right) / len(self._right), 4) if self._right else None
        said = {
            "topic": topic,
            "learned": self.learned,
            "no_event": self.unread,
            "right": right,
            "of_latest": len(self._right),
        }
        return json.dumps(said)


def connect(options: argparse.Namespace, stop: Stop) -> KafkaConsumer | None:
    """A consumer of committed events alone: what an aborted micro-batch wrote never happened.

    Subscribes when the topic is there, which is the monitor's to create; None when told to stop
    before.
    """
    while not stop.asked:
        try:
            consumer = KafkaConsumer(
                bootstrap_servers=options.bootstrap_servers,
                group_id=options.group,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
            )
            if consumer.partitions_for_topic(options.topic):
                consumer.subscribe([options.topic])
                return consumer
            consumer.close()
        except KafkaError as error:
            print(f"waiting for {options.topic}: {error!r}", file=sys.stderr, flush=True)
        time.sleep(1.0)
    return None


def learn(options: argparse.Namespace, consumer: KafkaConsumer, stop: Stop) -> Learner:
    """Consume until told to stop, or ``--events`` were learned."""
    learner, said_at = Learner(), time.monotonic()
    while not stop.asked and (options.events is None or learner.learned < options.events):
        for found in consumer.poll(500, max_records=1000).values():
            for record in found:
                learner.take(record.value)
        if time.monotonic() - said_at >= options.every:
            print(learner.report(options.topic), flush=True)
            said_at = time.monotonic()
    print(learner.report(options.topic), flush=True)
    return learner


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    parser.add_argument("--topic", default="feedback.accepted")
    parser.add_argument("--group", default="example-learner")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two reports")
    parser.add_argument("--events", type=int, help="stop after so many; by default never")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run until SIGTERM or Ctrl-C."""
    options, stop = parse(arguments), Stop()
    consumer = connect(options, stop)
    if consumer is not None:
        learn(options, consumer, stop)
        consumer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
