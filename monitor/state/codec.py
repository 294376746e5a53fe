"""Frozen dataclasses of arrays to bytes and back. No pickle, nothing executable.

Layout: 8 bytes magic, a msgpack tree, and its CRC-32 in front. Arrays carry dtype, shape and
little-endian bytes; only numeric and boolean dtypes exist.

A state of tens of megabytes is stored every few seconds. So it is written in pieces, of which the
large ones are the arrays' own memory, and whoever compresses or sends them needs no second copy.
"""

from __future__ import annotations

import dataclasses
import struct
import types
import typing
import zlib
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from monitor.core.errors import StateError

MAGIC = b"PMSTATE1"
T = TypeVar("T")
Pieces = Sequence[bytes | bytearray | memoryview]
SMALL_BYTES = 4096
_DTYPES = frozenset("?bBhHiIlLqQefd")


@dataclasses.dataclass(frozen=True, slots=True)
class Blob:
    """Bytes within a tree that lie in pieces."""

    pieces: Pieces


def pack(value: Any) -> Any:
    """``value`` as a tree of maps, lists, bytes and scalars, arrays in little-endian bytes.

    The bytes are the arrays' own where these are laid out so already.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.char not in _DTYPES:
            raise TypeError(f"an array of {value.dtype} cannot be stored")
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        data = np.ascontiguousarray(little).reshape(-1).view(np.uint8).data
        return {"~": value.dtype.newbyteorder("<").str, "s": list(value.shape), "d": data}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: pack(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(key): pack(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [pack(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be stored")


def _array(tree: Any) -> np.ndarray[Any, Any]:
    dtype = np.dtype(tree["~"])
    if dtype.char not in _DTYPES:
        raise StateError(f"stored array has the forbidden type {dtype}")
    return np.frombuffer(tree["d"], dtype=dtype).reshape(tree["s"]).astype(dtype.newbyteorder("="))


def unpack(tree: Any) -> Any:
    """A packed tree of containers, scalars and arrays (no dataclasses) back as Python values."""
    if isinstance(tree, dict):
        return _array(tree) if "~" in tree else {key: unpack(item) for key, item in tree.items()}
    return [unpack(item) for item in tree] if isinstance(tree, list) else tree


def _typed(kind: Any, tree: Any) -> Any:
    origin = typing.get_origin(kind)
    if isinstance(tree, dict) and "~" in tree:
        return _array(tree)
    if origin is typing.Union or origin is types.UnionType:
        inner = [arg for arg in typing.get_args(kind) if arg is not type(None)]
        return _typed(inner[0], tree) if len(inner) == 1 and tree is not None else tree
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, tree)
    if origin is tuple:
        args = typing.get_args(kind)
        kinds = args[:1] * len(tree) if args[1:] == (Ellipsis,) else args
        return tuple(_typed(arg, item) for arg, item in zip(kinds, tree, strict=True))
    if origin is dict:
        return {key: _typed(typing.get_args(kind)[1], item) for key, item in tree.items()}
    return tree


def _dataclass(kind: type, tree: Any) -> Any:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    if set(tree) != set(names):
        raise StateError(f"stored {kind.__name__} has other fields than this version")
    return kind(**{name: _typed(hints[name], tree[name]) for name in names})


class _Writer:
    """Msgpack in pieces: large bytes stay where they are, what lies between is copied."""

    def __init__(self) -> None:
        self.pieces: list[bytes | bytearray | memoryview] = []
        self._between = bytearray()

    def write(self, value: Any) -> None:
        if isinstance(value, dict):
            self._head(len(value), 0x80, 16, b"\xde\xdf")
            for key, item in value.items():
                self._between += msgspec.msgpack.encode(key)
                self.write(item)
        elif isinstance(value, list | tuple):
            self._head(len(value), 0x90, 16, b"\xdc\xdd")
            for item in value:
                self.write(item)
        elif isinstance(value, bytes | bytearray | memoryview):
            self._bytes([value])
        elif isinstance(value, Blob):
            self._bytes(value.pieces)
        else:
            self._between += msgspec.msgpack.encode(value)

    def end(self) -> Pieces:
        self._cut()
        return self.pieces

    def _cut(self) -> None:
        if self._between:
            self.pieces.append(self._between)
            self._between = bytearray()

    def _head(self, size: int, fixed: int, below: int, codes: bytes) -> None:
        """The length of a container; ``codes`` are those of 16 and 32 bits."""
        if size < below:
            self._between.append(fixed | size)
        elif size < 1 << 16:
            self._between += struct.pack(">BH", codes[0], size)
        else:
            self._between += struct.pack(">BI", codes[1], size)

    def _bytes(self, pieces: Pieces) -> None:
        size = sum(map(len, pieces))
        if size < 1 << 8:
            self._between += bytes((0xC4, size))
        else:
            self._head(size, 0, 0, b"\xc5\xc6")
        for piece in pieces:
            if len(piece) < SMALL_BYTES:
                self._between += piece
            else:
                self._cut()
                self.pieces.append(piece)


def msgpack_pieces(tree: Any) -> Pieces:
    """``tree`` as msgpack, in pieces: what ``msgspec.msgpack.encode`` gives, cut up."""
    writer = _Writer()
    writer.write(tree)
    return writer.end()


def sealed(tree: Any) -> Pieces:
    """What :func:`seal` gives, in pieces that are valid as long as nobody writes to the arrays."""
    body = msgpack_pieces(tree)
    crc = 0
    for piece in body:
        crc = zlib.crc32(piece, crc)
    return [MAGIC + struct.pack("<I", crc), *body]


def seal(tree: Any) -> bytes:
    """A plain tree as msgpack behind magic and checksum."""
    return b"".join(sealed(tree))


def body_of(data: bytes | memoryview) -> memoryview:
    """The msgpack that :func:`seal` wrote, where it lies. Raises StateError like :func:`unseal`."""
    if data[:8] != MAGIC or len(data) < 12:
        raise StateError("stored state has an unknown format; it was written by another version")
    (crc,) = struct.unpack_from("<I", data, 8)
    body = memoryview(data)[12:]
    if zlib.crc32(body) != crc:
        raise StateError("stored state is damaged (checksum differs)")
    return body


def unseal(data: bytes | memoryview) -> Any:
    """The tree that :func:`seal` wrote.

    Raises
    ------
    StateError
        When the bytes are damaged or of another format.
    """
    body = body_of(data)
    try:
        return msgspec.msgpack.decode(body)
    except msgspec.DecodeError as error:
        raise StateError(f"stored state cannot be read: {error}") from error


def dump(value: Any) -> bytes:
    """Store a frozen dataclass (or a dict, tuple or array of such).

    Raises
    ------
    TypeError
        For anything but dataclasses, containers, numeric arrays and plain scalars.
    """
    return seal(pack(value))


def load(kind: type[T], data: bytes | memoryview) -> T:
    """Read back what :func:`dump` wrote, as an instance of ``kind``.

    Raises
    ------
    StateError
        When the bytes are damaged, of another format, or of other fields.
    """
    tree = unseal(data)
    try:
        value: T = _typed(kind, tree)
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"stored state cannot be read as {kind}: {error}") from error
    return value
