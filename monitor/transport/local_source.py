"""Where lines come from, and recorded files.

A line is everything up to a newline; the newline is not part of it and every other byte is, a
carriage return too. The last line of a finished input needs no newline.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast, runtime_checkable

import xxhash
import zstandard

from monitor.core.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_LINE_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
PROBE_BYTES = 64 << 10
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# A small piece at a time, because a few bytes of zstd can unpack to megabytes.
_PACKED = 2 << 10


class LineSource(Protocol):
    """A finished input that can be read again from any line."""

    def open(self, start_line: int) -> Iterator[bytes]:
        """Lines from number ``start_line`` (from 0) on, each without its newline."""

    def describe(self) -> str:
        """What it is, in an operator's words: a file name, ``river:Phishing``."""

    def fingerprint(self) -> str:
        """Text that is equal exactly when the input is the same. Must be quick to compute."""


@runtime_checkable
class LiveSource(Protocol):
    """An input as the transport reads it, once and forward."""

    rereadable: bool
    """True when ``lines`` can bring committed lines back."""

    def start(self, line: int) -> None:
        """Begin at ``line``."""

    def take(self, max_lines: int, max_bytes: int, timeout_seconds: float) -> list[bytes]:
        """Whole lines, waiting at most ``timeout_seconds`` until there are ``max_lines``.

        Fewer when one of them brings the sum to ``max_bytes`` or more.
        """

    @property
    def ended(self) -> bool:
        """True when the input is over and every line was taken."""

    @property
    def exhausted(self) -> bool:
        """True when nothing follows what was taken: it ended, or it is drained."""

    def drain(self) -> None:
        """Take nothing new from the outside; what was read already is still given out."""

    def lines(self, start_line: int) -> Iterator[bytes]:
        """Lines from ``start_line`` on once more, for recovery. Only if ``rereadable``."""

    def describe(self) -> str:
        """What it is, in an operator's words."""

    def fingerprint(self) -> str:
        """Text by which ``same`` recognises the same input later."""

    def same(self, recorded: str) -> bool:
        """Whether ``recorded`` is the fingerprint of this input, perhaps of an earlier stage."""

    def close(self) -> None:
        """Release it."""


def too_long(where: str, line: int, bound: int) -> UsageError:
    """The error for a line beyond the memory bound; ``line`` counts from 0."""
    return UsageError(
        f"{where}: line {line + 1} is longer than {bound:,} bytes, more than is ever held in "
        "memory. If this really is JSON Lines, split that line or raise max_line_bytes."
    )


