"""Linear interpolation between the knots of many columns at once, to the bit what np.interp gives.

np.interp searches the knots for each value, and the branches of a search through values in no order
are mispredicted half of the time. Here a table of even buckets says where to begin, and a few
comparisons, none of them a branch, where to end. Columns whose knots crowd together, as a long tail
has it, would need many of them; these are left to np.interp, in order of their values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.core.types import FloatArray, IntArray

Places = npt.NDArray[np.int32]
BUCKETS = 512
MOST_STEPS = 4


@dataclass(frozen=True, slots=True)
class Knots:
    """Of d columns with up to K knots each; places count through all of them, row by row.

    Attributes
    ----------
    low, rate
        float64[d, 1]: where the first bucket begins, and buckets for a unit.
    begin
        int32[d, BUCKETS + 1]: the last knot before each bucket, or the first one of all.
    steps
        int64[d]: how many knots farther a value in that bucket can be.
    above, at, height, slope
        float64[d · K]: the next knot (infinite after the last), the knot itself, the value there
        and the rise behind it.
    """

    low: FloatArray
    rate: FloatArray
    begin: Places
    steps: IntArray
    above: FloatArray
    at: FloatArray
    height: FloatArray
    slope: FloatArray

    @classmethod
    def of(cls, knots: FloatArray, heights: FloatArray, count: IntArray) -> Knots:
        """Of ``knots`` and ``heights`` float64[d, K], the first ``count`` int64[d] of them."""
        d, width = knots.shape
        low, high = knots[:, 0], knots[np.arange(d), count - 1]
        rate = np.where(high > low, BUCKETS / np.where(high > low, high - low, 1.0), 0.0)
        begin = np.zeros((d, BUCKETS + 1), dtype=np.int32)
        steps = np.zeros(d, dtype=np.int64)
        above, slope = np.full((d, width), np.inf), np.zeros((d, width))
        for j, n in enumerate(count.tolist()):
            mine = knots[j, :n]
            bucket = _buckets(mine, low[j], rate[j])
            first = np.maximum(np.searchsorted(bucket, np.arange(BUCKETS + 1)) - 1, 0)
            last = np.searchsorted(bucket, np.arange(BUCKETS + 1), side="right") - 1
            begin[j], steps[j] = first + j * width, (last - first).max()
            above[j, : n - 1] = mine[1:]
            slope[j, : n - 1] = np.diff(heights[j, :n]) / np.diff(mine)
        flat = (above.ravel(), knots.ravel(), heights.ravel(), slope.ravel())
        return cls(low[:, None], rate[:, None], begin, steps, *flat)

    def heights(self, inside: FloatArray, first: int) -> FloatArray:
        """float64[k, n]: between the knots, for columns from ``first`` on.

        ``inside`` float64[k, n], a column a row, has no value beyond the outermost knots.
        """
        columns = slice(first, first + len(inside))
        steps = self.steps[columns]
        quick = steps <= MOST_STEPS
        if quick.all():
            return self._quick(inside, columns, int(steps.max(initial=0)))
        out = np.empty_like(inside)
        for j in range(len(inside)):
            one = slice(first + j, first + j + 1)
            if quick[j]:
                out[j] = self._quick(inside[j : j + 1], one, int(steps[j]))[0]
            else:
                out[j] = self._slow(inside[j], first + j)
        return out

    def _quick(self, inside: FloatArray, columns: slice, steps: int) -> FloatArray:
        bucket = _buckets(inside, self.low[columns], self.rate[columns])
        bucket += np.arange(len(inside), dtype=np.int32)[:, None] * np.int32(BUCKETS + 1)
        at = self.begin[columns].ravel().take(bucket)
        for _ in range(steps):
            at += inside >= self.above.take(at)
        out = inside - self.at.take(at)
        out *= self.slope.take(at)
        out += self.height.take(at)
        return np.asarray(out)

    def _slow(self, inside: FloatArray, column: int) -> FloatArray:
        # Neighbours are found from each other: with the sorting a third faster than at random.
        width = len(self.at) // len(self.steps)
        mine = slice(column * width, (column + 1) * width)
        n = 1 + int(np.count_nonzero(np.isfinite(self.above[mine])))
        knots, heights = self.at[mine][:n], self.height[mine][:n]
        order = inside.argsort()
        out = np.empty_like(inside)
        out[order] = np.interp(inside.take(order), knots, heights)
        return out


def _buckets(values: FloatArray, low: FloatArray, rate: FloatArray) -> Places:
    """The bucket of each value, which does not fall where values rise."""
    place = values - low
    place *= rate
    return np.asarray(place.astype(np.int32))
