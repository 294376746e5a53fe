"""A second look at the most surprising events: whose pattern is it, and of which labels?

A drift brings new combinations of values with whatever label belongs to them; a trigger brings one
combination with one label. So what a pair of values was expected to count with a label is at least
what it counts with the other labels, in proportion to how often the labels come.

And one account in one session repeats itself by nature: its age, its averages, its place. What the
event's own source sent beside it is left out of the count, unless that source is most of the
traffic. A pattern that only one source sends is for the channels that judge sources.

Both are looked up only for the few events and pairs that matter.
"""

from __future__ import annotations

import numpy as np

from monitor.core.types import FloatArray, HashArray, Int32Array, IntArray
from monitor.sketches.lift import Counted, Plan, cells_of, pair_slots
from monitor.sketches.surprise import TOP, Float32Array, Scale, expected_counts, surprise_of

REVIEW_NATS = 1.0
REVIEWED_PAIRS, REVIEWED_LABELS = 6, 16
REVIEWED_PART = 16
LEAST_OF_SOURCE, LOOKED_AT = 3, 64


def reviewed(
    counted: Counted,
    surprise: Float32Array,
    score: FloatArray,
    scale: Scale,
    around: tuple[FloatArray, Int32Array, HashArray, float, FloatArray, Plan],
) -> FloatArray:
    """Scores float64[n], the highest held against the other labels and without their own source.

    Reviewed is a sixteenth of the batch, as far as it has ``REVIEW_NATS``.

    Parameters
    ----------
    counted, surprise, score, scale
        The batch held against a table; surprises float32[p, n] by pair, and float64[n] by event.
    around
        Normal scores float64[w, n], labels int32[n], sources uint64[n], the width of a cell, the
        recent mass of each label float64[C], and the plan.
    """
    place = len(score) - 1 - len(score) // REVIEWED_PART
    least = max(REVIEW_NATS, float(np.partition(score, place)[place]))
    rows = np.flatnonzero(score >= least)
    across, y, source, cell, labels, chosen = around
    if not len(rows) or np.count_nonzero(labels) < 2:
        return score
    many = min(REVIEWED_PAIRS, len(surprise))
    pair = np.argpartition(-surprise[:, rows], many - 1, axis=0)[:many]
    expected = np.take_along_axis(expected_counts(counted, chosen.pairs, scale, rows), pair, axis=0)
    event = cells_of(across[:, rows], cell), y[rows]
    elsewhere = _elsewhere(counted, pair, event, labels, chosen)
    singles = len(across)
    count = counted.count[singles + pair, rows] - _of_own_source(
        counted, singles + pair, rows, source
    )
    held = np.empty(pair.shape, dtype=np.float32)
    np.maximum(expected, elsewhere, out=expected)
    surprise_of(count, expected, scale.smooth, scale.dispersion, held)
    held *= scale.ready[pair, 0]
    best = -np.partition(-held, min(TOP, many) - 1, axis=0)[:TOP]
    out = score.copy()
    out[rows] = np.minimum(score[rows], np.maximum(best.sum(axis=0) / min(TOP, many), 0.0))
    return out


def _of_own_source(
    counted: Counted, pattern: IntArray, rows: IntArray, source: HashArray
) -> Float32Array:
    """float32[k, m]: weight of ``pattern`` int64[k, m] in other events of the rows' sources."""
    own = np.zeros(pattern.shape, dtype=np.float32)
    keys, who, times = np.unique(source[rows], return_inverse=True, return_counts=True)
    # Who repeats a pattern is surprising as often.
    for at in np.flatnonzero(times >= LEAST_OF_SOURCE):
        same = np.flatnonzero(source == keys[at])
        if 2 * len(same) > len(source):
            continue
        which = np.flatnonzero(who == at)
        stride = max(1, len(same) // LOOKED_AT)
        some, p = same[::stride], pattern[:, which]
        here = counted.slot[p, rows[which]]
        alike = counted.slot[p[:, :, None], some] == here[:, :, None]
        weight = (counted.weight[p[:, :, None], some] * alike).sum(axis=2) * np.float32(stride)
        own[:, which] = np.maximum(weight - counted.weight[p, rows[which]], 0.0)
    return own


def _elsewhere(
    counted: Counted,
    pair: IntArray,
    event: tuple[Int32Array, Int32Array],
    labels: FloatArray,
    chosen: Plan,
) -> Float32Array:
    """float32[k, m]: what ``pair`` int64[k, m] would count at the rate it has with other labels."""
    cells, y = event
    total, mass = np.zeros(pair.shape), np.zeros(len(y))
    bits = int(counted.recent.shape[1]).bit_length() - 1
    for label in np.argsort(-labels, kind="stable")[:REVIEWED_LABELS].tolist():
        other = (y != label).astype(np.float64)
        slot = pair_slots(cells, label, pair, chosen, bits)
        total += other * counted.recent[len(cells) + pair, slot]
        mass += other * labels[label]
    rate = labels[y] / np.maximum(mass, 1.0)
    return np.asarray(total * np.where(mass > 0.0, rate, 0.0), dtype=np.float32)
