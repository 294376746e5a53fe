"""Faults of the pipeline that brings the data, told from all valid events of a batch.

A broken upstream looks like poison to detectors that know only single events, and nobody should be
accused of it. Each fault has a count that is ordinary at a rate the stream itself shows, so that a
stream that always repeats itself, or is always late, is at no fault:

- ``gap``: far longer between two events than was usual;
- ``duplicates``: feature vectors that repeat the event just before, under whatever id, or earlier
  events of the same sources in the order in which they came, as when a batch is sent twice;
- ``frozen``: a feature that used to vary holds one value;
- ``irregular``: time stamps that run backwards;
- ``missing``: a feature that came before stays away;
- ``leak``: one value of a feature goes with one label, and no other, though it did not before.

The baseline follows slowly, and ten times as slowly while something is wrong; what starts that way
is the stream's nature. A missing number stands as the median of the first events, so it is told by
values that equal it. Rates are compared with Chernoff's bound, as for incidents. Everything is
counted for at most ``SHAPES`` feature columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.core.types import BoolArray, FloatArray, HashArray, IntArray
from monitor.sketches.tails import tail_nats

SPAN = 256
"""Events that are looked at together; a batch is cut at multiples of it, whatever its size."""
GROWN, GROWN_COPIES = 8, 2
"""Spans before anything is said; before it is said that events were sent again, which hardly ever
looks so by chance."""
HALF_LIFE = 64.0
SLOWER = 0.1
"""How much slower the baseline follows what is wrong."""
NATS = 20.0
GAP_TIMES, GAP_SECONDS = 50.0, 1.0
HOLDS = 0.5
"""Share of events in which a feature may repeat the value before and still be said to have stopped:
one that holds its values for long does so in runs, and a span is too short to tell."""
ONE_LABEL, IN_A_ROW = 0.9, 3
LEAKS, LEAKED_BEFORE = 0.995, 0.8
PAST, NEAR = 16_384, 4
"""Events in which the originals of copies are looked for, and how far apart two originals may be
whose copies follow each other: some of a batch went to other partitions, or did not come again."""
SENT_AGAIN = "repeat earlier ones of the same sources, in the same order"
SECOND = 1_000_000_000
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Fault(NamedTuple):
    """What is wrong: its name, the feature or an empty text, and a sentence.

    ``sent_again`` where the very events of honest sources came twice, in their order.
    """

    name: str
    feature: str
    text: str
    events: int
    sent_again: bool = False


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the data looked like lately, and what has come of the span at hand.

    Attributes
    ----------
    spans
        Whole spans so far.
    rates
        float64[2 + 2c]: usual share of repeated vectors, of times that run backwards; by column,
        of values that repeat the one before, and of missing ones.
    step
        Largest number of seconds between two events, halved in ``HALF_LIFE`` spans.
    leak
        float64[c]: usual share of events whose label the column's cell tells.
    streak
        int64[c]: spans in a row in which the column told the label.
    content, time_ns, shape, missing, label, again
        The span at hand, the event before it in front: uint64[s], int64[s], float32[s, c],
        bool[s, c], uint64[s], bool[s].
    past
        uint64[≤ PAST], contents with their sources, of the latest events.
    """

    spans: int = 0
    rates: FloatArray = field(default_factory=lambda: np.zeros(0))
    step: float = 0.0
    leak: FloatArray = field(default_factory=lambda: np.zeros(0))
    streak: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    content: HashArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    time_ns: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    shape: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    missing: BoolArray = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    label: HashArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    again: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    past: HashArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))


class Rows(NamedTuple):
    """The valid events of a batch: contents, times, normal scores, missing values, labels, sources.

    ``copied`` bool[n]: events that are said to repeat others; only there originals are looked for.
    """

    content: HashArray
    time_ns: IntArray
    shape: npt.NDArray[np.float32]
    missing: BoolArray
    label: HashArray
    source: HashArray
    copied: BoolArray


class _Span(NamedTuple):
    """Events to be counted."""

    content: HashArray
    time_ns: IntArray
    shape: npt.NDArray[np.float32]
    missing: BoolArray
    label: HashArray
    again: BoolArray

    def between(self, start: int, end: int) -> _Span:
        """The events from ``start`` up to ``end``."""
        at = slice(start, end)
        some = (self.content[at], self.time_ns[at], self.shape[at], self.missing[at])
        return _Span(*some, self.label[at], self.again[at])


