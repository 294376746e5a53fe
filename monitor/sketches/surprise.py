"""How surprising it is that a pair of values comes with a label as often as it does.

The surprise is a negative-binomial log-likelihood ratio of a pair's recent count against the larger
of its long-run rate and of what independence of the two columns would give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.core.types import BoolArray, FloatArray, IntArray
from monitor.sketches.lift import Counted

Float32Array = npt.NDArray[np.float32]
Rows = slice | IntArray
Triple = tuple[Float32Array, Float32Array, Float32Array]
TOP = 3
FEW_EVENTS = np.float32(150.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """What counts are held against, the same for every grid.

    ``ratio`` float32[p, 1]: recent over baseline mass; ``of_label`` float32[n]: recent events with
    the event's label; ``ready`` bool[p, 1]: patterns whose baseline has seen enough.
    """

    ratio: Float32Array
    of_label: Float32Array
    ready: BoolArray
    smooth: np.float32
    dispersion: np.float32


def expected_counts(counted: Counted, pairs: IntArray, scale: Scale, part: Rows) -> Float32Array:
    """float32[p, m]: the larger of the long-run rate and of independence, for some events.

    Independence is told from the events that have one of the two values only: of N events with the
    label, those with both would be b·c/d by the others in the 2 × 2 table. The product of the
    margins would count the trigger itself, and in a rare label leave nothing to be surprised at.
    But where hardly any event is without one of the values, or the label has few events, the table
    says little, and that product counts in part or in whole.
    """
    singles = len(counted.slot) - len(pairs)
    of_label = scale.of_label[part]
    both = counted.count[singles:, part]
    single = counted.count[:singles, part]
    first: Float32Array = single[pairs[:, 0]]
    second: Float32Array = single[pairs[:, 1]]
    product = np.maximum(first, second)
    product /= of_label
    np.maximum(product, np.minimum(np.float32(1.0), FEW_EVENTS / of_label), out=product)
    product *= first
    product *= second
    product /= of_label
    neither = of_label - first
    neither -= second
    neither += both
    np.maximum(neither, np.float32(1.0), out=neither)
    first -= both
    second -= both
    np.maximum(first, np.float32(0.0), out=first)
    first *= np.maximum(second, np.float32(0.0), out=second)
    first /= neither
    np.maximum(first, product, out=first)
    expected: Float32Array = np.asarray(
        counted.anchor[singles:, part] * scale.ratio, dtype=np.float32
    )
    return np.maximum(expected, first, out=expected)


def surprise_of(
    count: Float32Array,
    expected: Float32Array,
    smooth: np.float32,
    size: np.float32,
    out: Float32Array,
) -> Float32Array:
    """Negative-binomial log-likelihood ratio of too many, in nats, into ``out``; 0 for too few.

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
    np.maximum(out, np.float32(0.0), out=out)
    return share


def highest(values: Float32Array) -> FloatArray:
    """float64[n]: the mean of the three highest of each column of float32[p, n], none negative.

    A tournament of sorted triples, a round over all rows at once: several times faster than
    partitioning along the first axis.
    """
    half = len(values) // 2
    a, b = values[:half], values[half : 2 * half]
    held: Triple = (np.maximum(a, b), np.minimum(a, b), np.zeros_like(a))
    none = np.zeros_like(values[:1])
    spare: list[Triple] = [(values[-1:], none, none)] if len(values) % 2 else []
    while (rows := len(held[0])) > 1:
        half = rows // 2
        if rows % 2:
            spare.append((held[0][-1:], held[1][-1:], held[2][-1:]))
        held = _merged(
            (held[0][:half], held[1][:half], held[2][:half]),
            (held[0][half : 2 * half], held[1][half : 2 * half], held[2][half : 2 * half]),
        )
    best = [held] if len(held[0]) else []
    while len(spare) + len(best) > 1:
        best = [_merged(spare.pop(), best.pop() if best else spare.pop())]
    first, second, third = (best or spare)[0]
    total = first[0].astype(np.float64) + second[0] + third[0]
    return np.asarray(total / min(TOP, len(values)))


def _merged(a: Triple, b: Triple) -> Triple:
    """The three highest of two descending triples, element by element."""
    lost, best = np.minimum(a[0], b[0]), np.maximum(a[1], b[1])
    worse = np.maximum(np.minimum(a[1], b[1]), np.minimum(lost, best))
    np.maximum(worse, a[2], out=worse)
    np.maximum(worse, b[2], out=worse)
    return np.maximum(a[0], b[0]), np.maximum(lost, best, out=lost), worse