class _Zstd(io.RawIOBase):
    """Unpacks frame after frame. The library's own reader takes a cut-off file for a whole one."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._unpacker = zstandard.ZstdDecompressor().decompressobj()
        self._packed = self._plain = b""
        self._inside = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        while not self._plain:
            if not self._packed:
                self._packed = self._file.read(_PACKED)
            if not self._packed:
                if self._inside:
                    raise EOFError("the last frame is incomplete")
                return 0
            if self._unpacker.eof:
                self._unpacker = zstandard.ZstdDecompressor().decompressobj()
            self._plain = self._unpacker.decompress(self._packed)
            self._inside = not self._unpacker.eof
            self._packed = self._unpacker.unused_data if self._unpacker.eof else b""
        n = min(len(view), len(self._plain))
        view[:n] = self._plain[:n]
        self._plain = self._plain[n:]
        return n

    def close(self) -> None:
        self._file.close()
        super().close()


def _open_binary(path: Path) -> BinaryIO:
    with path.open("rb") as stream:
        magic = stream.read(4)
    if path.suffix == ".gz" or magic.startswith(_GZIP_MAGIC):
        return cast("BinaryIO", gzip.open(path, "rb"))
    if path.suffix in {".zst", ".zstd"} or magic == _ZSTD_MAGIC:
        return io.BufferedReader(_Zstd(path), CHUNK_BYTES)
    return path.open("rb", buffering=CHUNK_BYTES)


def _read_lines(path: Path, number: int, bound: int) -> Iterator[bytes]:
    try:
        with _open_binary(path) as stream:
            while line := stream.readline(bound + 2):
                whole = line.endswith(b"\n")
                if len(line) - whole > bound:
                    raise too_long(str(path), number, bound)
                number += 1
                yield line[:-1] if whole else line
    except (EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile) as error:
        raise UsageError(
            f"{path}: the compressed data is damaged or cut off after line {number} ({error}). "
            "Fetch the file again."
        ) from None
    except OSError as error:
        raise UsageError(
            f"Cannot read {path}: {error.strerror or error}. Check the path and its permissions."
        ) from None


class FileLines:
    """Recorded lines in one file or several, read one after the other; .gz and .zst unpacked.

    Parameters
    ----------
    paths
        Files, in order. Line numbers run on from one to the next.
    max_line_bytes
        A longer line is an error: nothing may ask for unbounded memory. Far beyond the size at
        which the gate calls a record too large, so that those still find their way to the
        invalid records.

    Raises
    ------
    UsageError
        When a file cannot be read (also later, while reading).
    """

    def __init__(self, paths: Sequence[Path], max_line_bytes: int = MAX_LINE_BYTES) -> None:
        if not paths:
            raise UsageError("No input file was given: name at least one.")
        self.paths = tuple(paths)
        self._bound = max_line_bytes
        for path in self.paths:
            if not path.is_file():
                what = "is not a regular file" if path.exists() else "does not exist"
                raise UsageError(f"{path} {what}: give the path of a JSON Lines file.")

    def open(self, start_line: int) -> Iterator[bytes]:
        """Lines from ``start_line`` (from 0) on, without their newlines."""
        skip, number = start_line, 0
        for path in self.paths:
            for line in _read_lines(path, number, self._bound):
                number += 1
                if skip:
                    skip -= 1
                else:
                    yield line

    def describe(self) -> str:
        """The paths."""
        return ", ".join(str(path) for path in self.paths)

    def fingerprint(self) -> str:
        """Size, and hash of both ends, of each file; not its name, so that it may be moved."""
        return " ".join(_file_print(path) for path in self.paths)


def _file_print(path: Path) -> str:
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(PROBE_BYTES)
            stream.seek(max(0, size - PROBE_BYTES))
            tail = stream.read(PROBE_BYTES)
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from None
    return f"{size}:{xxhash.xxh3_64_hexdigest(head)}:{xxhash.xxh3_64_hexdigest(tail)}"


class Recorded:
    """A :class:`LineSource` as a :class:`LiveSource`: batches are full whatever the clock says.

    So their boundaries depend on the input alone, and a replay that was killed and resumed
    decides the same as one that was not.
    """

    rereadable = True

    def __init__(self, source: LineSource) -> None:
        self._source = source
        self._rest: Iterator[bytes] = iter(())
        self._draining = False
        self.ended = False

    def start(self, line: int) -> None:
        """Begin at ``line``."""
        self._rest = self._source.open(line)

    def take(self, max_lines: int, max_bytes: int, timeout_seconds: float) -> list[bytes]:
        """The next lines; waits for nothing."""
        taken: list[bytes] = []
        size = 0
        while len(taken) < max_lines and size < max_bytes and not self.exhausted:
            line = next(self._rest, None)
            if line is None:
                self.ended = True
            else:
                taken.append(line)
                size += len(line)
        return taken

    @property
    def exhausted(self) -> bool:
        """True at the end, and once drained."""
        return self.ended or self._draining

    def drain(self) -> None:
        """Stop here: the file can be read again."""
        self._draining = True

    def lines(self, start_line: int) -> Iterator[bytes]:
        """Lines from ``start_line`` on."""
        return self._source.open(start_line)

    def describe(self) -> str:
        """As the source says."""
        return self._source.describe()

    def fingerprint(self) -> str:
        """As the source says."""
        return self._source.fingerprint()

    def same(self, recorded: str) -> bool:
        """Whether the source's fingerprint is ``recorded``."""
        return self._source.fingerprint() == recorded

    def close(self) -> None:
        """Let go of the files."""
        self._rest = iter(())
