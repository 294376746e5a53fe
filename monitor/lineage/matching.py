"""Which events of a segment are meant. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monitor.core.blast import Clause, Wanted
from monitor.core.types import BoolArray
from monitor.lineage.names import digest, may_hold
from monitor.lineage.reading import label_shown
from monitor.lineage.segment import Segment


def matched(segment: Segment, wanted: Wanted) -> tuple[BoolArray, tuple[BoolArray, ...]]:
    """bool[n]: which are meant; and for each clause of ``some``, which of these it chose."""
    chosen = _within(segment, wanted)
    if chosen.any():
        chosen &= _holds(segment, wanted.must)
    if not wanted.some:
        return chosen, ()
    each = tuple(
        chosen & _holds(segment, clause) if chosen.any() else chosen for clause in wanted.some
    )
    return np.logical_or.reduce(each), each


def _within(segment: Segment, wanted: Wanted) -> BoolArray:
    chosen: BoolArray = np.ones(len(segment), dtype=bool)
    if wanted.since is not None:
        chosen &= segment.times[0] >= wanted.since
    if wanted.until is not None:
        chosen &= segment.times[0] < wanted.until
    if wanted.upto is not None:
        places = segment.places
        for part in np.unique(places.part).tolist():
            chosen &= (places.part != part) | (places.pos < wanted.upto.get(part, 0))
    return chosen


def _holds(segment: Segment, clause: Clause) -> BoolArray:
    """The cheap and sharp conditions first: most segments end there."""
    chosen: BoolArray = np.ones(len(segment), dtype=bool)
    names_by = {"source": clause.sources, "subject": clause.subjects, "key": clause.keys}
    for column, names in names_by.items():
        if names:
            chosen &= getattr(segment, column).among(names)
            if not chosen.any():
                return chosen
    if clause.labels:
        wanted = set(clause.labels)
        chosen &= segment.label.among(
            name for name in segment.label.names if label_shown(name) in wanted
        )
    for feature, low, high in clause.near:
        if not chosen.any():
            break
        values = segment.numbers.column(feature)
        chosen &= (values >= np.float32(low)) & (values <= np.float32(high))  # NaN is neither
    for feature, text in clause.equal:
        if not chosen.any():
            break
        chosen &= _says(segment, feature, text)
    return chosen


def _says(segment: Segment, feature: str, text: str) -> BoolArray:
    found = segment.categories
    if feature not in found.names:
        return np.zeros(len(segment), dtype=bool)
    return found.words[found.names.index(feature)].among([text])


class Sieve:
    """Tells without reading a segment that none of its events can be meant."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._must = _digests(wanted.must)
        self._some = [_digests(clause) for clause in wanted.some]

    def may_hold(self, first_ts: float, last_ts: float, sources: bytes, subjects: bytes) -> bool:
        """From the span of a segment's own times and the filters of its names."""
        since, until = self._wanted.since, self._wanted.until
        if (since is not None and last_ts < since) or (until is not None and first_ts >= until):
            return False
        made = (sources, subjects)
        return _may(made, self._must) and (
            not self._some or any(_may(made, one) for one in self._some)
        )


_Digests = tuple[Sequence[bytes], Sequence[bytes]]


def _digests(clause: Clause) -> _Digests:
    return [digest(name) for name in clause.sources], [digest(name) for name in clause.subjects]


def _may(made: tuple[bytes, bytes], digests: _Digests) -> bool:
    return all(not some or may_hold(one, some) for one, some in zip(made, digests, strict=True))
