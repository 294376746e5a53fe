"""Lines that are still being written: a file that grows, and a pipe."""

from __future__ import annotations

import io
import os
import select
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import xxhash

from monitor.core.errors import TransportError, UsageError
from monitor.transport.local_source import CHUNK_BYTES, MAX_LINE_BYTES, PROBE_BYTES, too_long

_NAP_SECONDS = 0.05


class _Splitter:
    """Bytes in pieces of any size to whole lines, with what is held bounded."""

    def __init__(self, where: str, line: int, bound: int) -> None:
        self._where, self._line, self._bound = where, line, bound
        self._partial: list[bytes] = []
        self._partial_size = 0
        self._ready: deque[bytes] = deque()
        self.ready_bytes = 0

    def __len__(self) -> int:
        return len(self._ready)

    def pop(self, max_lines: int, max_bytes: int) -> list[bytes]:
        taken: list[bytes] = []
        size = 0
        while self._ready and len(taken) < max_lines and size < max_bytes:
            taken.append(self._ready.popleft())
            size += len(taken[-1])
        self.ready_bytes -= size
        return taken

    def put(self, lines: Sequence[bytes]) -> None:
        """Take whole lines."""
        self._ready.extend(lines)
        self.ready_bytes += sum(map(len, lines))
        self._line += len(lines)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a piece of input; the lines that it completes."""
        before = len(self._ready)
        head, *others = chunk.split(b"\n")
        self._partial.append(head)
        self._partial_size += len(head)
        for piece in others:
            self._finish()
            self._partial, self._partial_size = [piece], len(piece)
        if self._partial_size > self._bound:
            raise too_long(self._where, self._line, self._bound)
        return self._since(before)

    def _since(self, before: int) -> list[bytes]:
        return list(islice(self._ready, before, None))

    def _finish(self) -> None:
        if self._partial_size > self._bound:
            raise too_long(self._where, self._line, self._bound)
        self._ready.append(b"".join(self._partial))
        self.ready_bytes += self._partial_size
        self._line += 1

    def end(self) -> list[bytes]:
        """The input is over: what is left is a line, if it is anything."""
        before = len(self._ready)
        if self._partial_size:
            self._finish()
        self._partial, self._partial_size = [], 0
        return self._since(before)


class _Live:
    """What a growing file and a pipe share: fill from a descriptor until enough or too late."""

    def __init__(self, where: str, max_line_bytes: int) -> None:
        self._where = where
        self._bound = max_line_bytes
        self._split = _Splitter(where, 0, max_line_bytes)
        self._over = False
        self._draining = False
        self._keep: Callable[[Sequence[bytes]], object] = len

    @property
    def ended(self) -> bool:
        """True when the input is over and every line was taken."""
        return self._over and not self._split

    @property
    def exhausted(self) -> bool:
        """True when nothing follows what was taken: it ended, or it is drained."""
        return (self._over or self._draining) and not self._split

    def drain(self) -> None:
        """Read nothing more; whole lines that were read already are still given out."""
        self._draining = True

    def describe(self) -> str:
        """What it is, in an operator's words."""
        return self._where

    def take(self, max_lines: int, max_bytes: int, timeout_seconds: float) -> list[bytes]:
        """Whole lines, waiting at most ``timeout_seconds`` until there are ``max_lines``."""
        deadline = time.monotonic() + timeout_seconds
        split = self._split
        while len(split) < max_lines and split.ready_bytes < max_bytes:
            if self._over or self._draining:
                break
            left = deadline - time.monotonic()
            chunk = self._read(max(0.0, left))
            if chunk is None:
                if left <= 0.0:
                    break
            elif chunk:
                self._keep(split.feed(chunk))
            else:
                self._over = True
                self._keep(split.end())
        return split.pop(max_lines, max_bytes)

    def _read(self, wait_seconds: float) -> bytes | None:
        """A piece of input, b"" at its end, None when there was nothing within the wait."""
        raise NotImplementedError


