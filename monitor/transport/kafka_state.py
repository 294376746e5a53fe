"""How the state of a partition lies in the compacted state topic.

A partition of the input keeps its state in the partition of the state topic that has the same
number. Three kinds of keys, each starting with the consumer group::

    GROUP/stamp              the stamp of the last committed batch, and which snapshot it needs
    GROUP/snapshot/G/I       chunk I of snapshot generation G (0 or 1, in turn)

The stamp and the chunks are written in the same transaction as the input offset. Checks and
lengths are kept all the same: a snapshot put together from parts of two must never be used.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from monitor.core.errors import StateError

CHUNK_BYTES = 512 * 1024
_STAMP = struct.Struct(">4sqBIQIq")
_STAMP_MAGIC = b"PMS1"
_CHUNK = struct.Struct(">4sqI")
_CHUNK_MAGIC = b"PMC1"
_NO_SNAPSHOT = -1


@dataclass(frozen=True, slots=True)
class SnapshotRef:
    """Which snapshot belongs to a stamp.

    Attributes
    ----------
    taken_at
        Input position of the snapshot; names it, and guards against mixing two.
    generation
        0 or 1; the next snapshot goes to the other one.
    chunks, length, crc
        Number of chunks, bytes in all, CRC-32 of the bytes.
    """

    taken_at: int
    generation: int
    chunks: int
    length: int
    crc: int


@dataclass(frozen=True, slots=True)
class StoredState:
    """What the state topic holds for one partition.

    ``chunk_counts`` says how many chunks each generation occupies, so that a shorter snapshot
    can remove what a longer one left behind.
    """

    next_offset: int | None = None
    stamp: bytes | None = None
    snapshot: bytes | None = None
    ref: SnapshotRef | None = None
    chunk_counts: Mapping[int, int] = field(default_factory=dict)


def encode_stamp(next_offset: int, stamp: bytes, ref: SnapshotRef | None) -> bytes:
    """The stamp with the input position and the snapshot it needs in front."""
    r = ref or SnapshotRef(_NO_SNAPSHOT, 0, 0, 0, 0)
    head = (_STAMP_MAGIC, next_offset, r.generation, r.chunks, r.length, r.crc, r.taken_at)
    return _STAMP.pack(*head) + stamp


def decode_stamp(value: bytes) -> tuple[int, bytes, SnapshotRef | None]:
    """Undo :func:`encode_stamp`. Raises StateError for anything else."""
    if len(value) < _STAMP.size or not value.startswith(_STAMP_MAGIC):
        raise StateError("the state topic holds a stamp that this version cannot read")
    _, next_offset, generation, chunks, length, crc, taken_at = _STAMP.unpack_from(value)
    found = taken_at != _NO_SNAPSHOT
    ref = SnapshotRef(taken_at, generation, chunks, length, crc) if found else None
    return next_offset, value[_STAMP.size :], ref


def records(
    group: str, next_offset: int, stamp: bytes, snapshot: bytes | None, before: StoredState
) -> tuple[list[tuple[bytes, bytes | None]], StoredState]:
    """Key and value of every state record of one commit, and what is stored after it.

    A None value removes a key. Without a snapshot the stamp goes on naming the earlier one.
    The returned state does not repeat the snapshot's bytes.

    Examples
    --------
    >>> rows, after = records("g", 7, b"stamp", b"abc", StoredState())
    >>> [key for key, _ in rows]
    [b'g/snapshot/0/0', b'g/stamp']
    >>> assemble("g", dict(rows)).snapshot
    b'abc'
    """
    ref, counts = before.ref, dict(before.chunk_counts)
    rows: list[tuple[bytes, bytes | None]] = []
    if snapshot is not None:
        generation = 1 - ref.generation if ref else 0
        pieces = [snapshot[i : i + CHUNK_BYTES] for i in range(0, len(snapshot), CHUNK_BYTES)]
        for i, piece in enumerate(pieces):
            head = _CHUNK.pack(_CHUNK_MAGIC, next_offset, i)
            rows.append((_chunk_key(group, generation, i), head + piece))
        for i in range(len(pieces), counts.get(generation, 0)):
            rows.append((_chunk_key(group, generation, i), None))
        crc = zlib.crc32(snapshot)
        ref = SnapshotRef(next_offset, generation, len(pieces), len(snapshot), crc)
        counts = {g: n for g, n in {**counts, generation: len(pieces)}.items() if n}
    rows.append((f"{group}/stamp".encode(), encode_stamp(next_offset, stamp, ref)))
    return rows, StoredState(next_offset, stamp, None, ref, counts)


def assemble(group: str, latest: Mapping[bytes, bytes | None]) -> StoredState:
    """Put the state of one partition together from the latest value of each key.

    Raises
    ------
    StateError
        When the snapshot that the stamp names is incomplete or damaged.
    """
    counts = _chunk_counts(group, latest)
    value = latest.get(f"{group}/stamp".encode())
    if value is None:
        return StoredState(chunk_counts=counts)
    next_offset, stamp, ref = decode_stamp(value)
    if ref is None:
        return StoredState(next_offset, stamp, None, None, counts)
    pieces = []
    for i in range(ref.chunks):
        piece = latest.get(_chunk_key(group, ref.generation, i))
        if piece is None or piece[: _CHUNK.size] != _CHUNK.pack(_CHUNK_MAGIC, ref.taken_at, i):
            raise StateError(_damaged(group, f"chunk {i + 1} of {ref.chunks} is missing"))
        pieces.append(piece[_CHUNK.size :])
    snapshot = b"".join(pieces)
    if len(snapshot) != ref.length or zlib.crc32(snapshot) != ref.crc:
        raise StateError(_damaged(group, "its check sum is wrong"))
    return StoredState(next_offset, stamp, snapshot, ref, counts)


def _chunk_key(group: str, generation: int, index: int) -> bytes:
    return f"{group}/snapshot/{generation}/{index}".encode()


def _chunk_counts(group: str, latest: Mapping[bytes, bytes | None]) -> dict[int, int]:
    counts: dict[int, int] = {}
    start = f"{group}/snapshot/".encode()
    for key, value in latest.items():
        if value is not None and key.startswith(start):
            generation, index = (int(part) for part in key[len(start) :].split(b"/"))
            counts[generation] = max(counts.get(generation, 0), index + 1)
    return counts


def _damaged(group: str, what: str) -> str:
    return (
        f"the stored snapshot of group {group!r} cannot be used: {what}; to start over with an "
        "empty state, choose another kafka.group_id or recreate the state topic"
    )
