"""A process's own audit chain in a file, and heads kept in one: whole lines, one writer."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from monitor.core.errors import TransportError
from monitor.transport.local_journal import failed, write_all
from monitor.transport.local_ledger import whole_lines


class LocalChainLog:
    """Implements :class:`~monitor.core.ports.ChainLog` with a file.

    The file is locked while it is open, so that no second process can continue the same chain.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def open(self) -> bytes | None:
        """Lock the file, cut off what a killed process left half written; its last line."""
        self.close()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o644)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = whole_lines(self._fd)
            os.ftruncate(self._fd, size)
            return _last(self._fd, size)
        except BlockingIOError:
            self.close()
            raise TransportError(f"Another process writes to {self._path}.") from None
        except OSError as error:
            self.close()
            raise failed("write", self._path, error) from error

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines and force them to the disk."""
        try:
            size = os.fstat(self._fd).st_size
            try:
                write_all(self._fd, b"".join(line + b"\n" for line in lines))
                os.fsync(self._fd)
            except OSError:
                os.ftruncate(self._fd, size)
                raise
        except OSError as error:
            raise failed("write", self._path, error) from error

    def close(self) -> None:
        """Unlock and close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _last(fd: int, size: int) -> bytes | None:
    if not size:
        return None
    wanted = 1 << 16
    while True:
        start = max(0, size - wanted)
        data = os.pread(fd, size - start, start)[:-1]
        cut = data.rfind(b"\n")
        if cut >= 0 or not start:
            return data[cut + 1 :]
        wanted *= 8
