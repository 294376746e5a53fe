"""Two rings that act at the same time are two incidents.

Sources that stand out together are one group at first. What tells two rings apart is that one part
of them pushes one label and another part another, or that one kind of thing speaks against the
events of one part and another against those of the other: sources of one ring that mixes such
things mix them alike. That is a test of homogeneity of the table sources × signs, with a
likelihood-ratio statistic G (Wilks 1938) and Chernoff's bound for the tail of its χ² distribution.

Sources that differ need not be two rings: each account may have a mixture of its own. So two
mixtures, of which each source has one, must also explain the table better than a law of mixtures
with one hump or none does: a beta-binomial law whose parameters are at least 1.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from monitor.core.types import BoolArray, Family, FloatArray, HashArray, IntArray
from monitor.decide.incident_facts import FAMILIES, Suspects

RING = "sources"
"""Key of a ring; of one that was told from another, with its sign behind it."""
APART_NATS, TWO_NATS, LOUD = 10.0, 3.0, (7.0, 3.0)
"""That sources differ by chance; by how much two mixtures must explain them better than one law of
mixtures, twenty to one; and −ln p from which on a family is loud, or speaks."""
PURE, LEAST_EVENTS, LEAST_SOURCES = 0.8, 12, 3
"""What each of the two rings has: a sign that most of its events show, events, and sources."""


def signs_of(suspects: Suspects, rows: IntArray) -> tuple[HashArray, ...]:
    """What rings may differ in, uint64[n] each.

    The label, the family that speaks loudest, and of each family whether it is loud, or speaks.
    Distrust of the sources is left out: it grows with time, whatever they do.
    """
    nats = suspects.nats[rows].copy()
    nats[:, FAMILIES.index(Family.SYBIL)] = 0.0
    names = 16 + 2 * np.arange(len(FAMILIES) * len(LOUD)).reshape(len(LOUD), -1)
    loud = (name + (nats >= level) for name, level in zip(names, LOUD, strict=True))
    voices = [voice.astype(np.uint64) for level in loud for voice in level.T]
    return suspects.label[rows], nats.argmax(axis=1).astype(np.uint64), *voices


def other_ring(source: HashArray, signs: Sequence[HashArray]) -> tuple[BoolArray, str, str] | None:
    """Which events belong to a second ring.

    Parameters
    ----------
    source, signs
        uint64[n] each, of the events of an incident's own sources; see :func:`signs_of`.

    Returns
    -------
    bool[n], events of the sources that mostly show a second sign, the key of the first ring and
    that of the second. None when all are of one ring.
    """
    if len(source) < 2 * LEAST_EVENTS:
        return None
    whose = np.unique(source, return_inverse=True)[1]
    return next((found for sign in signs if (found := _parted(whose, sign)) is not None), None)


def _parted(whose: IntArray, sign: HashArray) -> tuple[BoolArray, str, str] | None:
    """The same by one sign; ``whose`` int64[n] are the sources' numbers, from 0."""
    values, what = np.unique(sign, return_inverse=True)
    if len(values) < 2:
        return None
    table = np.zeros((int(whose.max()) + 1, len(values)))
    np.add.at(table, (whose, what), 1.0)
    main = table.argmax(axis=1)
    events = np.bincount(main, table.sum(axis=1), minlength=len(values))
    first, second = np.argsort(-events, kind="stable")[:2]
    rings = [table[main == ring] for ring in (first, second)]
    if not (_is_ring(rings[0], first) and _is_ring(rings[1], second)):
        return None
    both = np.concatenate(rings)
    if _heterogeneous(both) < APART_NATS or _two(both[:, second], rings) < TWO_NATS:
        return None
    members: BoolArray = main[whose] == second
    return members, _key(values[first]), _key(values[second])


def ring_key(signs: Sequence[HashArray], known: Collection[str]) -> str:
    """Key of a ring whose events show these signs: a ``known`` one's, or any ring's."""
    for sign in signs:
        values, count = np.unique(sign, return_counts=True)
        key = _key(values[count.argmax()])
        if key in known and count.max() >= PURE * len(sign):
            return key
    return RING


def _key(sign: np.uint64) -> str:
    return f"{RING}|{int(sign):016x}"


def _is_ring(part: FloatArray, ring: np.intp) -> bool:
    own = float(part[:, ring].sum())
    return (
        len(part) >= LEAST_SOURCES
        and part.sum() >= LEAST_EVENTS
        and own >= PURE * float(part.sum())
    )


def _heterogeneous(table: FloatArray) -> float:
    """At most −ln of the chance that rows of one mixture of columns differ so much."""
    table = table[:, table.sum(axis=0) > 0]
    free = (len(table) - 1.0) * (table.shape[1] - 1.0)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    seen = table > 0
    g = 2.0 * float((table[seen] * np.log(table[seen] / expected[seen])).sum())
    ratio = g / free if free else 0.0
    return 0.5 * free * (ratio - 1.0 - math.log(ratio)) if ratio > 1.0 else 0.0


def _two(shown: FloatArray, rings: Sequence[FloatArray]) -> float:
    """How much better two mixtures explain sources than one law of mixtures does, in nats.

    ``shown`` float64[s]: events of each source that show the second ring's sign.
    """
    sent = np.concatenate(rings).sum(axis=1)
    ring = np.arange(len(sent)) < len(rings[0])
    mean = float((shown.sum() + 0.5) / (sent.sum() + 1.0))
    # From the flattest law with this mean and without a second hump on, ever narrower.
    narrow = 2.0 ** np.arange(8.0) / min(mean, 1.0 - mean)
    law = max(_beta_binomial(shown, sent, mean * s, (1.0 - mean) * s) for s in narrow.tolist())
    each = np.stack([_binomial(shown, sent, part) for part in (ring, ~ring)])
    return float(np.logaddexp(*each).sum()) - law


def _binomial(shown: FloatArray, sent: FloatArray, part: BoolArray) -> FloatArray:
    """float64[s]: log-likelihood of each source if it were of this part, and of the part's size."""
    p = float((shown[part].sum() + 0.5) / (sent[part].sum() + 1.0))
    each: FloatArray = shown * math.log(p) + (sent - shown) * math.log1p(-p)
    return each + math.log(part.mean())


def _beta_binomial(shown: FloatArray, sent: FloatArray, a: float, b: float) -> float:
    """Log-likelihood of all sources (Skellam 1948), without what it shares with the binomial."""
    pairs = zip(shown.tolist(), sent.tolist(), strict=True)
    found = (math.lgamma(a + k) + math.lgamma(b + n - k) - math.lgamma(a + b + n) for k, n in pairs)
    return sum(found) + len(sent) * (math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))
