"""A dumped state together with the place it belongs to, compressed: what transports store."""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
import zlib
from collections.abc import Callable

import msgspec
import zstandard

from monitor.core.errors import StateError
from monitor.state.codec import Pieces

SNAPSHOT_VERSION = 3
"""Version 1 is not compressed, version 2 with zlib: six times as slow, and a little larger."""
MAX_BODY_BYTES = 1 << 30
PIECE_BYTES = 1 << 20
_BIN32, _BIN32_CODE = struct.Struct(">BI"), 0xC6


class _Snapshot(msgspec.Struct, frozen=True):
    version: int
    partition: int
    next_offset: int
    body: memoryview


def seal(partition: int, next_offset: int, body: bytes | Pieces) -> bytes:
    """Put a dumped state together with the place it belongs to; opaque to the transport.

    Compressed: young states are mostly zeros, and shrink to a seventh, old ones to a half. A body
    in pieces is never put together, which would take as much memory again as the state.
    """
    pieces = [body] if isinstance(body, bytes) else body
    # With its size in front, so that the reader knows how much it will be before it begins.
    machine = zstandard.ZstdCompressor(level=1).compressobj(size=sum(map(len, pieces)))
    head = {"version": SNAPSHOT_VERSION, "partition": partition, "next_offset": next_offset}
    # A map of four, of which the last is filled in; its length is known at the end only. What is
    # written into the buffer is handed out without being copied.
    out = io.BytesIO()
    out.write(b"\x84" + b"".join(map(msgspec.msgpack.encode, itertools.chain(*head.items()))))
    out.write(msgspec.msgpack.encode("body") + _BIN32.pack(_BIN32_CODE, 0))
    start = out.tell()
    for piece in pieces:
        for at in range(0, len(piece), PIECE_BYTES):
            out.write(machine.compress(memoryview(piece)[at : at + PIECE_BYTES]))
    out.write(machine.flush())
    size = out.tell() - start
    out.seek(start - _BIN32.size)
    out.write(_BIN32.pack(_BIN32_CODE, size))
    return out.getvalue()


def unseal(data: bytes, max_bytes: int = MAX_BODY_BYTES) -> tuple[int, int, bytes]:
    """Partition, next offset and body, of at most ``max_bytes``, of a sealed snapshot.

    Raises
    ------
    StateError
        When it is damaged, larger, or of another version.
    """
    try:
        found = msgspec.msgpack.decode(data, type=_Snapshot)
        unpack = _UNPACK.get(found.version)
        body = b"" if unpack is None else unpack(found.body, max_bytes)
    except (msgspec.MsgspecError, zlib.error, zstandard.ZstdError) as error:
        raise StateError(
            f"The stored snapshot cannot be read ({error}): restore it from a copy, or start with "
            "empty state."
        ) from None
    if unpack is None:
        raise StateError(
            f"The stored snapshot has version {found.version}, this monitor reads versions 1 to "
            f"{SNAPSHOT_VERSION}: use the version that wrote it, or start with empty state."
        )
    return found.partition, found.next_offset, body


def snapshot_digest(data: bytes) -> str:
    """32 hexadecimal digits of the SHA-256 of a sealed snapshot: what audit records call it."""
    return hashlib.sha256(data).hexdigest()[:32]


def _inflated(packed: memoryview, max_bytes: int) -> bytes:
    """A few bytes must not become many gigabytes."""
    machine = zlib.decompressobj()
    body = machine.decompress(packed, max_bytes)
    if not machine.eof:
        raise zlib.error(f"incomplete, or larger than {max_bytes} bytes")
    return body


def _expanded(packed: memoryview, max_bytes: int) -> bytes:
    size = zstandard.frame_content_size(packed)
    if not 0 <= size <= max_bytes:
        raise zstandard.ZstdError(f"incomplete, or larger than {max_bytes} bytes")
    return zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)


_UNPACK: dict[int, Callable[[memoryview, int], bytes]] = {
    1: lambda packed, _: bytes(packed),
    2: _inflated,
    SNAPSHOT_VERSION: _expanded,
}
