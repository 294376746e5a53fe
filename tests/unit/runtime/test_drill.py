"""Drills: what they find, and that nothing of them gets anywhere."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import numpy as np
import pytest

from monitor.core.desk import AuditEntry, ConflictError, MissingError
from monitor.core.drill import ATTACK_OF, FAMILIES_OF, MARK, Drill, DrillPlan, DrillState
from monitor.core.errors import StateError, UsageError
from monitor.core.limits import Limits
from monitor.core.ports import CommitUnit
from monitor.core.types import RawBatch
from monitor.gate import Gate, GateConfig
from monitor.runtime.drill import Drills, Schedule
from monitor.runtime.drill.canaries import make, mix
from monitor.runtime.drill.recent import Templates
from monitor.runtime.inject import ATTACKS
from monitor.runtime.service import Service
from tests.sim.model import ModelTransport, Store

EVENTS, BATCH, PER_SECOND = 6_000, 200, 100
PLAN = DrillPlan("backdoor", rate_per_second=2.0, seconds=20.0)


def stream(n: int = EVENTS) -> list[bytes]:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 6)).round(1) + 2 * y[:, None]
    source = rng.integers(0, 60, n)
    return [
        json.dumps(
            {
                "id": f"e{i}",
                "ts": 1_700_000_000 + i / PER_SECOND,
                "source": f"acct-{source[i]}",
                "label": ["ok", "bad"][y[i]],
                "features": x[i].tolist(),
            }
        ).encode()
        for i in range(n)
    ]


class Course:
    """A service on a recorded stream with drills beside it, in the stream's own time."""

    def __init__(self, values: list[bytes], begin: int = 2 * EVENTS, **more: Any) -> None:
        self.store = Store({0: list(enumerate(values))})
        self.begin, self.at = begin, 0
        self.notes: list[AuditEntry] = []
        self.told: list[Drill] = []
        self.units: list[CommitUnit] = []
        self.drill: Drill | None = None
        self.drills = Drills(
            lambda: self.service,
            Limits(),
            note=self.notes.append,
            told=self.told.append,
            clock=lambda: self.at / PER_SECOND,
            **more,
        )
        self.service: Service[Any] = Service(
            Gate(GateConfig()),
            ModelTransport(self.store),
            observers=(self.drills, self),
            batch_events=BATCH,
        )

    def committed(self, unit: CommitUnit, seconds: object) -> None:
        self.units.append(unit)
        self.at += sum(len(part.raw) for part in unit.parts)
        if self.at >= self.begin and self.drill is None:
            self.drill = self.drills.start(PLAN, who="ann", why="weekly")
        deadline = time.monotonic() + 30
        while not self.drills._batches.empty() and time.monotonic() < deadline:
            time.sleep(0.001)  # so that the copy sees every event

    def run(self) -> None:
        try:
            self.service.run(threading.Event())
        finally:
            self.drills.close()

    @property
    def written(self) -> list[tuple[Any, ...]]:
        """All that was committed, byte for byte."""
        return [
            (p.next_offset, p.stamp, p.snapshot, tuple(p.decisions.records), tuple(p.raw.values))
            for unit in self.units
            for p in unit.parts
        ]


@pytest.fixture(scope="module")
def values() -> list[bytes]:
    return stream()


@pytest.fixture(scope="module")
def drilled(values: list[bytes]) -> Course:
    course = Course(values, begin=3_000)
    course.run()
    return course


def test_a_drill_changes_nothing_that_is_committed(values: list[bytes], drilled: Course) -> None:
    plain = Course(values)
    plain.run()
    assert plain.drill is None and drilled.drill is not None
    assert drilled.written == plain.written
    everything = b"".join(
        b"".join(records) + b"".join(raw) + stamp + (snapshot or b"")
        for _, stamp, snapshot, records, raw in drilled.written
    )
    assert MARK.encode() not in everything


def test_it_says_what_would_be_caught(drilled: Course) -> None:
    assert drilled.drill is not None
    found = drilled.drills.get(drilled.drill.id)
    assert found.state is DrillState.DONE
    assert found.wanted == found.sent == PLAN.canaries == 40
    assert found.held + found.flagged + found.passed + found.invalid == found.sent
    assert found.invalid == 0
    # Three features stamped by five accounts on separated classes: the gate lives by finding it.
    assert found.recall is not None and found.recall > 0.5
    assert found.delay_canaries is not None and found.delay_canaries < 20
    assert found.delay_events is not None and found.delay_events >= found.delay_canaries
    assert found.skipped_events == 0 and found.events > 1_000
    assert sum(found.detectors.values()) >= found.held
    assert [note.what for note in drilled.notes] == ["drill started", "drill done"]
    assert {note.who for note in drilled.notes} == {"ann"}
    assert [drill.id for drill in drilled.told] == [found.id]


def test_honest_copies_are_not_caught(values: list[bytes]) -> None:
    """Canaries that are no attack pass: what is measured is the attack, not the mark."""
    gate = Gate(GateConfig())
    _, state = gate.step(gate.start(), RawBatch.of(values[:4_000]))
    own = [
        json.loads(value) | {"id": f"{MARK}x-{i}"} for i, value in enumerate(values[5_000:5_060])
    ]
    mixed = mix(RawBatch.of(values[4_000:5_000], start=4_000), own, 4_000, (1,))
    decided, _ = gate.step(state, mixed.raw)
    assert (decided.verdict[mixed.canary] == 0).sum() >= 55
    stamps = [json.loads(value)["ts"] for value in mixed.raw.values]
    assert stamps == sorted(stamps)
    assert [v for v, c in zip(mixed.raw.values, mixed.canary, strict=True) if not c] == (
        values[4_000:5_000]
    )


