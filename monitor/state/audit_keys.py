"""The key that signs audit records, and what checks a signature: Ed25519 (RFC 8032).

What is signed is the record's hash, which covers its chain, its number and the record before.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from monitor.core.errors import StateError, UsageError
from monitor.state.audit import Opened

_PURPOSE = b"poisoning-monitor audit v1\0"
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


def key_id(public: bytes) -> str:
    """16 hexadecimal digits by which people tell keys apart."""
    return hashlib.sha256(public).hexdigest()[:16]


class SigningKey:
    """A private key.

    Examples
    --------
    >>> key = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    >>> key.id
    '139e3940e64b5491'
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        raw = key.public_key().public_bytes_raw()
        self.id, self.public = key_id(raw), base64.b64encode(raw).decode()

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """The key in a file that only its owner may read.

        Raises
        ------
        UsageError
            When there is none, others may read it, or it holds no such key.
        """
        try:
            found = path.stat()
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from error
        mode = stat.S_IMODE(found.st_mode)
        # A secret that Kubernetes mounts belongs to root, and is read by its group.
        if mode & (0o077 if found.st_uid == os.geteuid() else 0o037):
            raise UsageError(
                f"{path}: others may read or change this key (mode {mode:o}); chmod 600 it, and "
                "make a new one if somebody may have read it"
            )
        key = None
        with contextlib.suppress(ValueError, TypeError):
            key = serialization.load_pem_private_key(data, None)
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{path}: holds no Ed25519 key; make one with `audit keys create`")
        return cls(key)

    @classmethod
    def create(cls, path: Path) -> SigningKey:
        """Make a key and its file, mode 0600. Raises UsageError where there is a file already."""
        key = Ed25519PrivateKey.generate()
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        data = key.private_bytes(encoding, form, serialization.NoEncryption())
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise UsageError(f"{path} exists already; keys are never written over") from None
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from error
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(fd)
        return cls(key)

    def public_pem(self) -> str:
        """The public key, for those who verify."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def sign(self, line: bytes, digest: str) -> bytes:
        """A sealed record with its signature."""
        signature = self._key.sign(_PURPOSE + bytes.fromhex(digest))
        return b'%b,"signature":"%b"}' % (line[:-1], base64.b64encode(signature))


def load_public(paths: Sequence[Path]) -> dict[str, str]:
    """Public keys in PEM files, any number a file: base64 by key id. Raises UsageError."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            blocks = _PEM.findall(path.read_bytes())
            keys = [serialization.load_pem_public_key(block) for block in blocks]
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from error
        except ValueError as error:
            raise UsageError(f"{path}: {error}") from error
        if not keys or not all(isinstance(key, Ed25519PublicKey) for key in keys):
            raise UsageError(f"{path}: holds no Ed25519 public key")
        for key in keys:
            assert isinstance(key, Ed25519PublicKey)
            raw = key.public_bytes_raw()
            found[key_id(raw)] = base64.b64encode(raw).decode()
    return found


def check_signature(opened: Opened) -> str:
    """The id of the key that signed a record, whoever may have it.

    Raises
    ------
    StateError
        When the signature is not one of the record by the key that it names.
    """
    record = opened.record
    try:
        raw = base64.b64decode(record.public_key, validate=True)
        public = Ed25519PublicKey.from_public_bytes(raw)
        signature = base64.b64decode(opened.signature, validate=True)
        public.verify(signature, _PURPOSE + bytes.fromhex(opened.computed))
    except (ValueError, InvalidSignature):
        raise StateError(
            f"the signature of audit record {record.seq} of {record.chain} is not by the key that "
            "it names"
        ) from None
    if key_id(raw) != record.key:
        raise StateError(f"audit record {record.seq} of {record.chain} misnames its key")
    return record.key
