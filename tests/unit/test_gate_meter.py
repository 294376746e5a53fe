"""A gate that is measured decides and learns exactly as one that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import orjson

from monitor.config.policy import Policy
from monitor.core.types import RawBatch
from monitor.gate import Gate, GateConfig
from monitor.transport.kafka_records import Rows, raw_batch

T = TypeVar("T")
N = 1200


class Calls:
    """A meter that counts."""

    def __init__(self) -> None:
        self.by_detector: dict[str, int] = {}

    def __call__(self, detector: str, call: Callable[[], T]) -> T:
        self.by_detector[detector] = self.by_detector.get(detector, 0) + 1
        return call()


def events() -> list[bytes]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, 4))
    return [
        orjson.dumps(
            {
                "id": f"e{i}",
                "ts": 1.7e9 + i,
                "source": f"s{i % 40}",
                "label": bool(row[0] > 0) ^ (i > 800 and i % 9 == 0),
                "features": row.tolist(),
            }
        )
        for i, row in enumerate(x)
    ]


def lived(gate: Gate) -> tuple[list[bytes], str]:
    """Decision records of the stream, and the digest of the state after it."""
    state, records, values = gate.start(), [], events()
    for first in range(0, N, 300):
        raw = RawBatch.of(values[first : first + 300], start=first)
        decisions, state = gate.step(state, raw)
        records += decisions.records
    return records, gate.digest(state)


def test_measuring_changes_nothing_and_misses_no_detector() -> None:
    config, calls = GateConfig(warmup_events=200), Calls()
    measured = Gate(config, Policy(), meter=calls)
    assert lived(measured) == lived(Gate(config, Policy()))
    assert set(calls.by_detector) == {d.name for d in measured.detectors}
    assert min(calls.by_detector.values()) >= 2 * 3  # scored and learned from, in each batch


def test_another_policy_is_measured_as_well() -> None:
    calls = Calls()
    gate = Gate(GateConfig(warmup_events=200), Policy(), meter=calls)
    lived(gate.with_policy(Policy(version=2, flag_at=0.05)))
    assert set(calls.by_detector) == {d.name for d in gate.detectors}


def test_a_records_time_stays_with_it() -> None:
    rows = Rows([5, 6, 9], [1000, -1, 3000], [None] * 3, [b"a", b"b", b"c"], [[]] * 3)
    batch, _ = raw_batch(2, rows)
    assert batch.timestamps == [1000, -1, 3000]
    assert batch.part(1, 3).timestamps == [-1, 3000]
    assert RawBatch.of([b"a"]).part(0, 1).timestamps is None
