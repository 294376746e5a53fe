"""Recorded streams as lines of JSON events, whatever file they come from.

JSONL lines pass through untouched, good or bad. Rows of a table become events in
:mod:`monitor.cli.inputs_table`. The same input gives the same lines every time, and any input can
be opened again at a line number, which is what lets a stopped replay go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import xxhash

from monitor.core.errors import UsageError
from monitor.transport.local import FileLines

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PARQUET_MAGIC = b"PAR1"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
PACKED_SUFFIXES = (".gz", ".zst", ".zstd")
COUNTED_BYTES = 1 << 30
"""Larger files are not read beforehand just to know how many lines they have."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a table mean what; None stands for the usual names."""

    label: str | None = None
    source: str | None = None
    id: str | None = None
    ts: str | None = None
    subject: str | None = None
    features: tuple[str, ...] = ()


class EventInput(Protocol):
    """One recorded input."""

    @property
    def name(self) -> str:
        """As the operator gave it."""

    def lines(self) -> Iterator[bytes]:
        """Every line from the first, without newlines."""

    def count(self) -> int | None:
        """Number of lines, None when finding out would take long."""

    def fingerprint(self) -> str:
        """Equal exactly when the input, and the way it is read, is the same."""


@dataclass(frozen=True, slots=True)
class JsonLines:
    """A JSONL file, plain or packed."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def lines(self) -> Iterator[bytes]:
        """Lines as they are."""
        return FileLines([self.path]).open(0)

    def count(self) -> int | None:
        """By reading the file once, which also finds damage before the work begins."""
        if self.path.stat().st_size > COUNTED_BYTES:
            return None
        return sum(1 for _ in self.lines())

    def fingerprint(self) -> str:
        """Of the file's contents."""
        return f"jsonl {FileLines([self.path]).fingerprint()}"


@dataclass(frozen=True, slots=True)
class Joined:
    """Several inputs one after the other: the source of a replay."""

    inputs: Sequence[EventInput]

    def open(self, start_line: int) -> Iterator[bytes]:
        """Lines from number ``start_line`` (from 0) of the joined stream."""
        return islice((line for one in self.inputs for line in one.lines()), start_line, None)

    def describe(self) -> str:
        """All the names."""
        return ", ".join(one.name for one in self.inputs)

    def fingerprint(self) -> str:
        """Of all the inputs and their order."""
        prints = "\n".join(one.fingerprint() for one in self.inputs)
        return xxhash.xxh3_128_hexdigest(prints.encode())

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files among them, so that none is written over."""
        return tuple(one.path for one in self.inputs if hasattr(one, "path"))

    @property
    def unsourced(self) -> tuple[str, ...]:
        """Names of the files whose rows do not say who supplied them: each counts as one source."""
        return tuple(
            one.name
            for one in self.inputs
            if hasattr(one, "path") and hasattr(one, "writer") and one.writer.roles.source is None
        )

    def count(self) -> int | None:
        """Lines in all, None when one input does not say."""
        counts = [one.count() for one in self.inputs]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None


def plain_name(path: Path) -> Path:
    """The file name below its packing: ``events.csv`` for ``in/events.csv.gz``."""
    name = path.name
    for packed in PACKED_SUFFIXES:
        name = name.removesuffix(packed)
    return Path(name)


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name the files in it")
    try:
        with path.open("rb") as file:
            return file.read(64)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error


def open_input(argument: str, columns: Columns) -> EventInput:
    """The input an argument means: ``river:NAME`` or a file.

    Raises
    ------
    UsageError
        When there is no such file or data set, or its columns do not fit.
    """
    from monitor.cli import inputs_parquet, inputs_river, inputs_table  # noqa: PLC0415

    if argument.startswith("river:"):
        return inputs_river.open_dataset(argument.removeprefix("river:"), columns)
    path = Path(argument)
    head, below = _head(path), plain_name(path)
    suffix = below.suffix.lower()
    if head.startswith(PARQUET_MAGIC):
        return inputs_parquet.ParquetRows.open(path, columns)
    if suffix in (".parquet", ".pq"):
        raise UsageError(f"{path}: is not a Parquet file")
    packed = {GZIP_MAGIC: ".gz", ZSTD_MAGIC: ".zst"}
    for magic, ending in packed.items():
        if head.startswith(magic) and path.suffix not in PACKED_SUFFIXES:
            raise UsageError(f"{path}: is packed; rename it to {path.name}{ending}")
    if suffix in DELIMITERS:
        return inputs_table.CsvRows.open(path, columns, DELIMITERS[suffix])
    if suffix == ".json" and head.lstrip().startswith(b"["):
        raise UsageError(
            f"{path}: is one JSON array; one event a line is needed "
            f"(jq -c '.[]' {path.name} > events.jsonl)"
        )
    return JsonLines(path)


def open_inputs(arguments: Sequence[str], columns: Columns) -> Joined:
    """All recorded inputs of a command line, in order.

    Raises
    ------
    UsageError
        Naming the first input that cannot be used.
    """
    if not arguments:
        raise UsageError("name at least one input: a file, river:NAME, or - for standard input")
    if "-" in arguments:
        raise UsageError("standard input (-) must be the only input")
    return Joined(_told_apart([open_input(argument, columns) for argument in arguments]))


def _told_apart(inputs: Sequence[EventInput]) -> list[EventInput]:
    """Tables of the same name (day-1/events.csv, day-2/events.csv) get ids of their own."""
    from monitor.cli.inputs_parquet import ParquetRows  # noqa: PLC0415
    from monitor.cli.inputs_river import RiverRows  # noqa: PLC0415
    from monitor.cli.inputs_table import CsvRows  # noqa: PLC0415

    seen: Counter[str] = Counter()
    apart: list[EventInput] = []
    for one in inputs:
        if isinstance(one, CsvRows | ParquetRows | RiverRows):
            stem = one.writer.stem
            seen[stem] += 1
            if seen[stem] > 1:
                one = replace(one, writer=replace(one.writer, stem=f"{stem}:{seen[stem]}"))  # noqa: PLW2901
        apart.append(one)
    return apart
