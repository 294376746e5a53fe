"""The classification data sets that come inside the river package, as JSON events."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from monitor.cli.inputs import Columns
from monitor.cli.inputs_table import Roles, RowWriter, plain_label, plain_value
from monitor.core.errors import UsageError


def _classes() -> dict[str, tuple[type[Any], bool]]:
    """All classification data sets with fixed rows, and whether each needs a download."""
    from river import datasets  # noqa: PLC0415 - slow to import
    from river.datasets import base  # noqa: PLC0415

    found: dict[str, tuple[type[Any], bool]] = {}
    for name in datasets.__all__:
        kind = getattr(datasets, name)
        if isinstance(kind, type) and issubclass(kind, base.RemoteDataset):
            found[name] = (kind, True)
        elif isinstance(kind, type) and issubclass(kind, base.FileDataset):
            try:
                task = kind().task  # type: ignore[call-arg]
            except TypeError:
                continue
            if task in (base.BINARY_CLF, base.MULTI_CLF):
                found[name] = (kind, False)
    return found


def bundled() -> tuple[str, ...]:
    """Names that work after ``river:`` without any download."""
    return tuple(name for name, (_, remote) in _classes().items() if not remote)


@dataclass(frozen=True, slots=True)
class RiverRows:
    """One bundled data set."""

    dataset: Any
    writer: RowWriter
    name: str

    def lines(self) -> Iterator[bytes]:
        """One event a row, in the data set's own order."""
        for row, (x, y) in enumerate(self.dataset):
            values = {name: plain_value(value) for name, value in x.items()}
            values["label"] = plain_label(y)
            yield self.writer.line(row, values)

    def count(self) -> int:
        """As the data set says."""
        return int(self.dataset.n_samples)

    def fingerprint(self) -> str:
        """Of the name, as the rows do not change."""
        return f"{self.name} {self.writer}"


def open_dataset(name: str, columns: Columns) -> RiverRows:
    """A bundled data set by name.

    Raises
    ------
    UsageError
        For an unknown name, or one that would have to be downloaded; lists the bundled ones.
    """
    known = _classes()
    here = ", ".join(f"river:{n}" for n, (_, remote) in known.items() if not remote)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean river:{close[0]}? " if close and not known[close[0]][1] else ""
        raise UsageError(f"river:{name}: no such data set; {hint}bundled with river: {here}")
    kind, remote = known[name]
    if remote:
        raise UsageError(f"river:{name}: would need a download; bundled with river: {here}")
    dataset = kind()
    first, _ = next(iter(dataset))
    names = tuple(chain(first, ["label"]))
    writer = RowWriter(Roles.of(names, columns, f"river:{name}"), name.lower())
    return RiverRows(dataset, writer, f"river:{name}")
