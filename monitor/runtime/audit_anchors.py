"""Places outside the service where heads of the audit chains are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import httpx

from monitor.core.errors import TransportError


class Anchor(Protocol):
    """Keeps heads where those who could rewrite the chain cannot."""

    def keep(self, line: bytes) -> None:
        """Keep one. Raises TransportError."""


class FileAnchor:
    """A line each at the end of a file, forced to the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, line: bytes) -> None:
        """Append it."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                if os.write(fd, line + b"\n") != len(line) + 1:
                    raise OSError(None, "only a part could be written")
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise TransportError(f"{self._path}: {error.strerror or error}") from error


class HttpAnchor:
    """A POST each; any answer of 2xx means that it is kept."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url, self._seconds = url, timeout_seconds

    def keep(self, line: bytes) -> None:
        """Send it."""
        try:
            answer = httpx.post(
                self._url,
                content=line,
                headers={"content-type": "application/json"},
                timeout=self._seconds,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TransportError(f"audit.anchor_url: {error!r}") from error
        if not answer.is_success:
            raise TransportError(f"audit.anchor_url answers {answer.status_code}")
