"""Who takes part in the measurement of speed: the gate, other people's models, and the limits."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from river import anomaly, linear_model, neighbors, preprocessing, tree

import monitor.gate as gate_module
from loadtest.numpy_work import OwnClassGaussian
from loadtest.throughput_load import Workload
from monitor.core.decode import Decoder
from monitor.core.encode import encode_decisions
from monitor.core.types import Action, RawBatch, Verdict
from monitor.gate import Gate
from monitor.state.partition import GateState

RIVER_PRIME = 8_192
KNN_WINDOW = 1_000

Work = Iterator[int]
"""Does a batch at a time, and says how many events it had."""


@dataclass(frozen=True)
class Contestant:
    """One that is measured.

    Attributes
    ----------
    title
        For tables.
    kind
        ``gate``, ``peer`` (another's model, which judges and learns each event) or ``limit`` (a
        part of the gate's work that cannot be left out, alone).
    most
        Events a turn with 16 features, at most; fewer where there are more. The slow ones need
        no more for a steady figure.
    """

    title: str
    kind: str
    most: int = 1 << 62


CONTESTANTS = {
    "gate": Contestant("the whole gate", "gate"),
    "river": Contestant("river: scaler | logistic", "peer"),
    "logistic": Contestant("river: bare logistic", "peer"),
    "half_space": Contestant("river: half-space trees", "peer", 4_000),
    "hoeffding": Contestant("river: Hoeffding tree", "peer", 8_000),
    "knn": Contestant("river: kNN, window 1,000", "peer", 200),
    "decode": Contestant("decoding alone", "limit"),
    "encode": Contestant("encoding alone", "limit"),
    "mahalanobis": Contestant("numpy Mahalanobis", "limit"),
}


@dataclass
class Turn:
    """One measured pass: events, seconds on the clock and of CPU, and each batch's seconds."""

    events: int
    wall: float
    cpu: float
    batches: list[float] = field(default_factory=list)

    @property
    def cpu_us(self) -> float:
        """Processor time of an event."""
        return 1e6 * self.cpu / self.events


def timed(work: Work) -> Turn:
    """Have ``work`` done to its end."""
    gc.collect()
    events, marks = 0, [time.perf_counter()]
    cpu = time.process_time()
    for count in work:
        events += count
        marks.append(time.perf_counter())
    cpu = time.process_time() - cpu
    return Turn(events, marks[-1] - marks[0], cpu, np.diff(marks).tolist())


def most_events(contestant: Contestant, events: int, features: int) -> int:
    """Events of a turn."""
    return max(20, min(events, contestant.most * 16 // max(16, features)))


class Bench:
    """The contestants, each at the same warm state, pass after pass."""

    def __init__(self, load: Workload, batch: int) -> None:
        self.load, self.batch = load, batch
        self.batches = list(self._batches(load.prime, len(load.values)))
        self.gate = Gate()
        self.primed = self._prime()
        self.decoder = Decoder(self.gate.config.limits, self.gate.config.hash_seed)
        self._models = self._learned()
        self._columns = self._gaussian_columns()
        self._encoding: list[tuple[Any, ...]] = []

    def _batches(self, start: int, stop: int) -> Iterator[RawBatch]:
        for at in range(start, stop, self.batch):
            rows = self.load.values[at : min(at + self.batch, stop)]
            yield RawBatch.of(rows, start=at)

    def _prime(self) -> GateState:
        state = self.gate.start()
        for raw in self._batches(0, self.load.prime):
            _, state = self.gate.step(state, raw)
        if state.schema is None:
            raise ValueError("too few events to prime with: the warm-up must end before")
        return state

    def _learned(self) -> dict[str, Any]:
        """River's models after as much as brings them to their usual size."""
        models: dict[str, Any] = {
            "river": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
            "logistic": linear_model.LogisticRegression(),
            "half_space": preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=0),
            "hoeffding": tree.HoeffdingTreeClassifier(),
            "knn": neighbors.KNNClassifier(
                engine=neighbors.LazySearch(window_size=KNN_WINDOW),
            ),
        }
        stop = self.load.prime
        start = max(0, stop - RIVER_PRIME)
        for name, model in models.items():
            # A window needs no more than itself, and more would take long.
            first = max(start, stop - KNN_WINDOW) if name == "knn" else start
            said = self.load.dicts(first, stop)
            for x, y in zip(said, self._said(name, first, stop), strict=True):
                _learn(name, model, x, y)
        return models

    def _said(self, name: str, start: int, stop: int) -> list[Any]:
        if name in ("hoeffding", "knn"):
            classes: list[int] = self.load.label[start:stop].tolist()
            return classes
        return self.load.first_half(start, stop)

    def _gaussian_columns(self) -> OwnClassGaussian:
        model = OwnClassGaussian(self.load.labels, self.load.x.shape[1])
        for at in range(0, self.load.prime, self.batch):
            rows = slice(at, min(at + self.batch, self.load.prime))
            model.learn(self.load.x[rows], self.load.label[rows])
        return model

    def work(self, name: str) -> Work:
        """What ``name`` does in a turn. Everything that is only got ready is done already."""
        made: dict[str, Callable[[], Work]] = {
            "gate": lambda: self.judge(self.gate),
            "decode": self._decode,
            "encode": self._encode,
            "mahalanobis": self._gauss,
        }
        return made.get(name, partial(self._peer, name))()

    def turn(self, name: str) -> Turn:
        """Measure ``name`` once."""
        return timed(self.work(name))

    def judge(self, gate: Gate) -> Work:
        """The whole gate, bytes to decision records."""
        state = self.primed
        for raw in self.batches:
            _, state = gate.step(state, raw)
            yield len(raw)

    def _decode(self) -> Work:
        schema, labels = self.primed.schema, self.primed.labels
        assert schema is not None
        for raw in self.batches:
            self.decoder.columns(self.decoder.parse(raw, schema.layout), schema, labels)
            yield len(raw)

    def _encode(self) -> Work:
        if not self._encoding:
            self._encoding = self._decided()

        def work() -> Work:
            for raw, parsed, decisions in self._encoding:
                encode_decisions(raw, parsed, decisions, local=True)
                yield len(raw)

        return work()

    def _decided(self) -> list[tuple[Any, ...]]:
        """What the gate gives to the encoder."""
        kept: list[tuple[Any, ...]] = []
        original = gate_module.encode_decisions

        def keep(*args: Any, **options: Any) -> Any:
            kept.append(args)
            return original(*args, **options)

        gate_module.encode_decisions = keep  # type: ignore[assignment]
        try:
            for _ in self.judge(self.gate):
                pass
        finally:
            gate_module.encode_decisions = original
        return kept

    def _gauss(self) -> Work:
        model, load = copy.deepcopy(self._columns), self.load

        def work() -> Work:
            for at in range(load.prime, len(load.values), self.batch):
                x, y = load.x[at : at + self.batch], load.label[at : at + self.batch]
                model.score(x, y)
                model.learn(x, y)
                yield len(x)

        return work()

    def _peer(self, name: str) -> Work:
        model, start = copy.deepcopy(self._models[name]), self.load.prime
        count = most_events(CONTESTANTS[name], self.load.events, self.load.x.shape[1])
        said = self._said(name, start, start + count)
        events = list(zip(self.load.dicts(start, start + count), said, strict=True))
        score = _score(name, model)

        def work() -> Work:
            for at in range(0, count, self.batch):
                part = events[at : at + self.batch]
                for x, y in part:
                    score(x)
                    _learn(name, model, x, y)
                yield len(part)

        return work()

    def verdicts(self) -> dict[str, float]:
        """What the gate made of the workload, as a sign that it really judges."""
        state, held, flagged = self.primed, [], []
        for raw in self.batches:
            decisions, state = self.gate.step(state, raw)
            held.append(decisions.action == Action.HOLD)
            flagged.append(decisions.verdict == Verdict.FLAG)
        poison = self.load.poison[self.load.prime :]
        hold, flag = np.concatenate(held), np.concatenate(flagged)
        return {
            "poison_held": float(hold[poison].mean()),
            "clean_held": float(hold[~poison].mean()),
            "clean_flagged": float(flag[~poison].mean()),
        }


def _score(name: str, model: Any) -> Callable[[dict[str, float]], Any]:
    score: Any = model.score_one if name == "half_space" else model.predict_proba_one
    return score


def _learn(name: str, model: Any, x: dict[str, float], y: Any) -> None:
    if name == "half_space":
        model.learn_one(x)
    else:
        model.learn_one(x, y)
