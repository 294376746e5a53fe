"""A bounded memory of recent 64-bit keys with their counts, oldest forgotten first.

Sorted generations, as in a log-structured merge tree (O'Neil et al. 1996): the youngest takes new
keys, full ones are never touched again and are shared between successive states, and the oldest
is dropped when a new one begins. So an update copies one small generation, whatever the capacity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.core.types import HashArray, Int32Array, IntArray

GENERATIONS = 8


@dataclass(frozen=True, slots=True)
class RecentKeys:
    """Keys seen lately and how often.

    Attributes
    ----------
    keys
        Up to ``GENERATIONS`` arrays uint64, each sorted and free of doubles, youngest first. A
        key that comes back later may be in several.
    counts
        int32 beside each, how often the key came during that generation.
    capacity
        About the largest number of entries held: between 7/8 of it and all of it are kept when
        full, and one batch more at most.
    """

    keys: tuple[HashArray, ...]
    counts: tuple[Int32Array, ...]
    capacity: int

    @classmethod
    def empty(cls, capacity: int) -> RecentKeys:
        """Nothing seen, room for ``capacity`` keys."""
        return cls((np.zeros(0, np.uint64),), (np.zeros(0, np.int32),), capacity)

    def __len__(self) -> int:
        return sum(len(keys) for keys in self.keys)

    def count(self, keys: HashArray) -> IntArray:
        """How often each of ``keys``, uint64[n], was added and is remembered: int64[n]."""
        total = np.zeros(len(keys), dtype=np.int64)
        for held, counts in zip(self.keys, self.counts, strict=True):
            if len(held):
                at = np.minimum(np.searchsorted(held, keys), len(held) - 1)
                total += np.where(held[at] == keys, counts[at], 0)
        return total

    def add(self, keys: HashArray) -> RecentKeys:
        """With ``keys``, uint64[n], added; doubles count."""
        if not len(keys):
            return self
        fresh, times = np.unique(keys, return_counts=True)
        young, counts = _union(self.keys[0], self.counts[0], fresh, times.astype(np.int32))
        held, of_held = (young, *self.keys[1:]), (counts, *self.counts[1:])
        if len(young) >= max(1, self.capacity // GENERATIONS):
            held = (np.zeros(0, np.uint64), *held[: GENERATIONS - 1])
            of_held = (np.zeros(0, np.int32), *of_held[: GENERATIONS - 1])
        return RecentKeys(held, of_held, self.capacity)

    def merge(self, other: RecentKeys) -> RecentKeys:
        """Both memories as one, generation by generation, the oldest dropped beyond the capacity.

        Commutative, with :meth:`empty` as the neutral element.
        """
        keys: list[HashArray] = []
        counts: list[Int32Array] = []
        none = (np.zeros(0, np.uint64), np.zeros(0, np.int32))
        total = 0
        for age in range(max(len(self.keys), len(other.keys))):
            mine = (self.keys[age], self.counts[age]) if age < len(self.keys) else none
            theirs = (other.keys[age], other.counts[age]) if age < len(other.keys) else none
            both = _union(*mine, *theirs)
            total += len(both[0])
            if age and total > max(self.capacity, other.capacity):
                break
            keys.append(both[0])
            counts.append(both[1])
        return RecentKeys(tuple(keys), tuple(counts), max(self.capacity, other.capacity))


def _union(
    keys: HashArray, counts: Int32Array, fresh: HashArray, times: Int32Array
) -> tuple[HashArray, Int32Array]:
    """Two sorted sets as one, counts added."""
    if not len(keys):
        return fresh, times
    at = np.searchsorted(keys, fresh)
    known = keys[np.minimum(at, len(keys) - 1)] == fresh
    grown = counts.copy()
    grown[at[known]] += times[known]
    return (
        np.insert(keys, at[~known], fresh[~known]),
        np.insert(grown, at[~known], times[~known]),
    )


def earlier(keys: HashArray) -> IntArray:
    """How often each key came before, within ``keys`` itself: int64[n]."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    lengths = np.diff(np.append(starts, len(ordered)))
    before = np.empty(len(keys), dtype=np.int64)
    before[order] = np.arange(len(ordered)) - np.repeat(starts, lengths)
    return before
