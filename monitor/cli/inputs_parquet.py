"""Rows of Parquet files as JSON events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from monitor.cli.inputs import Columns
from monitor.cli.inputs_table import Roles, RowWriter, plain_label, plain_value
from monitor.core.errors import UsageError
from monitor.transport.local import FileLines

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """A Parquet file."""

    path: Path
    writer: RowWriter
    rows: int

    @classmethod
    def open(cls, path: Path, columns: Columns) -> ParquetRows:
        """Read the file's schema.

        Raises
        ------
        UsageError
            When it is not a Parquet file or its columns do not fit.
        """
        try:
            with pq.ParquetFile(path) as file:
                names, rows = tuple(file.schema_arrow.names), int(file.metadata.num_rows)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error
        return cls(path, RowWriter(Roles.of(names, columns, str(path)), path.stem), rows)

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def lines(self) -> Iterator[bytes]:
        """One event a row."""
        label = self.writer.roles.label
        row = 0
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                    for values in batch.to_pylist():
                        plain = {name: plain_value(item) for name, item in values.items()}
                        plain[label] = plain_label(values[label])
                        yield self.writer.line(row, plain)
                        row += 1
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path, error) from error

    def count(self) -> int:
        """As the file says."""
        return self.rows

    def fingerprint(self) -> str:
        """Of the file's contents, its name and the columns' roles."""
        return f"parquet {FileLines([self.path]).fingerprint()} {self.writer}"


def _unreadable(path: Path, error: Exception) -> UsageError:
    problem = " ".join(str(error).split())[:200]
    return UsageError(f"{path}: is not a readable Parquet file: {problem}")
