"""What partitions pay for knowing of each other: storing, reading and merging what they learned."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from loadtest.throughput_load import make_workload
from monitor.config.sections import BatchSettings
from monitor.core.types import RawBatch
from monitor.gate import Gate, GateConfig
from monitor.runtime.process import settled
from monitor.state.recovery import seal, unseal

FEATURES, LABELS, STEP_EVENTS = 16, 10, 16_384


def exchange_costs(
    partitions: int, events_each: int, tell: Callable[[int], None]
) -> dict[str, Any]:
    """CPU seconds and megabytes of an exchange, by how many others there are.

    Partitions are dealt the same stream in turn and meet once before they are measured, so that
    they share a schema, as they do in the service.
    """
    with settled():
        return _measured(partitions, events_each, tell)


def _measured(partitions: int, events_each: int, tell: Callable[[int], None]) -> dict[str, Any]:
    load = make_workload(STEP_EVENTS, FEATURES, LABELS, prime=partitions * events_each)
    gate, batch = Gate(GateConfig(several=True)), BatchSettings().max_events
    states: dict[int, Any] = {}
    for p in range(partitions):
        values = load.values[p : load.prime : partitions]
        first = 2 * gate.config.warmup_events
        state = gate.step(gate.start(), RawBatch.of(values[:first], partition=p))[1]
        if p:
            state = gate.exchange(state, p, {0: gate.own_summary(states[0])}).state
        for at in range(first, len(values), batch):
            raw = RawBatch.of(values[at : at + batch], start=at, partition=p)
            state = gate.step(state, raw)[1]
        states[p] = state
        tell(p + 1)
    stored, storing = _timed(lambda: seal(0, 1, gate.pieces(gate.alone(states[0]))))
    summary, reading = _timed(lambda: gate.summary(unseal(stored)[2]))
    peers = {p: gate.own_summary(state) for p, state in states.items() if p}
    merging: dict[str, float] = {}
    met: Any = None
    for count in _some(partitions - 1):
        some = dict(list(peers.items())[:count])
        met, merging[str(count)] = _timed(lambda: gate.exchange(states[0], 0, some))  # noqa: B023
    with_view, storing_view = _timed(lambda: seal(0, 1, gate.pieces(met.state)))
    alone = gate.alone(states[0])
    costs = {
        name: _step_us(gate, state, load.values[load.prime :], batch)
        for name, state in (("alone", alone), ("view", met.state))
    }
    each = sum(map(len, gate.pieces(summary))) / 1e6
    slope = float(np.polyfit([int(k) for k in merging], list(merging.values()), 1)[0])
    return {
        "partitions": partitions,
        "events_each": events_each,
        "state_megabytes": each,
        "stored_megabytes": len(stored) / 1e6,
        "stored_with_view_megabytes": len(with_view) / 1e6,
        "storing_seconds": storing,
        "storing_with_view_seconds": storing_view,
        "reading_seconds": reading,
        "merging_seconds": merging,
        "merging_seconds_each": slope,
        "step_us_alone": costs["alone"],
        "step_us_with_view": costs["view"],
        "apart": len(met.apart),
    }


def _some(most: int) -> list[int]:
    """1, 3, 7 … up to ``most``, which is always among them.

    Examples
    --------
    >>> _some(7)
    [1, 3, 7]
    """
    found = [n for k in range(1, 12) if (n := (1 << k) - 1) < most]
    return [*found, most]


def _timed(work: Callable[[], Any], rounds: int = 3) -> tuple[Any, float]:
    """A result, and the median CPU seconds it took."""
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        result = work()
        seconds.append(time.process_time() - began)
    return result, float(np.median(seconds))


def _step_us(gate: Gate, state: Any, values: list[bytes], batch: int) -> float:
    """CPU µs of an event judged from ``state`` on."""
    cost = []
    for at in range(0, len(values), batch):
        raw = RawBatch.of(values[at : at + batch], start=(1 << 40) + at)
        began = time.process_time()
        state = gate.step(state, raw)[1]
        cost.append(1e6 * (time.process_time() - began) / len(raw))
    return float(np.median(cost))
