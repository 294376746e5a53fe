"""What is said of each subject: how often each label was given lately, and over the long run.

Recent counts fade with the subject's own events, in windows of several lengths, so that busy and
quiet subjects are treated alike; long-run counts learn slowly and from accepted events only, and
what is recent is taken out of them again, so that a campaign is not compared with itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.core.types import BoolArray, EventBatch, FloatArray, HashArray, Int32Array, IntArray
from monitor.sketches.arrays import capacity_for, pad_axis
from monitor.sketches.keyed import KeyedTable, Rows

WINDOWS = np.array([4.0, 12.0, 36.0])
N_WINDOWS = len(WINDOWS)
# Columns of subjects, and of subjects with a label; then of both, recent events by window.
COUNT, LONG, SEEN = range(3)
OP_LONG, OP_AT, OP_SEEN, VOICES, LAST = range(5)
FIRST, OP_FIRST = 3, 5
RECENT, OP_RECENT = FIRST + 1, OP_FIRST + 1
_MIX, _MIX_AGAIN = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True, slots=True)
class Memory:
    """Half-lives: ``long`` in a subject's own events, ``everybody`` in all events.

    ``prior`` is how many events the labels' overall shares are worth, for every subject.
    """

    long: float
    everybody: float
    prior: float
    subjects: int


@dataclass(frozen=True, slots=True)
class Said:
    """A batch's u subjects and v opinions (subject and label), and what was made of them.

    ``inverse`` and ``of`` int64[n] place each event among them; rows are those after the batch.
    ``moved`` float64[v] in nats and ``expected`` float64[v] are by opinion. ``labels`` float64[C]
    are everybody's before the batch.
    """

    subjects: HashArray
    inverse: IntArray
    subject_rows: FloatArray
    given: HashArray
    of: IntArray
    given_rows: FloatArray
    moved: FloatArray
    expected: FloatArray
    labels: FloatArray


@dataclass(frozen=True, slots=True)
class Opinions:
    """Counts by subject, by subject and label, and of each label.

    Attributes
    ----------
    subjects
        By subject: events ever, long-run events, when last seen, and recent events by window.
    given
        By subject and label: long-run events, the subject's count then, when last seen, recent
        events from another source than the one before, that source (a short hash), and recent
        events by window.
    labels
        float64[C], decayed events of each label.
    seen
        Events of everybody.
    """

    subjects: KeyedTable
    given: KeyedTable
    labels: FloatArray
    seen: int

    @classmethod
    def empty(cls) -> Opinions:
        """Nothing said."""
        return cls(
            KeyedTable.empty(FIRST + N_WINDOWS),
            KeyedTable.empty(OP_FIRST + N_WINDOWS),
            np.zeros(2),
            0,
        )

    def read(self, batch: EventBatch, memory: Memory) -> Said:
        """The batch's subjects and opinions after it."""
        keys, inverse = np.unique(batch.subject, return_inverse=True)
        pairs = opinion_keys(batch.subject, batch.y)
        given, first, of = np.unique(pairs, return_index=True, return_inverse=True)
        subject_of = inverse[first]
        held, said = self.subjects.get(keys), self.given.get(given)
        came = np.bincount(inverse, minlength=len(keys))
        fading = 0.5 ** (came[:, None] / WINDOWS)
        rows = held.astype(np.float64)
        rows[:, COUNT] += came
        rows[:, FIRST:] = held[:, FIRST:] * fading + came[:, None]
        rows[:, SEEN] = self.seen + len(batch)
        ops = said.astype(np.float64)
        age = np.maximum(held[subject_of, COUNT] - said[:, OP_AT], 0.0)
        before = said[:, OP_FIRST:] * 0.5 ** (age[:, None] / WINDOWS)
        times = np.bincount(of, minlength=len(given))
        ops[:, OP_FIRST:] = before * fading[subject_of] + times[:, None]
        faded = 0.5 ** (age / WINDOWS[1]) * fading[subject_of, 1]
        ops[:, VOICES], ops[:, LAST] = _voices(batch.source, of, said, faded)
        ops[:, OP_AT] = rows[subject_of, COUNT]
        ops[:, OP_SEEN] = self.seen + len(batch)
        labels = pad_axis(self.labels, batch.n_classes)
        usual = (labels + 0.5) / (labels.sum() + 0.5 * len(labels))
        base = np.maximum(ops[:, OP_LONG, None] - before, 0.0)
        weight = np.maximum(rows[:, LONG, None] - held[:, FIRST:], 0.0)[subject_of] + memory.prior
        expected = (base + memory.prior * usual[batch.y[first]][:, None]) / weight
        # What the others said: the event itself is left out.
        same, among = ops[:, OP_FIRST:] - 1.0, rows[subject_of, FIRST:] - 1.0
        nats = _moved(np.maximum(same, 0.0), np.maximum(among, 0.0), expected, weight)
        # Runs of one source are one voice, and it is not another's.
        voices = np.maximum(ops[:, VOICES] - 1.0, 0.0)
        turns = np.minimum(voices / np.maximum(ops[:, OP_RECENT] - 1.0, 1e-9), 1.0)
        moved = nats.max(axis=1, initial=0.0) * turns
        return Said(keys, inverse, rows, given, of, ops, moved, expected[:, 1], labels)

    def learned(
        self, batch: EventBatch, said: Said, accepted: BoolArray, memory: Memory
    ) -> Opinions:
        """After the batch; the long run learns from ``accepted`` events only."""
        rows, ops = said.subject_rows.copy(), said.given_rows.copy()
        y = batch.y[accepted]
        count = np.bincount(said.inverse[accepted], minlength=len(rows))
        fade = 0.5 ** (count / memory.long)
        rows[:, LONG] = fade * rows[:, LONG] + count
        # An opinion's long run fades when it is touched, by as much as its subject's.
        subject_of = np.zeros(len(ops), dtype=np.int64)
        subject_of[said.of] = said.inverse
        ops[:, OP_LONG] *= fade[subject_of]
        ops[:, OP_LONG] += np.bincount(said.of[accepted], minlength=len(ops))
        labels = pad_axis(said.labels, capacity_for(max(2, len(said.labels))))
        labels = 0.5 ** (len(y) / memory.everybody) * labels
        labels += np.bincount(y, minlength=len(labels))
        most = memory.subjects
        return Opinions(
            self.subjects.put(said.subjects, rows.astype(np.float32), capacity=most, keep_by=SEEN),
            self.given.put(said.given, ops.astype(np.float32), capacity=2 * most, keep_by=OP_SEEN),
            labels,
            self.seen + len(batch),
        )

    def merge(self, other: Opinions, capacity: int) -> Opinions:
        """Counts add up."""
        size = max(len(self.labels), len(other.labels))
        return Opinions(
            united(self.subjects, other.subjects, (SEEN,), capacity, SEEN),
            united(self.given, other.given, (OP_SEEN, LAST), 2 * capacity, OP_SEEN),
            pad_axis(self.labels, size) + pad_axis(other.labels, size),
            self.seen + other.seen,
        )


