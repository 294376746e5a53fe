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

    def leaves(self, z: FloatArray) -> IntArray:
        """int64[n, T]: each event's leaf in each tree, as an index into trees × leaves."""
        trees = len(self.column)
        # A column a row: comparisons then run over contiguous events.
        across = np.ascontiguousarray(z.T, dtype=np.float32)
        side = across[self.column.ravel()] > self.cut.ravel()[:, None].astype(np.float32)
        bits = side.view(np.uint8).reshape(trees, DEPTH, len(z))
        leaf = bits[:, 0].copy()
        for level in range(1, DEPTH):
            leaf |= bits[:, level] << np.uint8(level)
        index = leaf.astype(np.int64)
        index += (np.arange(trees) * LEAVES)[:, None]
        return np.ascontiguousarray(index.T)

    def log_proba(self, leaves: IntArray, n_classes: int) -> FloatArray:
        """float64[n, n_classes] log probabilities of events in ``leaves`` int64[n, T]."""
        used = self.trees_for(n_classes)
        counts = pad_axis(self.counts[:used], n_classes, axis=2)[:, :, :n_classes]
        prior = pad_axis(self.prior, n_classes)[:n_classes] + 1.0
        prior = prior / prior.sum()
        table = counts + (PRIOR_EVENTS * prior).astype(np.float32)
        np.log(table, out=table)
        table -= np.log(counts.sum(axis=2, keepdims=True) + np.float32(PRIOR_EVENTS))
        flat = table.reshape(used * LEAVES, n_classes)
        total = np.zeros((len(leaves), n_classes), dtype=np.float32)
        for tree in range(used):
            total += flat.take(leaves[:, tree], axis=0)
        return log_normalised(total.astype(np.float64) / used)

    def learn(self, leaves: IntArray, y: Int32Array, n_classes: int, half_life: float) -> Ferns:
        """With events in ``leaves`` int64[n, T] of classes int32[n] counted."""
        size = capacity_for(n_classes)
        counts = pad_axis(self.counts, size, axis=2)
        width = counts.shape[2]
        used = self.trees_for(width)
        cells = (leaves[:, :used] * width + y[:, None]).ravel()
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