class PipeLines(_Live):
    """Standard input, or any descriptor that is read once.

    Nobody can read a pipe twice, so lines are kept (see ``resume``) as soon as they are whole. What
    a killed process loses is the beginning of a line whose end had not come yet.
    """

    rereadable = False

    def __init__(self, fd: int = 0, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        super().__init__("standard input" if fd == 0 else f"descriptor {fd}", max_line_bytes)
        self._fd = fd
        self._regular = False

    def start(self, line: int) -> None:
        """Lines are numbered on from ``line``; what a pipe brings is always new."""
        self._split = _Splitter(self._where, line, self._bound)
        self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)

    def resume(self, lines: Sequence[bytes], keep: Callable[[Sequence[bytes]], object]) -> None:
        """Give out ``lines`` first; call ``keep`` with every line that is read from now on."""
        self._split.put(lines)
        self._keep = keep

    def lines(self, start_line: int) -> Iterator[bytes]:
        """Never: a pipe cannot be read again."""
        raise TransportError("A pipe cannot be read again.")

    def fingerprint(self) -> str:
        """The same for every pipe."""
        return "pipe"

    def same(self, recorded: str) -> bool:
        """A pipe goes on where another pipe ended."""
        return recorded == "pipe"

    def close(self) -> None:
        """The descriptor is not ours to close."""

    def _read(self, wait_seconds: float) -> bytes | None:
        try:
            if not self._regular and not select.select([self._fd], [], [], wait_seconds)[0]:
                return None
            return os.read(self._fd, CHUNK_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise TransportError(
                f"Cannot read {self._where}: {error.strerror or error}. Start the pipeline again."
            ) from error


class FollowFile(_Live):
    """A file that something else appends to, as ``tail -f`` reads it.

    Parameters
    ----------
    path
        It must exist. When it is replaced or cut short while it is read (log rotation), reading
        ends with an error after its last line instead of silently losing or repeating events.
    """

    rereadable = True

    def __init__(self, path: Path, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        super().__init__(str(path), max_line_bytes)
        self._path = path
        self.paths = (path,)
        self._stream: io.FileIO | None = None
        self._position = 0
        if not path.is_file():
            raise UsageError(
                f"{path} does not exist or is not a regular file: create it before following it, "
                "or use - to read from a pipe."
            )

    def start(self, line: int) -> None:
        """Open the file and skip ``line`` lines.

        Raises
        ------
        UsageError
            When it has fewer lines.
        """
        try:
            self._stream = io.FileIO(self._path, "rb")
            self._position = self._skip(self._stream, line)
        except OSError as error:
            raise self._failed(error) from error
        self._split = _Splitter(self._where, line, self._bound)

    def _skip(self, stream: io.FileIO, lines: int) -> int:
        position, left = 0, lines
        while left:
            chunk = stream.read(CHUNK_BYTES)
            if not chunk:
                raise UsageError(
                    f"{self._path} has fewer than the {lines} lines that were read from it before: "
                    "it was cut short or replaced. Put it back, or use another state folder."
                )
            found = chunk.count(b"\n")
            if found < left:
                left -= found
                position += len(chunk)
                continue
            at = -1
            for _ in range(left):
                at = chunk.index(b"\n", at + 1)
            left, position = 0, position + at + 1
        stream.seek(position)
        return position

    def lines(self, start_line: int) -> Iterator[bytes]:
        """Lines from ``start_line`` on, as far as they are there now."""
        with io.FileIO(self._path, "rb") as stream:
            self._skip(stream, start_line)
            yield from (line.rstrip(b"\n") for line in io.BufferedReader(stream, CHUNK_BYTES))

    def fingerprint(self) -> str:
        """Hash of the beginning, and how much of it was there to be hashed."""
        try:
            return self._head(f"{min(PROBE_BYTES, self._path.stat().st_size)}:")
        except OSError as error:
            raise self._failed(error) from error

    def same(self, recorded: str) -> bool:
        """Whether the file begins as it did when ``recorded`` was taken; it may have grown."""
        return recorded == self._head(recorded)

    def _head(self, recorded: str) -> str:
        size = recorded.partition(":")[0]
        try:
            with self._path.open("rb") as stream:
                head = stream.read(int(size)) if size.isdigit() else b""
        except OSError as error:
            raise self._failed(error) from error
        return f"{len(head)}:{xxhash.xxh3_64_hexdigest(head)}"

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def _failed(self, error: OSError) -> TransportError:
        return TransportError(
            f"Cannot read {self._path}: {error.strerror or error}. Check that the file and "
            "its disk are there, then start again: nothing is lost."
        )

    def _read(self, wait_seconds: float) -> bytes | None:
        assert self._stream is not None
        try:
            chunk = self._stream.read(CHUNK_BYTES)
            if chunk:
                self._position += len(chunk)
                return chunk
            self._still_the_same(self._stream)
        except OSError as error:
            raise self._failed(error) from error
        time.sleep(min(_NAP_SECONDS, wait_seconds))
        return None

    def _still_the_same(self, stream: io.FileIO) -> None:
        if len(self._split):
            return  # judge what came first, then complain
        held = os.fstat(stream.fileno())
        if held.st_size < self._position:
            raise TransportError(
                f"{self._path} was cut short while it was followed ({self._position:,} bytes were "
                f"read, {held.st_size:,} are left). Events may be lost: let rotation rename files "
                "instead of truncating them, then start with a new state folder."
            )
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return  # between the rename and the new file
        if (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino):
            raise TransportError(
                f"{self._path} was replaced by another file (rotated). Follow the renamed file "
                "with the same state folder until its writer is done with it, then start on the "
                "new file with a new state folder."
            )
