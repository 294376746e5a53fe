"""Events whose numbers are packed on the way decode to what they decode to otherwise."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from monitor.core.decode import Decoder
from monitor.core.events import TAKEN
from monitor.core.labels import LabelTable
from monitor.core.schema import Schema
from monitor.core.types import RawBatch


def _event(i: int, features: object, **more: object) -> bytes:
    head = {"id": f"e{i}", "ts": 1.7e9 + i, "source": "s", "label": "a", "features": features}
    return orjson.dumps(head | more)


ARRAYS = [_event(i, [float(i), -0.0, 1.5]) for i in range(6)]
OBJECTS = [_event(i, {"a": float(i), "b": True, "c": -0.0}) for i in range(6)]
TWICE = b'{"id":"t","ts":1,"source":"s","label":"a","features":{"a":1,"b":2,"c":3,"a":4}}'
ODD = [
    _event(90, [1.0]),
    _event(91, {"a": 1.0, "b": 2.0}),
    _event(92, {"a": 1.0, "b": "x", "c": 2.0}),
    _event(93, {"a": 1.0, "b": 2.0, "c": None}),
    _event(94, {"a": 1.0, "b": 2.0, "z": 3.0}),
    _event(95, {"a": 1, "b": 2, "c": 3}, subject="u", weight=2.0, meta={"a": 1}),
    TWICE,
]


@pytest.mark.parametrize("whole", [ARRAYS, OBJECTS], ids=["arrays", "objects"])
@pytest.mark.parametrize("broken", [[], [b"no JSON"], [b"[" * 5000], [b" " * 3_000_000]])
@pytest.mark.parametrize("odd", [[], ODD], ids=["fit", "odd"])
def test_packed_events_give_the_same_columns(
    whole: list[bytes], broken: list[bytes], odd: list[bytes]
) -> None:
    raw = RawBatch.of([*whole[:3], *odd, *broken, *whole[3:]])
    decoder = Decoder()
    schema = Schema.learn(decoder.parse(RawBatch.of(whole)))
    plain, packed = decoder.parse(raw), decoder.parse(raw, schema.layout)
    assert sum(event.features is TAKEN for event in packed.events) >= len(whole)
    wanted = decoder.columns(plain, schema, LabelTable())
    got = decoder.columns(packed, schema, LabelTable())
    assert got.events.x.tobytes() == wanted.events.x.tobytes()
    for name in ("reject", "row"):
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
    for name in ("source", "content", "time_ns", "weight", "subject"):
        np.testing.assert_array_equal(getattr(got.events, name), getattr(wanted.events, name))
    assert (got.detail, got.events.ids) == (wanted.detail, wanted.events.ids)
    assert len(got.detail) >= len(broken) + 4 * bool(odd)


def test_columns_of_another_schema_are_refused() -> None:
    decoder, raw = Decoder(), RawBatch.of(ARRAYS)
    first, second = (Schema.learn(decoder.parse(raw)) for _ in range(2))
    with pytest.raises(ValueError, match="packed for other features"):
        decoder.columns(decoder.parse(raw, first.layout), second, LabelTable())
