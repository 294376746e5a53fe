"""A bounded memory of recent 64-bit keys with their counts, oldest forgotten first.

Sorted generations, as in a log-structured merge tree (O'Neil et al. 1996): the youngest takes new
keys, full ones are never touched again and are shared between successive states, and the oldest
is dropped when a new one begins. So an update copies one small generation, whatever the capacity.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from monitor.core.types import HashArray, Int32Array, IntArray
from monitor.sketches.arrays import starts

GENERATIONS = 8


@dataclass(frozen=True, slots=True)
class Sorted:
    """A batch of n keys in order, for all that is asked of them.

    ``order`` int64[n], stable; ``keys`` uint64[u], each once; ``first`` int64[u], where in the
    order each begins; ``times`` int64[u], how often it comes.
    """

    order: IntArray
    keys: HashArray
    first: IntArray
    times: IntArray

    @classmethod
    def of(cls, keys: HashArray) -> Sorted:
        """Of uint64[n]."""
        order = np.argsort(keys)
        ordered = keys[order]
        first = starts(ordered)
        if len(first) < len(keys):
            # Only doubles tell a stable order, which takes several times longer, from another.
            order = np.argsort(keys, kind="stable")
        return cls(order, ordered[first], first, np.diff(first, append=len(keys)))

    def spread(self, values: IntArray) -> IntArray:
        """int64[n]: for each of the batch's keys, the one of int64[u] that is its own."""
        out = np.empty(len(self.order), dtype=np.int64)
        out[self.order] = np.repeat(values, self.times)
        return out

    def earlier(self) -> IntArray:
        """int64[n]: how often each key came before, within the batch itself."""
        before = np.empty(len(self.order), dtype=np.int64)
        before[self.order] = np.arange(len(self.order)) - np.repeat(self.first, self.times)
        return before


@dataclass(frozen=True, slots=True)
class RecentKeys:
    """Keys seen lately and how often.

    Attributes
    ----------
    keys
        Arrays of uint64, each sorted and free of doubles, youngest first. A key that comes back
        later may be in several.
    counts
        int32 beside each, how often the key came during that generation.
    capacity
        The largest number of entries held, or two batches where those are larger. When full,
        at least three quarters of it are kept.
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
        batch = Sorted.of(keys)
        return batch.spread(self.count_sorted(batch.keys))

    def count_sorted(self, keys: HashArray) -> IntArray:
        """The same for keys in order, each once.

        Searching in order walks each generation once, instead of missing the cache at each key.
        """
        total = np.zeros(len(keys), dtype=np.int64)
        for held, counts in zip(self.keys, self.counts, strict=True):
            if len(held):
                at = np.minimum(np.searchsorted(held, keys), len(held) - 1)
                hit = np.flatnonzero(held[at] == keys)
                total[hit] += counts[at[hit]]
        return total

    def add(self, keys: HashArray) -> RecentKeys:
        """With ``keys``, uint64[n], added; doubles count."""
        return self.add_sorted(Sorted.of(keys))

    def add_sorted(self, batch: Sorted) -> RecentKeys:
        """With a batch of keys added."""
        if not len(batch.keys):
            return self
        young, counts = _union(
            self.keys[0], self.counts[0], batch.keys, batch.times.astype(np.int32)
        )
        held, of_held = (young, *self.keys[1:]), (counts, *self.counts[1:])
        if len(young) >= max(1, self.capacity // GENERATIONS):
            held = (np.zeros(0, np.uint64), *held)
            of_held = (np.zeros(0, np.int32), *of_held)
        fit = _fitting(held, self.capacity - self.capacity // GENERATIONS)
        return RecentKeys(held[:fit], of_held[:fit], self.capacity)

    def merge(self, other: RecentKeys) -> RecentKeys:
        """Both memories as one, generation by generation, the oldest dropped beyond the capacity.

        Commutative, with :meth:`empty` as the neutral element.
        """
        pairs = [
            _union(*_generation(self, age), *_generation(other, age))
            for age in range(max(len(self.keys), len(other.keys)))
        ]
        keys = tuple(keys for keys, _ in pairs)
        capacity = max(self.capacity, other.capacity)
        fit = _fitting(keys, capacity)
        return RecentKeys(keys[:fit], tuple(counts for _, counts in pairs[:fit]), capacity)


def _generation(memory: RecentKeys, age: int) -> tuple[HashArray, Int32Array]:
    if age < len(memory.keys):
        return memory.keys[age], memory.counts[age]
    return np.zeros(0, np.uint64), np.zeros(0, np.int32)


def _fitting(held: tuple[HashArray, ...], capacity: int) -> int:
    """How many of the youngest generations hold at most ``capacity`` keys; two at least."""
    totals = accumulate(len(keys) for keys in held)
    return max(2, sum(total <= capacity for total in totals))


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
    # Where each new key goes once those before it are in: what np.insert does, for both at once.
    new = ~known
    place = at[new] + np.arange(np.count_nonzero(new))
    old = np.ones(len(keys) + len(place), dtype=bool)
    old[place] = False
    all_keys, all_counts = np.empty(len(old), keys.dtype), np.empty(len(old), counts.dtype)
    all_keys[place], all_counts[place] = fresh[new], times[new]
    all_keys[old], all_counts[old] = keys, grown
    return all_keys, all_counts


def earlier(keys: np.ndarray[tuple[int], np.dtype[Any]]) -> IntArray:
    """How often each key came before, within ``keys`` itself: int64[n]."""
    order = np.argsort(keys, kind="stable")
    first = starts(keys[order])
    before = np.empty(len(order), dtype=np.int64)
    before[order] = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    return before
