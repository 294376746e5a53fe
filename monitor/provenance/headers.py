"""What the headers ``signature``, ``key-id`` and ``signed-at`` of a record say. Outside bytes."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

SIGNATURE, KEY_ID, SIGNED_AT = "signature", "key-id", "signed-at"
MAX_KEY_ID_BYTES = 128
SIZES = frozenset((32, 64))
"""Bytes of a signature: HMAC-SHA256, Ed25519."""
_SECONDS = re.compile(rb"(\d{1,11})(?:\.(\d{1,9}))?")
_NAMES = frozenset((SIGNATURE, KEY_ID, SIGNED_AT))


class Claim(NamedTuple):
    """A record is said to be signed by ``key_id``, perhaps at ``signed_ns`` since 1970."""

    key_id: str
    signature: bytes
    signed_at: bytes | None = None
    signed_ns: int | None = None

    def message(self, value: bytes) -> bytes:
        """The bytes that were signed, of a record with this value."""
        return signed_bytes(value, self.signed_at)


def signed_bytes(value: bytes, signed_at: bytes | None) -> bytes:
    """What a signature is over: the record's value, behind the header ``signed-at`` if it has one.

    No event begins like that line, so that neither form can be taken for the other.

    Examples
    --------
    >>> signed_bytes(b"{}", None), signed_bytes(b"{}", b"1700000000")
    (b'{}', b'signed-at: 1700000000\\n{}')
    """
    return value if signed_at is None else b"signed-at: %b\n%b" % (signed_at, value)


def claimed(headers: Sequence[Any]) -> Claim | str | None:
    """The claim in a record's headers; None without one, or a sentence about what is wrong.

    Parameters
    ----------
    headers
        Pairs of name and value; a value may be None.

    Examples
    --------
    >>> claimed([("trace", b"7")]) is None
    True
    >>> claimed([("key-id", b"k-1"), ("signature", bytes(64))]).key_id
    'k-1'
    >>> claimed([("key-id", b"k-1")])
    'it has the header key-id but no signature'
    """
    found: dict[str, Any] = {}
    for name, value in headers:
        if name in _NAMES:
            if name in found:
                return f"it has the header {name} twice"
            found[name] = value
    # signed-at alone may be anybody's.
    if SIGNATURE in found and KEY_ID in found:
        return _claim(found)
    if SIGNATURE in found:
        return f"it has the header {SIGNATURE} but no {KEY_ID}"
    return f"it has the header {KEY_ID} but no {SIGNATURE}" if KEY_ID in found else None


def _claim(found: dict[str, Any]) -> Claim | str:
    key_id = _text(found[KEY_ID])
    if key_id is None:
        return f"its header {KEY_ID} is not a text of 1 to {MAX_KEY_ID_BYTES} printable characters"
    signature = _signature(found[SIGNATURE])
    if signature is None:
        return f"its header {SIGNATURE} has neither 32 nor 64 bytes, nor is it base64 of so many"
    if SIGNED_AT not in found:
        return Claim(key_id, signature)
    at = found[SIGNED_AT]
    parts = _SECONDS.fullmatch(at) if isinstance(at, bytes) else None
    if parts is None:
        return f"its header {SIGNED_AT} is not a number of Unix seconds"
    ns = int(parts[1]) * 10**9 + int((parts[2] or b"").ljust(9, b"0"))
    return Claim(key_id, signature, at, ns)


def _text(value: Any) -> str | None:
    if not isinstance(value, bytes) or not 0 < len(value) <= MAX_KEY_ID_BYTES:
        return None
    if not value.isascii():
        return None
    text = value.decode("ascii")
    return text if text.isprintable() else None


def _signature(value: Any) -> bytes | None:
    """Raw, or in base64."""
    if not isinstance(value, bytes):
        return None
    if len(value) in SIZES:
        return value
    if len(value) not in (44, 88):
        return None
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) in SIZES else None
