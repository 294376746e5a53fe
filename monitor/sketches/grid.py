"""Which values a column usually takes: to how many decimals, and which ones it has shown.

Recorded quantities live on grids (cents, degrees, ratings, sensor steps), and honest events stay on
them. Arithmetic done on features to move them somewhere leaves the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.core.types import BoolArray, FloatArray, IntArray

MAX_DECIMALS = 8
SLOT_BITS = 14
CROWDED_SHARE = 0.5
SAMPLE_ROWS = 64
TOGETHER = 8
LATELY_EVENTS = 512.0
GRID_SHARE, LEAST_SAMPLE = 0.98, 32.0
_POWERS = 10.0 ** np.arange(MAX_DECIMALS + 1)
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Grid:
    """What w columns have shown.

    Attributes
    ----------
    decimals
        float64[w, MAX_DECIMALS + 2]: decayed number of sampled values by the decimals they need,
        the last class for more than can be told.
    shown
        bool[w, 2^SLOT_BITS]: which hashed values came before. A collision takes a new value for a
        known one, never the other way round.
    unseen, off
        float64[w]: decayed number of values that had not come before, and of values between the
        column's grid points, among accepted events.
    mass
        Decayed number of events behind those two.
    lately
        float64[2, w]: the share of all recent values that were unseen, and off.
    """

    decimals: FloatArray
    shown: BoolArray
    unseen: FloatArray
    off: FloatArray
    mass: float
    lately: FloatArray

    @classmethod
    def empty(cls, columns: int) -> Grid:
        """Nothing shown yet."""
        return cls(
            np.zeros((columns, MAX_DECIMALS + 2)),
            np.zeros((columns, 1 << SLOT_BITS), dtype=np.bool_),
            np.zeros(columns),
            np.zeros(columns),
            0.0,
            np.zeros((2, columns)),
        )

    def usual(self) -> IntArray:
        """int64[w]: decimals that nearly all values of a column make do with; one more: no grid."""
        total = self.decimals.sum(axis=1, keepdims=True)
        enough = np.cumsum(self.decimals, axis=1) >= np.maximum(GRID_SHARE * total, LEAST_SAMPLE)
        enough[:, -1] = True
        return np.asarray(np.argmax(enough, axis=1), dtype=np.int64)

    def crowded(self) -> BoolArray:
        """bool[w]: columns that have shown more values than the slots can keep apart.

        Every new value falls upon a taken slot more and more often then, and the few that do not
        look rare, however ordinary it is for the column to bring new values.
        """
        return np.asarray(self.shown.mean(axis=1) > CROWDED_SHARE)

    def look(self, across: FloatArray) -> tuple[IntArray, BoolArray, BoolArray]:
        """Slots, and which values never came before or lie between grid points.

        Parameters
        ----------
        across
            float64[w, n], a column a row.

        Returns
        -------
        slot, unseen, off
            int64[w, n], bool[w, n], bool[w, n].
        """
        slot = np.empty(across.shape, dtype=np.int64)
        unseen, off = np.empty(across.shape, np.bool_), np.zeros(across.shape, np.bool_)
        usual = self.usual()
        # A few columns at a time, which stay in the cache meanwhile.
        for first in range(0, len(across), TOGETHER):
            some = slice(first, first + TOGETHER)
            slot[some] = _slots(across[some])
            shown = self.shown[some].reshape(-1)
            np.logical_not(shown.take(_flat(slot[some]), mode="clip"), out=unseen[some])
            off[some] = between(across[some], np.minimum(usual[some], MAX_DECIMALS))
        off[usual > MAX_DECIMALS] = False
        return slot, unseen, off

    def learn(
        self,
        across: FloatArray,
        looked: tuple[IntArray, BoolArray, BoolArray],
        accepted: BoolArray,
        half_life: float,
    ) -> Grid:
        """After a batch: every value was shown; shares are learned from accepted rows bool[n]."""
        slot, unseen, off = looked
        count = int(accepted.sum())
        keep = 0.5 ** (count / half_life)
        shown = self.shown
        if unseen.any():
            shown, place = shown.copy(), _flat(slot)
            # Many are marked sooner than they are told apart.
            few = 4 * np.count_nonzero(unseen) < unseen.size
            shown.reshape(-1)[place[unseen] if few else place] = True
        sample = across[:, np.flatnonzero(accepted)[:SAMPLE_ROWS]]
        keep_sample = 0.5 ** (sample.shape[1] / half_life)
        return Grid(
            keep_sample * self.decimals + _by_decimals(sample),
            shown,
            keep * self.unseen + np.count_nonzero(unseen & accepted, axis=1),
            keep * self.off + np.count_nonzero(off & accepted, axis=1),
            keep * self.mass + count,
            self.lately_with(unseen, off),
        )

    def lately_with(self, unseen: BoolArray, off: BoolArray) -> FloatArray:
        """float64[2, w]: :attr:`lately` with a batch, bool[w, n] and bool[w, n], in it."""
        keep = 0.5 ** (unseen.shape[1] / LATELY_EVENTS)
        now = np.stack([np.count_nonzero(unseen, axis=1), np.count_nonzero(off, axis=1)])
        now = now / max(1, unseen.shape[1])
        return np.asarray(keep * self.lately + (1.0 - keep) * now)

    def without(self, columns: IntArray) -> Grid:
        """As if ``columns`` int64[k] had shown nothing."""
        stay = np.ones(len(self.unseen))
        stay[columns] = 0.0
        return Grid(
            self.decimals * stay[:, None],
            self.shown & (stay[:, None] > 0.0),
            self.unseen * stay,
            self.off * stay,
            self.mass,
            self.lately * stay,
        )

    def merge(self, other: Grid) -> Grid:
        """Both as one: exact, commutative, with :meth:`empty` as the neutral element."""
        return Grid(
            self.decimals + other.decimals,
            self.shown | other.shown,
            self.unseen + other.unseen,
            self.off + other.off,
            self.mass + other.mass,
            np.maximum(self.lately, other.lately),
        )


def between(across: FloatArray, decimals: IntArray) -> BoolArray:
    """bool[w, n]: values of float64[w, n] that need more than their column's ``decimals`` int64[w].

    Examples
    --------
    >>> between(np.array([[0.25, 0.2512, 7.0]]), np.array([2])).tolist()
    [[False, True, False]]
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is a whole number
        scaled = across * _POWERS[decimals][:, None]
        off = np.rint(scaled)
        off -= scaled
        np.abs(off, out=off)
        np.abs(scaled, out=scaled)
        scaled *= 1e-9
        scaled += 1e-6
        return np.asarray(off > scaled)


def _flat(slot: IntArray) -> IntArray:
    """``slot`` int64[w, n] as places in all of these columns' slots."""
    return slot + (np.arange(len(slot)) << SLOT_BITS)[:, None]


def _by_decimals(sample: FloatArray) -> FloatArray:
    """float64[w, MAX_DECIMALS + 2]: how many of the values need 0, 1, … decimals, or more."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = sample * _POWERS[:, None, None]
        off = np.abs(scaled - np.rint(scaled)) > 1e-6 + 1e-9 * np.abs(scaled)
    # The first number of decimals that is enough decides, also where rounding undoes it later.
    left = np.logical_and.accumulate(off, axis=0).sum(axis=2).T
    counts = -np.diff(left, axis=1, prepend=sample.shape[1], append=0)
    return np.asarray(counts, dtype=np.float64)


def _slots(across: FloatArray) -> IntArray:
    """int64[w, n]: a slot for each value, by its bits (negative zero is zero)."""
    bits: npt.NDArray[np.uint64] = np.ascontiguousarray(across + 0.0).view(np.uint64)
    bits ^= bits >> np.uint64(29)
    bits *= _MIX
    bits >>= np.uint64(64 - SLOT_BITS)
    return np.asarray(bits.view(np.int64))
