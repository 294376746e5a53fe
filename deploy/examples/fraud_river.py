#!/usr/bin/env python3
"""A river model behind the gate, in one process, while five accounts flip its labels.

    python deploy/examples/fraud_river.py

The stream is real: 1,250 web pages, phishing or not (it comes with river, nothing is downloaded).
From the 500th on, five new accounts send two wrongly labelled pages for every three right ones.
Three copies of one model see it: one without the attack, one with it, one with it behind the gate.
Each predicts every honest page before its label comes; what counts is the second half.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from river import datasets, linear_model, metrics, preprocessing

from monitor.config.policy import Policy
from monitor.gate import Gate, GateConfig
from monitor.learner import GatedLearner

ATTACK_FROM, COUNTS_FROM = 500, 625


class Feedback(NamedTuple):
    """One labelled page; the gate sees all but the last field."""

    x: dict[str, Any]
    is_phishing: bool
    source: str
    is_poison: bool


def stream() -> Iterator[Feedback]:
    """Honest feedback of sixty accounts, and the ring's."""
    rng = random.Random(7)
    pages = list(datasets.Phishing())
    for i, (x, label) in enumerate(pages):
        yield Feedback(x, label, f"acct-{rng.randrange(60)}", False)
        while i >= ATTACK_FROM and rng.random() < 0.4:
            page, truth = rng.choice(pages)
            yield Feedback(page, not truth, f"ring-{rng.randrange(5)}", True)


def model() -> Any:
    """What an ordinary online fraud model looks like."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def main() -> None:
    """Run the three and print what they are worth."""
    # The first 200 examples show the gate what is ordinary; they pass unjudged.
    gate = Gate(GateConfig(warmup_events=200), Policy.model_validate({"mode": "enforce"}))
    alone, open_to_all = model(), model()
    gated = GatedLearner(model(), gate, batch_events=32)
    learners = {"no attack": alone, "attacked": open_to_all, "attacked, gated": gated}
    accuracy = {name: metrics.Accuracy() for name in learners}
    honest = poison = 0
    for event in stream():
        honest, poison = honest + (not event.is_poison), poison + event.is_poison
        if not event.is_poison and honest > COUNTS_FROM:
            for name, learner in learners.items():
                accuracy[name].update(event.is_phishing, learner.predict_one(event.x))
        if not event.is_poison:
            alone.learn_one(event.x, event.is_phishing)
        open_to_all.learn_one(event.x, event.is_phishing)
        gated.learn_one(event.x, event.is_phishing, source=event.source)  # the only change
    gated.flush()

    print(f"{honest} honest pages and {poison} poisoned ones")
    for name, found in accuracy.items():
        print(f"{name:16} accuracy {100 * found.get():5.1f} %")
    held = [held.decision for held in gated.held]
    caught = sum(decision["source"].startswith("ring-") for decision in held)
    print(f"held back: {caught} of {poison} poisoned, {len(held) - caught} of {honest} honest")
    print("for example:", held[-1]["reasons"][0]["text"])


if __name__ == "__main__":
    main()
