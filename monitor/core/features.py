"""From the ``features`` of events to columns of numbers: which columns there are, and their values.

Categorical values need no training pass: the most frequent ones of the warm-up sample get a column
each, and all others share one in which every value still has a number of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from monitor.core.errors import RejectCode
from monitor.core.events import Cell, Event, Features, Packed
from monitor.core.hashing import hash_text
from monitor.core.limits import Limits
from monitor.core.packing import NO_FIT, Packing
from monitor.core.text import shown
from monitor.core.types import FloatArray

Bad = dict[int, tuple[RejectCode, str]]

MAX_CATEGORY_CHARS = 256
# A value seen less often than this in the sample is not worth a column.
RARE_SHARE = 0.005
# A name that only one source has, in less than this share of the sample, is not the stream's.
ODD_SHARE = 0.02


def array_names(d: int) -> tuple[str, ...]:
    """Names of the features of an array: f0, f1, …"""
    return tuple(f"f{i}" for i in range(d))


def counted(names: Sequence[str]) -> bool:
    """Whether ``names`` stand for the elements of an array: "0", "1", … or "f0", "f1", …"""
    return list(names) in ([str(i) for i in range(len(names))], list(array_names(len(names))))


def category_text(cell: Cell) -> str | None:
    """The category a value stands for; None when it is missing.

    Examples
    --------
    >>> category_text("visa"), category_text(5.0), category_text(0.5), category_text(True)
    ('visa', '5', '0.5', 'true')
    """
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if float(cell).is_integer() and abs(cell) < 2**53:
        return str(int(cell))
    return repr(float(cell))


@dataclass(frozen=True, eq=False)
class Layout:
    """Which features a stream has and how they become d columns.

    Attributes
    ----------
    array
        True when events carry an array of numbers, False when an object of named values.
    names, categorical
        The features in order, and which of them are categorical.
    categories
        For each feature, its values with a column of their own; empty for numeric ones.
    fill
        float64[features], what a missing numeric value is taken to be: the sample's median.
    seed
        Seed of the numbers given to rare categories.
    """

    array: bool
    names: tuple[str, ...]
    categorical: tuple[bool, ...]
    categories: tuple[tuple[str, ...], ...]
    fill: FloatArray
    seed: int = 0

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The d names of the encoded columns."""
        columns: list[str] = []
        for name, is_text, values in zip(
            self.names, self.categorical, self.categories, strict=True
        ):
            if is_text:
                columns += [f"{name}={value}" for value in values] + [f"{name}=(other)"]
            else:
                columns.append(name)
        return tuple(columns)

    @cached_property
    def fills(self) -> FloatArray:
        """float64[d]: what a missing number stands as, by column; NaN where there is no such."""
        fills: list[float] = []
        for feature, is_text in enumerate(self.categorical):
            some = len(self.categories[feature]) + 1
            fills += [np.nan] * some if is_text else [float(self.fill[feature])]
        return np.array(fills)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)

    def encode(self, rows: Sequence[Features]) -> tuple[FloatArray, Bad]:
        """Columns of many events at once.

        Parameters
        ----------
        rows
            n decoded ``features``.

        Returns
        -------
        x
            float64[n, d], finite; rows that are refused hold fill values.
        bad
            Code and sentence of each refused row: wrong dimension, unknown feature, or text where
            a number belongs. A row never depends on its neighbours.
        """
        x = self._encode_plain(rows)
        if x is not None:
            return x, {}
        bad: Bad = {}
        cells = [self._cells(row, number, bad) for number, row in enumerate(rows)]
        return self._encode_cells(cells, bad), bad

    @cached_property
    def packing(self) -> Packing | None:
        """How rows become columns where there are only numbers; None where there are others."""
        return None if any(self.categorical) else Packing(self.array, self.names)

    def completed(self, packed: Packed, events: Sequence[Event]) -> tuple[FloatArray, Bad]:
        """What :meth:`encode` gives for ``events`` whose numbers were ``packed`` already.

        Raises ``ValueError`` where they were packed for another layout.
        """
        if packed.by is not self.packing:
            raise ValueError("the events were packed for other features than these")
        if not packed.odd:
            return packed.x, {}
        x = packed.x.copy()
        x[packed.odd], bad = self.encode([events[i].features for i in packed.odd])
        return x, {packed.odd[i]: why for i, why in bad.items()}

    @cached_property
    def _numbers(self) -> tuple[tuple[str, ...], list[int]]:
        """Names of the numeric features, and the columns they go to."""
        names, places, at = [], [], 0
        for name, is_text, values in zip(
            self.names, self.categorical, self.categories, strict=True
        ):
            if not is_text:
                names.append(name)
                places.append(at)
            at += len(values) + 1 if is_text else 1
        return tuple(names), places

    def _encode_plain(self, rows: Sequence[Features]) -> FloatArray | None:
        """The fast path: every row complete, numbers where they belong; None when one is not."""
        if self.packing is not None:
            return self.packing.rows(rows)
        if self.array or sum(map(len, rows)) != len(self.names) * len(rows):
            return None
        names, places = self._numbers
        try:
            numbers = Packing(False, names).numbers(rows)
            return self._mixed(rows, numbers, places)
        except NO_FIT:
            return None

    def _mixed(
        self, rows: Sequence[Features], numbers: FloatArray, places: list[int]
    ) -> FloatArray:
        """Numeric columns side by side with the one-hot columns of complete objects."""
        x = np.empty((len(rows), len(self.columns)))
        x[:, places] = numbers
        at = 0
        for feature, name in enumerate(self.names):
            if self.categorical[feature]:
                block = self._one_hot(feature, [row[name] for row in rows])  # type: ignore[call-overload]
                x[:, at : at + block.shape[1]] = block
                at += block.shape[1]
            else:
                at += 1
        return x

    def _cells(self, row: Features, number: int, bad: Bad) -> Sequence[Cell]:
        refused = self._refuse(row)
        if refused is not None:
            bad[number] = refused
            return (None,) * len(self.names)
        if isinstance(row, list):
            return row
        return tuple(map(row.get, self.names))

    def _refuse(self, row: Features) -> tuple[RejectCode, str] | None:
        """Why the shape of one event's features does not fit, or None."""
        width = len(self.names)
        if isinstance(row, list) != self.array:
            got, wanted = ("an array", "an object with named values")
            if self.array:
                got, wanted = ("an object", f"an array of {width} numbers")
            return RejectCode.WRONG_DIMENSION, f"features is {got}; this stream has {wanted}"
        if isinstance(row, list):
            if len(row) == width:
                return None
            text = f"features has {len(row)} numbers; this stream has {width}"
            return RejectCode.WRONG_DIMENSION, text
        if row.keys() <= self._known:
            return None
        name = next(name for name in row if name not in self._known)
        text = f"features has the unknown name {shown(name)}; this stream has {width} known names"
        return RejectCode.UNKNOWN_FEATURE, text

    def _encode_cells(self, cells: Sequence[Sequence[Cell]], bad: Bad) -> FloatArray:
        """The general path, a feature at a time; adds to ``bad``."""
        x = np.zeros((len(cells), len(self.columns)))
        at = 0
        if not cells:
            return x
        for feature, column in enumerate(zip(*cells, strict=True)):
            if self.categorical[feature]:
                block = self._one_hot(feature, column)
                x[:, at : at + block.shape[1]] = block
                at += block.shape[1]
            else:
                x[:, at] = self._numeric(feature, column, bad)
                at += 1
        return x + 0.0

    def _numeric(self, feature: int, column: Sequence[Cell], bad: Bad) -> FloatArray:
        if str in set(map(type, column)):
            name = shown(self.names[feature])
            for row, cell in enumerate(column):
                if isinstance(cell, str):
                    text = f"features.{name} is the text {shown(cell)}; expected a number"
                    bad.setdefault(row, (RejectCode.WRONG_TYPE, text))
            column = [None if isinstance(cell, str) else cell for cell in column]
        values = np.array(column, dtype=np.float64)
        # JSON has no NaN, so NaN is exactly what was null or absent.
        return np.where(np.isnan(values), self.fill[feature], values)

    def _one_hot(self, feature: int, column: Sequence[Cell]) -> FloatArray:
        texts: Sequence[Any] = column
        if set(map(type, column)) != {str}:
            texts = [category_text(cell) for cell in column]
        values = self.categories[feature]
        width = len(values) + 1
        position = {value: i for i, value in enumerate(values)}
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        table = np.zeros((len(distinct), width))
        for text, i in distinct.items():
            if text in position:
                table[i, position[text]] = 1.0
            elif text is not None:
                # Between 0.5 and 1.5: far from the 0 of known values, yet a value for each token.
                share = (hash_text(text, self.seed) >> 12) + 0.5
                table[i, -1] = 0.5 + share / 2.0**52
        codes = np.fromiter(map(distinct.__getitem__, texts), dtype=np.int64, count=len(texts))
        return table[codes]

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping; ``fill`` is an array."""
        return {
            "array": self.array,
            "names": list(self.names),
            "categorical": list(self.categorical),
            "categories": [list(values) for values in self.categories],
            "fill": self.fill,
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Layout:
        """Inverse of :meth:`to_dict`; lists are accepted for arrays."""
        return cls(
            bool(data["array"]),
            tuple(data["names"]),
            tuple(bool(flag) for flag in data["categorical"]),
            tuple(tuple(values) for values in data["categories"]),
            np.asarray(data["fill"], dtype=np.float64),
            int(data["seed"]),
        )


def learn_layout(
    samples: Sequence[Features],
    limits: Limits,
    *,
    names: Sequence[str] | None = None,
    categorical: Sequence[bool] | None = None,
    sources: Sequence[str] | None = None,
    seed: int = 0,
) -> Layout:
    """The features, kinds, categories and medians of a warm-up sample.

    Arrays or objects, the number of array elements, and numeric or categorical are decided by
    majority, so that a few wrong events do not shape the stream; a tie falls to arrays, to the
    length seen first, and to numeric. ``names`` and ``categorical`` fix features known beforehand;
    names that are "0", "1", … or "f0", "f1", … stand for an array when the sample has one.
    ``sources`` of the samples keep a single one from widening the stream for everybody.
    """
    is_array = 2 * sum(isinstance(row, list) for row in samples) >= len(samples)
    if names is not None:
        is_array = counted(names) and (is_array or not samples)
    rows = [row for row in samples if isinstance(row, list) == is_array]
    if names is not None:
        found = tuple(names)
    elif is_array:
        found = array_names(Counter(map(len, rows)).most_common(1)[0][0]) if rows else ()
    else:
        found = _learn_names(rows, limits, _odd_names(samples, sources))
    if is_array:
        found = array_names(len(found))
    cells = [
        tuple(row) if isinstance(row, list) else tuple(map(row.get, found))
        for row in rows
        if not isinstance(row, list) or len(row) == len(found)
    ]
    columns: Iterable[Sequence[Cell]] = zip(*cells, strict=True) if cells else [()] * len(found)
    flags, categories, fill = [], [], []
    for number, column in enumerate(columns):
        present = [cell for cell in column if cell is not None]
        texts = sum(isinstance(cell, str) for cell in present)
        is_text = 2 * texts > len(present) if categorical is None else categorical[number]
        numbers = [float(cell) for cell in present if not isinstance(cell, str)]
        flags.append(is_text)
        categories.append(_learn_categories(present, limits) if is_text else ())
        fill.append(_median(numbers) if numbers and not is_text else 0.0)
    return Layout(is_array, found, tuple(flags), tuple(categories), np.array(fill), seed)


def _median(numbers: list[float]) -> float:
    """The median, an actual value of the sample, so that it cannot overflow."""
    return sorted(numbers)[(len(numbers) - 1) // 2] + 0.0


def _odd_names(samples: Sequence[Features], sources: Sequence[str] | None) -> set[str]:
    """Rare names that only one of several sources has.

    One event with thousands of names of its own would else make everybody's events as wide.
    """
    if sources is None or len(set(sources)) < 2:
        return set()
    count: Counter[str] = Counter()
    users: dict[str, set[str]] = {}
    for row, source in zip(samples, sources, strict=True):
        if isinstance(row, dict):
            count.update(row.keys())
            for name in row:
                users.setdefault(name, set()).add(source)
    few = ODD_SHARE * len(samples)
    return {name for name, who in users.items() if len(who) < 2 and count[name] < few}


def _learn_names(rows: Sequence[Features], limits: Limits, odd: Collection[str]) -> tuple[str, ...]:
    """Names by first appearance, without ``odd``; if too many, the most frequent ones."""
    seen = Counter(name for name in chain.from_iterable(rows) if name not in odd)
    usual = [(name, count) for name, count in seen.items() if len(str(name)) <= MAX_CATEGORY_CHARS]
    kept = dict(sorted(usual, key=lambda item: -item[1])[: limits.max_features])
    return tuple(str(name) for name, _ in usual if name in kept)


def _learn_categories(cells: Sequence[Cell], limits: Limits) -> tuple[str, ...]:
    """The most frequent values, by count and then by text, so that order does not matter."""
    counts = Counter(text for cell in cells if (text := category_text(cell)) is not None)
    enough = RARE_SHARE * len(cells)
    usual = [
        (-count, text)
        for text, count in counts.items()
        if count >= enough and len(text) <= MAX_CATEGORY_CHARS
    ]
    return tuple(text for _, text in sorted(usual)[: limits.max_categories])
