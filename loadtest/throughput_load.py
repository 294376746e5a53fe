"""The events that are judged and learned for the measurements of speed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import orjson

from monitor.core.types import BoolArray, FloatArray, IntArray

MANY_SOURCES, RING = 500, 5


@dataclass(frozen=True)
class Workload:
    """Events as bytes and as numbers; the first ``prime`` only make the state mature.

    Attributes
    ----------
    values
        The records.
    x
        float64[n, d], what the records hold.
    label
        int64[n], what the records say.
    labels
        How many there are.
    poison
        bool[n].
    prime
        Events before those that are measured.
    """

    values: list[bytes]
    x: FloatArray
    label: IntArray
    labels: int
    poison: BoolArray
    prime: int

    @property
    def events(self) -> int:
        """Measured events."""
        return len(self.values) - self.prime

    @property
    def bytes_each(self) -> float:
        """Mean length of a record."""
        return sum(map(len, self.values)) / len(self.values)

    def dicts(self, start: int, stop: int) -> list[dict[str, float]]:
        """Events as river wants them."""
        names = [f"f{i}" for i in range(self.x.shape[1])]
        return [dict(zip(names, row, strict=True)) for row in self.x[start:stop].tolist()]

    def first_half(self, start: int, stop: int) -> list[bool]:
        """Whether the class is one of the first half, for models that know two."""
        half: list[bool] = (2 * self.label[start:stop] < self.labels).tolist()
        return half


def make_workload(
    events: int, features: int, labels: int, *, prime: int, seed: int = 0
) -> Workload:
    """Class blobs with correlated columns; 1 % of labels flipped, in bursts of five sources."""
    rng = np.random.default_rng(seed)
    n = events + prime
    y = rng.integers(0, labels, n)
    centre = 1.2 * rng.normal(size=(labels, features))
    mix = np.eye(features) + 0.3 * rng.normal(size=(features, features)) / np.sqrt(features)
    x = np.round(centre[y] + rng.normal(size=(n, features)) @ mix, 6)
    poison = np.zeros(n, dtype=bool)
    for start in rng.integers(prime, n, max(1, events // 2000)).tolist():
        poison[start : start + 40 : 2] = True
    said = np.where(poison, (y + 1 + rng.integers(0, labels - 1, n)) % labels, y)
    source = np.where(poison, 900 + rng.integers(0, RING, n), rng.zipf(1.3, n) % MANY_SOURCES)
    values = [
        orjson.dumps(
            {
                "id": f"evt-{i:09d}",
                "ts": 1_700_000_000 + i * 0.01,
                "source": f"acct-{source[i]}",
                "label": f"class-{said[i]}",
                "features": x[i],
            },
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        for i in range(n)
    ]
    return Workload(values, x, said, labels, poison, prime)
