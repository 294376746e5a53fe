"""Where a series last changed its mean: ADWIN for many series at once.

The window of Bifet and Gavaldà (2007), section 3: an exponential histogram whose buckets hold
1, 2, 4, … values, at most ``BUCKETS`` of each size, and a window that is cut wherever the means of
its older and newer part differ by more than chance allows. Two departures: the Bernstein bound's
range is the window's own standard deviation, as the values are means that have no range; and of
several cuts the clearest one is made, where the paper drops bucket after bucket.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from monitor.core.types import BoolArray, FloatArray, IntArray
from monitor.sketches.arrays import pad_axis

LEVELS, BUCKETS = 10, 5
LEAST_SIDE = 5
CONFIDENCE = 0.002
TINY = 1e-12
VALUE, SQUARE, EVENTS = range(3)
WIDTH = LEVELS * (BUCKETS + 1)
SIZES = np.repeat(2.0 ** np.arange(LEVELS)[::-1], BUCKETS + 1)


@dataclass(frozen=True, slots=True)
class Adwin:
    """The windows of k series.

    Attributes
    ----------
    count
        int64[k, LEVELS], buckets in use; those of level l hold 2^l values, the oldest first.
    sums
        float64[k, LEVELS, BUCKETS + 1, 3]: of values, of their squares, and of the stream's events
        that they stand for.
    pending
        float64[k], events since the series' last value.
    """

    count: IntArray
    sums: FloatArray
    pending: FloatArray

    @classmethod
    def empty(cls, series: int) -> Adwin:
        """No values."""
        return cls(
            np.zeros((series, LEVELS), dtype=np.int64),
            np.zeros((series, LEVELS, BUCKETS + 1, 3)),
            np.zeros(series),
        )

    def grown(self, series: int) -> Adwin:
        """With room for ``series`` of them."""
        if series <= len(self.count):
            return self
        return Adwin(
            pad_axis(self.count, series),
            pad_axis(self.sums, series),
            pad_axis(self.pending, series),
        )

    @property
    def length(self) -> FloatArray:
        """float64[k]: events since the last change, or since the window reaches no further."""
        return np.asarray(self.sums[..., EVENTS].sum(axis=(1, 2)) + self.pending)

    @property
    def mean(self) -> FloatArray:
        """float64[k]: of each window; 0 where it is empty."""
        values = (self.count * 2.0 ** np.arange(LEVELS)).sum(axis=1)
        return np.asarray(self.sums[..., VALUE].sum(axis=(1, 2)) / np.maximum(values, 1.0))

    def put(self, value: FloatArray, present: BoolArray, events: int) -> Adwin:
        """With ``value`` float64[k] of the ``present`` bool[k] series after ``events`` more."""
        count, sums, pending = self.count.copy(), self.sums.copy(), self.pending + events
        rows = np.flatnonzero(present)
        place = count[rows, 0]
        new = np.stack([value[rows], np.square(value[rows]), pending[rows]], axis=1)
        sums[rows, 0, place] = new
        count[rows, 0] += 1
        pending[rows] = 0.0
        for level in range(LEVELS):
            full = np.flatnonzero(count[:, level] > BUCKETS)
            if not len(full):
                break
            merged = sums[full, level, 0] + sums[full, level, 1]
            sums[full, level, :-2] = sums[full, level, 2:]
            sums[full, level, -2:] = 0.0
            count[full, level] -= 2
            if level + 1 < LEVELS:  # What is older than the last level can hold is forgotten.
                sums[full, level + 1, count[full, level + 1]] = merged
                count[full, level + 1] += 1
        return Adwin(count, sums, pending)._cut(rows)

    def _cut(self, rows: IntArray) -> Adwin:
        """Without what lies before the clearest change in each of the series ``rows``."""
        order = slice(None, None, -1)
        used = (np.arange(BUCKETS + 1) < self.count[rows][:, order, None]).reshape(len(rows), WIDTH)
        size = used * SIZES
        value = self.sums[rows][:, order, :, VALUE].reshape(len(rows), WIDTH)
        n, total = size.sum(axis=1), value.sum(axis=1)
        square = self.sums[rows][..., SQUARE].sum(axis=(1, 2))
        variance = np.maximum(square / np.maximum(n, 1.0) - np.square(total / np.maximum(n, 1)), 0)
        older, older_total = np.cumsum(size, axis=1), np.cumsum(value, axis=1)
        newer, newer_total = n[:, None] - older, total[:, None] - older_total
        may = used & (older >= LEAST_SIDE) & (newer >= LEAST_SIDE)
        rate = 1.0 / np.maximum(older, 1.0) + 1.0 / np.maximum(newer, 1.0)
        log = np.log(2.0 * np.log(np.maximum(n, np.e)) / CONFIDENCE)[:, None]
        bound = np.sqrt(2.0 * rate * variance[:, None] * log)
        bound += (2.0 / 3.0) * rate * log * np.sqrt(variance)[:, None]
        gap = np.abs(older_total / np.maximum(older, 1.0) - newer_total / np.maximum(newer, 1.0))
        clear = np.where(may, gap - bound, -1.0)
        best = clear.argmax(axis=1)
        changed = np.flatnonzero(clear[np.arange(len(rows)), best] > TINY)
        if not len(changed):
            return self
        count, sums = self.count.copy(), self.sums.copy()
        for i in changed.tolist():  # Changes are rare.
            row, (step, last) = int(rows[i]), divmod(int(best[i]), BUCKETS + 1)
            level = LEVELS - 1 - step
            count[row, level + 1 :], sums[row, level + 1 :] = 0, 0.0
            kept = sums[row, level, last + 1 :].copy()
            sums[row, level] = 0.0
            sums[row, level, : len(kept)] = kept
            count[row, level] -= last + 1
        return replace(self, count=count, sums=sums)

    def merge(self, other: Adwin) -> Adwin:
        """Of each series the longer window; windows of one time cannot be joined value by value."""
        size = max(len(self.count), len(other.count))
        a, b = self.grown(size), other.grown(size)
        first = (a.length > b.length) | ((a.length == b.length) & (a.mean >= b.mean))
        return Adwin(
            np.where(first[:, None], a.count, b.count),
            np.where(first[:, None, None, None], a.sums, b.sums),
            np.where(first, a.pending, b.pending),
        )
