"""What is stored, and what an event costs in memory, does not grow with sources, ids or labels."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from loadtest.soak_stream import Shape, values
from monitor.core.limits import Limits
from monitor.core.types import RawBatch
from monitor.detectors import default_detectors
from monitor.gate import Gate, GateConfig

ROOM = 1024
REMEMBERED = ("capacity", "ids", "vectors", "subjects", "sources")
BATCH = 1024


def small_detectors() -> tuple[Any, ...]:
    """The detectors with room for few keys, so that a short stream fills them."""
    made = []
    for detector in default_detectors():
        names = [name for name in REMEMBERED if name in type(detector.params).model_fields]
        params = detector.params.model_copy(update=dict.fromkeys(names, ROOM))
        made.append(type(detector)(params))
    return tuple(made)


def sizes(shape: Shape, at: tuple[int, ...], config: GateConfig | None = None) -> list[int]:
    """Length of the stored state after so many events."""
    gate = Gate(config or GateConfig(), detectors=small_detectors())
    found = []
    for start in range(0, max(at), BATCH):
        gate.check(RawBatch.of(values(shape, start, start + BATCH), start=start))
        if start + BATCH in at:
            found.append(len(gate.dump(gate.state)))
    return found


def test_every_memory_of_keys_is_small_here() -> None:
    """Else the tests below would show nothing."""
    named = [
        name
        for detector in default_detectors()
        for name in REMEMBERED
        if name in type(detector.params).model_fields
    ]
    assert len(named) >= 6


def test_ten_times_the_sources_ids_and_subjects() -> None:
    shape = Shape(events=41 * BATCH, features=3, labels=4, sources=10**6)
    before, after = sizes(shape, (4 * BATCH, 40 * BATCH))
    assert after < 1.25 * before


@pytest.mark.parametrize("labels", [64, 2000])
def test_the_labels_stop_at_their_limit(labels: int) -> None:
    shape = Shape(events=13 * BATCH, features=3, labels=labels, sources=10**6)
    config = GateConfig(limits=Limits(max_labels=64))
    before, after = sizes(shape, (6 * BATCH, 12 * BATCH), config)
    assert after < 1.1 * before


def test_a_flood_of_feature_names_and_categories() -> None:
    """Names that the schema does not know, and ever new categories, leave nothing behind."""
    gate = Gate(GateConfig(warmup_events=100), detectors=small_detectors())

    def event(i: int, **more: Any) -> bytes:
        features = {"a": (i * 7919 % 100) / 10, "card": "xyz"[i % 3], **more}
        head = {"id": f"e{i}", "ts": 1.7e9 + i, "source": f"s{i % 50}", "label": i % 2}
        return orjson.dumps({**head, "features": features})

    gate.check([event(i) for i in range(2048)])
    before = len(gate.dump(gate.state))
    decided = gate.check([event(i, **{f"n{i}": 1.0}) for i in range(2048, 4096)])
    assert {int(v) for v in decided.verdict} == {3}
    assert len(gate.dump(gate.state)) == before
    gate.check([event(i, card=f"c{i}") for i in range(4096, 6144)])
    assert len(gate.dump(gate.state)) < before + 600_000
    width = gate.state.schema.n_columns  # type: ignore[union-attr]
    gate.check([event(i, card=f"c{i}") for i in range(6144, 8192)])
    assert gate.state.schema.n_columns == width  # type: ignore[union-attr]
