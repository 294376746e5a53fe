"""A ledger in a file, for a service on files and pipes and the commands beside it.

One line an append: CRC-32 of the rest in eight hexadecimal digits, a space, JSON; so all rows of
an append are there or none. Whoever appends holds the file's lock, cuts off what a killed process
left behind, and lets go once the line is on the disk; readers hold it too, so that they never see
a line that is taken back. Nothing is compacted: a person's reviews are few.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import logging
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from monitor.core.errors import TransportError
from monitor.transport.local_journal import failed, sync_folder, write_all

log = logging.getLogger(__name__)

Row = tuple[bytes, bytes | None]

_LOCK_SECONDS = 10.0
_LOCK_PAUSE = 0.005
_READ_PAUSE = 0.05
_BLOCK_BYTES = 1 << 16


class _Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row as it lies in the file: text where it is text, so that people can read it."""

    key: str
    value: str | None = None
    base64: bool = False


def _pack(row: Row) -> _Row:
    key, value = row
    try:
        return _Row(key.decode(), None if value is None else value.decode())
    except UnicodeDecodeError:
        packed = None if value is None else base64.b64encode(value).decode()
        return _Row(base64.b64encode(key).decode(), packed, True)


def _unpack(row: _Row) -> Row:
    if row.base64:
        packed = None if row.value is None else base64.b64decode(row.value, validate=True)
        return base64.b64decode(row.key, validate=True), packed
    return row.key.encode(), None if row.value is None else row.value.encode()


def encode_rows(rows: Sequence[Row]) -> bytes:
    """One append as a line.

    Examples
    --------
    >>> decode_rows(encode_rows([(b"a", b"1"), (b"b", None)]))
    [(b'a', b'1'), (b'b', None)]
    """
    body = msgspec.json.encode([_pack(row) for row in rows])
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode_rows(line: bytes) -> list[Row] | None:
    """Undo :func:`encode_rows`; None for a line that is damaged or of another version."""
    crc, body = line[:9], line[9:].removesuffix(b"\n")
    if crc != b"%08x " % zlib.crc32(body):
        return None
    try:
        return [_unpack(row) for row in msgspec.json.decode(body, type=list[_Row])]
    except (msgspec.MsgspecError, ValueError):
        return None


class LocalLedger:
    """A file that several processes append to and read.

    Parameters
    ----------
    path
        Made, with its folder, when it is first used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._position = 0

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows as one line and force it to the disk.

        Raises
        ------
        TransportError
            When the disk fails, or another process keeps the lock.
        """
        if not rows:
            return
        try:
            with self._locked(fcntl.LOCK_EX) as fd:
                size = whole_lines(fd)
                os.ftruncate(fd, size)
                try:
                    write_all(fd, encode_rows(rows))
                    os.fsync(fd)
                except OSError:
                    with contextlib.suppress(OSError):  # else the next one cuts it off
                        os.ftruncate(fd, size)
                    raise
        except OSError as error:
            raise failed("write", self._path, error) from error

    def read(self, timeout_seconds: float) -> Sequence[Row]:
        """Rows since the last call; waits for the first at most ``timeout_seconds``.

        A damaged line is reported to the log and left out.

        Raises
        ------
        TransportError
            When the disk fails, or another process keeps the lock.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            rows = self.catch_up()
            left = deadline - time.monotonic()
            if rows or left <= 0:
                return rows
            time.sleep(min(_READ_PAUSE, left))

    def catch_up(self) -> Sequence[Row]:
        """Rows since the last call up to the present end; from the beginning the first time."""
        try:
            if self._fd >= 0 and self._unchanged():
                return []
            with self._locked(fcntl.LOCK_SH) as fd:
                size = os.fstat(fd).st_size
                if size < self._position:
                    self._position = 0
                data = os.pread(fd, size - self._position, self._position)
        except OSError as error:
            raise failed("read", self._path, error) from error
        whole = data[: data.rfind(b"\n") + 1]
        rows: list[Row] = []
        for line in whole.splitlines(keepends=True):
            found = decode_rows(line)
            if found is None:
                log.warning("%s: a damaged line at byte %d is left out", self._path, self._position)
            rows += found or ()
            self._position += len(line)
        return rows

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _unchanged(self) -> bool:
        """Whether the same file still has the same length; somebody may have put another there."""
        ours = os.fstat(self._fd)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return ours.st_ino == there.st_ino and ours.st_size == self._position

    def _open(self) -> int:
        """The file, opened anew when another was put in its place."""
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_ino == os.fstat(self._fd).st_ino:
                    return self._fd
            self.close()
            self._position = 0
        self._path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self._path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o644)
        if is_new:
            sync_folder(self._path.parent)
        return self._fd

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[int]:
        fd = self._open()
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(fd, how | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TransportError(
                        f"{self._path} is locked by another process for more than "
                        f"{_LOCK_SECONDS:g} s: is one stopped or stuck?"
                    ) from None
                time.sleep(_LOCK_PAUSE)
        try:
            yield fd
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)


def whole_lines(fd: int) -> int:
    """Bytes up to the last newline: what a killed process left behind it does not count."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
