"""Rows of tables as JSON events, and CSV files.

Types are decided by column, over the whole file, so that a column is numeric or text but never
both; a row that does not fit the header becomes an invalid event and costs only itself.
"""

from __future__ import annotations

import csv
import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from monitor.cli.inputs import Columns, plain_name
from monitor.core.errors import UsageError
from monitor.transport.local import FileLines

EPOCH_SECONDS = 1_577_836_800
"""2020-01-01; rows without a time of their own are one second apart from there."""

LABEL_NAMES = ("label", "class", "target", "y")
TS_NAMES = ("ts", "timestamp")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "inf", "-inf", "+inf"})
TRUTH = {"true": True, "false": False}

csv.field_size_limit(1 << 27)


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns of one table after the guesses, by name; None for absent ones."""

    label: str
    source: str | None
    id: str | None
    ts: str | None
    subject: str | None
    features: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str], columns: Columns, table: str) -> Roles:
        """Find each role's column.

        Raises
        ------
        UsageError
            When a named column is absent, a name occurs twice, or no label can be guessed.
        """
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            raise UsageError(f"{table}: column {twice[0]!r} occurs twice; rename one of them")
        label = _pick(names, columns.label, LABEL_NAMES, table, "--labels-from")
        if label is None:
            if len(names) == 1 and (other := next((c for c in ";\t|" if c in names[0]), None)):
                raise UsageError(
                    f"{table}: its columns seem to be separated by {other!r}; separate them by "
                    "commas, or by tabs in a file that ends in .tsv"
                )
            raise UsageError(
                f"{table}: none of its columns is called {', '.join(LABEL_NAMES)}; say which one "
                f"holds the label with --labels-from. Columns: {', '.join(names)}"
            )
        source = _pick(names, columns.source, ("source",), table, "--source-from")
        id_ = _pick(names, columns.id, ("id",), table, "--id-from")
        ts = _pick(names, columns.ts, TS_NAMES, table, "--ts-from")
        subject = _pick(names, columns.subject, ("subject",), table, "--subject-from")
        for name in columns.features:
            _pick(names, name, (), table, "--features")
        taken = {label, source, id_, ts, subject}
        features = columns.features or tuple(name for name in names if name not in taken)
        if not features:
            raise UsageError(f"{table}: no column is left for the features")
        return cls(label, source, id_, ts, subject, features)


def _pick(
    names: Sequence[str], wanted: str | None, usual: Sequence[str], table: str, option: str
) -> str | None:
    if wanted is not None:
        if wanted not in names:
            raise UsageError(
                f"{table}: {option}: no column {wanted!r}. Columns: {', '.join(names)}"
            )
        return wanted
    by_folded = {name.lower(): name for name in reversed(names)}
    return next((by_folded[name] for name in usual if name in by_folded), None)


@dataclass(frozen=True, slots=True)
class RowWriter:
    """Turns a row's values into one line of JSON."""

    roles: Roles
    stem: str

    def line(self, row: int, values: Mapping[str, Any]) -> bytes:
        """One event; ``values`` by column, already numbers, text, booleans or None."""
        roles = self.roles
        event: dict[str, Any] = {
            "id": _text(values.get(roles.id)) if roles.id else f"{self.stem}-{row}",
            "ts": values.get(roles.ts) if roles.ts else EPOCH_SECONDS + row,
            "source": _text(values.get(roles.source)) if roles.source else f"file:{self.stem}",
        }
        label = values.get(roles.label)
        if label is not None:
            event["label"] = label
        if roles.subject and values.get(roles.subject) is not None:
            event["subject"] = _text(values[roles.subject])
        nested = values.get(roles.features[0]) if len(roles.features) == 1 else None
        event["features"] = (
            nested
            if isinstance(nested, list | dict)
            else {name: values.get(name) for name in roles.features}
        )
        return orjson.dumps(event, option=orjson.OPT_NON_STR_KEYS)


def _text(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else str(value)


def plain_value(value: Any) -> Any:
    """A value of a typed table as JSON knows it; what is not finite counts as missing."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, dt.date | dt.timedelta):
        return _seconds(value)
    if isinstance(value, float | Decimal) or hasattr(value, "__float__"):
        return float(value) if math.isfinite(value) else None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _seconds(value: dt.date | dt.timedelta) -> float:
    """Unix seconds of a point in time (UTC unless it says otherwise), or a span's length."""
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp()
    return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC).timestamp()