def watched(
    state: Pipeline, rows: Rows, columns: tuple[str, ...]
) -> tuple[Pipeline, tuple[Fault, ...]]:
    """The state after the events ``rows``, and what was wrong with the spans they complete. Pure.

    A state whose columns are others begins anew.
    """
    if state.shape.shape[1] != rows.shape.shape[1]:
        state = Pipeline(
            rates=np.zeros(2 + 2 * len(columns)),
            leak=np.zeros(len(columns)),
            streak=np.zeros(len(columns), dtype=np.int64),
            shape=np.zeros((0, len(columns)), np.float32),
            missing=np.zeros((0, len(columns)), dtype=bool),
        )
    who = rows.content ^ (rows.source * _MIX)
    held = _Span(
        np.concatenate([state.content, rows.content]),
        np.concatenate([state.time_ns, rows.time_ns]),
        np.concatenate([state.shape, rows.shape]),
        np.concatenate([state.missing, rows.missing]),
        np.concatenate([state.label, rows.label]),
        np.concatenate([state.again, in_order(state.past, who, rows.copied)]),
    )
    state = replace(state, past=np.concatenate([state.past, who])[-PAST:])
    spans = max(len(held.content) - 1, 0) // SPAN
    if not spans:
        return replace(state, **held._asdict()), ()
    found: list[Fault] = []
    # The last event of a span begins the next, as the one before its first.
    for seen in _counted(held.between(0, spans * SPAN + 1), spans):
        state, wrong = _look(state, seen, columns)
        found += wrong
    rest = held.between(spans * SPAN, len(held.content))
    return replace(state, **rest._asdict()), tuple(found)


def in_order(past: HashArray, content: HashArray, copied: BoolArray) -> BoolArray:
    """Which events repeat earlier ones in the order in which those came.

    Parameters
    ----------
    past, content
        uint64[p] of events before, uint64[n] of these.
    copied
        bool[n], events that may be copies.

    Returns
    -------
    bool[n], copies whose original came just behind that of the copy before, which was another.
    """
    again = np.zeros(len(content), dtype=bool)
    rows = np.flatnonzero(copied)
    if len(rows) < 2:
        return again
    every = np.concatenate([past, content])
    order = np.argsort(every, kind="stable")
    place = np.empty(len(every), dtype=np.int64)
    place[order] = np.arange(len(every))
    at = place[rows + len(past)]
    before = order[np.maximum(at - 1, 0)]
    known = (at > 0) & (every[before] == content[rows])
    rows, before = rows[known], before[known]
    step = np.diff(before)
    another = content[rows[1:]] != content[rows[:-1]]
    again[rows[1:][another & (step >= 1) & (step <= NEAR)]] = True
    return again


class _Seen(NamedTuple):
    """What a span shows: counts as in ``rates``, its longest step, what columns tell of labels.

    ``sent_again`` counts the events that repeat others in their order.
    """

    counts: FloatArray
    longest: float
    leak: FloatArray
    sent_again: int


def _counted(rows: _Span, spans: int) -> list[_Seen]:
    """What each of so many spans shows; an event stands in front of the first."""
    cut = (spans, SPAN)
    same = rows.shape[1:] == rows.shape[:-1]
    steps = (np.diff(rows.time_ns) / SECOND).reshape(cut)
    sent = rows.again[1:].reshape(cut)
    again = (rows.content[1:] == rows.content[:-1]).reshape(cut) | sent
    counts = np.concatenate(
        [
            again.sum(axis=1)[:, None],
            (steps < 0).sum(axis=1)[:, None],
            _by_column(same, cut),
            _by_column(rows.missing[1:], cut),
        ],
        axis=1,
    ).astype(np.float64)
    longest = np.maximum(steps.max(axis=1), 0.0)
    leak = _leaks(rows.shape[1:].reshape(*cut, -1), rows.label[1:].reshape(cut))
    each = zip(counts, longest.tolist(), leak, sent.sum(axis=1).tolist(), strict=True)
    return [_Seen(*one) for one in each]


def _by_column(flag: BoolArray, cut: tuple[int, int]) -> IntArray:
    """int64[m, c]: how often each column's flag bool[m·SPAN, c] is up within a span."""
    if not flag.any():
        return np.zeros((cut[0], flag.shape[1]), dtype=np.int64)
    found: IntArray = flag.view(np.uint8).reshape(*cut, -1).sum(axis=1, dtype=np.uint16)
    return found.astype(np.int64)


