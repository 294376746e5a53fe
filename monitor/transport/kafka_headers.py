"""Headers that kafka-python has trouble with, so that no record can stop the service.

Names that are not UTF-8: the client decodes them strictly and raises from inside ``poll``, again
and again, so that one such record, which other clients can produce, would block its partition for
ever. Null values: it reads them but refuses to send them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch


class RawName(str):
    """A header name that keeps the bytes it came from, and leaves with them.

    Examples
    --------
    >>> name = RawName.of(b"caf\\xe9")
    >>> str(name), name.encode("utf-8")
    ('caf\\ufffd', b'caf\\xe9')
    """

    raw: bytes

    @classmethod
    def of(cls, raw: bytes) -> RawName:
        """Readable text for ``raw``, with U+FFFD where it is not UTF-8."""
        name = cls(raw.decode("utf-8", "replace"))
        name.raw = raw
        return name

    def encode(self, *_: Any, **__: Any) -> bytes:
        """The original bytes, whatever the encoding asked for."""
        return self.raw


class NullHeader(tuple[str, None]):
    """A header whose value is null.

    The client reads null header values but refuses to send them: its check looks at item 1,
    its encoder unpacks the pair and does write null. So item 1 is shown as empty, while
    unpacking gives None, and the header leaves as it came.
    """

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)
        return b"" if item is None else item


class NullableHeaders(list[Any]):
    """Headers of which some are :class:`NullHeader`.

    The client adds up the sizes of all values of a list that is not empty, for its statistics
    only, and fails on null; its encoder asks for the length. So this list passes for empty.
    """

    def __bool__(self) -> bool:
        return False


def nullable(headers: Sequence[Any]) -> NullableHeaders:
    """``headers`` in a form in which the client also sends null values."""
    return NullableHeaders(NullHeader(h) if h[1] is None else h for h in headers)


class _Tolerant(bytearray):
    """Bytes whose slices decode to :class:`RawName` when they are not UTF-8."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Tolerant(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        try:
            return super().decode(encoding, errors)
        except UnicodeDecodeError:
            return RawName.of(bytes(self))


class TolerantBatch(DefaultRecordBatch):  # type: ignore[misc]
    """A record batch whose header names may be any bytes. Costs nothing while they are UTF-8."""

    _buffer: Any
    _pos: Any

    def _read_msg(self, *args: Any, **kwargs: Any) -> Any:
        self._maybe_uncompress()
        start = self._pos
        try:
            return super()._read_msg(*args, **kwargs)
        except UnicodeDecodeError:
            self._pos, self._buffer = start, _Tolerant(self._buffer)
            return super()._read_msg(*args, **kwargs)


def accept_any_header_name() -> None:
    """Have the client read record batches with :class:`TolerantBatch`, in this process."""
    memory_records.DefaultRecordBatch = TolerantBatch
