"""Some thousand accepted events in columns, each read only when it is asked for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from monitor.core.types import FloatArray, Int32Array, IntArray
from monitor.lineage.columns import NONE, Words, array, joined, packed, unpacked, words

PLACE, TIME, IDS, SOURCE, SUBJECT, LABEL, KEY = (
    *("place", "time", "ids", "source", "subject", "label", "key"),
)
WEIGHT, NUMBERS, CATEGORIES = "weight", "numbers", "categories"
COLUMNS = (PLACE, TIME, IDS, SOURCE, SUBJECT, LABEL, KEY, WEIGHT, NUMBERS, CATEGORIES)
Load = Callable[[str], bytes]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Places:
    """Where n events stand: int32[n] and int64[n] each. ``origin`` is the input, −1 unknown."""

    part: Int32Array
    pos: IntArray
    origin_part: Int32Array
    origin_pos: IntArray


@dataclass(frozen=True, slots=True)
class Numbers:
    """Features that are numbers: ``names`` of the d columns, ``x`` float32[n, d], NaN for none."""

    names: tuple[str, ...]
    x: Float32Array

    def column(self, name: str) -> Float32Array:
        """float32[n] of a feature, NaN where there is no such."""
        if name not in self.names:
            return np.full(len(self.x), np.nan, dtype=np.float32)
        values: Float32Array = self.x[:, self.names.index(name)]
        return values


@dataclass(frozen=True, slots=True)
class Categories:
    """Features that are texts: ``names`` of the k features, a column of words each."""

    names: tuple[str, ...]
    words: tuple[Words, ...]


class Segment:
    """Some accepted events, in the order in which they were read.

    Parameters
    ----------
    size
        Number of events, n.
    load
        Gives the bytes of a column.
    """

    def __init__(self, size: int, load: Load) -> None:
        self._size, self._load = size, load

    def __len__(self) -> int:
        return self._size

    @cached_property
    def places(self) -> Places:
        """Where they stand."""
        return Places(*map(array, unpacked(self._load(PLACE))))

    @cached_property
    def times(self) -> tuple[FloatArray, FloatArray]:
        """float64[n] twice, Unix seconds: the events' own, and when they were accepted."""
        ts, at = map(array, unpacked(self._load(TIME)))
        return ts, at

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The events' ids."""
        return tuple(unpacked(self._load(IDS)))

    @cached_property
    def source(self) -> Words:
        """Who sent them."""
        return words(unpacked(self._load(SOURCE)))

    @cached_property
    def subject(self) -> Words:
        """What they are about, where they say."""
        return words(unpacked(self._load(SUBJECT)))

    @cached_property
    def label(self) -> Words:
        """Their labels, as JSON."""
        return words(unpacked(self._load(LABEL)))

    @cached_property
    def key(self) -> Words:
        """The key that each is signed by, where one is told."""
        return words(unpacked(self._load(KEY)))

    @cached_property
    def weight(self) -> Float32Array:
        """float32[n], 1 where the event says nothing."""
        return array(unpacked(self._load(WEIGHT))[0])

    @cached_property
    def numbers(self) -> Numbers:
        """Features that are numbers or truth values."""
        names, x = unpacked(self._load(NUMBERS))
        return Numbers(tuple(names), array(x))

    @cached_property
    def categories(self) -> Categories:
        """Features that are texts."""
        names, columns = unpacked(self._load(CATEGORIES))
        return Categories(tuple(names), tuple(map(words, columns)))

    def packed(self) -> dict[str, bytes]:
        """All columns as bytes, by name."""
        p, n, c = self.places, self.numbers, self.categories
        return {
            PLACE: packed((p.part, p.pos, p.origin_part, p.origin_pos)),
            TIME: packed(self.times),
            IDS: packed(self.ids),
            **{
                name: packed((column.codes, column.names))
                for name, column in (
                    (SOURCE, self.source),
                    (SUBJECT, self.subject),
                    (LABEL, self.label),
                    (KEY, self.key),
                )
            },
            WEIGHT: packed((self.weight,)),
            NUMBERS: packed((n.names, n.x)),
            CATEGORIES: packed((c.names, [(w.codes, w.names) for w in c.words])),
        }

    def take(self, rows: IntArray, *, features: bool = True) -> Segment:
        """These rows, in the given order; without ``features`` these are not even read."""
        p, (ts, at) = self.places, self.times
        n, c = Numbers((), np.empty((len(self), 0), dtype=np.float32)), Categories((), ())
        if features:
            n, c = self.numbers, self.categories
        return whole(
            Places(p.part[rows], p.pos[rows], p.origin_part[rows], p.origin_pos[rows]),
            (ts[rows], at[rows]),
            tuple(self.ids[row] for row in rows.tolist()),
            tuple(w.take(rows) for w in (self.source, self.subject, self.label, self.key)),
            (
                self.weight[rows],
                Numbers(n.names, n.x[rows]),
                Categories(c.names, tuple(w.take(rows) for w in c.words)),
            ),
        )

    def spans(self) -> dict[int, tuple[int, int]]:
        """The first and the last offset of each partition."""
        part, pos = self.places.part, self.places.pos
        return {
            p: (int(pos[part == p].min()), int(pos[part == p].max()))
            for p in np.unique(part).tolist()
        }


