"""From the bytes of accepted events to a segment. Pure; never raises for what a record contains."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from monitor.core.blast import AcceptedBatch
from monitor.core.features import array_names
from monitor.core.text import clean
from monitor.lineage.columns import Words
from monitor.lineage.segment import Categories, Float32Array, Numbers, Places, Segment, whole

MAX_FEATURES = 256
"""Of an event, the first ones: what is kept has to have a bound."""
MAX_CHARS = 512
_LARGEST = float(np.finfo(np.float32).max)

Cell = float | str | bool | None


class _Said(msgspec.Struct, gc=False):
    """What is read of an event. It was found valid; in some modes what is not passes, too."""

    id: str = ""
    ts: float | datetime = 0.0
    source: str = ""
    label: str | int | bool | None = None
    features: list[float] | dict[str, Cell] = []
    subject: str | None = None
    weight: float | None = None


class _Loose(msgspec.Struct, gc=False):
    """The same of a record that is not as it should be."""

    id: Any = None
    ts: Any = None
    source: Any = None
    label: Any = None
    subject: Any = None


_said = msgspec.json.Decoder(_Said).decode
_loosely = msgspec.json.Decoder(_Loose).decode


def segment_of(batch: AcceptedBatch, max_features: int = MAX_FEATURES) -> Segment:
    """The events of a batch, in its order."""
    said = [_read(value) for value in batch.values]
    origin = np.array(batch.origin, dtype=np.int64).reshape(-1, 2)
    places = Places(
        np.array(batch.part, dtype=np.int32),
        np.array(batch.pos, dtype=np.int64),
        origin[:, 0].astype(np.int32),
        origin[:, 1].copy(),
    )
    ts = np.array([_seconds(event.ts) for event in said], dtype=np.float64)
    weight = [1.0 if event.weight is None else min(event.weight, _LARGEST) for event in said]
    return whole(
        places,
        (ts, np.array(batch.at, dtype=np.float64)),
        tuple(_text(event.id) for event in said),
        (
            Words.of([_text(event.source) for event in said]),
            Words.of([None if e.subject is None else _text(e.subject) for e in said]),
            Words.of([label_json(event.label) for event in said]),
            Words.of(batch.keys or [None] * len(said)),
        ),
        (
            np.array(weight, dtype=np.float32),
            *_features([event.features for event in said], max_features),
        ),
    )


def label_json(label: Any) -> str:
    """A label as it stands in JSON, by which the kinds are told apart.

    Examples
    --------
    >>> label_json("1"), label_json(1), label_json(True)
    ('"1"', '1', 'true')
    """
    return msgspec.json.encode(_text(label) if isinstance(label, str) else label).decode()


def label_shown(said: str) -> str:
    """The label of :func:`label_json` as decisions and metrics write it.

    Examples
    --------
    >>> [label_shown(label_json(label)) for label in ("spam", 3, True)]
    ['spam', '3', 'true']
    """
    return str(msgspec.json.decode(said)) if said.startswith('"') else said


def _read(value: bytes) -> _Said:
    try:
        return _said(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    try:
        found = _loosely(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _Said()
    made = _Said()
    for name in ("id", "source", "subject"):
        text = getattr(found, name)
        if isinstance(text, str):
            setattr(made, name, text)
    if isinstance(found.label, str | int):
        made.label = found.label
    if isinstance(found.ts, int | float):
        made.ts = float(found.ts)
    return made


def _text(text: str) -> str:
    return clean(text[:MAX_CHARS]).replace("\0", "\ufffd")


def _seconds(ts: float | datetime) -> float:
    if isinstance(ts, datetime):
        return (ts if ts.tzinfo is not None else ts.replace(tzinfo=UTC)).timestamp()
    return ts


def _features(
    rows: Sequence[list[float] | dict[str, Cell]], most: int
) -> tuple[Numbers, Categories]:
    plain = _plain(rows, most)
    if plain is not None:
        return plain, Categories((), ())
    cells = [_cells(row, most) for row in rows]
    numbers = _names((n for row in cells for n, v in row.items() if not isinstance(v, str)), most)
    texts = _names((n for row in cells for n, v in row.items() if isinstance(v, str)), most)
    x = np.full((len(rows), len(numbers)), np.nan, dtype=np.float32)
    for i, row in enumerate(cells):
        for j, name in enumerate(numbers):
            value = row.get(name)
            if value is not None and not isinstance(value, str):
                x[i, j] = min(max(float(value), -_LARGEST), _LARGEST)
    words = [
        Words.of([_text(v) if isinstance(v := row.get(name), str) else None for row in cells])
        for name in texts
    ]
    return Numbers(numbers, x), Categories(texts, tuple(words))


def _plain(rows: Sequence[list[float] | dict[str, Cell]], most: int) -> Numbers | None:
    """Where all events have the same features and all are numbers, which is quick; else None."""
    first = rows[0] if rows else []
    if isinstance(first, list):
        if not all(isinstance(row, list) and len(row) == len(first) for row in rows):
            return None
        return Numbers(array_names(len(first))[:most], _matrix(rows, len(first), most))
    names = tuple(first)
    if not all(isinstance(row, dict) and tuple(row) == names for row in rows):
        return None
    values = [list(row.values()) for row in rows]  # type: ignore[union-attr]
    if any(isinstance(v, str) for row in values for v in row):
        return None
    return Numbers(names[:most], _matrix(values, len(names), most))


def _matrix(rows: Sequence[Any], d: int, most: int) -> Float32Array:
    """float32[n, d]; None becomes NaN."""
    x = np.array(rows, dtype=np.float64).reshape(len(rows), d)[:, :most]
    return np.clip(x, -_LARGEST, _LARGEST).astype(np.float32)


def _cells(row: list[float] | dict[str, Cell], most: int) -> dict[str, Cell]:
    pairs = zip(array_names(len(row)), row, strict=True) if isinstance(row, list) else row.items()
    return {clean(name): cell for (name, cell), _ in zip(pairs, range(most), strict=False)}


def _names(found: Any, most: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found))[:most]
