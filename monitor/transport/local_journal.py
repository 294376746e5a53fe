"""The journal of a local run: which input is done, and how long each output was then.

One line a commit: CRC-32 of the rest in eight hexadecimal digits, a space, JSON. A line that is
torn or damaged ends the journal. Snapshots are files of their own, written beside and renamed.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from monitor.core.errors import StateError, TransportError

JOURNAL_VERSION = 1
_COMPACT_BYTES = 4 << 20
_TAIL_BYTES = 1 << 16


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What the folder was made from; a resumed run must agree with it."""

    source: str
    fingerprint: str
    identity: str = ""
    version: int = JOURNAL_VERSION


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One commit.

    Attributes
    ----------
    next_offset
        Input lines that are done.
    lengths
        Bytes in each output then, by the output's name.
    stamp
        As the runtime gave it, None before the first batch.
    snapshot_offset
        ``next_offset`` of the latest snapshot, −1 for none.
    finished
        True when the input ended here.
    reviews
        Rows that belong to this commit and may not be in the reviews ledger yet.
    """

    next_offset: int = 0
    lengths: dict[str, int] = {}
    stamp: bytes | None = None
    snapshot_offset: int = -1
    finished: bool = False
    reviews: tuple[tuple[bytes, bytes | None], ...] = ()


class JournalStatus(msgspec.Struct, frozen=True):
    """What a folder holds, to show without opening it for writing."""

    next_offset: int
    finished: bool
    source: str
    pending: int = 0
    """Lines of a pipe that were read, and kept, but not judged yet."""


def failed(what: str, path: Path, error: OSError) -> TransportError:
    """A disk error in words; the run can go on where it stopped once it is mended."""
    return TransportError(
        f"Cannot {what} {path}: {error.strerror or error}. Mend that (free space, permissions, "
        "the disk), then start again: it goes on where it stopped."
    )


def sync_folder(path: Path) -> None:
    """Make renames and new names in ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Put ``data`` at ``path`` all at once or not at all. Raises OSError."""
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as stream:
        stream.write(data)
        stream.flush()
        if sync:
            os.fsync(stream.fileno())
    draft.replace(path)
    if sync:
        sync_folder(path.parent)


def _frame(record: Header | Entry) -> bytes:
    body = msgspec.json.encode(record)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _unframe(line: bytes) -> bytes | None:
    crc, space, body = line[:8], line[8:9], line[9:-1]
    whole = line.endswith(b"\n") and space == b" " and crc == b"%08x" % zlib.crc32(body)
    return body if whole else None


def _read(path: Path) -> tuple[Header | None, list[Entry]]:
    """The header and the entries up to the first torn or damaged line."""
    header: Header | None = None
    entries: list[Entry] = []
    try:
        with path.open("rb") as stream:
            for line in stream:
                body = _unframe(line)
                if body is None:
                    break
                if header is None:
                    header = msgspec.json.decode(body, type=Header)
                else:
                    entries.append(msgspec.json.decode(body, type=Entry))
    except FileNotFoundError:
        return None, []
    except OSError as error:
        raise failed("read", path, error) from error
    except msgspec.MsgspecError as error:
        raise StateError(
            f"{path} cannot be read ({error}): it was written by another version of the monitor. "
            "Use that version, or start over with an empty folder."
        ) from None
    if header is not None and header.version != JOURNAL_VERSION:
        raise StateError(
            f"{path} has version {header.version}, this monitor reads version {JOURNAL_VERSION}: "
            "use the version that wrote it, or start over with an empty folder."
        )
    return header, entries


class Journal:
    """The journal file and the snapshots of one folder. One writer at a time; see the lock.

    Attributes
    ----------
    header
        None until the first run has begun.
    last
        The latest commit.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "journal"
        self._stream_fd = -1
        self._size = 0
        self.header, self._entries = _read(self._path)
        self.last = self._entries[-1] if self._entries else Entry()

    def choose(self, holds: Callable[[Entry], bool]) -> bool:
        """Go back to the latest commit for which ``holds``; false when there is none.

        After a power failure the journal may know of more than the outputs kept, but not beyond
        the latest commit with a snapshot, which was forced to disk: whatever is missing from
        before that was taken away by someone, and is not to be judged again unasked.
        """
        for entry in reversed(self._entries or [Entry()]):
            if holds(entry) and (entry.snapshot_offset < 0 or self._snapshot(entry).is_file()):
                self.last = entry
                return True
            if entry.snapshot_offset == entry.next_offset:
                return False
        return False

    def begin(self, header: Header) -> None:
        """Start writing: the journal becomes ``header`` and the chosen commit."""
        self.header = header
        self._rewrite()
        self._forget_snapshots({self.last.snapshot_offset})

    def _rewrite(self) -> None:
        assert self.header is not None
        data = _frame(self.header) + _frame(self.last)
        try:
            replace_file(self._path, data, sync=True)
            self.close()
            self._stream_fd = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            raise failed("write", self._path, error) from error
        self._size = len(data)

    def append(self, entry: Entry, *, sync: bool) -> None:
        """The moment of commit: ``entry`` is written as one line.

        Raises
        ------
        TransportError
            When it could not be written; ``undo`` then removes what was.
        """
        data = _frame(entry)
        try:
            write_all(self._stream_fd, data)
            if sync:
                os.fsync(self._stream_fd)
        except OSError as error:
            raise failed("write", self._path, error) from error
        previous, self.last = self.last, entry
        self._size += len(data)
        if entry.snapshot_offset != previous.snapshot_offset:
            # Committed already: failing to tidy up must not look like a failed commit.
            with contextlib.suppress(OSError, TransportError):
                self._forget_snapshots({entry.snapshot_offset, previous.snapshot_offset})
                if self._size > _COMPACT_BYTES:
                    self._rewrite()

    def undo(self) -> None:
        """Cut what a failed ``append`` left behind."""
        if self._stream_fd >= 0:
            try:
                os.ftruncate(self._stream_fd, self._size)
            except OSError as error:
                raise failed("repair", self._path, error) from error

    def save_snapshot(self, offset: int, data: bytes, *, sync: bool) -> None:
        """Store a snapshot; it counts once an entry names it."""
        path = self._folder / _snapshot_name(offset)
        try:
            replace_file(path, data, sync=sync)
        except OSError as error:
            raise failed("write", path, error) from error

    def load_snapshot(self) -> bytes | None:
        """The snapshot the latest commit builds on."""
        if self.last.snapshot_offset < 0:
            return None
        path = self._snapshot(self.last)
        try:
            return path.read_bytes()
        except OSError as error:
            raise failed("read", path, error) from error

    def _snapshot(self, entry: Entry) -> Path:
        return self._folder / _snapshot_name(entry.snapshot_offset)

    def _forget_snapshots(self, keep: set[int]) -> None:
        names = {_snapshot_name(offset) for offset in keep}
        for path in self._folder.glob("state-*"):
            if path.name not in names:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        if self._stream_fd >= 0:
            os.close(self._stream_fd)
            self._stream_fd = -1


