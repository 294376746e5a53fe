"""An overload: what is let by is said, counted, not learned, and reproduced by a recovery."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from dataclasses import replace

import msgspec
import numpy as np
import orjson
import pytest

from monitor.config.policy import Policy
from monitor.core.errors import StateError, TransportError
from monitor.core.ports import Polled
from monitor.core.types import Action, Mode, RawBatch, Verdict
from monitor.gate import Gate, GateConfig
from monitor.runtime.overload import Overload
from monitor.runtime.service import Service
from monitor.state.audit import Chaining
from monitor.state.recovery import Stamp, advance, begin
from monitor.telemetry.metrics import Metrics
from tests.checks.audit_whole import chains_whole
from tests.sim.model import STEPS, Crash, ModelTransport, Store
from tests.sim.toy import ToyGate
from tests.unit.test_gate_steps import values

BATCH = 16


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.runtime.service._BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr("monitor.runtime.service.settled", contextlib.nullcontext)


class Lagging(ModelTransport):
    """Tells the lag, as Kafka does."""

    def poll(self, max_events: int, timeout_seconds: float) -> Polled:
        polled = super().poll(max_events, timeout_seconds)
        return replace(polled, lag_events=sum(len(self._after(p)) for p in self._position))


def overload(**changes: object) -> Overload:
    return Overload(**({"fail_open": True, "lag_events": 200, "after_seconds": 0.0} | changes))  # type: ignore[arg-type]


def test_hysteresis_in_events_and_in_seconds() -> None:
    now, told = [0.0], list[str]()
    watch = Overload(fail_open=True, lag_events=100, after_seconds=10.0, clock=lambda: now[0])

    def at(seconds: float, lag: int | None) -> bool:
        now[0] = seconds
        watch.update(lag, told.append)
        return watch.lets_by

    assert not at(0, 500)
    assert not at(9, 500)
    assert not at(9.5, 100)  # not above: the wait begins anew
    assert not at(10, 101)
    assert not at(19, None)
    assert at(20, 101)
    assert at(21, 50)
    assert at(22, None)
    assert not at(23, 49)
    assert not at(24, 500)
    assert at(34, 500)
    assert [t.split(":")[0] for t in told] == ["Overload", "The overload is over", "Overload"]


def test_fail_closed_lets_nothing_by() -> None:
    told: list[str] = []
    watch = overload(fail_open=False)
    watch.update(10_000, told.append)
    assert watch.active and not watch.lets_by
    assert "fail_closed" in told[0]
    store = Store({0: [(at, b"%d" % at) for at in range(600)]})
    Service(ToyGate(), Lagging(store), batch_events=BATCH, overload=watch).run(threading.Event())
    assert not any(b"unjudged" in record for _, _, record in store.outputs["decisions"])
    assert len(store.outputs["decisions"]) == 600


def check(store: Store) -> int:
    """Decisions are those of an unbroken run that lets by the same batches; how many it did."""
    decided = {(p, at): record for p, at, record in store.outputs["decisions"]}
    every = sorted((p, at, v) for p, found in store.records.items() for at, v in found)
    routed = [r for name in ("accepted", "quarantined", "invalid") for r in store.outputs[name]]
    assert sorted(routed) == every
    assert len(store.outputs["decisions"]) == len(decided) == len(every)
    known = {(p, at): v for p, at, v in every}
    gate, passed = ToyGate(), 0
    states = {p: gate.start() for p in store.records}
    for p, offsets in store.batches:
        raw = RawBatch(p, np.array(offsets, dtype=np.int64), [known[p, at] for at in offsets])
        if b"unjudged" in decided[p, offsets[0]]:
            passed += len(offsets)
            expected = gate.let_by(states[p], raw)
        else:
            expected, states[p] = gate.step(states[p], raw)
        assert [decided[p, at] for at in offsets] == list(expected.records)
    return passed


@pytest.mark.parametrize("seed", range(30))
def test_crashes_in_an_overload(seed: int) -> None:
    rng = random.Random(seed)
    store = Store({p: [(at, b"%d" % at) for at in range(rng.randint(200, 500))] for p in (0, 1)})
    deaths = 0

    def fault(step: str) -> None:
        if step in (*STEPS, "poll", "read_range") and deaths < 40 and rng.random() < 0.04:
            raise rng.choice([Crash, TransportError])(step)

    while True:
        service = Service(
            ToyGate(),
            Lagging(store, fault, seed=rng.getrandbits(30), churn=0.1),
            batch_events=BATCH,
            snapshot_every_batches=7,
            overload=overload(),
            digests=True,
            chaining=Chaining("feedback", "1"),
        )
        try:
            service.run(threading.Event())
        except (Crash, TransportError):
            deaths += 1
        else:
            break
    assert deaths
    assert chains_whole(store.outputs["audit"], store.outputs["decisions"])
    assert 0 < check(store) < sum(map(len, store.records.values()))


@pytest.mark.parametrize("mode", list(Mode))
def test_the_real_gate_says_so_and_learns_nothing(mode: Mode) -> None:
    sample = values(1200)
    store, told, metrics = Store({0: list(enumerate(sample))}), list[str](), Metrics()

    class Listens:
        def notice(self, text: str) -> None:
            told.append(text)

        def __getattr__(self, name: str) -> object:
            return lambda *_: None

    service = Service(
        Gate(GateConfig(warmup_events=100), Policy(mode=mode)),
        Lagging(store),
        observers=(metrics,),
        on_status=Listens(),  # type: ignore[arg-type]
        batch_events=100,
        overload=overload(lag_events=500),
    )
    service.run(threading.Event())
    records = [orjson.loads(record) for _, _, record in store.outputs["decisions"]]
    passed = [r for r in records if any(w["detector"] == "overload" for w in r["reasons"])]
    valid = [r for r in records[: len(passed) + 400] if r["verdict"] != "invalid"]
    assert 500 < len(passed) < 1100
    assert {(r["verdict"], r["action"]) for r in passed} == {("flag", "pass")}
    assert all(r["reasons"][0]["text"].startswith("not judged: overload") for r in passed)
    assert passed == valid[: len(passed)]
    assert f"unjudged_events_total {len(passed)}.0" in metrics.expose()[0].decode()
    assert len(told) == 2
    state = service._held[0].state
    assert state.events <= 1200 - len(passed)


def test_invalid_records_are_refused_in_an_overload_too() -> None:
    gate = Gate(GateConfig(warmup_events=100))
    gate.check(values(300))
    event = orjson.loads(values(1, seed=6)[0])
    wide = event | {"features": [1.0]}
    raw = RawBatch.of([orjson.dumps(event), orjson.dumps(wide), b"{"], start=300)
    decided = gate.let_by(gate.state, raw)
    assert decided.verdict.tolist() == [Verdict.FLAG, Verdict.INVALID, Verdict.INVALID]
    assert decided.action.tolist() == [Action.PASS, Action.REJECT, Action.REJECT]
    assert decided.unjudged


def test_the_stamp_remembers_until_the_snapshot() -> None:
    stamp = advance(begin(0, 0), 5, 5, policy_version=1, snapshot=False, judged=False)
    stamp = advance(stamp, 9, 4, policy_version=1, snapshot=False)
    assert Stamp.decode(stamp.encode()) == stamp
    assert stamp.unjudged == (5,)
    assert advance(stamp, 12, 3, policy_version=1, snapshot=True, judged=False).unjudged == ()
    with pytest.raises(StateError, match="contradicts"):
        Stamp.decode(msgspec.structs.replace(stamp, unjudged=(6,)).encode())


def test_stamps_of_version_1_are_read() -> None:
    old = json.loads(begin(3, 7).encode())
    del old["unjudged"], old["check"]
    old["version"] = 1
    assert Stamp.decode(json.dumps(old).encode()) == begin(3, 7)
