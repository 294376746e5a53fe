"""Secrets of HMAC keys, by name: from files or the environment, never from the policy."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from monitor.config.policy import Policy
from monitor.provenance.signing import secret_bytes

PREFIX = "POISONING_MONITOR_SECRET_"
MAX_BYTES = 4096
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Secrets:
    """Gives the bytes of a secret, None where it is not here or cannot be used.

    Parameters
    ----------
    folder
        Has a file for each, in base64; None for none.
    environ
        Environment variables; the process's own by default.
    """

    def __init__(self, folder: Path | None = None, environ: Mapping[str, str] | None = None):
        self._folder = folder
        self._environ = os.environ if environ is None else environ

    def __call__(self, name: str) -> bytes | None:
        """The secret of that name."""
        if not _NAME.fullmatch(name):  # no path that leads elsewhere
            return None
        text = self._read(name)
        if text is None:
            text = self._environ.get(variable(name), "").encode()
        return secret_bytes(text)

    def __repr__(self) -> str:
        return f"Secrets({str(self._folder)!r})"

    def _read(self, name: str) -> bytes | None:
        if self._folder is None:
            return None
        try:
            with (self._folder / name).open("rb") as file:
                return file.read(MAX_BYTES)
        except OSError:
            return None


def variable(name: str) -> str:
    """The environment variable of a secret.

    Examples
    --------
    >>> variable("shop-1.eu")
    'POISONING_MONITOR_SECRET_SHOP_1_EU'
    """
    return PREFIX + re.sub(r"[^A-Z0-9]", "_", name.upper())


def missing(policy: Policy, secrets: Callable[[str], bytes | None]) -> Sequence[str]:
    """A sentence for each key in use whose secret cannot be used here."""
    return [
        f"Key {key.id} names the secret {key.secret!r}, which this replica does not have, or not "
        f"as base64 of 16 bytes or more (provenance.secret_dir, {variable(key.secret)}). What it "
        "signs is refused."
        for key in policy.provenance.keys
        if key.secret is not None and key.revoked_at is None and secrets(key.secret) is None
    ]
