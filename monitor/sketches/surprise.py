"""How surprising it is that a pair of values comes with a label as often as it does.

The surprise is a negative-binomial log-likelihood ratio of a pair's recent count against the larger
of its long-run rate and of what independence of the two columns would give.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from monitor.core.types import BoolArray, FloatArray, IntArray
from monitor.sketches.lift import Counted

Float32Array = npt.NDArray[np.float32]
Rows = slice | IntArray
Triple = tuple[Float32Array, Float32Array, Float32Array]
TOP = 3
CHUNK_EVENTS = 4096
FEW_EVENTS = np.float32(150.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """What counts are held against.

    ``ratio`` float32[p or 1, n or 1]: recent over baseline mass; ``of_label`` float32[n]: recent
    events with the event's label; ``ready`` bool, of the shape of ``ratio``: pairs whose baseline
    has seen enough.
    """

    ratio: Float32Array
    of_label: Float32Array
    ready: BoolArray
    smooth: np.float32
    dispersion: np.float32

    def part(self, rows: Rows) -> Scale:
        """The same for some of the events."""
        alike = self.ratio.shape[1] == 1
        return Scale(
            self.ratio if alike else self.ratio[:, rows],
            self.of_label[rows],
            self.ready if alike else self.ready[:, rows],
            self.smooth,
            self.dispersion,
        )

    def of(self, pair: IntArray, rows: IntArray) -> Scale:
        """The same for some pairs int64[k, r] of each of r events."""
        alike = self.ratio.shape[1] == 1
        return Scale(
            self.ratio if alike else self.ratio[pair, rows],
            self.of_label[rows],
            self.ready if alike else self.ready[pair, rows],
            self.smooth,
            self.dispersion,
        )


def expected_counts(
    single: tuple[Float32Array, Float32Array],
    counted: tuple[Float32Array, Float32Array],
    scale: Scale,
) -> Float32Array:
    """float32[p, n]: the larger of the long-run rate and of independence.

    Independence is told from the events that have one of the two values only: of N events with the
    label, those with both would be b·c/d by the others in the 2 × 2 table. The product of the
    margins would count the trigger itself, and in a rare label leave nothing to be surprised at.
    But where hardly any event is without one of the values, or the label has few events, the table
    says little, and that product counts in part or in whole.

    Parameters
    ----------
    single
        Recent counts of the two values of each pair, float32[p, n] each; they are used up.
    counted
        Recent and baseline counts of the pairs, float32[p, n] each.
    scale
        For these pairs and events.
    """
    first, second = single
    both, anchor = counted
    of_label = scale.of_label
    inverse = np.float32(1.0) / of_label
    # An array as the other side of a maximum is three times faster than a number, and a row of
    # numbers twice.
    product = np.maximum(first, second)
    np.maximum(product, np.minimum(of_label, FEW_EVENTS), out=product)
    product *= first
    product *= second
    product *= inverse * inverse
    neither = np.add(first, second)
    np.subtract(both, neither, out=neither)
    neither += of_label
    np.maximum(neither, np.ones_like(of_label), out=neither)
    np.maximum(first, both, out=first)
    first -= both
    np.maximum(second, both, out=second)
    second -= both
    first *= second
    first /= neither
    np.maximum(first, product, out=first)
    np.multiply(anchor, scale.ratio, out=second)
    return np.maximum(second, first, out=second)


def surprise_of(
    count: Float32Array,
    expected: Float32Array,
    smooth: np.float32,
    size: np.float32,
    out: Float32Array,
) -> Float32Array:
    """Negative-binomial log-likelihood ratio of too many, in nats, into ``out``; 0 for too few.

    By rounding it can be a little below zero.

    Returned, in (0, 1], is how much of an occurrence the baseline may learn: no more than it
    expected. ``expected`` is used up.
    """
    b = np.add(expected, smooth, out=expected)
    a = np.add(count, smooth)
    np.maximum(a, b, out=a)
    share: Float32Array = np.divide(b, a, dtype=np.float32)
    np.log(share, out=out)
    out *= a
    a += size
    b += size
    b /= a
    np.log(b, out=b)
    b *= a
    np.subtract(b, out, out=out)
    return share


def highest(values: Float32Array) -> FloatArray:
    """float64[n]: the mean of the three highest of each column of float32[p, n], at least 0.

    A tournament of sorted triples, a round over all rows at once: several times faster than
    partitioning along the first axis.
    """
    triples: list[Triple] = []
    rest = values
    if len(values) >= 4:
        quarter = len(values) // 4
        held = _of_four(values[: 4 * quarter])
        rest = values[4 * quarter :]
        while (rows := len(held[0])) > 1:
            half = rows // 2
            if rows % 2:
                triples.append((held[0][-1:], held[1][-1:], held[2][-1:]))
            held = _merged(
                (held[0][:half], held[1][:half], held[2][:half]),
                (held[0][half : 2 * half], held[1][half : 2 * half], held[2][half : 2 * half]),
            )
        triples.append(held)
    none = np.zeros_like(values[:1])
    triples += [(rest[row : row + 1], none, none) for row in range(len(rest))]
    while len(triples) > 1:
        triples.append(_merged(triples.pop(), triples.pop()))
    first, second, third = triples[0]
    total = first[0].astype(np.float64) + second[0] + third[0]
    return np.asarray(np.maximum(total, 0.0) / min(TOP, len(values)))


def _of_four(values: Float32Array) -> Triple:
    """The three highest, descending, of rows r, r + q, r + 2q and r + 3q, for the q first rows."""
    half = len(values) // 2
    high = np.maximum(values[:half], values[half:])
    low = np.minimum(values[:half], values[half:])
    quarter = half // 2
    best = np.maximum(high[:quarter], high[quarter:])
    lost = np.minimum(high[:quarter], high[quarter:])
    other = np.maximum(low[:quarter], low[quarter:])
    return best, np.maximum(lost, other), np.minimum(lost, other, out=lost)


def _merged(a: Triple, b: Triple) -> Triple:
    """The three highest of two descending triples, element by element."""
    best, lost, other = np.maximum(a[0], b[0]), np.minimum(a[0], b[0]), np.maximum(a[1], b[1])
    second = np.maximum(lost, other)
    third = np.minimum(lost, other, out=lost)
    np.maximum(third, a[2], out=third)
    return best, second, np.maximum(third, b[2], out=third)


def of_pairs(single: Float32Array, pairs: IntArray) -> tuple[Float32Array, Float32Array]:
    """Of float32[m, n], the rows of the two sides of ``pairs`` int64[p, 2]: float32[p, n] each."""
    return single.take(pairs[:, 0], axis=0), single.take(pairs[:, 1], axis=0)


@lru_cache(maxsize=64)
def among(columns: int) -> IntArray:
    """int64[p, 2]: all pairs i < j of ``columns`` columns."""
    return np.stack(np.triu_indices(columns, 1), axis=1)


def surprises(
    counted: Counted, single: Float32Array, pairs: IntArray, scale: Scale
) -> tuple[Float32Array, Float32Array, FloatArray]:
    """Surprise and learned weight float32[p, n], score float64[n].

    In chunks of events, which bounds the memory; a usual batch is one, since numpy goes through a
    whole array at once and through a part of it row by row, at half the speed.
    """
    n = single.shape[1]
    surprise = np.empty((len(pairs), n), dtype=np.float32)
    learned = np.empty_like(counted.weight)
    score = np.zeros(n)
    for start in range(0, n if len(pairs) else 0, CHUNK_EVENTS):
        part = slice(start, start + CHUNK_EVENTS)
        here = scale.part(part)
        counts = counted.count[:, part], counted.anchor[:, part]
        expected = expected_counts(of_pairs(single[:, part], pairs), counts, here)
        share = surprise_of(counts[0], expected, scale.smooth, scale.dispersion, surprise[:, part])
        if not here.ready.all():
            surprise[:, part] *= here.ready
            np.maximum(share, ~here.ready, out=share)
        np.multiply(counted.weight[:, part], share, out=learned[:, part])
        score[part] = highest(surprise[:, part])
    return surprise, learned, score
