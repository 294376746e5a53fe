"""The keyed table against a plain dictionary, through folds and evictions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.sketches import keyed
from monitor.sketches.keyed import KeyedTable


def _put(table: KeyedTable, pairs: dict[int, float], capacity: int = 10_000) -> KeyedTable:
    keys = np.array(sorted(pairs), dtype=np.uint64)
    rows = np.array([[pairs[int(k)], float(k)] for k in keys], dtype=np.float32).reshape(-1, 2)
    return table.put(keys, rows, capacity=capacity, keep_by=0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.integers(0, 300), st.floats(0, 100, width=32), min_size=1, max_size=40),
        max_size=12,
    )
)
def test_it_agrees_with_a_dictionary(batches: list[dict[int, float]]) -> None:
    small, keyed.OVERLAY_ROWS = keyed.OVERLAY_ROWS, 64
    try:
        table, model = KeyedTable.empty(2), dict[int, float]()
        for batch in batches:
            table = _put(table, batch)
            model |= batch
        asked = np.arange(301, dtype=np.uint64)
        expected = np.array([model.get(int(k), 0.0) for k in asked], dtype=np.float32)
        np.testing.assert_array_equal(table.get(asked)[:, 0], expected)
        assert len(table) == len(model)
        assert table.items()[0].tolist() == sorted(model)
    finally:
        keyed.OVERLAY_ROWS = small


def test_an_older_table_does_not_change() -> None:
    first = _put(KeyedTable.empty(2), {1: 1.0})
    _put(first, {1: 5.0, 2: 2.0})
    assert first.get(np.array([1, 2], dtype=np.uint64))[:, 0].tolist() == [1.0, 0.0]


def test_the_smallest_go_when_it_is_full() -> None:
    table = KeyedTable.empty(2)
    for start in range(0, 5_000, 50):
        table = _put(table, {k: float(k + 1) for k in range(start, start + 50)}, capacity=500)
    assert len(table) <= 500
    assert table.get(np.array([4_999], dtype=np.uint64))[0, 0] == 5_000.0
    assert table.get(np.array([0], dtype=np.uint64))[0, 0] == 0.0
