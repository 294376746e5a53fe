"""Which new labels a stream takes up, so that nobody can use up the room for labels.

A label costs room in every detector, so their number is limited. Anybody may bring new ones; a
label is *loose* until it is used: until enough accepted events carry it, of which those of the
source that brought it count an eighth. Three rules keep the room open:

- A source may have a few loose labels, and more in proportion to its part of the traffic: one
  that is the whole stream may fill the table, one of many may not.
- In a full table a new label takes the place of a loose one: of whoever has many more than are
  its part, or else the one that was not used for longest. So many sources together cannot keep
  the others out, and what they brought goes when they stop. Only a source that has many more
  than are its part, and more so than anybody else, is refused.
- How much use it takes grows with the stream: whoever wants to keep a number of labels in the
  table for good needs a quarter of the average use for each, in events that are accepted.

A small limit is a list rather than a bound: there nothing is replaced.

A number that changes its label keeps what detectors have learned under it. That is little, since
only a label that is hardly used loses its number, and it is diluted by the new one's events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from monitor.core.labels import LabelTable
from monitor.core.types import HashArray, Int32Array, Label

FREE_LABELS = 8
FREE_SHARE = 0.05
ESTABLISHED_USES = 8
LOOSE_SHARE = 0.25
OWN_WEIGHT = 0.125
LIST_LIMIT = 64


def admit(
    table: LabelTable, labels: Sequence[Label], source: HashArray, limit: int
) -> tuple[LabelTable, Int32Array]:
    """The table with the new ones among ``labels``, as far as there is room for them.

    Parameters
    ----------
    table
        The labels so far; not changed.
    labels
        Of the n events of a batch.
    source
        uint64[n], who says them.
    limit
        Most labels in the table.

    Returns
    -------
    table, y
        The table after the batch, and int32[n] the number of each label in it, -1 for those
        that were not taken up. A label that the table had keeps its number if it is in the batch.

    Examples
    --------
    >>> who = np.array([1, 1, 2], dtype=np.uint64)
    >>> table, y = admit(LabelTable(), ["ham", "spam", "egg"], who, limit=2)
    >>> table.values, y.tolist()
    (('ham', 'spam'), [0, 1, -1])
    """
    y = table.find(labels)
    unknown = np.flatnonzero(y < 0)
    if not len(unknown):
        return table, y
    room = _Room(table, y, source, limit)
    asked: set[tuple[type, Label, int]] = set()
    for i in unknown.tolist():
        question = (type(labels[i]), labels[i], int(source[i]))
        if question not in asked:
            asked.add(question)
            room.ask(labels[i], i)
    if not room.changed:
        return table, y
    table = room.table()
    return table, table.find(labels)


class _Room:
    """The table while a batch's new labels are taken up; lives for one call only.

    Sources are numbered here. By source: ``held`` loose labels; ``spare``, those of them that may
    be replaced; ``owed``, its part of the limit, by the accepted events of labels it brought and
    its events in this batch.
    """

    def __init__(self, table: LabelTable, y: Int32Array, source: HashArray, limit: int) -> None:
        self.limit, self.changed = limit, False
        self._values = list(table.values)
        self._taken = {(type(value), value) for value in table.values}
        n, size = len(table), max(limit, len(table))
        everybody = np.concatenate([np.array(table.owner, dtype=np.uint64), source])
        self._hash, number = np.unique(everybody, return_inverse=True)
        k, self._asking = len(self._hash), number[n:]
        # By label, with room for those to come. What was used last follows in order of arrival.
        self._owner, self._used, self._others, self._last = np.zeros((4, size), dtype=np.int64)
        self._owner[:n], self._used[:n] = number[:n], table.used
        self._others[:n], self._last[:n] = table.others, table.last
        self._now, self._fresh = table.now, 0
        total = int(self._used.sum())
        use = (1.0 - OWN_WEIGHT) * self._others[:n] + OWN_WEIGHT * self._used[:n]
        self._loose = np.zeros(size, dtype=bool)
        self._loose[:n] = use < max(ESTABLISHED_USES, LOOSE_SHARE * total / limit)
        # Labels of this batch that were there before it stay, whatever else comes.
        busy = np.zeros(size, dtype=bool)
        busy[y[y >= 0]] = True
        self._spare_slot = self._loose & ~busy
        self.held = np.bincount(self._owner[self._loose], minlength=k)
        self.spare = np.bincount(self._owner[self._spare_slot], minlength=k)
        traffic = np.bincount(self._asking, minlength=k).astype(np.float64)
        np.add.at(traffic, self._owner[:n], self._used[:n])
        self.owed = traffic * (limit / (total + len(source)))

    def ask(self, label: Label, row: int) -> None:
        """Take up ``label``, as the event at ``row`` says it, if its source may bring it."""
        who = int(self._asking[row])
        most = max(FREE_LABELS, FREE_SHARE * self.limit, float(self.owed[who]))
        if (type(label), label) in self._taken or self.held[who] >= most:
            return
        if len(self._values) < self.limit:
            slot = len(self._values)
            self._values.append(label)
        else:
            slot = self._freed(who)
            if slot < 0:
                return
            self._values[slot] = label
        self._taken.add((type(label), label))
        self._owner[slot], self._used[slot], self._others[slot] = who, 0, 0
        self._last[slot] = self._now + self._fresh
        self._fresh += 1
        self._loose[slot] = self._spare_slot[slot] = self.changed = True
        self.held[who] += 1
        self.spare[who] += 1

    def _freed(self, who: int) -> int:
        """A number to use again for a label that ``who`` brings, -1 for none."""
        if self.limit < LIST_LIMIT or not self.spare.any():
            return -1
        excess = np.where(self.spare > 0, self.held - self.owed, -np.inf)
        greediest = int(np.argmax(excess))
        mine = float(self.held[who] - self.owed[who])
        if mine >= max(FREE_LABELS, excess[greediest]):
            return -1
        spare = self._spare_slot
        if excess[greediest] > FREE_LABELS:
            spare = spare & (self._owner == greediest)
        slots = np.flatnonzero(spare)
        slots = slots[self._last[slots] == self._last[slots].min()]
        slot = int(slots[np.argmin(self._used[slots])])
        self.held[self._owner[slot]] -= 1
        self.spare[self._owner[slot]] -= 1
        return slot

    def table(self) -> LabelTable:
        """The table as it is now."""
        n = len(self._values)
        uses = (self._used[:n], self._others[:n], np.minimum(self._last[:n], self._now))
        used, others, last = (tuple(column.tolist()) for column in uses)
        fresh = LabelTable.of(self._values, self._hash[self._owner[:n]].tolist())
        return replace(fresh, used=used, others=others, last=last)
