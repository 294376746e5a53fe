"""Random ferns: oblivious random trees with class counts in the leaves.

After Özuysal et al. (2010), with the leaves' posteriors combined by their geometric mean. The
splits are drawn once from a fixed seed, so states of different partitions fit each other and
counts merge by addition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.core.types import FloatArray, Int32Array, IntArray
from monitor.sketches.arrays import capacity_for, log_normalised, pad_axis

Counts = npt.NDArray[np.float32]
DEPTH = 7
LEAVES = 1 << DEPTH
MAX_CELLS = 1 << 20
PRIOR_EVENTS = 2.0


@dataclass(frozen=True, slots=True)
class Ferns:
    """``counts`` float32[T, 128, C], decayed events by tree, leaf and class; ``prior`` float64[C].

    ``column`` int64[T, 7] and ``cut`` float64[T, 7] are the splits.
    """

    counts: Counts
    prior: FloatArray
    column: IntArray
    cut: FloatArray

    @classmethod
    def empty(cls, n_columns: int, trees: int, seed: int) -> Ferns:
        """No counts, two classes, splits drawn from ``seed``."""
        rng = np.random.default_rng([seed, n_columns])
        column = rng.integers(0, max(1, n_columns), size=(trees, DEPTH))
        cut = np.clip(rng.normal(size=(trees, DEPTH)), -1.5, 1.5)
        counts = np.zeros((trees, LEAVES, 2), dtype=np.float32)
        return cls(counts, np.zeros(2), column, cut)

    def leaves(self, across: Counts) -> IntArray:
        """int64[T, n]: each event's leaf in each tree, as an index into trees × leaves.

        ``across`` float32[d, n], a column a row: comparisons then run over contiguous events.
        """
        trees, n = len(self.column), across.shape[1]
        column, cut = self.column.T.ravel(), self.cut.T.ravel().astype(np.float32)
        # All splits of a column at once, and then back in their order, as bits.
        order = np.argsort(column, kind="stable")
        ends = np.searchsorted(column[order], np.arange(len(across) + 1))
        side = np.empty((len(order), n), dtype=np.bool_)
        for c in np.flatnonzero(np.diff(ends)).tolist():
            rows = slice(ends[c], ends[c + 1])
            np.greater(across[c], cut[order[rows], None], out=side[rows])
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        bits = side.view(np.uint8).take(place, axis=0).reshape(DEPTH, trees, n)
        leaf = bits[-1]
        for level in range(DEPTH - 2, -1, -1):
            leaf += leaf
            leaf |= bits[level]
        index: IntArray = leaf.astype(np.int64)
        index += (np.arange(trees) * LEAVES)[:, None]
        return index

    def log_proba(self, leaves: IntArray, n_classes: int) -> FloatArray:
        """float64[n, n_classes] log probabilities of events in ``leaves`` int64[T, n]."""
        used = self.trees_for(n_classes)
        counts = pad_axis(self.counts[:used], n_classes, axis=2)[:, :, :n_classes]
        prior = pad_axis(self.prior, n_classes)[:n_classes] + 1.0
        prior = prior / prior.sum()
        table = counts + (PRIOR_EVENTS * prior).astype(np.float32)
        np.log(table, out=table)
        table -= np.log(counts.sum(axis=2, keepdims=True) + np.float32(PRIOR_EVENTS))
        flat = table.reshape(used * LEAVES, n_classes)
        total = flat.take(leaves[0], axis=0, mode="clip")
        for leaf in leaves[1:used]:
            total += flat.take(leaf, axis=0, mode="clip")
        total *= np.float32(1.0 / used)
        return log_normalised(total)

    def learn(self, leaves: IntArray, y: Int32Array, n_classes: int, half_life: float) -> Ferns:
        """With events in ``leaves`` int64[T, n] of classes int32[n] counted."""
        size = capacity_for(n_classes)
        counts = pad_axis(self.counts, size, axis=2)
        width = counts.shape[2]
        used = self.trees_for(width)
        cells = (leaves[:used] * width + y).ravel()
        added = np.bincount(cells, minlength=used * LEAVES * width)
        keep = np.float32(0.5 ** (len(y) / half_life))
        fresh = counts[:used] * keep
        fresh += added.reshape(fresh.shape).astype(np.float32)
        prior = pad_axis(self.prior, width) * float(keep) + np.bincount(y, minlength=width)
        return Ferns(fresh, prior, self.column, self.cut)

    def trees_for(self, n_classes: int) -> int:
        """How many trees are kept: fewer where there are many classes, to bound the memory."""
        most = max(4, MAX_CELLS // (LEAVES * capacity_for(n_classes)))
        return min(len(self.counts), most)

    def plus(self, other: Ferns) -> Ferns:
        """Both counts as one."""
        size = max(self.counts.shape[2], other.counts.shape[2])
        used = min(len(self.counts), len(other.counts))
        counts = pad_axis(self.counts[:used], size, 2) + pad_axis(other.counts[:used], size, 2)
        prior = pad_axis(self.prior, size) + pad_axis(other.prior, size)
        return Ferns(counts, prior, self.column, self.cut)
