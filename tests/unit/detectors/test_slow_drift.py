"""Slow drift: what goes along with its class's movement, and whose it is."""

from __future__ import annotations

import numpy as np

from monitor.config.policy import DEFAULT_BUDGET
from monitor.core.types import EventBatch, Family, FloatArray
from monitor.detectors import default_detectors, optional_detectors
from monitor.detectors.slow_drift import SlowDrift, SlowDriftState, _sums
from monitor.gate import Gate
from monitor.state import codec
from tests.checks.detector_laws import COLUMNS, Shape, batch_of, fresh

SIZE, CLASSES = 256, 3
TOWARDS = np.array([0.0, 0.0, 1.0, 0.0, 0.0])


def part(i: int, moved: FloatArray | float = 0.0, colluders: int = 0) -> EventBatch:
    """A batch of three classes; class 1, or the part that colluders send, lies ``moved`` off."""
    drawn = batch_of(Shape(SIZE, 1000 + i, classes=CLASSES, table=CLASSES, sources=40), i * SIZE)
    rows = drawn.y == 1
    source = drawn.source.copy()
    if colluders:
        rows &= np.arange(SIZE) % 5 == 0
        source[rows] = 900 + np.arange(int(rows.sum())) % colluders
    z = drawn.z + rows[:, None] * np.asarray(moved) * TOWARDS
    return EventBatch(
        **{
            name: getattr(drawn, name)
            for name in EventBatch.__dataclass_fields__
            if name not in ("z", "source", "memo")
        },
        z=z,
        source=source,
    )


def warm(batches: int = 40) -> tuple[SlowDrift, SlowDriftState]:
    detector = SlowDrift()
    state = detector.empty(COLUMNS)
    for i in range(batches):
        state = detector.observe(state, part(i), np.ones(SIZE, dtype=bool))
    return detector, state


def test_a_frog_that_some_sources_carry_stands_out() -> None:
    detector, state = warm()
    for i in range(40, 60):
        batch = part(i, moved=3.0 * (i - 39) / 20, colluders=3)
        last = detector.score(state, batch).value
        state = detector.observe(state, fresh(batch), np.ones(SIZE, dtype=bool))
    frog = batch.source >= 900
    assert np.median(last[frog]) > np.quantile(last[~frog], 0.97)


def test_a_class_that_moves_with_everybody_does_not() -> None:
    detector, state = warm()
    for i in range(40, 60):
        batch = part(i, moved=3.0 * (i - 39) / 20)
        last = detector.score(state, batch).value
        state = detector.observe(state, fresh(batch), np.ones(SIZE, dtype=bool))
    # All of the class lie along its movement; no source has more of it than others.
    own = batch.y == 1
    assert np.median(last[own]) > np.median(last[~own])
    top = np.argsort(-last)[:20]
    assert len(np.unique(batch.source[top])) >= 8


def test_evidence_of_a_movement_is_of_its_class_alone() -> None:
    detector, state = warm()
    before = state.cusum.copy()
    for i in range(40, 50):
        state = detector.observe(state, part(i, moved=2.0), np.ones(SIZE, dtype=bool))
    assert state.cusum[1] > before[1] + 1.0
    assert state.cusum[0] < before[0] + 1.0
    assert state.dated.length[1] < state.dated.length[0]


def test_what_was_not_accepted_moves_nothing() -> None:
    detector, state = warm(10)
    batch = part(10, moved=8.0)
    none = detector.observe(state, batch, np.zeros(SIZE, dtype=bool))
    assert codec.dump(none) == codec.dump(state)
    without = detector.observe(state, fresh(batch), batch.y != 1)
    np.testing.assert_array_equal(without.total[1], state.total[1])


def test_the_explanation_says_where_and_since_when() -> None:
    detector, state = warm()
    for i in range(40, 50):
        state = detector.observe(state, part(i, moved=2.0), np.ones(SIZE, dtype=bool))
    batch = part(50, moved=2.0)
    row = int(np.flatnonzero(batch.y == 1)[0])
    (found,) = detector.explain(state, batch, np.array([row]))
    assert "label '1' has been moving for about" in found.text
    assert next(iter(found.data["moved"])) == "f2"
    assert found.data["events"] < 5_000


def test_few_and_many_classes_are_summed_alike() -> None:
    batch = part(0)
    (count, total), (other, others) = (_sums(batch.z, batch.y, size) for size in (4, 64))
    np.testing.assert_array_equal(count, other[:4])
    np.testing.assert_allclose(total, others[:4], rtol=1e-12)
    assert not others[4:].any()
    np.testing.assert_allclose(total[2], batch.z[batch.y == 2].sum(axis=0))


def test_it_is_optional_and_has_a_part_of_the_budget_when_it_runs() -> None:
    names = {detector.name for detector in default_detectors()}
    assert "slow_drift" not in names
    assert names.isdisjoint(detector.name for detector in optional_detectors())
    gate = Gate(detectors=(*default_detectors(), *optional_detectors()))
    assert Family.BOILING_FROG.value in gate.channels
    assert DEFAULT_BUDGET[Family.BOILING_FROG] > 0.0
