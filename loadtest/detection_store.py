"""Finished cells on disk, and the processes that work through those that are not."""

from __future__ import annotations

import csv
import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Row = dict[str, Any]
Task = tuple[str, Callable[[], list[Row]]]


class Store:
    """Rows of one CSV file, told apart by ``identity``; appended as they are made."""

    def __init__(self, path: Path, identity: Sequence[str]) -> None:
        self.path, self.identity = path, tuple(identity)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = read(path)
        self.done = {self.of(row) for row in self.rows}

    def of(self, row: Row) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in self.identity)

    def forget(self, unwanted: Callable[[Row], bool]) -> int:
        """Drop the ``unwanted`` rows, to be measured anew; how many there were."""
        kept = [row for row in self.rows if not unwanted(row)]
        dropped = len(self.rows) - len(kept)
        if dropped:
            self.rows = kept
            self.done = {self.of(row) for row in kept}
            self._write()
        return dropped

    def add(self, rows: Iterable[Row]) -> None:
        new = [{name: _plain(value) for name, value in row.items()} for row in rows]
        if not new:
            return
        self.rows += new
        self.done |= {self.of(row) for row in new}
        header = _header(self.path)
        if any(set(row) - set(header) for row in new):
            self._write()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, header).writerows(new)

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row)) or _header(self.path)
        scratch = self.path.with_suffix(".new")
        with scratch.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)
        scratch.replace(self.path)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else float(f"{value:.6g}")
    return value


def _header(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def read(path: Path) -> list[Row]:
    """The complete rows of ``path``; a line cut short by a crash is dropped, here and on disk."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    return [row for row in csv.DictReader(whole.decode("utf-8").splitlines()) if None not in row]


def work_through(tasks: Sequence[Task], store: Store, *, jobs: int, title: str) -> int:
    """Run ``tasks``, at most ``jobs`` at a time, and keep each one's rows as it ends."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", justify="left"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task(title, total=len(tasks))
        for name, rows in _results(tasks, jobs):
            store.add(rows)
            bar.update(task, advance=1, description=f"{title}: {name}")
    return len(tasks)


def _results(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[str, list[Row]]]:
    if jobs <= 1 or len(tasks) <= 1:
        for name, call in tasks:
            yield name, call()
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=spawn) as pool:
        waiting = {pool.submit(call): name for name, call in tasks}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
