"""Files of keys: making them, reading them, signing with them."""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from monitor.config.policy_provenance import SigningKey
from monitor.core.errors import UsageError
from monitor.provenance.headers import signed_bytes
from monitor.provenance.signing import SEED_BYTES, Sign, secret_bytes, signer

MAX_BYTES = 64 << 10


def new_key(identifier: str, algorithm: str, out: Path, secret: str | None) -> dict[str, Any]:
    """Make a key, write its private part to ``out``, and give the registry's entry.

    Raises
    ------
    UsageError
        For an id or algorithm that is not allowed, or a file that is there.
    """
    private = os.urandom(SEED_BYTES)
    entry: dict[str, Any] = {"id": identifier, "algorithm": algorithm}
    if algorithm == "ed25519":
        key = Ed25519PrivateKey.from_private_bytes(private)
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        entry["public_key"] = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    else:
        text = base64.b64encode(private) + b"\n"
        entry["secret"] = secret or re.sub(r"[^a-z0-9._-]", "-", identifier.lower())
    try:
        SigningKey.model_validate(entry)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise UsageError(f"{where}: {problem['msg']}") from None
    try:
        number = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{out}: is there already; a key is never overwritten") from None
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from error
    with os.fdopen(number, "wb") as file:
        file.write(text)
    return entry


def read_entry(file: Path) -> dict[str, Any]:
    """A registry's entry as ``keys new`` printed it. Raises UsageError."""
    text = sys.stdin.buffer.read(MAX_BYTES) if str(file) == "-" else _read(file)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"{file}: is not what `keys new` printed, a JSON object")
    return value


def read_signer(file: Path) -> Sign:
    """What signs with the key in ``file``: an Ed25519 key in PEM, or a secret in base64.

    Raises
    ------
    UsageError
        For anything else; the text never holds any of it.
    """
    text = _read(file)
    if b"PRIVATE KEY" in text:
        try:
            key = load_pem_private_key(text, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UsageError(f"{file}: is no private key that can be read") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{file}: is not a key for ed25519")
        return key.sign
    secret = secret_bytes(text)
    if secret is None:
        raise UsageError(f"{file}: is neither a private key in PEM nor a secret in base64")
    return signer("hmac-sha256", secret)


def sign_lines(
    lines: Iterable[bytes], sign: Sign, key_id: str, at: float | None, *, values: bool
) -> Iterator[str]:
    """The headers of each line as JSON; ``at`` is the signed time, Unix seconds, None for none."""
    signed_at = None if at is None else f"{at:.3f}".encode()
    for line in lines:
        value = line.removesuffix(b"\n")
        signature = sign(signed_bytes(value, signed_at))
        made: dict[str, Any] = {"key-id": key_id, "signature": base64.b64encode(signature).decode()}
        if signed_at is not None:
            made["signed-at"] = signed_at.decode()
        if values:
            made["value"] = value.decode("utf-8", "replace")
        yield orjson.dumps(made).decode()


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
