"""Signing and verifying, by the package ``cryptography``.

Ed25519 (RFC 8032) and HMAC-SHA256 (RFC 2104). Both verify in constant time where it matters: the
package compares an HMAC's digest in constant time, and an Ed25519 verifier holds no secret.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Algorithm = Literal["ed25519", "hmac-sha256"]
Verify = Callable[[bytes, bytes], bool]
"""From signature and message to whether it is good."""
Sign = Callable[[bytes], bytes]
LEAST_SECRET_BYTES = 16
SEED_BYTES = 32


def verifier(algorithm: Algorithm, key: bytes) -> Verify:
    """Verifies with a public key of 32 bytes, or with the secret of an HMAC.

    The key is parsed once, here.
    """
    return _ed25519(key) if algorithm == "ed25519" else _hmac(key)


def _ed25519(key: bytes) -> Verify:
    public = Ed25519PublicKey.from_public_bytes(key)

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            public.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return verify


def _hmac(secret: bytes) -> Verify:
    keyed = hmac.HMAC(secret, hashes.SHA256())

    def verify(signature: bytes, message: bytes) -> bool:
        mac = keyed.copy()
        mac.update(message)
        try:
            mac.verify(signature)
        except InvalidSignature:
            return False
        return True

    return verify


def signer(algorithm: Algorithm, key: bytes) -> Sign:
    """Signs with the 32 bytes of an Ed25519 private key, or with the secret of an HMAC."""
    if algorithm == "ed25519":
        return Ed25519PrivateKey.from_private_bytes(key).sign
    keyed = hmac.HMAC(key, hashes.SHA256())

    def sign(message: bytes) -> bytes:
        mac = keyed.copy()
        mac.update(message)
        return mac.finalize()

    return sign


def public_key(private: bytes) -> bytes:
    """The 32 bytes of the public key that belongs to an Ed25519 private key."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def secret_bytes(text: bytes) -> bytes | None:
    """The key that a file holds in base64; None where it is no base64 or shorter than 16 bytes.

    Examples
    --------
    >>> secret_bytes(b"MDEyMzQ1Njc4OWFiY2RlZg==\\n"), secret_bytes(b"short")
    (b'0123456789abcdef', None)
    """
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) >= LEAST_SECRET_BYTES else None
