"""The labels of a stream and their numbers. ``True``, ``1`` and ``"1"`` are three labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from monitor.core.types import Int32Array, Label

TAGS: dict[type, str] = {str: "str", int: "int", bool: "bool"}


def label_text(label: Label) -> str:
    """The label as JSON writes it, a text without its quotes.

    Examples
    --------
    >>> label_text(True), label_text(1), label_text("1")
    ('true', '1', '1')
    """
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(label)


@dataclass(frozen=True)
class LabelTable:
    """Labels in order of first appearance; immutable, :meth:`grow` returns a new one.

    ``tags`` holds the JSON type of each of ``values``, since Python takes ``True == 1``.

    Examples
    --------
    >>> table, y = LabelTable().grow([True, 1, "1", True], limit=1024)
    >>> y.tolist(), table.names
    ([0, 1, 2, 0], ('true', '1', '1 (str)'))
    """

    tags: tuple[str, ...] = ()
    values: tuple[Label, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def _index(self) -> dict[type, dict[Label, int]]:
        index: dict[type, dict[Label, int]] = {kind: {} for kind in TAGS}
        for number, value in enumerate(self.values):
            index[type(value)][value] = number
        return index

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Printable labels; the type is added where two would read the same."""
        names: list[str] = []
        taken: set[str] = set()
        for tag, value in zip(self.tags, self.values, strict=True):
            name = label_text(value)
            while name in taken:
                name = f"{name} ({tag})"
            names.append(name)
            taken.add(name)
        return tuple(names)

    def find(self, labels: Sequence[Label]) -> Int32Array:
        """int32[n] numbers of ``labels``, -1 for those not in the table."""
        kinds = set(map(type, labels))
        if len(kinds) == 1:
            get = self._index[kinds.pop()].get
            found = [get(label, -1) for label in labels]
        else:
            index = self._index
            found = [index[type(label)].get(label, -1) for label in labels]
        return np.array(found, dtype=np.int32)

    def grow(self, labels: Sequence[Label], limit: int) -> tuple[LabelTable, Int32Array]:
        """The table with ``labels`` added in order, and int32[n] their numbers.

        At most ``limit`` labels are kept; one that no longer fits has number -1.
        """
        y = self.find(labels)
        unknown = np.flatnonzero(y < 0)
        room = limit - len(self)
        if not len(unknown) or room <= 0:
            return self, y
        fresh = dict.fromkeys((TAGS[type(labels[i])], labels[i]) for i in unknown.tolist())
        added = list(fresh)[:room]
        table = LabelTable(
            self.tags + tuple(tag for tag, _ in added),
            self.values + tuple(value for _, value in added),
        )
        return table, table.find(labels)

    def to_list(self) -> list[list[Any]]:
        """Plain pairs of tag and value."""
        return [list(pair) for pair in zip(self.tags, self.values, strict=True)]

    @classmethod
    def from_list(cls, pairs: Sequence[Sequence[Any]]) -> LabelTable:
        """Inverse of :meth:`to_list`; raises ``ValueError`` on anything else."""
        if [TAGS.get(type(value)) for _, value in pairs] != [tag for tag, _ in pairs]:
            raise ValueError("the stored labels do not have the types stored with them")
        return cls(tuple(tag for tag, _ in pairs), tuple(value for _, value in pairs))


def own_prediction(prediction: Any, label: Label) -> float:
    """What the model gave the event's own label, NaN where that cannot be said.

    Parameters
    ----------
    prediction
        A number (the score of the positive class, for bool and 0/1 labels), an array of numbers
        (by an integer label), or an object from label to number.

    Examples
    --------
    >>> own_prediction(0.9, True), own_prediction([0.2, 0.8], 1)
    (0.9, 0.8)
    >>> own_prediction({"ham": 0.3}, "ham"), own_prediction({"ham": 0.3}, "spam")
    (0.3, nan)
    """
    if isinstance(prediction, dict):
        return float(prediction.get(label_text(label), np.nan))
    if isinstance(label, str) or prediction is None:
        return float("nan")
    if isinstance(prediction, list):
        inside = 0 <= label < len(prediction)
        return float(prediction[label]) if inside else float("nan")
    if label in (0, 1):
        score = float(cast("float", prediction))
        return score if label else 1.0 - score
    return float("nan")
