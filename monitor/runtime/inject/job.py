"""What every attack gets and gives, and the statistics of the history an attacker has seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from monitor.core.types import ByteArray, FloatArray, IntArray
from monitor.runtime.inject.stream import Role, Stream

LEAST_HISTORY = 50


@dataclass(frozen=True, slots=True)
class Job:
    """One attack's work.

    Attributes
    ----------
    stream
        The honest stream; for attacks that insert, already with room for the new rows.
    rows
        int64[k], sorted rows that become the attacker's.
    rng
        The attack's own generator.
    trigger_features
        Columns that a backdoor stamps.
    """

    stream: Stream
    rows: IntArray
    rng: np.random.Generator
    trigger_features: int = 3

    @property
    def end(self) -> int:
        """Events before the first poison, at least 50: what the attacker has seen."""
        return max(LEAST_HISTORY, int(self.rows[0]))

    def history(self) -> FloatArray:
        """float64[end, d], the features seen, a missing value replaced by its column's mean."""
        return filled(self.stream.x[: self.end])

    def seen_labels(self) -> IntArray:
        """int64[end], the labels seen."""
        return self.stream.y[: self.end]

    def common_labels(self) -> tuple[int, int]:
        """The most frequent label of the history and the runner-up."""
        counts = np.bincount(self.seen_labels(), minlength=len(self.stream.labels))
        order = np.argsort(-counts, kind="stable")
        return int(order[0]), int(order[1])

    def class_means(self) -> FloatArray:
        """float64[C, d], mean features of each class in the history."""
        history, labels = self.history(), self.seen_labels()
        means = np.tile(history.mean(axis=0), (len(self.stream.labels), 1))
        for c in np.unique(labels):
            means[c] = history[labels == c].mean(axis=0)
        return means

    def towards(self) -> tuple[IntArray, IntArray]:
        """Own class and the class to move to, int64[k] each: the most frequent other label."""
        first, second = self.common_labels()
        own = self.stream.y[self.rows]
        return own, np.where(own == first, second, first)


@dataclass(frozen=True, slots=True)
class Change:
    """What an attack did: the stream afterwards.

    ``role`` is uint8[k] of :class:`Role` where not all rows are plain poison. ``template`` is
    int64[k]: rows of ``stream`` that inserted rows were modelled on.
    """

    stream: Stream
    role: ByteArray | None = None
    template: IntArray | None = None


Needs = Literal["", "subject", "gradient"]


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack: its function, a line of help, and what it needs of a stream.

    ``inserts`` attacks add rows instead of changing some. ``closing`` is the share of the rows
    that come together as one batch at the end.
    """

    change: Callable[[Job], Change]
    help: str
    inserts: bool = False
    needs: Needs = ""
    closing: float = 0.0


def filled(x: FloatArray) -> FloatArray:
    """``x`` with each NaN replaced by the mean of its column (0 in an empty column)."""
    missing = np.isnan(x)
    if not missing.any():
        return x
    known = (~missing).sum(axis=0)
    means = np.where(missing, 0.0, x).sum(axis=0) / np.maximum(known, 1)
    return np.where(missing, means, x)


def roles(count: int, role: Role) -> ByteArray:
    """uint8[count], all ``role``."""
    return np.full(count, role, dtype=np.uint8)
