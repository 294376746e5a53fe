"""What a judged batch gives the incidents: its suspicious events, and what ordinary traffic is.

Sizes here are fixed, so that what is remembered of an event is, too: ``SHAPES`` feature columns,
evenly taken where there are more, and a p-value for each family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from monitor.core.hashing import hash_text
from monitor.core.text import clean
from monitor.core.types import (
    BoolArray,
    ByteArray,
    EventBatch,
    Family,
    FloatArray,
    HashArray,
    IntArray,
    Reason,
    Verdict,
)
from monitor.decide.data_faults import Rows
from monitor.decide.judged import Judged
from monitor.sketches.surrogate import ERROR, SHAPE, Surrogate

SHAPES = 32
NAME_CHARS = 64
TOKENS = 6
SAMPLED, MOST_PULL = 32, 100.0
FAMILIES = tuple(family.value for family in Family)
NO_FAMILY = 255
SOURCE, PATTERN, PAIR, SUBJECT, CONTENT = range(5)
KEYS = 5
"""Columns of an event's keys: what it may have in common with others; 0 where it has nothing."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """Suspicious events, m of them, in the order they came.

    Attributes
    ----------
    seen
        int64[m], how many valid events of the partition came before.
    time_ns, offset
        int64[m], of the event.
    keys
        uint64[m, 5]: source; label, where a trigger speaks; label and expected label; subject and
        label; content. 0 where there is none.
    family
        uint8[m], place in ``FAMILIES`` of the strongest channel.
    families
        uint16[m], a bit for each of ``FAMILIES`` that speaks.
    nats
        float32[m, F], −ln of each family's p-value, 0 where it is silent.
    shape
        float32[m, SHAPES], normal scores of the chosen columns.
    weight, risk, influence
        float64[m]; the last is what the event would do to a surrogate model, in ordinary events.
    label
        uint64[m], hash of the label.
    held
        bool[m], verdict quarantine; else it was flagged.
    owner
        int64[m], serial number of its incident, −1 without one, −2 when that is over.
    notes
        What is shown of each, as JSON: id, source, label, expected label, subject, trigger.
    """

    seen: IntArray
    time_ns: IntArray
    offset: IntArray
    keys: HashArray
    family: ByteArray
    families: npt.NDArray[np.uint16]
    nats: npt.NDArray[np.float32]
    shape: npt.NDArray[np.float32]
    weight: FloatArray
    risk: FloatArray
    influence: FloatArray
    label: HashArray
    held: BoolArray
    owner: IntArray
    notes: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.seen)

    @classmethod
    def none(cls) -> Suspects:
        """No events."""
        whole = np.empty(0, dtype=np.int64)
        return cls(
            *(whole, whole, whole, np.empty((0, KEYS), dtype=np.uint64)),
            np.empty(0, dtype=np.uint8),
            np.empty(0, dtype=np.uint16),
            np.empty((0, len(FAMILIES)), dtype=np.float32),
            np.empty((0, SHAPES), dtype=np.float32),
            *(np.empty(0), np.empty(0), np.empty(0), np.empty(0, dtype=np.uint64)),
            *(np.empty(0, dtype=bool), whole),
            (),
        )

    def latest(self, most: int) -> Suspects:
        """The last ``most`` of them."""
        if len(self) <= most:
            return self
        return Suspects(**{name: getattr(self, name)[-most:] for name in self.__slots__})

    def then(self, more: Suspects, most: int) -> Suspects:
        """These and ``more``, the last ``most`` of them."""
        if not len(more):
            return self
        first = max(0, len(self) + len(more) - most)
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(more, name)])[first:]
            for name in self.__slots__
            if name != "notes"
        }
        return Suspects(**joined, notes=(*self.notes, *more.notes)[first:])


@dataclass(frozen=True, slots=True)
class Facts:
    """What the incidents learn of a batch.

    ``suspects`` and the rows int64[m] of the batch's valid events that they are; of all n valid
    events: ``source``, ``label`` and ``content`` uint64[n], ``time_ns`` int64[n]; ``shape``
    float32[n, c] and ``missing`` bool[n, c], with the names of these columns. ``promise`` is the
    share of ordinary events that may be flagged, and ``share`` each family's part of it.
    ``changed`` counts the rows in which the world has changed.
    """

    suspects: Suspects
    rows: IntArray
    source: HashArray
    label: HashArray
    time_ns: IntArray
    shape: npt.NDArray[np.float32]
    content: HashArray
    missing: BoolArray
    columns: tuple[str, ...]
    promise: float
    share: Mapping[str, float]
    changed: int = 0

    def all_rows(self) -> Rows:
        """All events, for whoever watches the pipeline; those are copies that replay speaks of."""
        copied = np.zeros(len(self.content), dtype=bool)
        copied[self.rows] = self.suspects.keys[:, CONTENT] != 0
        shown = (self.content, self.time_ns, self.shape, self.missing)
        return Rows(*shown, self.label, self.source, copied)


def facts(
    judged: Judged,
    because: Mapping[int, tuple[Reason, ...]],
    families: Mapping[int, tuple[str, ...]],
    *,
    channels: tuple[str, ...],
    promise: float,
    seen: int,
    subject_of: Callable[[int], str | None],
    surrogate: Surrogate | None = None,
    fills: FloatArray | None = None,
) -> Facts:
    """The facts of a judged batch of valid events. Pure.

    Parameters
    ----------
    judged
        The batch.
    because, families
        By row, what was said against an event, and the families whose channels say it.
    channels
        Names of the channels, in order.
    promise
        Share of ordinary events that may be flagged.
    seen
        Valid events of the partition before this batch.
    subject_of
        By row, what an event is about.
    surrogate
        The model that stands for the guarded one, to estimate influence with.
    fills
        float64[d], what a missing value stands as, NaN where there is no such.
    """
    events, rows = judged.events, judged.accused
    columns = chosen_columns(len(events.columns))
    every = len(columns) == len(events.columns)  # a view then, where a choice is a copy
    g, x = (events.g, events.x) if every else (events.g[:, columns], events.x[:, columns])
    shape = np.clip(g, -4.0, 4.0, dtype=np.float32, casting="unsafe")
    label = np.array([hash_text(name) for name in events.label_names], dtype=np.uint64)
    share = judged.combined.share
    return Facts(
        _suspects(
            *(judged, (because, families), (channels, seen, subject_of)),
            *((shape, label), influence(judged, surrogate)),
        ),
        rows,
        events.source,
        label[events.y],
        events.time_ns,
        shape,
        events.content,
        x == (np.nan if fills is None else fills[columns]),
        tuple(events.columns[c][:NAME_CHARS] for c in columns.tolist()),
        promise,
        {name: float(share[i]) for i, name in enumerate(channels)},
        judged.changed,
    )


@lru_cache(maxsize=64)
def chosen_columns(n_columns: int) -> IntArray:
    """int64[c]: the columns that are looked at, all where there are at most ``SHAPES``."""
    if n_columns <= SHAPES:
        return np.arange(n_columns)
    return np.unique(np.linspace(0, n_columns - 1, SHAPES).astype(np.int64))


def _suspects(
    judged: Judged,
    why: tuple[Mapping[int, tuple[Reason, ...]], Mapping[int, tuple[str, ...]]],
    where: tuple[tuple[str, ...], int, Callable[[int], str | None]],
    of_all: tuple[npt.NDArray[np.float32], HashArray],
    pull: FloatArray,
) -> Suspects:
    (because, families), (channels, seen, subject_of), (shape, label) = why, where, of_all
    events, rows = judged.events, judged.accused
    m = len(rows)
    if not m:
        return Suspects.none()
    place = np.array([FAMILIES.index(name) for name in channels] + [NO_FAMILY], dtype=np.uint8)
    strongest = judged.combined.channel[rows]
    bits = {name: 1 << i for i, name in enumerate(FAMILIES)}
    mask = [sum(bits[f] for f in set(families.get(row, ()))) for row in rows.tolist()]
    nats = np.zeros((m, len(FAMILIES)), dtype=np.float32)
    for name, p in judged.p_value.items():
        nats[:, FAMILIES.index(name)] = -np.log(p[rows])
    wide = np.zeros((m, SHAPES), dtype=np.float32)
    wide[:, : shape.shape[1]] = shape[rows]
    keys = np.zeros((m, KEYS), dtype=np.uint64)
    keys[:, SOURCE] = events.source[rows]
    notes = []
    for i, row in enumerate(rows.tolist()):
        note = _note(events, row, because.get(row, ()), subject_of)
        keys[i, PATTERN:] = _keys(events, row, note, families.get(row, ()))
        notes.append(orjson.dumps(note))
    return Suspects(
        seen + rows,
        events.time_ns[rows],
        events.offset[rows],
        keys,
        place[np.minimum(strongest, len(channels))],
        np.array(mask, dtype=np.uint16),
        nats,
        wide,
        events.weight[rows],
        judged.combined.risk[rows],
        events.weight[rows] * pull,
        label[events.y[rows]],
        judged.verdict[rows] == Verdict.QUARANTINE,
        np.full(m, -1, dtype=np.int64),
        tuple(notes),
    )


def influence(judged: Judged, surrogate: Surrogate | None) -> FloatArray:
    """float64[m]: how far each suspicious event would move the surrogate, in ordinary events.

    It is the length of the event's gradient over the mean length of accepted events' (a sample of
    the batch's); 1 without a surrogate.
    """
    events, rows = judged.events, judged.accused
    usual = np.flatnonzero(judged.verdict == Verdict.ACCEPT)[::SAMPLED]
    if surrogate is None or not len(rows) or not len(usual):
        return np.ones(len(rows))
    begin = min(events.z.shape[1], SHAPE) + ERROR
    vectors = surrogate.vectors(events.select(np.concatenate([rows, usual])))
    pull = np.sqrt((vectors[:, begin : begin + SHAPE] ** 2).sum(axis=1))
    share: FloatArray = pull[: len(rows)] / max(float(pull[len(rows) :].mean()), 1e-6)
    return np.minimum(share, MOST_PULL)


def _note(
    events: EventBatch,
    row: int,
    reasons: Sequence[Reason],
    subject_of: Callable[[int], str | None],
) -> list[Any]:
    """What is shown of an event: id, source, label, expected label, subject, trigger's values."""
    expected, trigger = None, []
    for reason in reasons:
        data = reason.evidence
        if reason.detector == "label_conflict":
            expected = data.get("expected")
        elif reason.detector == "undo" and expected is None:
            expected = data.get("towards")
        elif reason.detector == "trigger":
            pairs = zip(data.get("columns", ()), data.get("values", ()), strict=True)
            trigger = [[short(str(c)), _number(v)] for c, v in pairs][:TOKENS]
    subject = subject_of(row) if events.subject[row] else None
    label = events.label_names[int(events.y[row])]
    return [
        short(events.ids[row]),
        short(events.sources[row]),
        short(label),
        None if expected is None or expected == label else short(str(expected)),
        None if subject is None else short(subject),
        trigger,
    ]


def _number(value: float) -> float:
    """Four digits: what is the same up to noise should look the same."""
    return float(f"{value:.4g}") if math.isfinite(value) else 0.0


def _keys(events: EventBatch, row: int, note: list[Any], families: Sequence[str]) -> list[int]:
    label, expected = note[2], note[3]
    pattern = hash_text(f"pattern|{label}") if Family.BACKDOOR in families else 0
    pair = hash_text(f"pair|{label}|{expected}") if expected is not None else 0
    subject = 0
    if Family.SHILLING in families and events.subject[row]:
        subject = hash_text(f"subject|{int(events.subject[row])}|{label}")
    content = hash_text(f"content|{int(events.content[row])}") if "replay" in families else 0
    return [pattern, pair, subject, content]


def short(text: str) -> str:
    """A text that can be shown and stored anywhere; long ones end in a part of their hash."""
    text = clean(text)
    if len(text) <= NAME_CHARS:
        return text
    return f"{text[: NAME_CHARS - 9]}…{hash_text(text) & 0xFFFFFFFF:08x}"
