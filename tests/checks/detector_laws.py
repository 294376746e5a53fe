"""What every detector obeys. ``tests/unit/detectors/test_laws.py`` runs it over all listed ones.

A law takes a detector and hypothesis-drawn batches; nothing here knows any detector by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from hypothesis import strategies as st

from monitor.core.types import EventBatch, Family
from monitor.detectors.base import Detector, Params
from monitor.state import codec

COLUMNS = 5
GRADIENT = 7
BOUNDS = ("capacity", "ids", "vectors", "subjects", "sources", "raters", "campaigns")
"""Names of parameters that bound a detector's memory."""


@dataclass(frozen=True)
class Shape:
    """What a batch is drawn from. ``table`` is the size of the label table, which never shrinks."""

    n: int
    seed: int
    classes: int = 3
    table: int = 5
    sources: int = 12
    first_source: int = 1
    subjects: int = 6
    gradients: float = 0.0
    spread: float = 1.0


shapes = st.builds(
    Shape,
    n=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 5),
    sources=st.sampled_from([1, 3, 40]),
    subjects=st.sampled_from([0, 1, 8]),
    gradients=st.sampled_from([0.0, 0.5, 1.0]),
    spread=st.sampled_from([0.0, 1.0, 8.0]),
)


def batch_of(shape: Shape, start: int = 0) -> EventBatch:
    """A read-only batch: an array that somebody writes to raises."""
    rng = np.random.default_rng(shape.seed)
    n, classes = shape.n, shape.classes
    z = np.clip(shape.spread * rng.normal(size=(n, COLUMNS)), -8.0, 8.0)
    y = np.minimum((z[:, 0] > 0) + rng.integers(0, 5, n) // 4, classes - 1).astype(np.int32)
    # Small numbers instead of hashes: no detector may rely on their distribution.
    source = rng.integers(shape.first_source, shape.first_source + shape.sources, n)
    subject = rng.integers(1, shape.subjects + 1, n) if shape.subjects else np.zeros(n)
    gradient = None
    if shape.gradients > 0.0:
        gradient = rng.normal(size=(n, GRADIENT)) * shape.spread
        gradient[rng.random(n) >= shape.gradients] = np.nan
    batch = EventBatch(
        offset=np.arange(start, start + n),
        x=z * 2.0,
        g=z.copy(),
        z=z,
        y=y,
        n_classes=shape.table,
        source=source.astype(np.uint64),
        subject=subject.astype(np.uint64),
        id_hash=rng.integers(0, 2**63, n).astype(np.uint64),
        content=rng.integers(0, 2**63, n).astype(np.uint64),
        time_ns=(start + np.arange(n)) * 10**9,
        weight=np.ones(n),
        ids=[f"id-{start + i}" for i in range(n)],
        sources=[f"acct-{s}" for s in source],
        labels=[int(label) for label in y],
        columns=tuple(f"f{i}" for i in range(COLUMNS)),
        label_names=tuple(str(i) for i in range(shape.table)),
        p_value={family.value: 1.0 - rng.random(n) for family in Family},
        gradient=gradient,
    )
    for array in _arrays(batch):
        array.setflags(write=False)
    return batch


def _arrays(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _arrays(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _arrays(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name != "memo":
                yield from _arrays(getattr(value, field.name))


def fresh(batch: EventBatch) -> EventBatch:
    """The same batch, nothing remembered."""
    return replace(batch, memo={})


def ordinary(length: int, seed: int, *, size: int = 200, **shape: Any) -> list[EventBatch]:
    """A stream in which every optional column is there."""
    chosen = {"gradients": 0.8, "subjects": 8, **shape}
    return [batch_of(Shape(size, seed + i, **chosen), start=i * size) for i in range(length)]


def run(detector: Detector[Any], state: Any, batches: Sequence[EventBatch]) -> Any:
    """``state`` after ``batches``, nine rows in ten accepted."""
    for batch in batches:
        state = detector.observe(state, fresh(batch), np.arange(len(batch)) % 10 != 3)
    return state


def taught(detector: Detector[Any], batches: Iterator[EventBatch], n_columns: int) -> Any:
    """The state of a new detector after ``batches``, every row accepted."""
    state = detector.empty(n_columns)
    for batch in batches:
        state = detector.observe(state, fresh(batch), np.ones(len(batch), dtype=bool))
    return state


@lru_cache(maxsize=64)
def warm(kind: type[Any], seed: int = 0, length: int = 8) -> Any:
    """A state with something in it. Shared: the laws say that nobody writes to it."""
    detector = kind()
    return run(detector, detector.empty(COLUMNS), ordinary(length, seed * 1000 + 1))


def same_scores(detector: Detector[Any], one: Any, other: Any, batch: EventBatch) -> None:
    """Both states say the same of ``batch``, to rounding."""
    a, b = detector.score(one, fresh(batch)), detector.score(other, fresh(batch))
    np.testing.assert_array_equal(a.ready, b.ready)
    np.testing.assert_allclose(a.value, b.value, rtol=1e-4, atol=1e-4)


# The laws.


def declares_itself(detector: Detector[Any]) -> None:
    assert isinstance(detector, Detector)
    assert detector.name.isidentifier()
    assert detector.stage in (0, 1)
    assert detector.state_version >= 1
    assert isinstance(detector.params, Params)
    assert detector.family in set(Family)


def scores_are_sane(detector: Detector[Any], state: Any, batch: EventBatch) -> None:
    scored = detector.score(state, batch)
    for value in (scored.value,) if scored.context is None else (scored.value, scored.context):
        assert value.shape == (len(batch),)
        assert value.dtype == np.float64
        assert np.isfinite(value).all()
    assert scored.ready.shape == (len(batch),)
    assert scored.ready.dtype == np.bool_


def is_pure(detector: Detector[Any], state: Any, batch: EventBatch) -> None:
    before = codec.dump(state)
    accepted = np.arange(len(batch)) % 3 != 1
    accepted.setflags(write=False)
    scored = detector.score(state, batch)
    after = detector.observe(state, batch, accepted)
    detector.explain(state, batch, np.arange(len(batch)))
    detector.merge(state, after)
    assert codec.dump(state) == before
    given = list(_arrays(batch))
    held = list(_arrays(state))
    for array in _arrays(after):
        assert not any(np.shares_memory(array, theirs) for theirs in given), "keeps an input"
    for array in (scored.value, scored.ready):
        assert not any(np.shares_memory(array, theirs) for theirs in [*given, *held])


def is_deterministic(detector: Detector[Any], state: Any, batch: EventBatch) -> None:
    """Same arguments, same bytes: another instance, no memory of the batch, any call order."""
    accepted = np.arange(len(batch)) % 4 != 2
    scored = detector.score(state, batch)
    learned = codec.dump(detector.observe(state, batch, accepted))
    other = type(detector)(detector.params)
    stored = codec.load(type(state), codec.dump(state))
    assert codec.dump(other.observe(stored, fresh(batch), accepted)) == learned
    again = other.score(stored, fresh(batch))
    np.testing.assert_array_equal(scored.value, again.value)
    np.testing.assert_array_equal(scored.ready, again.ready)


def survives_a_snapshot(detector: Detector[Any], state: Any) -> None:
    data = codec.dump(state)
    stored = codec.load(type(state), data)
    assert codec.dump(stored) == data
    for batch in ordinary(1, 77, size=64):
        same_scores(detector, state, stored, batch)


def empty_is_neutral(detector: Detector[Any], state: Any) -> None:
    probe = ordinary(1, 99, size=64)[0]
    nothing = detector.empty(COLUMNS)
    same_scores(detector, detector.merge(state, nothing), state, probe)
    same_scores(detector, detector.merge(nothing, state), state, probe)
    cold = replace(probe, p_value={}) if detector.stage else probe
    assert not detector.score(detector.merge(nothing, nothing), cold).ready.any()


def merge_commutes(detector: Detector[Any], a: Any, b: Any) -> None:
    probe = ordinary(1, 98, size=64)[0]
    one, other = detector.merge(a, b), detector.merge(b, a)
    same_scores(detector, one, other, probe)
    scores_are_sane(detector, one, probe)


def cold_start_is_silent(detector: Detector[Any], batch: EventBatch) -> None:
    """Nothing but facts (a repeated id) is said before anything was learned."""
    # Stage one learns nothing by itself: it is cold while no channel speaks.
    batch = replace(batch, p_value={}) if detector.stage else batch
    scored = detector.score(detector.empty(COLUMNS), batch)
    certain = getattr(detector, "certain", np.inf)
    assert not (scored.ready & (scored.value < certain)).any()


def nothing_changes_nothing(detector: Detector[Any], state: Any) -> None:
    none = batch_of(Shape(5, 1)).select(np.zeros(5, dtype=bool))
    assert len(detector.score(state, none).value) == 0
    assert list(detector.explain(state, none, np.zeros(0, dtype=np.int64))) == []
    after = detector.observe(state, none, np.zeros(0, dtype=bool))
    same_scores(detector, after, state, ordinary(1, 97, size=64)[0])


def labels_may_appear(detector: Detector[Any]) -> None:
    state = detector.empty(COLUMNS)
    for i, classes in enumerate([1, 2, 2, 3, 5, 9, 17]):
        batch = batch_of(Shape(150, i, classes, classes, gradients=0.5), start=150 * i)
        scores_are_sane(detector, state, batch)
        state = detector.observe(state, batch, np.ones(150, dtype=bool))


def memory_is_bounded(detector: Detector[Any]) -> None:
    """With every bound turned down, keys that never come back do not add up."""
    names = [name for name in BOUNDS if name in type(detector.params).model_fields]
    small = type(detector)(type(detector.params)(**dict.fromkeys(names, 256)))
    state, sizes = small.empty(COLUMNS), []
    for i in range(24):
        shape = Shape(256, i, sources=10**6, subjects=10**6, first_source=1, gradients=0.5)
        state = small.observe(state, batch_of(shape, start=256 * i), np.ones(256, dtype=bool))
        sizes.append(len(codec.dump(state)))
    assert max(sizes[16:]) <= 1.1 * max(sizes[8:16]) + 4096


def explains_in_words(detector: Detector[Any], state: Any, batch: EventBatch) -> None:
    rows = np.arange(len(batch))[:: max(1, len(batch) // 5)]
    evidence = detector.explain(state, batch, rows)
    assert len(evidence) == len(rows)
    for item in evidence:
        assert 10 < len(item.text) < 1500
        assert "nan" not in item.text.split()
        orjson.dumps(dict(item.data))


def splits_add_up(detector: Detector[Any], state: Any, batch: EventBatch, at: int) -> None:
    """For additive detectors: one batch or two, the state is the same to rounding."""
    if not detector.additive:
        return
    everything = np.ones(len(batch), dtype=bool)
    whole = detector.observe(state, fresh(batch), everything)
    rows = np.arange(len(batch))
    first, second = batch.select(rows[:at]), batch.select(rows[at:])
    split = detector.observe(
        detector.observe(state, first, everything[:at]), second, everything[at:]
    )
    for one, other in zip(_arrays(whole), _arrays(split), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)
