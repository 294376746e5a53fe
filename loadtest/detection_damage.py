"""What poison does to the learners downstream, and how much a gate gives back.

A learner is trained on the honest stream, the poisoned one, what each gate lets through, and what
an oracle would; its prequential accuracy counts on the clean events behind the prefix only, the
same ones every time. For a backdoor, the trigger is stamped on held-out honest events.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from loadtest.detection_cells import (
    GATE,
    Cell,
    Row,
    attacked,
    filled,
    honest,
    judge_by_gate,
    judge_by_peer,
    judged_from,
)
from loadtest.detection_metrics import NAN
from loadtest.detection_peers import river_model
from monitor.core.types import BoolArray, FloatArray, IntArray
from monitor.runtime.inject import Attacked, Stream

DAMAGE_RATE = 0.15
ATTACKS = ("flip", "targeted", "gradient", "backdoor")
PATTERNS = ("burst", "stealth")
CHUNK = 64
PROBES = 400
PROBE_CHUNKS = 8
ACCEPTED = "gate, flagged withheld too"


class Learner(Protocol):
    """Predicts n labels, then learns from n events; rows come in order."""

    def predict(self, x: FloatArray) -> IntArray: ...

    def learn(self, x: FloatArray, y: IntArray) -> None: ...


class RiverLearner:
    """A river classifier, one event after another."""

    def __init__(self, model: Any, classes: int) -> None:
        self.model, self.classes = model, classes

    def predict(self, x: FloatArray) -> IntArray:
        said = [self.model.predict_one(dict(enumerate(row))) for row in x.tolist()]
        return np.array([-1 if label is None else int(label) for label in said])

    def learn(self, x: FloatArray, y: IntArray) -> None:
        for row, label in zip(x.tolist(), y.tolist(), strict=True):
            said = label if self.classes > 2 else label == 1
            self.model.learn_one(dict(enumerate(row)), said)


class SgdLearner:
    """scikit-learn's SGDClassifier(loss="log_loss") on standardised features, in small batches."""

    def __init__(self, classes: int) -> None:
        from sklearn.linear_model import SGDClassifier  # noqa: PLC0415
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

        self.scaler = StandardScaler()
        self.model = SGDClassifier(loss="log_loss", random_state=0)
        self.classes, self.ready = np.arange(classes), False

    def predict(self, x: FloatArray) -> IntArray:
        if not self.ready:
            return np.full(len(x), -1)
        return np.asarray(self.model.predict(self.scaler.transform(x)))

    def learn(self, x: FloatArray, y: IntArray) -> None:
        if len(y):
            self.scaler.partial_fit(x)
            self.model.partial_fit(self.scaler.transform(x), y, classes=self.classes)
            self.ready = True


def _tree(classes: int) -> Learner:
    from river import tree  # noqa: PLC0415

    return RiverLearner(tree.HoeffdingTreeClassifier(), classes)


LEARNERS: dict[str, Callable[[int], Learner]] = {
    "river LogisticRegression": lambda classes: RiverLearner(river_model(classes), classes),
    "river HoeffdingTree": _tree,
    "sklearn SGD, log loss": SgdLearner,
}


def learners() -> tuple[str, ...]:
    present = importlib.util.find_spec("sklearn") is not None
    return tuple(name for name in LEARNERS if present or not name.startswith("sklearn"))


@dataclass(frozen=True)
class Probe:
    """The trigger as the attack stamped it: ``columns`` and their ``values``, and its label."""

    columns: IntArray
    values: FloatArray
    target: int

    def stamp(self, x: FloatArray) -> FloatArray:
        out = x.copy()
        out[:, self.columns] = self.values
        return out


