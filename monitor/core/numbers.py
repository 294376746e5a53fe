"""Numbers that are costly to read, so that a client cannot keep the gate busy with a few bytes.

msgspec reads ordinary numbers in nanoseconds, but those near the ends of what a float can hold
(``1e308``, ``5e-324``) in up to 20 µs: 1 MiB of them would take two seconds. orjson reads them like
any other, but has no typed decoding, so records that are full of them take that detour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from monitor.core.types import ByteArray, IntArray

CROWDED = 16
"""From so many exponents of three digits on, a record takes the detour."""
PIECE = 1 << 17
"""Bytes looked at together: larger arrays would be fresh memory every time, which is slow."""


def crowded(values: Sequence[bytes], joined: bytes | None = None) -> set[int]:
    """Which of the records hold many numbers with an exponent of three digits.

    ``joined`` is all of ``values`` in a row, where that is known.

    Exponents in texts count as well; a record among those is only read another way.

    Examples
    --------
    >>> crowded([b'{"features":[1.5]}', b"[" + b"1e308," * 20 + b"1]"])
    {1}
    """
    data = np.frombuffer(b"".join(values) if joined is None else joined, dtype=np.uint8)
    if not len(data):
        return set()
    at = np.concatenate([_exponents(data, first) for first in range(0, len(data), PIECE)])
    if len(at) < CROWDED:
        return set()
    at += (data[at] == 0x2B) | (data[at] == 0x2D)
    at = at[at < len(data) - 2]
    at = at[_digit(data[at]) & _digit(data[at + 1]) & _digit(data[at + 2])]
    ends = np.cumsum([len(value) for value in values])
    count = np.bincount(np.searchsorted(ends, at, side="right"))
    return set(np.flatnonzero(count >= CROWDED).tolist())


def _exponents(data: ByteArray, first: int) -> IntArray:
    """Places after a digit and an "e" that begin in the piece of ``data`` at ``first``."""
    piece = data[first : first + PIECE + 1]
    # "E" and "e" differ in one bit.
    begun = (piece[1:] & 0xDF) == 0x45
    begun &= _digit(piece[:-1])
    # Hardly ever is there one, and that is seen sooner than where there is none.
    at = np.flatnonzero(begun) if begun.any() else np.empty(0, dtype=np.int64)
    at += first + 2
    return at[at < len(data)]


def _digit(data: ByteArray) -> NDArray[np.bool_]:
    return (data - 0x30) < 10


def parse_json(value: bytes) -> Any:
    """Plain values of a JSON text, in a time that depends on its length only.

    Raises
    ------
    ValueError or msgspec.MsgspecError
        When it is not JSON, or holds a number that no float can.
    """
    return orjson.loads(value) if crowded([value]) else msgspec.json.decode(value)
