"""Telling a change of the world from an attack: mass surprise, and whose it is.

When the world changes, events become surprising in masses, and they come from everybody. An attack
is a part of the traffic, or comes from a part of the sources. So a detector's p-values no longer
describe ordinary traffic where both hold:

- among the last ``SPANS`` events or so, more have a small p than an attack that is a share
  ``ATTACK`` of all traffic would make, by three standard deviations; and
- sources that supply more than half of these events, each by itself, show more of them than that.

The second is the breakdown point of the weighted median of the sources' own shares: attackers who
supply less than half of the events cannot bring it about however many accounts they use, unless
everybody else were surprising too. The first alone could be had by a ring with a third of the
traffic; the second alone by any attacker who makes ordinary sources err.

There the p-values are based anew: an event keeps its place among its neighbours, and its p-value
is at least the share of them that lie as low. A change within a batch is seen within this batch.
Below ``ATTACK`` a change that all sources show cannot be told from as large an attack by ordinary
sources, and is held; adversarial drift is the name Korycki and Krawczyk (2023) gave to this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from monitor.core.types import BoolArray, FloatArray, HashArray, IntArray

LOW = 0.01
ATTACK, DEVIATIONS, MAJORITY = 0.15, 3.0, 0.5
SPANS = (256, 1024)
KEPT = SPANS[-1] - 1


class _Span(NamedTuple):
    """``events`` in a row, and more small p-values than an attack can make among them."""

    events: int
    least: int


def _least(events: int) -> int:
    """The smallest k with k − 3·√k above what an attack and ordinary traffic make together."""
    expected = (ATTACK + LOW) * events
    root = 0.5 * (DEVIATIONS + np.sqrt(DEVIATIONS**2 + 4.0 * expected))
    return int(np.floor(root**2)) + 1


_SPANS = tuple(_Span(events, _least(events)) for events in SPANS)


@dataclass(frozen=True, slots=True)
class Recent:
    """The last events: ``source`` uint64[r], and which were ``low`` bool[r], by detector name."""

    source: HashArray
    low: dict[str, BoolArray]

    @classmethod
    def empty(cls) -> Recent:
        """No events."""
        return cls(np.empty(0, dtype=np.uint64), {})

    def put(self, source: HashArray, p_value: Mapping[str, FloatArray]) -> Recent:
        """With the events of ``source`` uint64[n], whose p-values float64[n] are by detector.

        Pass p-values as they were before :func:`based_anew`: what a change made of them is what
        tells that it goes on.
        """
        latest = slice(-KEPT, None)
        low = {
            name: np.concatenate([self._of(name), p <= LOW])[latest] for name, p in p_value.items()
        }
        return Recent(np.concatenate([self.source, source])[latest], low)

    def _of(self, name: str) -> BoolArray:
        """bool[r]: the low ones of a detector; none while it was silent."""
        held = self.low.get(name)
        return np.zeros(len(self.source), dtype=bool) if held is None else held

    def changed(self, name: str, source: HashArray, p: FloatArray) -> IntArray:
        """The rows of a batch, int64[m], where the world is not the one the detector knows.

        Parameters
        ----------
        name
            The detector's.
        source
            uint64[n], of the batch.
        p
            float64[n], what its calibration says of them.
        """
        now = p <= LOW
        before = self._of(name)
        if np.count_nonzero(now) + np.count_nonzero(before) < _SPANS[0].least:
            return np.empty(0, dtype=np.int64)
        low = np.concatenate([before, now])
        inside = _dense(low)
        if not inside[len(before) :].any():
            return np.empty(0, dtype=np.int64)
        # From where it begins on, all events count: few sources have several in a short span.
        start = int(inside.argmax())
        if not _of_the_majority(np.concatenate([self.source, source])[start:], low[start:]):
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(inside[len(before) :])


def based_anew(p: FloatArray, rows: IntArray) -> FloatArray:
    """``p`` float64[n]; each of ``rows`` int64[m] at least the share of ``rows`` as low as it."""
    out = p.copy()
    among = p[rows]
    place = np.searchsorted(np.sort(among), among, side="right")
    out[rows] = np.maximum(among, place / (len(rows) + 1.0))
    return out


def _dense(low: BoolArray) -> BoolArray:
    """bool[n]: events within a span that holds more low ones than an attack can make."""
    n = len(low)
    total = np.concatenate([[0], np.cumsum(low)])
    inside = np.zeros(n, dtype=bool)
    for span in _SPANS:
        if n < span.events:
            break
        first = np.flatnonzero(total[span.events :] - total[: -span.events] >= span.least)
        step = np.zeros(n + 1, dtype=np.int64)
        np.add.at(step, first, 1)
        np.add.at(step, first + span.events, -1)
        inside |= np.cumsum(step[:-1]) > 0
    return inside


def _of_the_majority(source: HashArray, low: BoolArray) -> bool:
    """Whether sources with more low events than an attack's share supply most events."""
    _, inverse, count = np.unique(source, return_inverse=True, return_counts=True)
    own = np.bincount(inverse, weights=low, minlength=len(count))
    return bool(count[own > ATTACK * count].sum() > MAJORITY * len(source))
