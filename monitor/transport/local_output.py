"""Where local lines go: files that can be cut back to a length, or a pipe that cannot."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from monitor.core.errors import TransportError, UsageError
from monitor.transport.local_journal import failed, write_all


class OutputClosedError(TransportError):
    """Whoever read our output has gone. The end of the run, and not a failure."""

    exit_code = 0


class Output(Protocol):
    """Receives whole lines, in order."""

    size: int
    """Bytes that it holds."""

    def holds(self, size: int) -> bool:
        """Whether it can be cut back to ``size``."""

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines, a newline after each. Raises TransportError."""

    def cut(self, size: int) -> None:
        """Forget everything after ``size`` bytes, as far as it can be forgotten."""

    def sync(self) -> None:
        """Make what was appended durable."""

    def close(self) -> None:
        """Release it."""


def _joined(lines: Sequence[bytes]) -> bytes:
    return b"\n".join((*lines, b"")) if lines else b""


class FileOutput:
    """Lines at the end of a file that nothing else writes to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            self.size = os.fstat(self._fd).st_size
        except OSError as error:
            raise failed("open", path, error) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise UsageError(
                f"Another process is writing to {path}: give another file for the output."
            ) from None

    def holds(self, size: int) -> bool:
        """Whether nothing is missing from its first ``size`` bytes."""
        return self.size >= size

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines, a newline after each."""
        data = _joined(lines)
        try:
            write_all(self._fd, data)
        except OSError as error:
            raise failed("write", self.path, error) from error
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Forget everything after ``size`` bytes."""
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise failed("repair", self.path, error) from error
        self.size = size

    def sync(self) -> None:
        """Make what was appended durable."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise failed("write", self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PipeOutput:
    """Lines to a descriptor such as standard output; what is written cannot be taken back."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = 0

    def holds(self, size: int) -> bool:
        """Always: there is nothing to compare with."""
        return True

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines, a newline after each. Raises OutputClosedError when the reader has gone."""
        data = _joined(lines)
        try:
            write_all(self._fd, data)
        except BrokenPipeError:
            raise OutputClosedError(
                "The program that read the accepted events has ended; stopping too."
            ) from None
        except OSError as error:
            raise TransportError(
                f"Cannot write accepted events to descriptor {self._fd}: "
                f"{error.strerror or error}. Start the pipeline again."
            ) from error
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Only the count can be set back."""
        self.size = size

    def sync(self) -> None:
        """Nothing to do: the reader answers for it."""

    def close(self) -> None:
        """The descriptor is not ours to close."""


class Spool:
    """Input lines since the latest snapshot, for an input that cannot be read again.

    Lines are added as they are read; the journal says how many bytes of them are committed. One
    file for each snapshot, so that a commit with a snapshot can begin the next one and still be
    undone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: FileOutput | None = None
        self._next: FileOutput | None = None
        self._base = 0

    def _path(self, base: int) -> Path:
        return self._folder / f"input-{base:015d}"

    def holds(self, base: int, size: int) -> bool:
        """Whether the lines since the snapshot at ``base`` are there."""
        path = self._path(base)
        return size == 0 or (path.is_file() and path.stat().st_size >= size)

    def use(self, base: int) -> None:
        """Go on with the file of the snapshot at ``base``."""
        self._drop_next()
        if self._file is None or base != self._base:
            self.close()
            self._file, self._base = FileOutput(self._path(base)), base

    def pending(self, size: int) -> list[bytes]:
        """The lines behind the first ``size`` bytes; what is left of a torn write is cut off."""
        assert self._file is not None
        *whole, torn = self._tail(size).split(b"\n")
        self._file.cut(self._file.size - len(torn))
        return whole

    def _tail(self, size: int) -> bytes:
        with self._path(self._base).open("rb") as stream:
            stream.seek(size)
            return stream.read()

    def prepare(self, base: int, size: int) -> None:
        """Make the file of the snapshot at ``base``, all that can fail about ``turn``.

        It begins with what stands behind the first ``size`` bytes of the present one.
        """
        self._drop_next()
        self._next = FileOutput(self._path(base))
        self._next.cut(0)
        self._next.append(self._tail(size).split(b"\n")[:-1])

    def turn(self, base: int) -> None:
        """Go on with the prepared file: the snapshot is committed."""
        following, self._next = self._next, None
        self.close()
        self._file, self._base = following, base

    def _drop_next(self) -> None:
        if self._next is not None:
            self._next.close()
            self._next = None

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines."""
        assert self._file is not None
        if lines:
            self._file.append(lines)

    def sync(self) -> None:
        """Make what was appended durable."""
        if self._file is not None:
            self._file.sync()

    def lines(self, start_line: int) -> Iterator[bytes]:
        """Lines from input line ``start_line`` on, which must not be before the snapshot."""
        with self._path(self._base).open("rb") as stream:
            for line in itertools.islice(stream, start_line - self._base, None):
                yield line[:-1]

    def forget(self, keep: set[int]) -> None:
        """Delete all but the files of the snapshots in ``keep``."""
        names = {self._path(base).name for base in keep}
        for path in self._folder.glob("input-*"):
            if path.name not in names:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files."""
        self._drop_next()
        if self._file is not None:
            self._file.close()
            self._file = None


class FolderLock:
    """Keeps a second process out of a folder; the system releases it when the process dies."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise failed("open", path, error) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise UsageError(
                f"Another process (pid {owner}) is writing to {path.parent.parent}: wait until it "
                "is done, or give another folder."
            ) from None
        with contextlib.suppress(OSError):  # who holds it is only for the message
            os.pwrite(self._fd, b"%-20d" % os.getpid(), 0)

    def release(self) -> None:
        """Let the next one in."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
