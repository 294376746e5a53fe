"""Bearer tokens: 256 random bits each, stored as SHA-256 in one file.

A token is too long to be guessed, so a plain hash keeps it as well as a slow one would, and a
request costs nothing. The file is read anew when it changes: a revoked token is out at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import orjson

from monitor.admin.people import Role
from monitor.core.errors import StateError, UsageError

PREFIX = "mon_"
FORMAT = 1
MAX_TOKENS = 10_000
RESERVED = frozenset({"local", "monitor"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is stored of a token; times are Unix seconds."""

    name: str
    role: Literal["viewer", "operator", "admin"]
    sha256: str
    created_at: float
    expires_at: float | None = None

    @property
    def id(self) -> str:
        """Names the token in sessions; says nothing about it."""
        return self.sha256[:16]

    def expired(self, now: float) -> bool:
        """Whether it is no longer good at ``now``."""
        return self.expires_at is not None and now >= self.expires_at


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    format: Literal[1]
    tokens: list[Token]


@dataclass(frozen=True, slots=True)
class _Read:
    stamp: tuple[int, int, int]
    tokens: tuple[Token, ...]


def digest(text: str) -> str:
    """What is stored of a token's text."""
    return hashlib.sha256(text.encode()).hexdigest()


class TokenFile:
    """The tokens of one file. Safe to use from several threads, and beside other processes.

    Parameters
    ----------
    path
        The file; :meth:`create` makes it, for its owner only.
    clock
        Unix seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._read: _Read | None = None

    def tokens(self) -> tuple[Token, ...]:
        """All tokens, in the order of creation; none when there is no file.

        Raises
        ------
        StateError
            When the file cannot be read, is damaged, or may be written by others.
        """
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StateError(f"{self.path}: cannot be read: {error.strerror}") from error
        stamp = (there.st_mtime_ns, there.st_size, there.st_ino)
        known = self._read
        if known is None or known.stamp != stamp:
            if there.st_mode & 0o022:
                raise StateError(
                    f"{self.path}: others may write this file, and so let themselves in; "
                    "run chmod go-w on it"
                )
            known = self._read = _Read(stamp, self._load())
        return known.tokens

    def _load(self) -> tuple[Token, ...]:
        try:
            stored = msgspec.json.decode(self.path.read_bytes(), type=_Stored)
        except OSError as error:
            raise StateError(f"{self.path}: cannot be read: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise StateError(f"{self.path}: is not a file of tokens: {error}") from error
        return tuple(stored.tokens)

    def find(self, text: str) -> Token | None:
        """The token with this text, expired or not. Takes as long for a wrong one as for a right.

        Raises StateError like :meth:`tokens`.
        """
        wanted, found = digest(text), None
        for token in self.tokens():
            if hmac.compare_digest(token.sha256, wanted):
                found = token
        return found

    def by_id(self, identifier: str) -> Token | None:
        """The token of a session, unless it was revoked."""
        return next((token for token in self.tokens() if token.id == identifier), None)

    def create(self, name: str, role: Role, expires_at: float | None = None) -> str:
        """Store a new token; its text, which is nowhere else.

        Raises
        ------
        UsageError
            For a name that is taken, reserved or odd.
        StateError
            When the file cannot be read or written.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name for a token: use up to 64 letters, digits and . _ @ + -"
            )
        if name in RESERVED:
            raise UsageError(f"{name!r} is what the service calls itself; choose another name")
        text = PREFIX + secrets.token_urlsafe(32)
        with self._changing() as tokens:
            if any(token.name == name for token in tokens):
                raise UsageError(
                    f"there is a token named {name!r}; names stand in the history, so each has "
                    "one: revoke it first, or choose another name"
                )
            if len(tokens) >= MAX_TOKENS:
                raise UsageError(f"there are {MAX_TOKENS} tokens; revoke some first")
            tokens.append(Token(name, role.value, digest(text), self._clock(), expires_at))
        return text

    def revoke(self, name: str) -> Token:
        """Forget the token with this name, and so end its sessions. Raises UsageError."""
        with self._changing() as tokens:
            found = next((token for token in tokens if token.name == name), None)
            if found is None:
                raise UsageError(f"there is no token named {name!r}; `token list` shows all")
            tokens.remove(found)
        return found

    @contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """The tokens, to be changed in place; one process at a time, all or nothing."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"{self.path}: cannot be changed: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = list(self.tokens())
            yield tokens
            self._write(tokens)
        finally:
            os.close(lock)

    def _write(self, tokens: list[Token]) -> None:
        draft = self.path.with_name(self.path.name + ".new")
        values = {"format": FORMAT, "tokens": [msgspec.to_builtins(token) for token in tokens]}
        text = orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        try:
            draft.unlink(missing_ok=True)
            handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError as error:
            raise StateError(f"{self.path}: cannot be written: {error.strerror}") from error