def united(
    a: KeyedTable, b: KeyedTable, largest: tuple[int, ...], capacity: int, keep_by: int
) -> KeyedTable:
    """Rows of the same key added up, columns ``largest`` by their maximum."""
    union = np.union1d(a.items()[0], b.items()[0])
    left, right = a.get(union), b.get(union)
    rows = left + right
    for column in largest:
        rows[:, column] = np.maximum(left, right)[:, column]
    return KeyedTable.empty(rows.shape[1]).put(union, rows, capacity=capacity, keep_by=keep_by)


def opinion_keys(subject: HashArray, y: Int32Array) -> HashArray:
    """uint64[n]: one key for subject and label."""
    mixed = subject ^ ((y.astype(np.uint64) + np.uint64(1)) * _MIX)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) * _MIX_AGAIN)


def _voices(
    source: HashArray, of: IntArray, held: Rows, fade: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """By opinion: recent events whose source was not the one before; the last source's hash."""
    short = ((source * _MIX) >> np.uint64(41)).astype(np.float64) + 1.0
    order = np.argsort(of, kind="stable")
    ordered, group = short[order], of[order]
    start = np.flatnonzero(np.diff(group, prepend=-1))
    before = np.empty(len(ordered))
    before[1:] = ordered[:-1]
    before[start] = held[group[start], LAST]
    turned = np.bincount(group, weights=ordered != before, minlength=len(held))
    last = ordered[np.append(start[1:], len(ordered)) - 1]
    return held[:, VOICES] * fade + turned, last


def _moved(
    same: FloatArray, among: FloatArray, expected: FloatArray, weight: FloatArray
) -> FloatArray:
    """float64[v, w]: nats by which a label's recent share exceeds the expected one.

    n·KL(share ‖ expected), Sanov's exponent, divided by how much wider a beta-binomial law is
    whose share is known from ``weight`` events only.
    """
    among = np.maximum(among, same)
    q = same / np.maximum(among, 1e-9)
    p = np.clip(expected, 1e-6, 1.0 - 1e-6)
    gain = q * np.log(np.maximum(q, 1e-12) / p)
    gain += (1.0 - q) * np.log(np.maximum(1.0 - q, 1e-12) / (1.0 - p))
    nats = among * gain * (weight + 1.0) / (weight + among)
    return np.asarray(np.where(q > p, nats, 0.0))