def probe_of(clean: Stream, given: Attacked) -> Probe | None:
    """Read the trigger off an attacked stream: columns that nearly all poison has changed."""
    before, after = clean.x[given.poison], given.stream.x[given.poison]
    # A stamped value may by luck be the one that stood there before.
    constant = (after == np.median(after, axis=0)).mean(axis=0) > 0.99
    narrow = after.std(axis=0) < 0.5 * clean.x.std(axis=0)
    columns = np.flatnonzero((before != after).any(axis=0) & (constant | narrow))
    labels = np.unique(given.stream.y[given.poison])
    if not len(columns) or len(labels) != 1:
        return None
    return Probe(columns, np.median(after[:, columns], axis=0), int(labels[0]))


def prequential(
    learner: Learner, train: Stream, passed: BoolArray, judge: BoolArray, probe: Probe | None
) -> tuple[float, float]:
    """(accuracy on the rows ``judge``, attack success), test first, then train on ``passed``.

    Success is the share of honest events of other labels that the trigger turns into its own,
    probed at even times in the last half of the stream, on events not learned yet.
    """
    n, right, fooled, tried = len(train), 0, 0, 0
    features = filled(train.x)
    chunks = np.arange(0, n, CHUNK)
    probing = set(np.linspace(n // 2, chunks[-1], PROBE_CHUNKS).astype(int) // CHUNK * CHUNK)
    for first in chunks.tolist():
        rows = slice(first, min(first + CHUNK, n))
        x, y = features[rows], train.y[rows]
        ask = judge[rows]
        if ask.any():
            right += int((learner.predict(x[ask]) == y[ask]).sum())
        if probe is not None and first in probing:
            ahead = np.arange(first, n) if first + PROBES > n else np.arange(first, first + PROBES)
            ahead = ahead[judge[ahead] & (train.y[ahead] != probe.target)]
            if len(ahead):
                fooled += int((learner.predict(probe.stamp(features[ahead])) == probe.target).sum())
                tried += len(ahead)
        keep = passed[rows]
        learner.learn(x[keep], y[keep])
    return right / max(1, int(judge.sum())), fooled / tried if tried else NAN


def gates(given: Attacked, contestants: Sequence[str], batch: int) -> dict[str, BoolArray]:
    """bool[n] by gate: what it lets through to the learner."""
    passed: dict[str, BoolArray] = {}
    for name in contestants:
        if name == GATE:
            made = judge_by_gate(given.stream, batch=batch)
            passed[GATE], passed[ACCEPTED] = made.passed, made.passed & ~made.flag
        else:
            passed[name] = judge_by_peer(name, given.stream).passed
    return passed


def damage_rows(
    cell: Cell, contestants: Sequence[str], batch: int, known: Collection[str] = ()
) -> list[Row]:
    """Accuracy, and success for backdoors, of each learner behind each gate not yet ``known``."""
    clean, given = honest(cell.stream, cell.events, cell.seed), attacked(cell)
    n = len(given.poison)
    everything = np.ones(n, dtype=bool)
    judge = ~given.poison & (np.arange(n) >= judged_from(n))
    backdoor = cell.attack.startswith("backdoor")
    probe = probe_of(clean, given) if backdoor and len(clean) == n else None
    # Where poison is inserted, the honest stream is what remains without it.
    training: dict[str, tuple[Stream, BoolArray]] = {
        "clean": (clean, everything) if len(clean) == n else (given.stream, ~given.poison),
        "poisoned": (given.stream, everything),
        "oracle": (given.stream, ~given.poison),
    }
    for name, passed in gates(given, contestants, batch).items():
        training[name] = (given.stream, passed)
    training = {name: how for name, how in training.items() if name not in known}
    rows = []
    for learner, (name, (stream, passed)) in itertools.product(learners(), training.items()):
        made = LEARNERS[learner](len(clean.labels))
        accuracy, success = prequential(made, stream, passed, judge, probe)
        rows.append(
            cell.columns
            | {"learner": learner, "training": name, "accuracy": accuracy, "success": success}
            | {"poison_passed": float(passed[given.poison].mean())}
            | {"clean_withheld": float(1.0 - passed[judge].mean())}
        )
    return rows
