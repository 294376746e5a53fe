"""The labels of a stream and their numbers. ``True``, ``1`` and ``"1"`` are three labels.

Which new label gets a number when many are brought is decided in :mod:`monitor.core.label_room`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import add
from typing import Any, cast

import numpy as np

from monitor.core.types import HashArray, Int32Array, Label

TAGS: dict[type, str] = {str: "str", int: "int", bool: "bool"}
_DERIVED = ("_index", "names")
# Owner, used, others, last of labels that were stored without: they are taken for established.
UNKNOWN = (0, 8, 8, 0)


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
    """Labels in order of first appearance, and who brought them. Immutable.

    Attributes
    ----------
    tags, values
        The JSON type of each label and the label itself, since Python takes ``True == 1``.
    owner
        Hash of the source that said each label first.
    used, others
        Accepted events with each label, and those of them that another source supplied.
    last
        When the latest of them came: a number that rises with every batch.

    Examples
    --------
    >>> table = LabelTable.of([True, 1, "1"], [7, 7, 8])
    >>> table.find([True, 1, "1", "2"]).tolist(), table.names
    ([0, 1, 2, -1], ('true', '1', '1 (str)'))
    """

    tags: tuple[str, ...] = ()
    values: tuple[Label, ...] = ()
    owner: tuple[int, ...] = ()
    used: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    last: tuple[int, ...] = ()

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
            index = self._index[kinds.pop()]
            try:
                return np.fromiter(map(index.__getitem__, labels), np.int32, len(labels))
            except KeyError:
                found = [index.get(label, -1) for label in labels]
        else:
            by_kind = self._index
            found = [by_kind[type(label)].get(label, -1) for label in labels]
        return np.array(found, dtype=np.int32)

    @classmethod
    def of(cls, values: Sequence[Label], owner: Sequence[int]) -> LabelTable:
        """A table of ``values``, all different, in this order, not used yet."""
        tags, none = tuple(TAGS[type(value)] for value in values), (0,) * len(values)
        return cls(tags, tuple(values), tuple(owner), none, none, none)

    @property
    def now(self) -> int:
        """What ``last`` is to say of the batch at hand."""
        return max(self.last, default=0) + 1

    def counted(self, y: Int32Array, source: HashArray) -> LabelTable:
        """With the accepted events of a batch counted: their labels int32[n], and who says them."""
        if not len(y):
            return self
        foreign = y[source != np.array(self.owner, dtype=np.uint64)[y]]
        now, more = self.now, np.bincount(y, minlength=len(self)).tolist()
        others = np.bincount(foreign, minlength=len(self)).tolist()
        table = replace(
            self,
            used=tuple(map(add, self.used, more)),
            others=tuple(map(add, self.others, others)),
            last=tuple([now if n else then for n, then in zip(more, self.last, strict=True)]),
        )
        # The labels are the same, so what was worked out from them is still right.
        kept = {name: self.__dict__[name] for name in _DERIVED if name in self.__dict__}
        table.__dict__.update(kept)
        return table

    def to_list(self) -> list[list[Any]]:
        """Plain rows: tag, value, owner, used, others, last."""
        columns = (self.tags, self.values, self.owner, self.used, self.others, self.last)
        return [list(row) for row in zip(*columns, strict=True)]

    @classmethod
    def from_list(cls, rows: Sequence[Sequence[Any]]) -> LabelTable:
        """Inverse of :meth:`to_list`; raises ``ValueError`` on anything else.

        Rows of tag and value alone, as stored states of format 1 have them, can be read too.
        """
        full = [(*row, *UNKNOWN) if len(row) == 2 else tuple(row) for row in rows]
        if any(len(row) != 6 or TAGS.get(type(row[1])) != row[0] for row in full):
            raise ValueError("the stored labels do not have the types stored with them")
        return cls(*map(tuple, zip(*full, strict=True)))


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
