"""Stored forms: what goes in comes out, and damage is told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monitor.core.errors import StateError
from monitor.core.types import FloatArray
from monitor.state import codec


@dataclass(frozen=True)
class Inner:
    """A nested part."""

    values: FloatArray


@dataclass(frozen=True)
class Outer:
    """A state with every kind of field."""

    inner: Inner
    count: int
    name: str | None
    parts: tuple[Inner, ...]
    by_name: dict[str, Inner]


DTYPES = st.sampled_from(
    [np.float64, np.float32, np.int64, np.int32, np.uint64, np.uint8, np.bool_]
)


@given(DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=3, min_side=0))))
def test_arrays_come_back_to_the_bit(array: FloatArray) -> None:
    again = codec.load(Inner, codec.dump(Inner(array))).values
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert again.tobytes() == array.tobytes()


def test_nested_states_come_back() -> None:
    one = Inner(np.arange(3.0))
    again = codec.load(Outer, codec.dump(Outer(one, 3, None, (one, one), {"a": one})))
    assert again.count == 3
    assert again.name is None
    assert [part.values.tolist() for part in again.parts] == [[0.0, 1.0, 2.0]] * 2
    assert again.by_name["a"].values.tolist() == [0.0, 1.0, 2.0]


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at: int, change: int) -> None:
    stored = bytearray(codec.dump(Inner(np.arange(20.0))))
    stored[at % len(stored)] ^= change
    with pytest.raises(StateError):
        codec.load(Inner, bytes(stored))


@given(st.binary(max_size=100))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(StateError):
        codec.load(Inner, data)


def test_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="cannot be stored"):
        codec.dump(Inner(np.array([object()])))
    with pytest.raises(TypeError, match="cannot be stored"):
        codec.dump({"f": print})


def test_other_fields_are_refused() -> None:
    with pytest.raises(StateError, match="other fields"):
        codec.load(Outer, codec.dump(Inner(np.arange(2.0))))
