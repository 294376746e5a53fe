"""A bounded sample of trusted events to hold a model against.

Bottom-k by hash with forgetting: an event's key is that of weighted sampling without replacement
(Efraimidis and Spirakis 2006), in logarithms, and all keys grow with age, so that an event's chance
to be in the sample halves with every half-life (Cormode et al. 2009, forward decay). Samples of
two partitions unite exactly.

Trusted means: accepted, from a source with a history of accepted events (a newcomer's events are
sixteen times less likely to be drawn), and no source more often than others within a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.core.types import BoolArray, ByteArray, EventBatch, FloatArray, Int32Array, IntArray
from monitor.sketches.reference_rows import shared_out

PER_BATCH = 256
SLOTS_LOG2 = 12
FULL_HISTORY = 16
MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))
SEED = 17


@dataclass(frozen=True, slots=True)
class Holdout:
    """The sample, and what sources have a history.

    Attributes
    ----------
    rows
        float32[m, p], m at most the capacity, the events' features.
    y
        int32[m], their labels.
    key
        float64[m], the lowest stay.
    history
        uint8[4096], accepted events by hashed source, up to ``FULL_HISTORY``. Two sources may
        share a slot: then one has the other's trust, and still no more than its share of a batch.
    """

    rows: npt.NDArray[np.float32]
    y: Int32Array
    key: FloatArray
    history: ByteArray

    @classmethod
    def empty(cls, width: int) -> Holdout:
        """No events; rows will have ``width`` features."""
        return cls(
            np.zeros((0, width), dtype=np.float32),
            np.zeros(0, dtype=np.int32),
            np.zeros(0),
            np.zeros(1 << SLOTS_LOG2, dtype=np.uint8),
        )

    def __len__(self) -> int:
        return len(self.y)

    def added(
        self,
        batch: EventBatch,
        rows: FloatArray,
        accepted: BoolArray,
        capacity: int,
        half_life: float,
    ) -> Holdout:
        """With the ``accepted`` of a batch, whose features are ``rows`` float64[n, p]."""
        taken = int(accepted.sum())
        if not taken:
            return self
        keep = shared_out(batch, accepted, PER_BATCH, SEED)
        slot = _slots(batch.source)
        trust = (1.0 + self.history[slot[keep]]) / (1.0 + FULL_HISTORY)
        drawn = _uniform(batch.id_hash[keep])
        # ln of an exponential variable, whose rate is the trust.
        key = np.log(-np.log(drawn)) - np.log(trust)
        came = np.bincount(slot[accepted], minlength=len(self.history))
        grown = Holdout(
            np.concatenate([self.rows, rows[keep].astype(np.float32)]),
            np.concatenate([self.y, batch.y[keep]]),
            np.concatenate([self.key + np.log(2.0) * taken / half_life, key]),
            np.minimum(self.history + np.minimum(came, FULL_HISTORY), FULL_HISTORY).astype(
                np.uint8
            ),
        )
        return grown.within(capacity)

    def merge(self, other: Holdout, capacity: int) -> Holdout:
        """The sample of both sides' events."""
        return Holdout(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.y, other.y]),
            np.concatenate([self.key, other.key]),
            np.minimum(self.history + other.history, FULL_HISTORY).astype(np.uint8),
        ).within(capacity)

    def within(self, capacity: int) -> Holdout:
        """The ``capacity`` events with the lowest keys."""
        if len(self) <= capacity:
            return self
        low = np.sort(np.argpartition(self.key, capacity - 1)[:capacity])
        return Holdout(self.rows[low], self.y[low], self.key[low], self.history)


def _slots(source: npt.NDArray[np.uint64]) -> IntArray:
    return np.asarray((source * MIX[0]) >> np.uint64(64 - SLOTS_LOG2), dtype=np.int64)


def _uniform(hashed: npt.NDArray[np.uint64]) -> FloatArray:
    """float64[n] in (0, 1), from hashes that may be small numbers."""
    mixed = (hashed + np.uint64(SEED)) * MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(29))) * MIX[1]
    top = (mixed ^ (mixed >> np.uint64(32))) >> np.uint64(12)
    return np.asarray((top.astype(np.float64) + 0.5) / 2.0**52)
