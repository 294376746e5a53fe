"""Seeded simulation: whatever fails, every record is decided once and as if nothing had failed."""

from __future__ import annotations

import contextlib
import random
import threading

import numpy as np
import pytest

from monitor.core.errors import StateError, TransportError
from monitor.core.types import RawBatch
from monitor.runtime.service import Service
from monitor.state.audit import Chaining
from monitor.state.recovery import Stamp
from tests.checks.audit_whole import chains_whole
from tests.sim.model import STEPS, Crash, ModelTransport, RebalancedError, Store, crash_at
from tests.sim.toy import ToyGate

BATCH = 16


def make_store(rng: random.Random) -> Store:
    records: dict[int, list[tuple[int, bytes]]] = {}
    for partition in range(rng.randint(1, 3)):
        at, found = rng.choice([0, 0, 5]), []
        for _ in range(rng.randint(0, 300)):
            found.append((at, b"%d-%d" % (partition, rng.getrandbits(40))))
            at += rng.choice([1, 1, 1, 2, 7])
        records[partition] = found
    return Store(records)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.runtime.service._BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr("monitor.runtime.service.settled", contextlib.nullcontext)


def service(transport: ModelTransport) -> Service:
    return Service(
        ToyGate(),
        transport,
        batch_events=BATCH,
        linger_seconds=0.0,
        snapshot_every_batches=5,
        digests=True,
        chaining=Chaining("feedback", "1"),
    )


def check_ledger(store: Store) -> None:
    every = sorted((p, at, v) for p, found in store.records.items() for at, v in found)
    routed = [store.outputs[name] for name in ("accepted", "quarantined", "invalid")]
    assert sorted(r for output in routed for r in output) == every
    for output in (*routed, store.outputs["decisions"]):
        for partition in store.records:
            offsets = [at for p, at, _ in output if p == partition]
            assert offsets == sorted(set(offsets))
    assert len(store.outputs["decisions"]) == len(every)
    assert chains_whole(store.outputs["audit"], store.outputs["decisions"]) == len(every)


def check_decisions(store: Store) -> None:
    """Every decision is what an unbroken run over the committed batches decides."""
    gate = ToyGate()
    states = {p: gate.start() for p in store.records}
    values = {(p, at): v for p, found in store.records.items() for at, v in found}
    expected: dict[tuple[int, int], bytes] = {}
    for p, offsets in store.batches:
        raw = RawBatch(p, np.array(offsets, dtype=np.int64), [values[p, at] for at in offsets])
        decisions, states[p] = gate.step(states[p], raw)
        expected |= {(p, at): r for at, r in zip(offsets, decisions.records, strict=True)}
    assert {(p, at): r for p, at, r in store.outputs["decisions"]} == expected
    for p, done in store.committed.items():
        if done.stamp is not None:
            stamp = Stamp.decode(done.stamp)
            assert (stamp.next_offset, stamp.digest) == (done.next_offset, gate.digest(states[p]))


def run_to_the_end(store: Store, rng: random.Random, chance: float, **how: object) -> int:
    """Restart until a run finishes; the number of deaths."""
    deaths = 0

    def fault(step: str) -> None:
        if deaths > 60 or rng.random() >= chance:
            return
        if step in STEPS[:-1]:
            raise rng.choice([Crash, TransportError, RebalancedError])(step)
        if step in ("poll", "read_range", STEPS[-1]):  # the last: done, but the answer is lost
            raise rng.choice([Crash, TransportError])(step)
        raise Crash(step)

    while True:
        transport = ModelTransport(store, fault, seed=rng.getrandbits(30), **how)  # type: ignore[arg-type]
        try:
            service(transport).run(threading.Event())
        except (Crash, TransportError):
            deaths += 1
        except StateError as error:  # records came twice: noticed before anything is decided
            assert "before its state was restored" in str(error)
            deaths += 1
        else:
            return deaths


@pytest.mark.parametrize("seed", range(300))
def test_any_failures_and_any_cuts(seed: int) -> None:
    rng = random.Random(seed)
    store = make_store(rng)
    cuts = random.Random(seed + 1)
    how = {"churn": 0.1, "stale": 0.02, "delay": 0.05} if seed % 3 else {"churn": 0.1}
    run_to_the_end(store, rng, 0.05, cut=lambda n: cuts.randint(1, n), **how)
    check_ledger(store)
    check_decisions(store)


def test_delays_and_repetitions_do_happen() -> None:
    fenced = repeated = late = 0
    for seed in range(20):
        rng = random.Random(seed)
        store = make_store(rng)
        run_to_the_end(store, rng, 0.02, delay=0.2)
        check_ledger(store)
        fenced, repeated = fenced + store.fenced, repeated + store.repeated
        late += len(store.applied)
    assert fenced and repeated and late


@pytest.mark.parametrize("seed", range(20))
def test_full_batches_decide_as_an_unbroken_run(seed: int) -> None:
    store, calm = (make_store(random.Random(seed)) for _ in range(2))
    run_to_the_end(store, random.Random(seed), 0.05, churn=0.1)
    assert run_to_the_end(calm, random.Random(seed), 0.0) == 0
    assert {k: sorted(v) for k, v in store.outputs.items()} == {
        k: sorted(v) for k, v in calm.outputs.items()
    }


@pytest.mark.parametrize("step", ["open", "poll", "read_range", *STEPS])
def test_a_crash_at_every_step(step: str) -> None:
    store = Store({0: [(at, b"%d" % at) for at in range(200)]})
    for nth in range(8):
        try:
            service(ModelTransport(store, crash_at(step, nth))).run(threading.Event())
        except Crash:
            continue
    service(ModelTransport(store)).run(threading.Event())
    check_ledger(store)
    check_decisions(store)
    assert store.snapshots >= 2


def test_snapshots_bound_the_replay() -> None:
    store = Store({0: [(at, b"%d" % at) for at in range(500)]})
    service(ModelTransport(store)).run(threading.Event())
    stamp = Stamp.decode(store.committed[0].stamp or b"")
    assert stamp.next_offset == 500
    assert len(stamp.boundaries) < 5
