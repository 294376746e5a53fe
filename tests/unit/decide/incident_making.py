"""Batches of facts made by hand, for the incidents' tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import orjson

from monitor.core.hashing import hash_text
from monitor.decide.incident_facts import FAMILIES, KEYS, PAIR, SHAPES, SOURCE, Facts, Suspects
from monitor.decide.incident_state import IncidentBook
from monitor.decide.incidents import Folded, fold

COLUMNS = ("a", "b", "c", "d", "e")
SHARE = {"label_flip": 0.5, "backdoor": 0.15, "sybil": 0.2, "clean_label": 0.12, "replay": 0.03}
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


class Made:
    """A stream of n events of 200 sources; rows may be made suspicious before it is cut."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.n = n
        self.names = np.array([f"acct-{i}" for i in self.rng.integers(0, 200, n)], dtype=object)
        self.labels = self.rng.integers(0, 2, n)
        self.shape = self.rng.normal(size=(n, len(COLUMNS))).astype(np.float32)
        self.time = START + np.arange(n, dtype=np.int64) * SECOND
        self.family = np.full(n, -1)
        self.nats = np.ones((n, len(FAMILIES)), dtype=np.float32)

    def suspect(self, rows: np.ndarray, family: str, nats: float = 8.0) -> None:
        """Have ``family`` speak against ``rows``."""
        self.family[rows] = FAMILIES.index(family)
        self.nats[rows, FAMILIES.index(family)] = nats

    def stray(self, share: float = 0.01) -> None:
        """False alarms, as many as promised."""
        rows = np.flatnonzero(self.rng.random(self.n) < share)
        chosen = self.rng.choice(["label_flip", "backdoor", "sybil", "clean_label"], len(rows))
        for family in np.unique(chosen).tolist():
            self.suspect(rows[chosen == family], family)

    def ring(
        self, start: int, end: int, share: float = 0.05, *, family: str = "sybil",
        label: str = "", name: str = "ring-",
    ) -> np.ndarray:  # fmt: skip
        """Five sources that send ``share`` of what comes in between, all of it suspicious.

        With a label most of it carries that one.
        """
        rows = start + np.flatnonzero(self.rng.random(end - start) < share)
        self.names[rows] = [f"{name}{label}{i}" for i in self.rng.integers(0, 5, len(rows))]
        if label:
            self.labels[rows] = np.where(self.rng.random(len(rows)) < 0.95, label == "yes", 0)
        self.suspect(rows, family)
        return rows

    def batches(self, size: int) -> Iterator[Facts]:
        """The stream in batches."""
        hashed = np.array([hash_text(name) for name in self.names.tolist()], dtype=np.uint64)
        label = np.array([hash_text("no"), hash_text("yes")], dtype=np.uint64)[self.labels]
        for first in range(0, self.n, size):
            at = np.arange(first, min(first + size, self.n))
            rows = np.flatnonzero(self.family[at] >= 0)
            yield Facts(
                self._suspects(at[rows], hashed, label), rows, hashed[at], label[at],
                self.time[at], self.shape[at], at.astype(np.uint64) + np.uint64(1),
                np.zeros((len(at), len(COLUMNS)), dtype=bool), COLUMNS, 0.01, SHARE,
            )  # fmt: skip

    def _suspects(self, at: np.ndarray, hashed: np.ndarray, label: np.ndarray) -> Suspects:
        m = len(at)
        keys = np.zeros((m, KEYS), dtype=np.uint64)
        keys[:, SOURCE] = hashed[at]
        said = np.array(["no", "yes"])[self.labels[at]].tolist()
        conflict = self.family[at] == FAMILIES.index("label_flip")
        keys[:, PAIR] = np.where(conflict, label[at], np.uint64(0))
        shape = np.zeros((m, SHAPES), dtype=np.float32)
        shape[:, : len(COLUMNS)] = self.shape[at]
        notes = tuple(
            orjson.dumps([f"e-{i}", self.names[i], text, None, None, []])
            for i, text in zip(at.tolist(), said, strict=True)
        )
        return Suspects(
            at.astype(np.int64), self.time[at], at.astype(np.int64), keys,
            self.family[at].astype(np.uint8), (1 << self.family[at]).astype(np.uint16),
            self.nats[at], shape, np.ones(m), np.full(m, 3.0), np.ones(m), label[at],
            np.ones(m, dtype=bool), np.full(m, -1, dtype=np.int64), notes,
        )  # fmt: skip


def folded(made: Made, size: int = 256, book: IncidentBook | None = None) -> list[Folded]:
    """What each batch gave."""
    out, book = [], IncidentBook() if book is None else book
    for facts in made.batches(size):
        out.append(fold(book, facts))
        book = out[-1].book
    return out