def _snapshot_name(offset: int) -> str:
    return f"state-{offset:015d}"


def write_all(fd: int, data: bytes) -> None:
    """Write every byte; ``os.write`` may write fewer. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def last_entry(folder: Path) -> Entry | None:
    """The latest commit of a journal that may be in use; None without one. Reads its end only."""
    path = folder / "journal"
    try:
        with path.open("rb") as stream:
            size, wanted = os.fstat(stream.fileno()).st_size, _TAIL_BYTES
            while True:
                stream.seek(max(0, size - wanted))
                data = stream.read(wanted)
                # The first line is cut, or the header.
                for line in reversed(data.splitlines(keepends=True)[1:]):
                    body = _unframe(line)
                    if body is not None:
                        return msgspec.json.decode(body, type=Entry)
                if wanted >= size:
                    return None
                wanted *= 8
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed("read", path, error) from error
    except msgspec.MsgspecError as error:
        raise StateError(f"{path} cannot be read ({error}): another version wrote it.") from None


def read_status(folder: Path) -> JournalStatus | None:
    """What a journal folder holds, None when it holds no journal. Changes nothing."""
    header, entries = _read(folder / "journal")
    if header is None:
        return None
    last = entries[-1] if entries else Entry()
    kept = folder / f"input-{max(last.snapshot_offset, 0):015d}"
    pending = 0
    if kept.is_file():
        with kept.open("rb") as stream:
            stream.seek(last.lengths.get("input", 0))
            pending = stream.read().count(b"\n")
    return JournalStatus(last.next_offset, last.finished, header.source, pending)
