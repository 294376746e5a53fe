"""Frozen dataclasses of arrays to bytes and back. No pickle, nothing executable.

Layout: 8 bytes magic, a msgpack tree, and its CRC-32 in front. Arrays carry dtype, shape and
little-endian bytes; only numeric and boolean dtypes exist.
"""

from __future__ import annotations

import dataclasses
import struct
import types
import typing
import zlib
from typing import Any, TypeVar

import msgspec
import numpy as np

from monitor.core.errors import StateError

MAGIC = b"PMSTATE1"
T = TypeVar("T")
_DTYPES = frozenset("?bBhHiIlLqQefd")


def pack(value: Any) -> Any:
    """``value`` as a tree of maps, lists, bytes and scalars, arrays in little-endian bytes."""
    if isinstance(value, np.ndarray):
        if value.dtype.char not in _DTYPES:
            raise TypeError(f"an array of {value.dtype} cannot be stored")
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        data = np.ascontiguousarray(little).tobytes()
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


def seal(tree: Any) -> bytes:
    """A plain tree as msgpack behind magic and checksum."""
    body = msgspec.msgpack.encode(tree)
    return MAGIC + struct.pack("<I", zlib.crc32(body)) + body


def unseal(data: bytes) -> Any:
    """The tree that :func:`seal` wrote.

    Raises
    ------
    StateError
        When the bytes are damaged or of another format.
    """
    if data[:8] != MAGIC or len(data) < 12:
        raise StateError("stored state has an unknown format; it was written by another version")
    (crc,) = struct.unpack_from("<I", data, 8)
    body = data[12:]
    if zlib.crc32(body) != crc:
        raise StateError("stored state is damaged (checksum differs)")
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


def load(kind: type[T], data: bytes) -> T:
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
