"""The loop: what is adopted when, and what others may ask of it meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from monitor.core.errors import StateError, TransportError
from monitor.core.ports import CommitUnit
from monitor.core.types import RawBatch, Verdict
from monitor.runtime.service import Service, StopReason
from monitor.runtime.status import OTHER, STANDBY_SECONDS, Status
from monitor.state.recovery import begin
from monitor.transport.local import FileLines, LocalTransport
from tests.sim.model import ModelTransport, RebalancedError, Store
from tests.sim.toy import ToyGate, ToyState


def store(n: int = 100) -> Store:
    return Store({0: [(at, b"%d" % at) for at in range(n)]})


class Each:
    """Calls a function after every commit."""

    def __init__(self, call) -> None:  # type: ignore[no-untyped-def]
        self.call = call

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        self.call(unit, seconds)


def test_it_tells_observers_and_listener() -> None:
    status, stages = Status(), []
    seen = Each(lambda unit, seconds: stages.append(set(seconds)))
    service = Service(
        ToyGate(),
        ModelTransport(store()),
        observers=(status, seen),
        on_status=status,
        batch_events=8,
    )
    assert not status.ready
    assert service.run(threading.Event()) is StopReason.FINISHED
    said = status.snapshot()
    assert (said["events"], said["batches"], said["partitions"]) == (100, 13, {"0": 100})
    assert sum(said["verdicts"].values()) == sum(said["actions"].values()) == 100
    assert said["stopped"] == "finished"
    assert stages == [{"poll", "gate", "snapshot", "commit"}] * 13
    json.dumps(said)


def test_an_observer_that_raises_does_not_stop_the_line() -> None:
    status = Status()

    def fail(unit: object, seconds: object) -> None:
        raise ValueError("oops")

    service = Service(ToyGate(), ModelTransport(store()), observers=(Each(fail),), on_status=status)
    assert service.run(threading.Event()) is StopReason.FINISHED
    assert "oops" in status.snapshot()["notices"][0]


def test_peek_reads_the_adopted_state_and_learns_nothing() -> None:
    service: Service[ToyState]
    peeked: list[tuple[int, list[int]]] = []

    def look(unit: CommitUnit, seconds: object) -> None:
        decided = service.peek([b"a", b"b", b"c"])
        peeked.append((int(decided.offset[0]), decided.verdict.tolist()))

    service = Service(ToyGate(), ModelTransport(store()), observers=(Each(look),), batch_events=10)
    with pytest.raises(StateError, match="try again"):
        service.peek([b"a"])
    service.run(threading.Event())
    gate = ToyGate()
    state = gate.start()
    for turn, (at, verdicts) in enumerate(peeked):
        values = [b"%d" % i for i in range(turn * 10, turn * 10 + 10)]
        _, state = gate.step(state, RawBatch.of(values, start=turn * 10))
        decided, _ = gate.step(state, RawBatch.of([b"a", b"b", b"c"], start=at))
        assert (at, verdicts) == (turn * 10 + 10, decided.verdict.tolist())
    with pytest.raises(StateError):
        service.peek([b"a"], partition=9)


def test_jobs_run_between_batches_and_the_gate_can_change() -> None:
    service: Service[ToyState]
    futures: list[Future[int]] = []
    versions: list[int] = []

    def swap(running: Service[ToyState]) -> int:
        running.gate = ToyGate(version=2)
        return 2

    def each(unit: CommitUnit, seconds: object) -> None:
        versions.append(unit.parts[0].decisions.policy_version)
        if len(versions) == 3:
            futures.append(service.submit(swap))
            futures.append(service.submit(lambda running: 1 // 0))

    held = store()
    service = Service(ToyGate(), ModelTransport(held), observers=(Each(each),), batch_events=10)
    service.run(threading.Event())
    assert versions == [1] * 3 + [2] * 7
    assert futures[0].result() == 2
    assert isinstance(futures[1].exception(), ZeroDivisionError)
    assert held.snapshots == 1  # none was due but for the change of policy
    with pytest.raises(StateError, match="stopped"):
        service.submit(swap).result()


def test_a_failed_commit_ends_the_run_and_adopts_nothing() -> None:
    def fault(step: str) -> None:
        if step == "offsets":
            raise TransportError("the broker is away")

    held, status = store(), Status()
    service = Service(ToyGate(), ModelTransport(held, fault), on_status=status)
    with pytest.raises(TransportError, match="away"):
        service.run(threading.Event())
    assert service.peek([b"a"]).offset.tolist() == [0]
    assert held.batches == []
    assert (status.snapshot()["stopped"], status.ready) == ("failed", False)


def test_what_may_be_tried_again_is_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.runtime.service._BACKOFF_SECONDS", 0.0)
    failures = 0

    def fault(step: str) -> None:
        nonlocal failures
        if step == "state" and failures < limit:
            failures += 1
            raise RebalancedError("moved")

    limit = 4
    held = store()
    assert Service(ToyGate(), ModelTransport(held, fault)).run(threading.Event()) == "finished"
    assert len(held.outputs["decisions"]) == 100
    failures, limit = 0, 99
    with pytest.raises(RebalancedError):
        Service(ToyGate(), ModelTransport(store(), fault)).run(threading.Event())
    assert failures == 5


def test_stop_ends_after_the_batch_at_hand() -> None:
    stop, held = threading.Event(), store()
    service = Service(
        ToyGate(), ModelTransport(held), observers=(Each(lambda u, s: stop.set()),), batch_events=10
    )
    assert service.run(stop) is StopReason.STOPPED
    assert len(held.outputs["decisions"]) == 10


def test_status_counts(tmp_path: Path) -> None:
    now = 100.0
    status = Status(clock=lambda: now, wall=lambda: 5.0, flagged=7)
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(b"%d\n" % i for i in range(300)))
    transport = LocalTransport(FileLines([path]), tmp_path / "out")
    Service(ToyGate(), transport, observers=(status,), on_status=status, batch_events=50).run(
        threading.Event()
    )
    now = 104.0
    said = status.snapshot()
    assert said["rates"] == {"10s": 75.0, "60s": 75.0, "300s": 75.0}
    now = 150.0
    assert status.snapshot()["rates"] == {"10s": 0.0, "60s": 6.0, "300s": 6.0}
    assert status.idle_seconds() == 50.0
    assert said["verdicts"]["invalid"] == said["rejects"]["not_json"] == said["actions"]["reject"]
    assert said["families"] == {"label_flip": said["verdicts"]["quarantine"]}
    per_class = [sum(counts.values()) for counts in said["classes"].values()]
    assert sum(per_class) == 300 - said["verdicts"]["invalid"]
    assert len(status.flagged(50)) == 7
    offsets = [decision["offset"] for decision in status.flagged(50)]
    assert offsets == sorted(offsets, reverse=True)
    assert status.flagged(1) == status.flagged(50)[:1]
    for decision in status.flagged(50, Verdict.QUARANTINE):
        assert decision["mark"] % 4 == Verdict.QUARANTINE


def test_started_when_restored_or_when_nothing_comes() -> None:
    now = 0.0
    status = Status(clock=lambda: now)
    assert not status.started
    status.polled(None)
    now = STANDBY_SECONDS - 1
    status.polled(None)
    # A restore that has begun: the time until its end does not count as waiting.
    now = STANDBY_SECONDS + 60
    status.moved()
    assert not status.started and status.idle_seconds() == 0.0
    status.restored(0, begin(0, 0), 61.0)
    assert status.started and status.ready
    status.revoked(0)
    assert status.started and not status.ready

    reserve = Status(clock=lambda: now)
    reserve.polled(None)
    now += STANDBY_SECONDS
    reserve.polled(None)
    assert reserve.started and not reserve.ready
    reserve.stopped("failed")
    assert not reserve.started


def test_a_long_restore_is_no_standstill() -> None:
    """What is judged again at a start are signs of life, batch by batch."""
    held, status = store(), Status()
    service = Service(ToyGate(), ModelTransport(held), batch_events=10)
    service.run(threading.Event())
    moved: list[float] = []
    status.moved = lambda: moved.append(0.0)  # type: ignore[method-assign]
    Service(ToyGate(), ModelTransport(held), on_status=status, batch_events=10).run(
        threading.Event()
    )
    assert len(moved) > 2


def test_classes_are_bounded() -> None:
    status = Status()
    held = Store({0: [(0, b"x")]})

    class Many(ToyGate):
        def step(self, state, raw):  # type: ignore[no-untyped-def]
            decisions, after = super().step(state, RawBatch.of([b"x"] * 200))
            records = [json.dumps({"label": i if i % 2 else f"c{i}"}).encode() for i in range(200)]
            object.__setattr__(decisions, "records", records)
            object.__setattr__(decisions, "verdict", np.zeros(200, dtype=np.uint8))
            return decisions, after

    decisions, _ = Many().step(ToyState(0, 0), RawBatch.of([b"x"]))
    transport = ModelTransport(held)
    service = Service(ToyGate(), transport, observers=(status,), on_status=status)
    service.run(threading.Event())
    status._count(decisions, [json.loads(r)["label"] for r in map(bytes, decisions.records)])
    classes = status.snapshot()["classes"]
    assert len(classes) == 65
    assert OTHER in classes
