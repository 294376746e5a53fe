"""Which segments may hold a name, without reading them: a Bloom filter a segment (Bloom 1970).

Names go by their SHA-256, so that an erased source, of which only that is known, can be found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from monitor.core.types import HashArray, IntArray

BITS, HASHES = 10, 7
"""A name: one in a hundred segments without it is looked into all the same."""
_LEAST_BITS = 64


def digest(name: str) -> bytes:
    """SHA-256 of a name."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def bloom(names: Iterable[str]) -> bytes:
    """The filter of these names.

    Examples
    --------
    >>> made = bloom(["acct-1", "acct-2"])
    >>> may_hold(made, [digest("acct-2")]), may_hold(made, [digest("acct-9")])
    (True, False)
    """
    digests = [digest(name) for name in set(names)]
    size = max(_LEAST_BITS, -(-BITS * len(digests) // 8) * 8)
    bits = np.zeros(size, dtype=np.uint8)
    bits[_places(digests, size).reshape(-1)] = 1
    return np.packbits(bits).tobytes()


def may_hold(made: bytes, digests: Sequence[bytes]) -> bool:
    """Whether one of these may be among the names. Never wrong when it says no."""
    if not digests:
        return False
    bits = np.unpackbits(np.frombuffer(made, dtype=np.uint8))
    return bool(bits[_places(digests, len(bits))].all(axis=1).any())


def _places(digests: Sequence[bytes], size: int) -> IntArray:
    """int64[m, HASHES], by double hashing (Kirsch and Mitzenmacher 2006)."""
    both: HashArray = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 4)[:, :2]
    steps = np.arange(HASHES, dtype=np.uint64)
    places: IntArray = ((both[:, :1] + steps * (both[:, 1:] | 1)) % np.uint64(size)).astype(
        np.int64
    )
    return places