def _look(state: Pipeline, seen: _Seen, columns: tuple[str, ...]) -> tuple[Pipeline, list[Fault]]:
    """What is wrong with a span, and the state after it."""
    counts, longest, leak, _ = seen
    wrong = _wrong(state, seen, columns) if state.spans >= GROWN_COPIES else []
    if state.spans < GROWN:
        wrong = [fault for fault in wrong if fault.sent_again]
    keep = 0.5 ** (1.0 / HALF_LIFE)
    share = max(1.0 / (state.spans + 1.0), 1.0 - keep) * (SLOWER if wrong else 1.0)
    return (
        replace(
            state,
            spans=state.spans + 1,
            rates=state.rates + share * (counts / SPAN - state.rates),
            step=max(longest, keep * state.step),
            streak=np.where(leak >= LEAKS, state.streak + 1, 0),
            leak=state.leak + share * (leak - state.leak),
        ),
        wrong,
    )


def _wrong(state: Pipeline, seen: _Seen, columns: tuple[str, ...]) -> list[Fault]:
    counts, longest, leak, sent = seen
    sent_again = bool(2 * sent > counts[0])
    c = len(columns)
    usual = np.maximum(state.rates * SPAN, 0.5)
    nats = np.where(counts > usual, tail_nats(counts, usual), 0.0)
    found = []
    if longest > max(GAP_TIMES * state.step, GAP_SECONDS):
        text = f"Nothing came for {longest:,.0f} s; at most {state.step:,.1f} s is usual."
        found.append(Fault("gap", "", text, 1))
    for at, name, what in (
        (0, "duplicates", SENT_AGAIN if sent_again else "repeat the event just before them"),
        (1, "irregular", "have times before that of the event just before them"),
    ):
        if nats[at] >= NATS:
            text = f"{counts[at]:.0f} of {SPAN} events {what}; {usual[at]:.1f} would be usual."
            found.append(Fault(name, "", text, int(counts[at]), at == 0 and sent_again))
    repeats = counts[0] >= SPAN / 2
    for j, name in enumerate(columns):
        frozen, gone = 2 + j, 2 + c + j
        stopped = counts[frozen] >= SPAN - 1 and state.rates[frozen] < HOLDS
        if stopped and not repeats and nats[frozen] >= NATS / 4 and nats[gone] < NATS:
            usually = 100.0 * (1.0 - state.rates[frozen])
            text = f"Feature {name!r} holds one value; it changes in {usually:.0f} % of events."
            found.append(Fault("frozen", name, text, SPAN))
        if nats[gone] >= NATS:
            text = f"Feature {name!r} is missing from {counts[gone]:.0f} of {SPAN} events."
            found.append(Fault("missing", name, text, int(counts[gone])))
        if leak[j] >= LEAKS and state.leak[j] <= LEAKED_BEFORE and state.streak[j] + 1 >= IN_A_ROW:
            text = f"Feature {name!r} tells the label by itself, which it did not before."
            found.append(Fault("leak", name, text, SPAN))
    return found


def _leaks(shape: npt.NDArray[np.float32], label: HashArray) -> FloatArray:
    """float64[m, c]: share of each span's events whose label is the commonest of their value.

    ``shape`` is float32[m, SPAN, c] and ``label`` uint64[m, SPAN].
    """
    (m, n, c), known = shape.shape, np.unique(label)
    k = len(known)
    if k < 2 or not c:
        return np.zeros((m, c))
    # A coarse cell: 16 values, so that a continuous feature does not tell labels by being unique.
    cell = (shape * np.float32(2.0) + np.float32(8.0)).astype(np.int32)
    np.clip(cell, 0, 15, out=cell)
    place = np.searchsorted(known, label).astype(np.int32)
    first = ((np.arange(m, dtype=np.int32)[:, None] * c + np.arange(c, dtype=np.int32)) * 16)[
        :, None, :
    ]
    cell += first
    cell *= np.int32(k)
    flat = cell + place[:, :, None].astype(np.intp)
    table = np.bincount(flat.ravel(), minlength=m * c * 16 * k).reshape(m, c, 16, k)
    told: FloatArray = table.max(axis=3).sum(axis=2) / n
    # Below the share of the commonest label nothing is told.
    usual = table[:, 0].sum(axis=1).max(axis=1) / n
    told[usual >= ONE_LABEL] = 0.0
    return told
