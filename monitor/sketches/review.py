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

from dataclasses import dataclass

import numpy as np

from monitor.core.types import FloatArray, Int32Array, IntArray
from monitor.sketches.lift import Counted, KeyArray, Plan, pair_slots
from monitor.sketches.surprise import (
    TOP,
    Float32Array,
    Scale,
    expected_counts,
    surprise_of,
)

REVIEW_NATS = 1.0
REVIEWED_PAIRS, REVIEWED_LABELS = 6, 16
REVIEWED_PART = 16
LEAST_OF_SOURCE, LOOKED_AT = 3, 64


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of a batch of n events, m columns of each of them picked, and their counts.

    ``place`` int64[m, n] the columns; ``single`` float32[m, n] recent counts of their values;
    ``pairs`` int64[p, 2] rows of ``place``; ``counted`` and ``surprise`` float32[p, n] by pair;
    ``score`` float64[n]; ``scale`` what counts are held against.
    """

    place: IntArray
    single: Float32Array
    pairs: IntArray
    counted: Counted
    surprise: Float32Array
    score: FloatArray
    scale: Scale

    def expected(self, pair: IntArray, rows: IntArray) -> Float32Array:
        """float32[k, r]: what some pairs int64[k, r] of each of r events were expected to count."""
        first, second = self.pairs[pair, 0], self.pairs[pair, 1]
        single = self.single[first, rows], self.single[second, rows]
        counts = self.counted.count[pair, rows], self.counted.anchor[pair, rows]
        return expected_counts(single, counts, self.scale.of(pair, rows))


@dataclass(frozen=True, slots=True)
class Events:
    """The events themselves.

    ``cells`` int32[w, n] and ``keys`` uint32[w, n] of every watched column, ``weight`` float32[w,
    n]; ``y`` int32[n]; ``who``: int64[n] the number of each event's source, and int64[n] the events
    in the order of these numbers; ``labels`` float64[C], recent events by label.
    """

    cells: Int32Array
    keys: KeyArray
    weight: Float32Array
    y: Int32Array
    who: tuple[IntArray, IntArray]
    labels: FloatArray


def reviewed(held: Pairs, events: Events, chosen: Plan, bits: int) -> FloatArray:
    """Scores float64[n], the highest held against the other labels and without their own source.

    Reviewed is a sixteenth of the batch, as far as it has ``REVIEW_NATS``. ``bits`` is log2 of the
    slots that pairs are counted in.
    """
    score, surprise = held.score, held.surprise
    place = len(score) - 1 - len(score) // REVIEWED_PART
    least = max(REVIEW_NATS, float(np.partition(score, place)[place]))
    rows = np.flatnonzero(score >= least)
    if not len(rows) or np.count_nonzero(events.labels) < 2:
        return score
    many = min(REVIEWED_PAIRS, len(surprise))
    # An event a row: partitioning along the first axis takes several times as long.
    by_event = np.negative(surprise.take(rows, axis=1).T, order="C")
    pair = np.argpartition(by_event, many - 1, axis=1)[:, :many].T.copy()
    scale, sides = held.scale.of(pair, rows), (held.pairs[pair, 0], held.pairs[pair, 1])
    count, expected = held.counted.count[pair, rows], held.expected(pair, rows)
    columns = held.place[sides[0], rows], held.place[sides[1], rows]
    count -= _of_own_source(columns, rows, events)
    elsewhere = _elsewhere(held.counted.recent, columns, rows, events, (chosen, bits))
    again = np.empty(pair.shape, dtype=np.float32)
    np.maximum(expected, elsewhere, out=expected)
    surprise_of(count, expected, scale.smooth, scale.dispersion, again)
    again *= scale.ready
    best = -np.partition(-again, min(TOP, many) - 1, axis=0)[:TOP]
    out = score.copy()
    out[rows] = np.minimum(score[rows], np.maximum(best.sum(axis=0) / min(TOP, many), 0.0))
    return out


def _of_own_source(
    columns: tuple[IntArray, IntArray], rows: IntArray, events: Events
) -> Float32Array:
    """float32[k, r]: weight of the pairs int64[k, r] in other events of the rows' sources."""
    who, order = events.who
    own = np.zeros(columns[0].shape, dtype=np.float32)
    count = np.bincount(who)
    # Who repeats a pattern is surprising as often.
    here = who[rows]
    enough = np.bincount(here, minlength=len(count)) >= LEAST_OF_SOURCE
    which = np.flatnonzero((enough & (2 * count <= len(who)))[here])
    if not len(which):
        return own
    # Each row beside some of its source's events, all such pairs of events in one list.
    here, row = here[which], rows[which]
    stride = np.maximum(1, count // LOOKED_AT)
    many = -(-count // stride)
    beside = np.repeat(np.arange(len(which)), many[here])
    at = np.arange(len(beside)) - np.repeat(np.cumsum(many[here]) - many[here], many[here])
    first = np.cumsum(count) - count
    other = order[first[here][beside] + at * stride[here][beside]]
    same = np.flatnonzero(events.y[other] == events.y[row][beside])
    beside, other = beside[same], other[same]
    # As places in flat arrays, of k pairs by row, and of each beside each other event.
    n, size = events.cells.shape[1], len(which)
    left, right = (side.take(which, axis=1) * n for side in columns)
    cells, weights = events.cells.reshape(-1), events.weight.reshape(-1)
    alike = cells.take(left.take(beside, axis=1) + other) == cells.take(left + row).take(beside, 1)
    pair, at = np.nonzero(alike)
    beside, other = beside[at], other[at]
    place = pair * size + beside
    there = right.take(place) + other
    alike = cells.take(there) == cells.take(right + row).take(place)
    place, other, there = place[alike], other[alike], there[alike]
    mine = weights.take(left + row) * weights.take(right + row)
    weight = weights.take(left.take(place) + other) * weights.take(there)
    total = np.bincount(place, weights=weight, minlength=mine.size)
    total *= np.tile(stride[here], len(own))
    own[:, which] = np.maximum(total.reshape(mine.shape) - mine, 0.0)
    return own


def _elsewhere(
    recent: Float32Array,
    columns: tuple[IntArray, IntArray],
    rows: IntArray,
    events: Events,
    where: tuple[Plan, int],
) -> Float32Array:
    """float32[k, r]: what the pairs would count at the rate they have with other labels."""
    chosen, bits = where
    y, labels = events.y[rows], events.labels
    first, second = events.keys[columns[0], rows], events.keys[columns[1], rows]
    some = np.argsort(-labels, kind="stable")[:REVIEWED_LABELS]
    said = some.astype(np.uint32)[:, None, None]
    alike = np.broadcast_to(first, (len(some), *first.shape))
    counts = recent.take(pair_slots(alike, second, said, chosen, bits), mode="clip")
    other = y != some[:, None]
    total = (counts * other[:, None, :]).sum(axis=0)
    mass = labels[some] @ other
    rate = labels[y] / np.maximum(mass, 1.0)
    return np.asarray(total * np.where(mass > 0.0, rate, 0.0), dtype=np.float32)
