"""Seeded 64-bit hashes of texts and of rows of numbers (xxh3, Collet 2019).

Not a cryptographic hash: whoever knows the seed can construct collisions, so a public service
sets a secret ``hash_seed``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from monitor.core.types import FloatArray, HashArray, IntArray


def text_bytes(text: str) -> bytes:
    """UTF-8 bytes of any Python text, lone surrogates included."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def hash_text(text: str, seed: int = 0) -> int:
    """64-bit hash of one text.

    Examples
    --------
    >>> hash_text("acct-71") == hash_text("acct-71")
    True
    >>> hash_text("acct-71", seed=1) == hash_text("acct-71")
    False
    """
    return xxh3_64_intdigest(text_bytes(text), seed)


def _numbers(digests: list[bytes]) -> HashArray:
    """uint64[n] of big-endian digests; joining them is quicker than making Python integers."""
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def hash_texts(texts: Sequence[str], seed: int = 0) -> HashArray:
    """uint64[n] hashes of texts that are mostly distinct, such as ids.

    Examples
    --------
    >>> hash_texts(["a", "b", "a"]).shape
    (3,)
    """
    digest = xxh3_64_digest
    try:
        return _numbers([digest(text.encode(), seed) for text in texts])
    except UnicodeEncodeError:
        return _numbers([digest(text_bytes(text), seed) for text in texts])


def hash_repeated(texts: Sequence[str], seed: int = 0) -> HashArray:
    """uint64[n] hashes of texts that repeat, such as sources: each distinct one is hashed once.

    The memory this takes is bounded by the batch, and freed with it.
    """
    distinct, digest = set(texts), xxh3_64_intdigest
    try:
        known = {text: digest(text.encode(), seed) for text in distinct}
    except UnicodeEncodeError:
        known = {text: digest(text_bytes(text), seed) for text in distinct}
    return np.fromiter(map(known.__getitem__, texts), dtype=np.uint64, count=len(texts))


def hash_optional(texts: Sequence[str | None], seed: int = 0) -> HashArray:
    """uint64[n] hashes, 0 where the text is missing or empty."""
    if texts.count(None) == len(texts):
        return np.zeros(len(texts), dtype=np.uint64)
    known: dict[str | None, int] = {
        text: hash_text(text, seed) if text else 0 for text in set(texts)
    }
    return np.fromiter(map(known.__getitem__, texts), dtype=np.uint64, count=len(texts))


def hash_rows(x: FloatArray, seed: int = 0) -> HashArray:
    """uint64[n] hashes of the rows of float64[n, d]; 0.0 and -0.0 agree.

    Examples
    --------
    >>> h = hash_rows(np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]]))
    >>> bool(h[0] == h[1]), bool(h[0] == h[2])
    (True, False)
    """
    n, d = x.shape
    width = 8 * d
    data = (x + 0.0).astype("<f8", copy=False).tobytes()
    digest = xxh3_64_digest
    starts = range(0, n * width, width) if width else [0] * n
    return _numbers([digest(data[at : at + width], seed) for at in starts])


def hash_integers(values: IntArray, seed: int = 0) -> HashArray:
    """uint64[n] well-mixed hashes of int64[n] (the finaliser of splitmix64, Steele et al. 2014).

    Examples
    --------
    >>> h = hash_integers(np.arange(1000))
    >>> 0.45 < float((h / 2.0**64 < 0.5).mean()) < 0.55
    True
    """
    golden = 0x9E3779B97F4A7C15
    start = np.uint64((seed + 1) * golden % (1 << 64))
    z = values.astype(np.uint64) * np.uint64(golden) + start
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
