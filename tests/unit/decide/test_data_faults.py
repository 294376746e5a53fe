"""Faults of whatever brings the data: each is told, once it is far from the stream's own rates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.hashing import hash_text
from monitor.decide.data_faults import NEAR, PAST, Pipeline, Rows, in_order, watched

COLUMNS = ("a", "b", "c")
N, AT = 8_000, 5_000


def rows(seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    label = np.array([hash_text("no"), hash_text("yes")], dtype=np.uint64)
    return Rows(
        np.arange(1, N + 1, dtype=np.uint64),
        np.arange(N, dtype=np.int64) * 1_000_000_000,
        rng.normal(size=(N, 3)).astype(np.float32),
        rng.random((N, 3)) < 0.02,
        label[rng.integers(0, 2, N)],
        rng.integers(0, 50, N).astype(np.uint64),
        np.zeros(N, dtype=bool),
    )


def part(made: Rows, start: int, size: int) -> Rows:
    return Rows(*(column[start : start + size] for column in made))


def found(made: Rows, size: int = 512) -> set[tuple[str, str]]:
    state, names = Pipeline(), set()
    for start in range(0, N, size):
        state, faults = watched(state, part(made, start, size), COLUMNS)
        names |= {(fault.name, fault.feature) for fault in faults}
    return names


def gap(made: Rows) -> None:
    made.time_ns[AT:] += 3_600 * 1_000_000_000


def duplicates(made: Rows) -> None:
    for i in range(AT, AT + 600):
        made.content[i], made.shape[i] = made.content[AT - 1], made.shape[AT - 1]


def sent_again(made: Rows, originals: np.ndarray | None = None) -> None:
    """Half of what comes for a while are a batch's events, once more."""
    at = np.arange(AT, AT + 600, 2)
    of = np.arange(AT - 1_000, AT - 700) if originals is None else originals
    made.content[at], made.source[at] = made.content[of], made.source[of]
    made.copied[at] = True


def frozen(made: Rows) -> None:
    made.shape[AT : AT + 1_000, 1] = 0.25


def irregular(made: Rows) -> None:
    pairs = made.time_ns[AT : AT + 600].reshape(-1, 2)
    pairs[:] = pairs[:, ::-1].copy()


def missing(made: Rows) -> None:
    made.missing[AT : AT + 600, 2] = True


def leak(made: Rows) -> None:
    yes = made.label[AT : AT + 1_500] == np.uint64(hash_text("yes"))
    made.shape[AT : AT + 1_500, 0] = (
        np.where(yes, 1.0, -1.0) + 0.01 * made.shape[AT : AT + 1_500, 0]
    )


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_wrong_with_an_ordinary_stream(seed: int) -> None:
    assert found(rows(seed)) == set()


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (gap, ("gap", "")),
        (duplicates, ("duplicates", "")),
        (sent_again, ("duplicates", "")),
        (frozen, ("frozen", "b")),
        (irregular, ("irregular", "")),
        (missing, ("missing", "c")),
        (leak, ("leak", "a")),
    ],
)
@pytest.mark.parametrize("size", [100, 512])
def test_each_fault_is_told_and_no_other(
    break_it: Callable[[Rows], None], told: tuple[str, str], size: int
) -> None:
    made = rows()
    break_it(made)
    assert found(made, size) == {told}


def test_a_batch_that_comes_twice_is_told_from_copies() -> None:
    made, told = rows(), []
    sent_again(made)
    state = Pipeline()
    for start in range(0, N, 512):
        state, faults = watched(state, part(made, start, 512), COLUMNS)
        told += faults
    assert told
    assert all(fault.sent_again for fault in told)
    assert "of the same sources, in the same order" in told[0].text
    assert len(state.past) <= PAST


def test_copies_without_order_or_of_other_sources_are_no_fault_of_the_pipeline() -> None:
    made = rows()
    sent_again(made, np.random.default_rng(1).integers(0, AT, 300))
    assert found(made) == set()
    made = rows()
    sent_again(made)
    made.source[AT : AT + 600] = 99
    assert found(made) == set()


def test_what_was_always_so_is_no_fault() -> None:
    made = rows()
    made.shape[:, 1] = 0.25
    made.missing[:, 2] = np.arange(N) % 2 == 0
    made.time_ns[1::3] -= 5_000_000_000
    assert found(made) == set()


@given(st.lists(st.integers(0, 6), max_size=40), st.integers(0, 40))
def test_order_is_that_of_a_slow_search(keys: list[int], cut: int) -> None:
    every = np.array(keys, dtype=np.uint64)
    past, content = every[:cut], every[cut:]
    copied = np.arange(len(content)) % 3 > 0
    expected, last = [False] * len(content), None
    for i in np.flatnonzero(copied).tolist():
        before = [j for j in range(len(past) + i) if keys[j] == content[i]]
        if before:
            if last is not None and content[last[0]] != content[i]:
                expected[i] = 1 <= before[-1] - last[1] <= NEAR
            last = i, before[-1]
    assert in_order(past, content, copied).tolist() == expected


def test_cuts_do_not_matter() -> None:
    made = rows()
    frozen(made)
    states = []
    for size in (1, 77, N):
        state = Pipeline()
        for start in range(0, N, size):
            state, _ = watched(state, part(made, start, size), COLUMNS)
        states.append(state)
    for other in states[1:]:
        for name in Pipeline.__slots__:
            assert np.array_equal(getattr(states[0], name), getattr(other, name)), name