def whole(
    places: Places,
    times: tuple[FloatArray, FloatArray],
    ids: tuple[str, ...],
    who: tuple[Words, ...],
    features: tuple[Float32Array, Numbers, Categories],
) -> Segment:
    """A segment whose columns are at hand; ``who`` is source, subject, label and key.

    ``features`` has the weights in front.
    """
    made = Segment(len(ids), _nothing)
    # What a cached property finds in its place it does not compute.
    made.__dict__ |= {
        "places": places,
        "times": times,
        "ids": ids,
        **dict(zip((SOURCE, SUBJECT, LABEL, KEY), who, strict=True)),
        **dict(zip((WEIGHT, NUMBERS, CATEGORIES), features, strict=True)),
    }
    return made


def _nothing(name: str) -> bytes:
    raise KeyError(name)


def stored(size: int, columns: Mapping[str, bytes]) -> Segment:
    """A segment from the bytes of its columns."""
    return Segment(size, columns.__getitem__)


def together(parts: Sequence[Segment]) -> Segment:
    """Segments one after the other, as one."""
    if len(parts) == 1:
        return parts[0]
    names = Places.__slots__
    return whole(
        Places(*(np.concatenate([getattr(s.places, name) for s in parts]) for name in names)),
        (
            np.concatenate([s.times[0] for s in parts]),
            np.concatenate([s.times[1] for s in parts]),
        ),
        tuple(name for s in parts for name in s.ids),
        (
            joined([s.source for s in parts]),
            joined([s.subject for s in parts]),
            joined([s.label for s in parts]),
            joined([s.key for s in parts]),
        ),
        (
            np.concatenate([s.weight for s in parts]),
            _joined_numbers([s.numbers for s in parts]),
            _joined_categories([(len(s), s.categories) for s in parts]),
        ),
    )


def _joined_numbers(parts: Sequence[Numbers]) -> Numbers:
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    if all(part.names == names for part in parts):
        return Numbers(names, np.concatenate([part.x for part in parts]))
    columns = [np.stack([part.column(name) for name in names], axis=1) for part in parts]
    return Numbers(names, np.concatenate(columns))


def _joined_categories(parts: Sequence[tuple[int, Categories]]) -> Categories:
    names = tuple(dict.fromkeys(name for _, part in parts for name in part.names))

    def column(name: str, n: int, part: Categories) -> Words:
        if name in part.names:
            return part.words[part.names.index(name)]
        return Words(np.full(n, NONE, dtype=np.int32), ())

    return Categories(
        names, tuple(joined([column(name, n, part) for n, part in parts]) for name in names)
    )
