"""Columns as bytes: numbers shuffled by byte, texts by a dictionary, all compressed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from monitor.core.errors import StateError
from monitor.core.types import IntArray

LEVEL = 3
_MAX_BYTES = 1 << 28
NONE = -1
"""Code of a text that is absent."""


class _Array(msgspec.Struct, array_like=True, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Words:
    """A column of texts: ``codes`` int32[n] are places in ``names``, ``NONE`` where there is none.

    Examples
    --------
    >>> column = Words.of(["a", None, "b", "a"])
    >>> column.codes.tolist(), column.names
    ([0, -1, 1, 0], ('a', 'b'))
    >>> column.texts()
    ['a', None, 'b', 'a']
    """

    codes: npt.NDArray[np.int32]
    names: tuple[str, ...]

    @classmethod
    def of(cls, texts: Sequence[str | None]) -> Words:
        """From texts."""
        known: dict[str, int] = {}
        codes = [NONE if text is None else known.setdefault(text, len(known)) for text in texts]
        return cls(np.array(codes, dtype=np.int32), tuple(known))

    def texts(self) -> list[str | None]:
        """As texts again."""
        names = (*self.names, None)  # code −1 finds the last one
        return [names[code] for code in self.codes.tolist()]

    def take(self, rows: IntArray) -> Words:
        """These rows, with the names that are left."""
        used, codes = np.unique(self.codes[rows], return_inverse=True)
        shift = int(len(used) > 0 and used[0] == NONE)
        names = tuple(self.names[code] for code in used[shift:].tolist())
        return Words((codes - shift).astype(np.int32), names)

    def among(self, wanted: Iterable[str]) -> npt.NDArray[np.bool_]:
        """bool[n]: whether it is one of these."""
        chosen = set(wanted)
        hit = np.array([name in chosen for name in self.names] + [False])
        return hit[self.codes]

    def counts(self) -> IntArray:
        """int64[names]: how often each comes."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))


def joined(parts: Sequence[Words]) -> Words:
    """Columns one after the other."""
    known: dict[str, int] = {}
    codes = []
    for part in parts:
        new = [known.setdefault(name, len(known)) for name in part.names]
        codes.append(np.array([*new, NONE], dtype=np.int32)[part.codes])
    return Words(np.concatenate(codes), tuple(known))


def packed(value: Any) -> bytes:
    """A column of arrays, :class:`Words`, texts and numbers, in tuples, as bytes."""
    return zstandard.ZstdCompressor(level=LEVEL).compress(
        msgspec.msgpack.encode(value, enc_hook=_encoded)
    )


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        width = value.dtype.itemsize
        # Bytes of equal weight next to each other compress better.
        data = np.ascontiguousarray(value).reshape(-1).view(np.uint8).reshape(-1, width).T
        return _Array(value.dtype.str, value.shape, data.tobytes())
    raise TypeError(f"{type(value).__name__} has no form as bytes")


def unpacked(data: bytes) -> list[Any]:
    """Undo :func:`packed`; arrays come as they were, with :func:`array`.

    Raises
    ------
    StateError
        For bytes that are none of ours.

    Examples
    --------
    >>> array(unpacked(packed((np.arange(3), "a")))[0]).tolist()
    [0, 1, 2]
    """
    try:
        plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=_MAX_BYTES)
        return msgspec.msgpack.decode(plain, type=list[Any])
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise StateError(f"A segment of accepted events is damaged: {error}") from error


def array(said: Any) -> npt.NDArray[Any]:
    """An array that was packed. Raises StateError."""
    try:
        dtype, shape, data = said
        kind = np.dtype(dtype)
        flat = np.frombuffer(data, dtype=np.uint8).reshape(kind.itemsize, -1).T
        made: npt.NDArray[Any] = np.ascontiguousarray(flat).view(kind).reshape(shape)
        return made
    except (TypeError, ValueError) as error:
        raise StateError(f"A segment of accepted events is damaged: {error}") from error


def words(said: Any) -> Words:
    """Words that were packed. Raises StateError."""
    return Words(array(said[0]), tuple(said[1]))
