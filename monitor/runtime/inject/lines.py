"""Recorded lines as columns that can be attacked, and the attacked columns as lines again.

A line that an attack leaves alone is written back byte for byte. Of one that is changed, only the
changed fields differ in value: the others, unknown ones too, keep theirs, and their order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from monitor.core.diagnose import diagnose
from monitor.core.errors import UsageError
from monitor.core.events import Cell, Event, event_decoder
from monitor.core.limits import Limits
from monitor.core.types import BoolArray, FloatArray, Label
from monitor.runtime.inject import ATTACKS, LEAST_EVENTS, Attacked, Role, Stream, honest_sources

NAME = "injected"
UNREAD = "unread"
"""Role, in truth files, of lines that are no events an attack could use."""

Step = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Codes:
    """How one column's values are numbers; ``words`` is None where they are already.

    Other values count from 0, the most frequent first.
    """

    words: tuple[Cell, ...] | None

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> Codes:
        """From all values of a column."""
        known = [cell for cell in cells if cell is not None]
        if all(isinstance(cell, float) for cell in known):
            return cls(None)
        counts = Counter((type(cell), cell) for cell in known)
        return cls(tuple(cell for (_, cell), _ in counts.most_common()))

    def numbers(self, cells: Sequence[Cell]) -> list[float]:
        """NaN for null."""
        if self.words is None:
            return [float("nan") if cell is None else float(cell) for cell in cells]
        index = {(type(word), word): float(i) for i, word in enumerate(self.words)}
        return [float("nan") if cell is None else index[type(cell), cell] for cell in cells]

    def cell(self, value: float, before: Any) -> Any:
        """A number as a value of the column: whole like ``before`` was, or the nearest word."""
        if self.words is not None:
            return self.words[min(len(self.words) - 1, max(0, round(value)))]
        whole = isinstance(before, int) and value.is_integer()
        return int(value) if whole else value


@dataclass(frozen=True, slots=True)
class Recording:
    """All lines of an input, and those among them that are events, as a stream.

    Attributes
    ----------
    lines
        Every line.
    place
        For the n events of ``stream``, the index of their line.
    stream
        The events as they were read; what an attack works on.
    codes
        How each column's values became numbers.
    array
        Whether ``features`` are arrays, else objects.
    trouble
        What is wrong with the first line that is no event, or empty.
    """

    lines: list[bytes]
    place: list[int]
    stream: Stream
    codes: tuple[Codes, ...]
    array: bool
    trouble: str

    @property
    def unread(self) -> int:
        """Lines that are no events an attack could use."""
        return len(self.lines) - len(self.place)


def read(lines: Iterable[bytes], attack: str, step: Step, *, limits: Limits) -> Recording:
    """Read an input for ``attack``.

    Lines that are not valid events, or lack the subject or update that the attack needs or the
    usual form of features, take no part; they are kept as they are.

    Raises
    ------
    UsageError
        When too few events are left, saying what is wrong with the first of the others.
    """
    needs = ATTACKS[attack].needs
    decoder = event_decoder(limits)
    kept: list[bytes] = []
    events: list[tuple[int, Event]] = []
    trouble = ""
    for number, line in enumerate(lines):
        kept.append(line)
        try:
            event = decoder.decode(line)
            json.loads(line)
            events.append((number, event))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            if not trouble:
                trouble = f"line {number + 1}: {diagnose(line, limits)[1] or 'is not an event'}"
        step(1)
    found = len(events)
    gradients = needs == "gradient" and any(event.gradient is not None for _, event in events)
    forms = Counter(_form(event, gradients) for _, event in events)
    if forms:
        usual = forms.most_common(1)[0][0]
        events = [pair for pair in events if _form(pair[1], gradients) == usual]
    if needs == "subject":
        events = [pair for pair in events if pair[1].subject]
    if len(events) < LEAST_EVENTS:
        raise UsageError(_too_few(len(kept), found, len(events), attack, trouble))
    place = [number for number, _ in events]
    stream, codes, array = _stream([event for _, event in events], needs, gradients)
    return Recording(kept, place, stream, codes, array, trouble)


def _form(event: Event, gradients: bool) -> tuple[int, int]:
    """What must be alike: the features' kind and length, and the update's length."""
    kind = len(event.features) if isinstance(event.features, list) else -1
    return kind, len(event.gradient or ()) if gradients else 0


def _too_few(lines: int, events: int, usable: int, attack: str, trouble: str) -> str:
    text = f"{lines:,} lines hold {usable:,} events that {attack} can use; it needs {LEAST_EVENTS}."
    if usable < events and ATTACKS[attack].needs == "subject":
        text += f" {events - usable:,} events have no subject (the item that is rated)."
    return text + (f" First trouble: {trouble}" if trouble else "")


def _stream(
    events: list[Event], needs: str, gradients: bool
) -> tuple[Stream, tuple[Codes, ...], bool]:
    array = isinstance(events[0].features, list)
    names: dict[str, None] = {}
    if array:
        names = {str(i): None for i in range(len(events[0].features))}
    else:
        for event in events:
            names.update(dict.fromkeys(event.features))  # type: ignore[arg-type]
    table: list[list[float]] = []
    codes: list[Codes] = []
    for i, name in enumerate(names):
        cells = [_cell(event, i, name) for event in events]
        codes.append(Codes.of(cells))
        table.append(codes[-1].numbers(cells))
    labels = sorted({(type(e.label).__name__, e.label) for e in events}, key=_label_order)
    index = {label: i for i, label in enumerate(labels)}
    stream = Stream(
        name=NAME,
        columns=tuple(names),
        x=np.array(table).T.copy(),
        y=np.array([index[type(e.label).__name__, e.label] for e in events], dtype=np.int64),
        labels=tuple(label for _, label in labels),
        source=tuple(event.source for event in events),
        ts=np.array([_seconds(event) for event in events]),
        subject=tuple(str(e.subject) for e in events) if needs == "subject" else None,
        gradient=np.array([event.gradient for event in events]) if gradients else None,
        ids=tuple(event.id for event in events),
    )
    return stream, tuple(codes), array


def _cell(event: Event, i: int, name: str) -> Cell:
    features = event.features
    return features[i] if isinstance(features, list) else features.get(name)


def _label_order(item: tuple[str, Label]) -> tuple[str, float, str]:
    kind, label = item
    return (kind, 0.0, label) if isinstance(label, str) else (kind, float(label), "")


def _seconds(event: Event) -> float:
    return event.ts.timestamp() if isinstance(event.ts, datetime) else float(event.ts)


def with_accounts(recording: Recording, count: int, seed: int) -> Stream:
    """The stream with ``count`` made-up honest accounts in place of its sources; 0 keeps them."""
    if not count:
        return recording.stream
    names = honest_sources(len(recording.stream), count=count, seed=seed)
    return replace(recording.stream, source=names)


@dataclass(frozen=True, slots=True)
class Written:
    """One line of the result. ``truth`` goes to the truth file; ``changed`` is not byte-equal."""

    line: bytes
    truth: Mapping[str, Any]
    changed: bool


def written(recording: Recording, found: Attacked) -> Iterator[Written]:
    """All lines of the attacked recording in order, with their truth."""
    differs = _differs(recording.stream, found)
    upto, number = 0, 0
    last = b""

    def untouched(end: int) -> Iterator[Written]:
        nonlocal upto, number
        for line in recording.lines[upto:end]:
            number += 1
            yield Written(line, _truth(number, None, None, UNREAD), False)
        upto = max(upto, end)

    for i in range(len(found.stream)):
        role = Role(int(found.role[i]))
        source_line = recording.lines[recording.place[int(found.row[i])]]
        inserted = bool(found.inserted[i])
        if not inserted:
            place = recording.place[int(found.row[i])]
            yield from untouched(place)
            upto = place + 1
        changed = bool(differs[i]) or inserted
        line = source_line
        if changed:
            event = json.loads(source_line)
            _rewrite(event, recording, found, i)
            if inserted:
                # It comes right after the event before it, at the same time.
                event["ts"] = json.loads(last)["ts"]
            line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
        if not inserted:
            last = source_line
        number += 1
        attack = found.attack if found.poison[i] else None
        yield Written(line, _truth(number, found.stream.id_of(i), attack, role.word), changed)
    yield from untouched(len(recording.lines))


def _truth(number: int, id_: str | None, attack: str | None, role: str) -> Mapping[str, Any]:
    return {
        "line": number,
        "id": id_,
        "poison": attack is not None,
        "attack": attack,
        "role": role,
    }


def _differs(honest: Stream, found: Attacked) -> BoolArray:
    """bool[n], events that are not what they were."""
    stream, row = found.stream, found.row
    x: FloatArray = honest.x[row]
    same = ((stream.x == x) | (np.isnan(stream.x) & np.isnan(x))).all(axis=1)
    same &= stream.y == honest.y[row]
    if stream.gradient is not None:
        if honest.gradient is None:
            return np.ones(len(stream), dtype=bool)
        same &= (stream.gradient == honest.gradient[row]).all(axis=1)
    for i, origin in enumerate(row.tolist()):
        same[i] &= stream.source[i] == honest.source[origin]
        if stream.subject is not None and honest.subject is not None:
            same[i] &= stream.subject[i] == honest.subject[origin]
    return np.asarray(~same, dtype=bool)


def _rewrite(event: dict[str, Any], recording: Recording, found: Attacked, i: int) -> None:
    """Give ``event``, so far that of row ``found.row[i]``, the values of row ``i``."""
    before, after, origin = recording.stream, found.stream, int(found.row[i])
    if found.inserted[i]:
        event["id"] = after.id_of(i)
        if ATTACKS[found.attack].needs == "subject":
            event.pop("prediction", None)  # what the model said to somebody else
    event["source"] = after.source[i]
    if after.y[i] != before.y[origin]:
        event["label"] = after.labels[int(after.y[i])]
    if after.subject is not None:
        event["subject"] = after.subject[i]
    if after.gradient is not None:
        event["gradient"] = after.gradient[i].tolist()
    features = event["features"]
    old, new = before.x[origin], after.x[i]
    for column in np.flatnonzero((old != new) & ~np.isnan(new)).tolist():
        key: Any = column if recording.array else before.columns[column]
        present = features[key] if recording.array else features.get(key)
        features[key] = recording.codes[column].cell(float(new[column]), present)