def test_one_at_a_time_and_unknown_ones(values: list[bytes]) -> None:
    course = Course(values[:3_000])
    with pytest.raises(StateError):
        course.drills.start(PLAN, who="ann", why="too early")
    seen = []

    def start_twice(unit: CommitUnit, seconds: object) -> None:
        Course.committed(course, unit, seconds)
        if course.at == 2_000:
            first = course.drills.start(PLAN, who="ann", why="one")
            with pytest.raises(ConflictError, match=first.id):
                course.drills.start(PLAN, who="ben", why="two")
            course.drills.stop(first.id, who="ben")
            seen.append(first.id)

    course.committed = start_twice  # type: ignore[method-assign]
    course.run()
    assert len(seen) == 1
    found = course.drills.get(seen[0])
    assert found.state is DrillState.STOPPED and "Stopped by ben." in found.note
    with pytest.raises(MissingError):
        course.drills.get("0")


def test_scheduled_drills_take_turns(values: list[bytes]) -> None:
    plans = tuple(
        DrillPlan(family, rate_per_second=2.0, seconds=5.0) for family in ("label_flip", "backdoor")
    )
    course = Course(values, schedule=Schedule(12.0, plans))

    def slowly(unit: CommitUnit, seconds: object) -> None:
        Course.committed(course, unit, seconds)
        time.sleep(0.15)  # the thread looks at its schedule four times a second

    course.committed = slowly  # type: ignore[method-assign]
    course.run()
    families = [drill.plan.family for drill in course.drills.list()][::-1]
    assert families[:2] == ["label_flip", "backdoor"]
    assert {note.who for note in course.notes} == {"schedule"}


def in_between(course: Course, act: Any) -> Drill:
    """What became of a drill that begins at 3,000 events, while ``act(course)`` goes on."""

    def committed(unit: CommitUnit, seconds: object) -> None:
        Course.committed(course, unit, seconds)
        if course.at == 3_000:
            drill = course.drills.start(PLAN, who="ann", why="quiet")
            deadline = time.monotonic() + 30
            while course.drills.get(drill.id).state is DrillState.RUNNING:
                assert time.monotonic() < deadline
                act(course)
                time.sleep(0.01)

    course.committed = committed  # type: ignore[method-assign]
    course.run()
    return course.drills.list()[0]


def test_a_drill_without_events_says_that_it_judged_nothing(values: list[bytes]) -> None:
    def nothing_comes(course: Course) -> None:
        course.at += 10 * PER_SECOND

    course = Course(values[:3_000])
    found = in_between(course, nothing_comes)
    assert (found.state, found.sent, found.recall) == (DrillState.FAILED, 0, None)
    assert "Nothing was judged" in found.note and "no events came to partition 0" in found.note
    assert [note.what for note in course.notes] == ["drill started", "drill failed"]
    assert [told.recall for told in course.told] == [None]


def test_events_one_by_one_are_enough_for_canaries(values: list[bytes]) -> None:
    """Half as many canaries as real events, though each batch is a single one."""
    rest = iter(range(3_000, EVENTS))

    def one_comes(course: Course) -> None:
        at = next(rest)
        course.drills._batches.put(RawBatch.of(values[at : at + 1], start=at))
        course.at += PER_SECOND // 10

    found = in_between(Course(values[:3_000]), one_comes)
    assert found.sent > 0 and found.recall is not None
    assert found.sent <= 0.5 * found.events + 1


def test_an_attack_belongs_to_its_family() -> None:
    assert set(FAMILIES_OF) == set(ATTACKS)
    assert all(family in FAMILIES_OF[attack] for family, attack in ATTACK_OF.items())
    assert DrillPlan("sybil", attack="gradient_sybils").kind == "gradient_sybils"
    with pytest.raises(UsageError, match="'flip' is not one of backdoor"):
        DrillPlan("backdoor", attack="flip")


def test_what_cannot_be_tried_is_refused(values: list[bytes]) -> None:
    for plan, text in (
        (DrillPlan("backdoor", attack="nonsense"), "unknown attack"),
        (DrillPlan("replay", attack="replay_same_id"), "cannot be marked"),
        (DrillPlan("backdoor", sources="nobody"), "not 'nobody'"),
        (DrillPlan("shilling"), "no subject"),
    ):
        with pytest.raises(UsageError, match=text):
            make(values[:500], plan, "0", Limits())
    with pytest.raises(UsageError, match="not 'nobody'"):
        Course(values[:10], schedule=Schedule(1.0, (DrillPlan("backdoor", sources="nobody"),)))
    with pytest.raises(UsageError, match="needs 100"):
        make(values[:50], PLAN, "0", Limits())
    for bad in ({"rate_per_second": 0.0}, {"seconds": float("nan")}, {"rate_per_second": 1e9}):
        with pytest.raises(UsageError):
            DrillPlan("backdoor", **bad)


def test_templates_are_bounded(drilled: Course) -> None:
    kept = Templates(max_events=500, max_bytes=1 << 20)
    for unit in drilled.units:
        kept.add(unit.parts[0])
        assert sum(map(len, kept._kept)) <= 500 + BATCH
    accepted = [
        value
        for unit in drilled.units
        for part in unit.parts
        for value, verdict, warm in zip(
            part.raw.values, part.decisions.verdict, part.decisions.warmup, strict=True
        )
        if verdict == 0 and not warm
    ]
    assert kept.values() == accepted[-500:]
    small = Templates(max_bytes=1_000)
    for unit in drilled.units:
        small.add(unit.parts[0])
    assert len(small._kept) == 1
