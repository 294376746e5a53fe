"""The blast radius of a run's folder: its files are read directly, without an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from monitor.core.blast import Asked
from monitor.core.desk import MissingError
from monitor.core.errors import StateError, UsageError
from monitor.lineage.asking import Index, wanted_of
from monitor.lineage.checkpoints import read_checkpoints
from monitor.lineage.columns import packed
from monitor.lineage.reading import segment_of
from monitor.lineage.segment import TIME, Segment, stored
from monitor.lineage.survey import Survey
from monitor.transport.local_accepted import LocalAccepted, checkpoints_path
from monitor.transport.local_ledger import LocalLedger


def blast_of(folder: Path, asked: Asked, shown: int) -> dict[str, Any]:
    """What :meth:`~monitor.runtime.blast.desk.BlastRadius.blast` says, of a folder.

    An event counts as accepted at its own time.

    Raises
    ------
    UsageError
        When the folder holds no run, or for conditions that cannot be.
    MissingError
        For an incident that is not in the folder.
    """
    if not (folder / "accepted.jsonl").is_file():
        raise UsageError(f"--dir: {folder} holds no accepted.jsonl; give the folder of a replay")
    segments = list(_segments(folder))
    index = Index(lambda _: segments, lambda: segments[-1] if segments else None)
    incident = None if asked.incident is None else _incident(folder, asked.incident)
    survey = Survey(wanted_of(asked, incident, index), shown, _Retracted(folder))
    read = 0
    for segment in segments:
        survey.add(segment)
        read += len(segment)
    checkpoints: list[Any] = []
    if checkpoints_path(folder).is_file():
        ledger = LocalLedger(checkpoints_path(folder))
        try:
            checkpoints = read_checkpoints(ledger.catch_up())
        finally:
            ledger.close()
    by_name = {one.name: one for one in checkpoints}
    found = survey.result(list(by_name.values()), {0: 0})
    found["index"] = {
        "topic": "accepted.jsonl",
        "events": read,
        "complete_from": {"0": 0},
        "read_up_to": {"0": read},
        "behind": 0,
        "keys": "verified",
    }
    found["asked"] = asked.plain()
    return found


def _segments(folder: Path) -> Iterator[Segment]:
    """All accepted lines, compressed: a folder may hold many millions of them."""
    source = LocalAccepted(folder)
    source.start({})
    while True:
        batch = source.read(0.0)
        if not len(batch.values):
            return
        made = segment_of(batch)
        ts = made.times[0]
        # Nobody wrote down when it was accepted.
        yield stored(len(made), made.packed() | {TIME: packed((ts, ts))})


class _Retracted:
    """Which lines are named in ``retractions.jsonl``."""

    def __init__(self, folder: Path) -> None:
        self._known: set[tuple[int, int]] = set()
        path = folder / "retractions.jsonl"
        if path.is_file():
            for at in _records(path, lambda line: line["accepted"]):
                self._known.add((int(at["partition"]), int(at["offset"])))

    def __call__(self, places: list[tuple[int, int]]) -> dict[tuple[int, int], str]:
        return {place: "" for place in places if place in self._known}


def _records(path: Path, of: Callable[[Any], Any]) -> Iterator[dict[str, Any]]:
    """A part of each line. Raises StateError for a line that has none."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                found = of(orjson.loads(line))
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise StateError(f"{path}: line {number} is not such a record") from error
            yield found


def _incident(folder: Path, name: str) -> dict[str, Any]:
    path = folder / "incidents.jsonl"
    if path.is_file():
        for found in _records(path, lambda line: line | {"id": line["id"]}):
            parts = found.get("parts", ())
            if found["id"] == name or any(part["id"] == name for part in parts):
                return found
    raise MissingError(f"No incident {name!r} is in {path}.")