def plain_label(value: Any) -> Any:
    """A label: text, a whole number or a boolean."""
    plain = plain_value(value)
    if isinstance(plain, float):
        return int(plain) if plain.is_integer() else repr(plain)
    return plain


# -- CSV ---------------------------------------------------------------------------------------

Convert = Callable[[str], Any]


def _missing(text: str) -> bool:
    return text.strip().lower() in MISSING


def _number(text: str) -> int | float | None:
    if _missing(text):
        return None
    try:
        whole = int(text)
    except ValueError:
        return float(text)
    return whole if abs(whole) < 1 << 53 else float(whole)


def _bool(text: str) -> bool | None:
    return TRUTH.get(text.strip().lower())


def _word(text: str) -> str | None:
    return text if text else None


def _label_text(text: str) -> str | None:
    return text.strip() or None


def _label_number(text: str) -> int | None:
    value = _number(text)
    return None if value is None else int(value)


@dataclass(slots=True)
class _Kind:
    """What a column may still be, given the values seen."""

    number: bool = True
    whole: bool = True
    truth: bool = True
    some: bool = False

    def see(self, text: str) -> None:
        if _missing(text):
            return
        self.some = True
        if self.truth and text.strip().lower() not in TRUTH:
            self.truth = False
        if self.number:
            try:
                value = float(text)
                self.whole = self.whole and value.is_integer()
                self.number = math.isfinite(value)
            except ValueError:
                self.number = False

    def convert(self) -> Convert:
        """How the column's texts become feature values."""
        if self.some and self.truth:
            return _bool
        return _number if self.number and self.some else _word

    def convert_label(self) -> Convert:
        """The same for labels, which are text, whole numbers or booleans."""
        if self.some and self.truth:
            return _bool
        return _label_number if self.some and self.number and self.whole else _label_text


@dataclass(frozen=True, slots=True)
class CsvRows:
    """A CSV or TSV file with a header line, plain or packed."""

    path: Path
    delimiter: str
    writer: RowWriter
    names: tuple[str, ...]
    convert: Mapping[str, Convert]
    rows: int

    @classmethod
    def open(cls, path: Path, columns: Columns, delimiter: str) -> CsvRows:
        """Read the file once to learn its columns' types.

        Raises
        ------
        UsageError
            When the file has no usable header, is not UTF-8 text, or is damaged.
        """
        table = _records(path, delimiter)
        header = next(table, None)
        if header is None:
            raise UsageError(f"{path}: is empty; a header line with column names is needed")
        names = tuple(name.strip().removeprefix("\ufeff") for name in header)
        roles = Roles.of(names, columns, str(path))
        kinds = [_Kind() for _ in names]
        rows = 0
        for record in table:
            rows += 1
            if len(record) == len(names):
                for kind, text in zip(kinds, record, strict=True):
                    kind.see(text)
        convert = {name: kind.convert() for name, kind in zip(names, kinds, strict=True)}
        convert[roles.label] = kinds[names.index(roles.label)].convert_label()
        for role in (roles.id, roles.source, roles.subject):
            if role is not None:
                convert[role] = _word
        writer = RowWriter(roles, plain_name(path).stem)
        return cls(path, delimiter, writer, names, convert, rows)

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def lines(self) -> Iterator[bytes]:
        """One event a row; a row with too few or too many values becomes a JSON array."""
        table = _records(self.path, self.delimiter)
        next(table, None)
        for row, record in enumerate(table):
            if len(record) != len(self.names):
                yield orjson.dumps(record)
                continue
            values = {
                name: self.convert[name](text)
                for name, text in zip(self.names, record, strict=True)
            }
            yield self.writer.line(row, values)

    def count(self) -> int:
        """Rows below the header."""
        return self.rows

    def fingerprint(self) -> str:
        """Of the file's contents, its name and the columns' roles."""
        contents = FileLines([self.path]).fingerprint()
        return f"csv {self.delimiter!r} {contents} {self.writer}"


def _records(path: Path, delimiter: str) -> Iterator[list[str]]:
    row = 0
    text = (line.decode("utf-8") + "\n" for line in FileLines([path]).open(0))
    try:
        for record in csv.reader(text, delimiter=delimiter):
            if record:
                yield record
                row += 1
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: is not UTF-8 text (near row {row + 1}); convert it, "
            "for example with iconv -f LATIN1 -t UTF-8"
        ) from error
    except csv.Error as error:
        raise UsageError(f"{path}: row {row + 1} is not CSV: {error}") from error
