"""The chain of what was decided: records that each name the one before by its hash. Pure.

An audit record is a line of JSON whose last field but the signature is the SHA-256 of the line
without them, so an auditor needs nothing of ours to check it::

    {"version":1,"chain":"feedback-0","seq":7,"prev":"…","kind":"decisions", … ,"hash":"…"}

A record of kind ``decisions`` holds a digest of every decision record of a stretch of a partition,
of the very bytes that were written: the first 16 bytes of their SHA-256, one after the other in
base64. It has no time of its own, as nothing in it depends on when it was made. Where a chain
stands, its :class:`Head`, is part of the partition's committed stamp.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from monitor.core.errors import StateError
from monitor.core.types import IntArray

VERSION = 1
DIGEST_BYTES = 16
ROOT = "0" * 64
"""What the first record of a chain names as the one before."""
MOST_DECISIONS = 8192
"""In one record: 175 kB of digests, well below what brokers take."""
_TAIL = re.compile(rb',"hash":"([0-9a-f]{64})"(?:,"signature":"([A-Za-z0-9+/=]{1,1024})")?\}')
_TAIL_BYTES = 1200
_EMPTY = hashlib.sha256()


class Head(msgspec.Struct, frozen=True):
    """Where a chain stands: number and hash of its last record; 0 and zeros before the first."""

    seq: int = 0
    hash: str = ROOT


@dataclass(frozen=True, slots=True)
class Chaining:
    """What the records of a service's chains say of it: whose stream, judged by what."""

    stream: str
    software: str

    def name(self, partition: int) -> str:
        """The chain of a partition."""
        return f"{self.stream}-{partition}"


@dataclass(frozen=True, slots=True)
class Judging:
    """What a batch was judged by.

    ``state`` names it: digest and position of the snapshot from which, by the input since, the
    state comes about, as in ``"1f0c…@4096"``.
    """

    partition: int
    policy_version: int
    state: str


def digests(records: Sequence[bytes]) -> bytes:
    """The digests of ``records``, 16 bytes each, one after the other.

    Examples
    --------
    >>> digests([b"a", b"b"])[:2].hex(), len(digests([b"a", b"b"]))
    ('ca97', 32)
    """
    found, copy = [], _EMPTY.copy
    for record in records:
        machine = copy()  # of an empty one: faster than a new one
        machine.update(record)
        found.append(machine.digest())
    whole = np.frombuffer(b"".join(found), dtype=np.uint8).reshape(-1, 32)
    return whole[:, :DIGEST_BYTES].tobytes()


def seal(head: Head, chain: str, kind: str, fields: Mapping[str, Any]) -> tuple[bytes, Head]:
    """The next record of a chain, without a newline, and where the chain stands then."""
    head_fields = {"version": VERSION, "chain": chain, "seq": head.seq + 1, "prev": head.hash}
    body = msgspec.json.encode({**head_fields, "kind": kind, **fields})
    found = hashlib.sha256(body).hexdigest()
    return b'%b,"hash":"%b"}' % (body[:-1], found.encode()), Head(head.seq + 1, found)


def extend(
    head: Head, by: Chaining, judging: Judging, offsets: IntArray, records: Sequence[bytes]
) -> tuple[tuple[bytes, ...], Head]:
    """The records that a judged batch adds to its partition's chain, and where it stands then.

    Parameters
    ----------
    head
        Where the chain stands.
    by, judging
        What the records say.
    offsets
        int64[n], positions in the input partition, rising.
    records
        The n decision records as they are written.
    """
    lines = []
    for start in range(0, len(records), MOST_DECISIONS):
        part = records[start : start + MOST_DECISIONS]
        places = offsets[start : start + MOST_DECISIONS]
        fields = {
            "partition": judging.partition,
            "first_offset": int(places[0]),
            "count": len(part),
            "gaps": _gaps(places),
            "digests": binascii.b2a_base64(digests(part), newline=False).decode(),
            "policy_version": judging.policy_version,
            "state": judging.state,
            "software": by.software,
        }
        line, head = seal(head, by.name(judging.partition), "decisions", fields)
        lines.append(line)
    return tuple(lines), head


def _gaps(offsets: IntArray) -> list[tuple[int, int]]:
    """Where offsets jump: the row behind the jump, and its offset."""
    rows = np.flatnonzero(np.diff(offsets) != 1) + 1
    return [(int(row), int(offsets[row])) for row in rows]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit record says; fields of other kinds are empty."""

    version: int
    chain: str
    seq: int
    prev: str
    kind: str
    partition: int = -1
    first_offset: int = 0
    count: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    digests: str = ""
    policy_version: int = 0
    state: str = ""
    software: str = ""
    what: str = ""
    who: str = ""
    why: str = ""
    when: float = 0.0
    details: dict[str, Any] = {}
    heads: dict[str, tuple[int, str]] = {}
    key: str = ""
    public_key: str = ""

    def offsets(self) -> Iterator[int]:
        """Input positions of its decisions."""
        jumps = dict(self.gaps)
        at = self.first_offset
        for row in range(self.count):
            at = jumps.get(row, at)
            yield at
            at += 1

    def digest_bytes(self) -> bytes:
        """The digests of its decisions. Raises StateError when they are not as many as it says."""
        try:
            found = binascii.a2b_base64(self.digests, strict_mode=True)
        except ValueError:
            found = b""
        if len(found) != DIGEST_BYTES * self.count:
            raise StateError(f"audit record {self.seq} of {self.chain} has other digests than due")
        return found


@dataclass(frozen=True, slots=True)
class Opened:
    """A record with what its line is worth.

    ``hash`` is what the line says, ``computed`` what it should say; ``signature`` is base64, empty
    for none.
    """

    record: Record
    hash: str
    computed: str
    signature: str = ""

    @property
    def intact(self) -> bool:
        """Whether the line is as it was sealed."""
        return self.hash == self.computed


def opened(line: bytes) -> Opened:
    """Read a line, with or without a newline.

    Raises
    ------
    StateError
        When it is no audit record, or one of a later version.
    """
    line = line.rstrip(b"\n")
    tail = _TAIL.fullmatch(line, max(0, line.rfind(b',"hash":"', -_TAIL_BYTES)))
    if tail is None:
        raise StateError("not an audit record: it does not end in its hash")
    body = line[: tail.start()] + b"}"
    try:
        record = msgspec.json.decode(body, type=Record)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StateError(f"not an audit record: {error}") from None
    except RecursionError:
        raise StateError("not an audit record: it is nested too deeply") from None
    if record.version != VERSION:
        raise StateError(f"an audit record of version {record.version}; this is for {VERSION}")
    signature = (tail[2] or b"").decode()
    return Opened(record, tail[1].decode(), hashlib.sha256(body).hexdigest(), signature)
