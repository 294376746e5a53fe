"""Stored forms: what goes in comes out, and damage is told."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
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


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    )
)
def test_pieces_are_what_msgspec_writes(tree: object) -> None:
    assert b"".join(codec.msgpack_pieces(tree)) == msgspec.msgpack.encode(tree)


@pytest.mark.parametrize("size", [0, 255, 256, 65_535, 65_536, 70_000])
def test_long_pieces_are_what_msgspec_writes(size: int) -> None:
    tree = {"list": [0] * size, "map": {str(i): i for i in range(size)}, "bytes": bytes(size)}
    assert b"".join(codec.msgpack_pieces(tree)) == msgspec.msgpack.encode(tree)
    parts = codec.Blob([bytes(size // 2), bytes(size - size // 2)])
    assert b"".join(codec.msgpack_pieces([parts])) == msgspec.msgpack.encode([bytes(size)])


def test_large_arrays_are_not_copied() -> None:
    array = np.arange(10_000.0)
    pieces = codec.sealed(codec.pack(Inner(array)))
    assert any(np.shares_memory(np.frombuffer(piece, np.uint8), array) for piece in pieces)
    assert codec.load(Inner, b"".join(pieces)).values.tolist() == array.tolist()
