"""Snapshots as transports store them: every version is read, and none grows without bounds."""

from __future__ import annotations

import zlib

import msgspec
import pytest

from monitor.core.errors import StateError
from monitor.state.snapshots import seal, unseal


def stored(version: int, body: bytes) -> bytes:
    tree = {"version": version, "partition": 2, "next_offset": 7, "body": body}
    return msgspec.msgpack.encode(tree)


@pytest.mark.parametrize("body", [b"", b"abc", bytes(3 << 20)])
def test_a_body_comes_back_whether_in_pieces_or_not(body: bytes) -> None:
    pieces = [body[:1], body[1:2], body[2:]]
    assert unseal(seal(2, 7, body)) == unseal(seal(2, 7, pieces)) == (2, 7, body)


def test_earlier_versions_are_read() -> None:
    assert unseal(stored(1, b"abc")) == (2, 7, b"abc")
    assert unseal(stored(2, zlib.compress(b"abc", 1))) == (2, 7, b"abc")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (stored(4, b"abc"), "has version 4"),
        (stored(2, zlib.compress(bytes(2000))), "larger than 1000 bytes"),
        (seal(2, 7, bytes(2000)), "larger than 1000 bytes"),
        (seal(2, 7, b"abc")[:-1], "cannot be read"),
        (stored(3, b"abc"), "cannot be read"),
        (stored(2, b"abc"), "cannot be read"),
    ],
)
def test_what_cannot_be_read_says_so(data: bytes, words: str) -> None:
    with pytest.raises(StateError, match=words):
        unseal(data, max_bytes=1000)
