"""How the labels of each source are mixed, held against how sources mix theirs.

By nature a source's counts follow a beta-binomial law for each label: the sources' common share of
it, and a precision that says how far they differ (Skellam 1948). Both are told from the last
sources, the precision without the tenth that is the farthest off, so that hostile ones do not
become the excuse for others. The alternative is a source that pushes one label: nineteen of twenty
events. The logarithm of the ratio is its evidence, in nats.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import betaln, digamma

from monitor.core.types import BoolArray, FloatArray, HashArray
from monitor.sketches.arrays import last_of_each, staying

BUCKETS = 16
RECENT = 512
LEAST_SOURCES, LEAST_EVENTS, MOST_EVENTS = 8, 3.0, 20.0
KEPT = 0.9
PUSHED = (19.0, 1.0)
LIGHTER = 0.95
ROUNDING = 1e-6
LEAST_SHARE, RHO = 1e-4, (0.002, 0.9)
_TABLED = np.arange(256.0)
_PUSHED_OTHERWISE = betaln(PUSHED[0], _TABLED + PUSHED[1]) - betaln(*PUSHED)
_SPREAD, _ALL = 0x9E3779B97F4A7C15, (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class LabelMix:
    """The last sources, and the law of their labels.

    Labels are kept in ``BUCKETS`` buckets, by index modulo their number.

    Attributes
    ----------
    keys, counts, last
        uint64[r], float64[r, BUCKETS] and float64[r]: the last r sources, their faded counts by
        bucket, and the number of events everybody had sent when they last came.
    share, precision
        float64[BUCKETS]: the common share of each bucket, and the beta law's precision.
    """

    keys: HashArray
    counts: FloatArray
    last: FloatArray
    share: FloatArray
    precision: FloatArray

    @classmethod
    def empty(cls) -> LabelMix:
        """No source seen."""
        none = np.empty(0, dtype=np.uint64)
        return cls(
            none,
            np.empty((0, BUCKETS)),
            np.empty(0),
            np.full(BUCKETS, 1.0 / BUCKETS),
            np.full(BUCKETS, 2.0),
        )

    def put(self, keys: HashArray, counts: FloatArray, now: float) -> LabelMix:
        """With the sources ``keys`` uint64[u], sorted, as they are now."""
        if len(keys) > RECENT:
            # Another choice every time, so that no name is always among those left out.
            mixed = (keys ^ np.uint64(int(now) * _SPREAD & _ALL)) * np.uint64(_SPREAD)
            some = np.sort(np.argsort(mixed, kind="stable")[:RECENT])
            keys, counts = keys[some], counts[some]
        stay = staying(self.keys, keys, RECENT)
        return replace(
            self,
            keys=np.concatenate([self.keys[stay], keys]),
            counts=np.concatenate([self.counts[stay], counts]),
            last=np.concatenate([self.last[stay], np.full(len(keys), now)]),
        )

    def later(self, events: float) -> LabelMix:
        """By a clock that is ahead by ``events``."""
        return replace(self, last=self.last + events)

    def nats(self, counts: FloatArray) -> FloatArray:
        """float64[u, BUCKETS] ≥ 0: evidence that a source pushes each label.

        ``counts`` float64[u, BUCKETS].
        """
        rest = counts.sum(axis=1, keepdims=True) - counts
        a, b = self.share * self.precision, (1.0 - self.share) * self.precision
        nats = np.zeros(counts.shape)
        # A label that a source never gave is pushed by it only if everybody hardly gives another:
        # where the usual law is stochastically smaller than the pushed one, there is no evidence.
        never = (a < LIGHTER * PUSHED[0]) & (b >= PUSHED[1])
        at = (((counts > 0.0) | ~never) & _open(counts, rest, a, b)).nonzero()
        given, other, bucket = counts[at], rest[at], at[1]
        pushed = betaln(given + PUSHED[0], other + PUSHED[1]) - betaln(*PUSHED)
        usual = betaln(given + a[bucket], other + b[bucket]) - betaln(a, b)[bucket]
        nats[at] = np.maximum(pushed - usual, 0.0)
        return nats

    def fitted(self) -> LabelMix:
        """With shares and precision told anew from the sources held."""
        total = self.counts.sum(axis=1)
        rows = total >= LEAST_EVENTS
        if int(rows.sum()) < LEAST_SOURCES:
            return self
        n = total[rows, None]
        mine = self.counts[rows] / n
        weight = np.minimum(n, MOST_EVENTS)
        share = (weight * mine).sum(axis=0) / weight.sum()
        share = np.clip(share, LEAST_SHARE, 1.0 - LEAST_SHARE)
        # Of the variance share·(1 − share)·(1 + (n − 1)·ρ)/n, what is not chance is ρ.
        over = np.square(mine - share) * n / (share * (1.0 - share)) - 1.0
        each = np.sort(over / np.maximum(n - 1.0, 1.0), axis=0)[: max(1, int(KEPT * len(n)))]
        rho = np.clip(each.mean(axis=0), *RHO)
        return replace(self, share=share, precision=1.0 / rho - 1.0)

    def merge(self, other: LabelMix) -> LabelMix:
        """The sources of both, each as the side knows it that has seen more of it, fitted anew."""
        if not len(self.keys) or not len(other.keys):
            return self if len(self.keys) else other
        keys = np.concatenate([self.keys, other.keys])
        counts = np.concatenate([self.counts, other.counts])
        last = np.concatenate([self.last, other.last])
        kept = last_of_each(keys, *counts.T, last, counts.sum(axis=1))
        kept = kept[np.lexsort((keys[kept], last[kept]))][-RECENT:]
        both = replace(LabelMix.empty(), keys=keys[kept], counts=counts[kept], last=last[kept])
        return both.fitted()


def _open(counts: FloatArray, rest: FloatArray, a: FloatArray, b: FloatArray) -> BoolArray:
    """bool[u, BUCKETS]: where there may be evidence for a push, told without beta functions.

    Who pushes hardly says anything else, however often the label itself; and what usual sources say
    is at least as likely as its mean logarithm has it (Jensen 1906). That leaves a few.
    """
    place = np.minimum(rest, len(_TABLED) - 1.0).astype(np.int64)
    bound = _PUSHED_OTHERWISE.take(place)
    both = digamma(a + b)
    bound -= counts * (digamma(a) - both)
    bound -= rest * (digamma(b) - both)
    return np.asarray(bound > -ROUNDING)
