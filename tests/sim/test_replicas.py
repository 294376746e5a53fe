"""Several processes and partitions: every record once, states as if nothing had failed."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from monitor.core.types import RawBatch
from monitor.gate import Gate, GateConfig
from monitor.runtime.service import Service
from monitor.state.audit import Chaining
from monitor.state.partition import GateState
from monitor.state.recovery import Stamp
from monitor.state.view import Exchanged
from tests.sim.group import Group
from tests.sim.model import STEPS, Crash, ModelTransport, Store, crash_at
from tests.sim.test_crashes import check_ledger
from tests.sim.test_gate_crashes import events
from tests.sim.toy import SharingToyGate, ToyView


class Exchanges:
    """Every exchange that was made, committed or not, by partition and what came of it."""

    def __init__(self) -> None:
        self.made: dict[tuple[int, str], Mapping[int, Any]] = {}


class RecordedToy(SharingToyGate):
    def __init__(self, exchanges: Exchanges) -> None:
        super().__init__()
        self._exchanges = exchanges

    def exchange(
        self, state: ToyView, number: int, peers: Mapping[int, ToyView]
    ) -> Exchanged[ToyView]:
        found = super().exchange(state, number, peers)
        self._exchanges.made[number, self.digest(found.state)] = dict(peers)
        return found


class RecordedGate(Gate):
    exchanges = Exchanges()

    def exchange(
        self, state: GateState, number: int, peers: Mapping[int, GateState]
    ) -> Exchanged[GateState]:
        found = super().exchange(state, number, peers)
        self.exchanges.made[number, self.digest(found.state)] = dict(peers)
        return found


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.runtime.service._BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr("monitor.runtime.service.settled", contextlib.nullcontext)


def check_states(store: Store, gate: Any, made: dict[tuple[int, str], Mapping[int, Any]]) -> int:
    """An unbroken run over the committed batches, with the same exchanges, is the same to the bit.

    Returns how many batches were judged with a view.
    """
    states = {p: gate.start() for p in store.records}
    values = {(p, at): v for p, found in store.records.items() for at, v in found}
    decided, viewed = {(p, at): r for p, at, r in store.outputs["decisions"]}, 0
    for (p, offsets), data in zip(store.batches, store.stamps, strict=True):
        raw = RawBatch(p, np.array(offsets, dtype=np.int64), [values[p, at] for at in offsets])
        decisions, state = gate.step(states[p], raw)
        assert [decided[p, at] for at in offsets] == list(decisions.records)
        stamp = Stamp.decode(data)
        if stamp.snapshot_offset == stamp.next_offset and (p, stamp.digest) in made:
            state = gate.exchange(state, p, made[p, stamp.digest]).state
        assert (gate.digest(state), gate.view_digest(state)) == (stamp.digest, stamp.view)
        states[p] = state
        viewed += stamp.view != ""
    return viewed


def toy_store(rng: random.Random) -> Store:
    records = {}
    for partition in range(rng.randint(2, 4)):
        offsets = np.cumsum([rng.choice([1, 1, 2, 5]) for _ in range(rng.randint(50, 250))])
        records[partition] = [(int(at), b"%d" % rng.getrandbits(40)) for at in offsets]
    return Store(records)


@pytest.mark.parametrize("seed", range(60))
def test_processes_that_die_and_lose_partitions(seed: int) -> None:
    rng = random.Random(seed)
    store, exchanges = toy_store(rng), Exchanges()

    group = Group(
        store,
        lambda transport: toy_service(transport, exchanges),
        members=rng.randint(1, 4),
        rng=rng,
        faults=0.03,
        moves=0.05,
    )
    group.run()
    check_ledger(store)
    assert check_states(store, SharingToyGate(), exchanges.made) > 0
    assert group.deaths + group.moved > 0


def test_zombies_are_refused() -> None:
    refused = 0
    for seed in range(100, 110):
        rng = random.Random(seed)
        store, exchanges = toy_store(rng), Exchanges()
        group = Group(
            store, lambda made, e=exchanges: toy_service(made, e), members=3, rng=rng, moves=0.3
        )
        group.run()
        check_ledger(store)
        check_states(store, SharingToyGate(), exchanges.made)
        refused += group.refused
    assert refused > 0


def gate_store(seed: int, partitions: int) -> Store:
    values = events(seed, 420 * partitions)
    return Store({p: list(enumerate(values[p::partitions])) for p in range(partitions)})


def gate_service(transport: Any) -> Service[Any]:
    return Service(
        RecordedGate(GateConfig(warmup_events=64, several=True)),
        transport,
        batch_events=64,
        linger_seconds=0.0,
        snapshot_every_batches=4,
        exchange_events=64,
        digests=True,
        chaining=Chaining("feedback", "1"),
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_real_gate_on_several_processes(seed: int) -> None:
    RecordedGate.exchanges = Exchanges()
    rng = random.Random(seed)
    store = gate_store(seed, 2 + seed % 2)
    group = Group(store, gate_service, members=2, rng=rng, faults=0.03, moves=0.08)
    group.run()
    check_ledger(store)
    gate = Gate(GateConfig(warmup_events=64, several=True))
    assert check_states(store, gate, RecordedGate.exchanges.made) > 0


@pytest.mark.parametrize("step", ["open", "poll", "published", "read_range", *STEPS])
def test_a_crash_at_every_step_with_others(step: str) -> None:
    rng = random.Random(5)
    store, exchanges = toy_store(rng), Exchanges()
    for nth in range(6):
        with contextlib.suppress(Crash):
            transport = ModelTransport(store, crash_at(step, nth))
            toy_service(transport, exchanges).run(threading.Event())
    toy_service(ModelTransport(store), exchanges).run(threading.Event())
    check_ledger(store)
    assert check_states(store, SharingToyGate(), exchanges.made) > 0


def toy_service(transport: Any, exchanges: Exchanges) -> Service[Any]:
    return Service(
        RecordedToy(exchanges),
        transport,
        batch_events=16,
        linger_seconds=0.0,
        snapshot_every_batches=4,
        exchange_events=16,
        digests=True,
        chaining=Chaining("feedback", "1"),
    )


def test_one_partition_hears_nothing() -> None:
    store, exchanges = Store({0: [(at, b"%d" % at) for at in range(300)]}), Exchanges()
    toy_service(ModelTransport(store), exchanges).run(threading.Event())
    assert not exchanges.made
    assert check_states(store, SharingToyGate(), {}) == 0
