#!/usr/bin/env python3
"""A scikit-learn model that learns by partial_fit behind the gate, in batches with a source a row.

    python deploy/examples/sklearn_partial_fit.py

The stream is real: 2,310 image segments of seven kinds (it comes with river, nothing is
downloaded). From the 900th on, five new accounts send wrongly labelled copies. What counts is how
many of the honest segments of the last third each model names right before it learns them.
Needs scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from river import datasets
from sklearn.linear_model import SGDClassifier

from monitor.config.policy import Policy
from monitor.gate import Gate, GateConfig
from monitor.learner import GatedLearner

ROWS, ATTACK_FROM, COUNTS_FROM = 70, 900, 1540


def segments() -> tuple[np.ndarray, np.ndarray]:
    """Features float64[n, 18], to the same scale, and labels str[n], in a random order."""
    rows = list(datasets.ImageSegments())
    order = np.random.default_rng(1).permutation(len(rows))
    x = np.array([list(rows[i][0].values()) for i in order], dtype=float)
    scale = x[:ATTACK_FROM]
    x = (x - scale.mean(axis=0)) / (scale.std(axis=0) + 1e-9)
    return x, np.array([rows[i][1] for i in order])


def poison(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Copies of honest rows under a wrong label, from five accounts."""
    rows = rng.integers(0, len(x), int(0.7 * ROWS))
    kinds, index = np.unique(y, return_inverse=True)
    wrong = kinds[(index[rows] + 1) % len(kinds)]
    return x[rows], wrong, [f"ring-{i}" for i in rng.integers(0, 5, len(rows))]


def model() -> SGDClassifier:
    """What learns."""
    return SGDClassifier(loss="log_loss", random_state=0)


def main() -> None:
    """Run the three and print what they are worth."""
    x, y = segments()
    rng = np.random.default_rng(2)
    classes = np.unique(y)
    # The first 400 rows show the gate what is ordinary; they pass unjudged.
    gate = Gate(GateConfig(warmup_events=400), Policy.model_validate({"mode": "enforce"}))
    alone, open_to_all, gated = model(), model(), GatedLearner(model(), gate)
    learners = {"no attack": alone, "attacked": open_to_all, "attacked, gated": gated}
    right = dict.fromkeys(learners, 0)
    sent = 0
    for first in range(0, len(x), ROWS):
        rows = slice(first, first + ROWS)
        if first >= COUNTS_FROM:
            for name, learner in learners.items():
                right[name] += int((learner.predict(x[rows]) == y[rows]).sum())
        sources = [f"acct-{i}" for i in rng.integers(0, 60, len(x[rows]))]
        alone.partial_fit(x[rows], y[rows], classes=classes)
        new_x, new_y = x[rows], y[rows]
        if first >= ATTACK_FROM:
            bad_x, bad_y, ring = poison(x, y, rng)
            mixed = rng.permutation(len(new_x) + len(bad_x))
            new_x = np.concatenate([new_x, bad_x])[mixed]
            new_y = np.concatenate([new_y, bad_y])[mixed]
            sources = [[*sources, *ring][i] for i in mixed]
            sent += len(bad_x)
        open_to_all.partial_fit(new_x, new_y, classes=classes)
        gated.partial_fit(new_x, new_y, classes=classes, source=sources)  # the only change

    print(f"{len(x)} honest rows and {sent} poisoned ones")
    for name, count in right.items():
        print(f"{name:16} accuracy {100 * count / (len(x) - COUNTS_FROM):5.1f} %")
    held = [held.decision["source"] for held in gated.held]
    caught = sum(source.startswith("ring-") for source in held)
    print(f"held back: {caught} of {sent} poisoned, {len(held) - caught} of {len(x)} honest")


if __name__ == "__main__":
    main()
