"""The blast radius of a folder: of a replay, or of a service on files.

Accepted lines that lie in it are read directly. Where a service wrote them elsewhere its own index
is asked, in the folder as it is: the service may be running, or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from monitor.cli import common
from monitor.core.blast import Asked, Checkpoint
from monitor.core.desk import MissingError
from monitor.core.errors import StateError, UsageError
from monitor.lineage.asking import Index, wanted_of
from monitor.lineage.checkpoints import read_checkpoints
from monitor.lineage.columns import packed
from monitor.lineage.reading import segment_of
from monitor.lineage.segment import TIME, Segment, stored
from monitor.lineage.survey import Survey
from monitor.transport.local import journal_status
from monitor.transport.local_accepted import (
    BYTES,
    LINES,
    LocalAccepted,
    checkpoints_path,
    default_path,
)
from monitor.transport.local_journal import last_entry
from monitor.transport.local_ledger import LocalLedger

ACCEPTED = "accepted.jsonl"


def blast_of(folder: Path, asked: Asked, shown: int) -> dict[str, Any]:
    """What :meth:`~monitor.runtime.blast.desk.BlastRadius.blast` says, of a folder.

    An event of the files counts as accepted at its own time, one of an index when it was read.

    Raises
    ------
    UsageError
        When the folder holds neither, or for conditions that cannot be.
    MissingError
        For an incident that is not in the folder.
    """
    path = folder / ACCEPTED
    # Without a journal nothing tells how much of it is committed; of an empty one nothing is.
    whole = path.is_file() and (not path.stat().st_size or journal_status(folder) is not None)
    if whole:
        return _of_files(folder, asked, shown)
    if default_path(folder).is_file():
        return _of_index(folder, asked, shown)
    lacks = "no journal of a run" if path.is_file() else f"neither {ACCEPTED} nor an index of it"
    raise UsageError(
        f"--dir: {folder} has {lacks}; name the folder of `replay --out`, or of a service on files "
        "the one of `run --out` (monitor-out by default), not where --to leads"
    )


def _of_files(folder: Path, asked: Asked, shown: int) -> dict[str, Any]:
    """Of the accepted lines that lie in the folder."""
    segments = list(_segments(folder))
    index = Index(lambda _: segments, lambda: segments[-1] if segments else None)
    incident = None if asked.incident is None else _incident(folder, asked.incident)
    survey = Survey(wanted_of(asked, incident, index), shown, _Retracted(folder))
    read = 0
    for segment in segments:
        survey.add(segment)
        read += len(segment)
    found = survey.result(_checkpoints(folder), {0: 0})
    about = {"topic": ACCEPTED, "events": read, "read_up_to": {"0": read}, "behind": 0}
    return _said(found, asked, about, {0: 0})


def _of_index(folder: Path, asked: Asked, shown: int) -> dict[str, Any]:
    """Of the index that a service keeps whose accepted lines went elsewhere (`run --to`)."""
    from monitor.store.accepted_store import AcceptedStore  # noqa: PLC0415 - slow to import
    from monitor.store.accepted_writing import Kept  # noqa: PLC0415
    from monitor.store.database import Database, sqlite_url  # noqa: PLC0415

    incident = None if asked.incident is None else _incident(folder, asked.incident)
    database = Database(sqlite_url(default_path(folder)), "--dir", "index of accepted events")
    store = AcceptedStore(database, "local", Kept(math.inf, 0))  # nothing is written or forgotten
    try:
        wanted = wanted_of(asked, incident, Index(store.segments, store.last))
        survey = Survey(wanted, shown, store.retracted)
        for segment in store.segments(wanted):
            survey.add(segment)
        places = store.places()
        since = {part: at for part, at in store.since().items() if part >= 0}
        found = survey.result(_checkpoints(folder), since)
        about = {
            "topic": "accepted",
            "events": store.size()[0],
            "read_up_to": {str(part): at for part, at in places.items() if part >= 0},
            "behind": _behind(folder, places),
        }
    finally:
        store.close()
    return _said(found, asked, about, since)


def _behind(folder: Path, places: Mapping[int, int]) -> int:
    """About how many accepted lines a running service has not stored in its index yet."""
    entry = last_entry(folder / ".monitor")
    end = 0 if entry is None else entry.lengths.get("accepted", 0)
    lines, size = places.get(LINES, 0), places.get(BYTES, 0)
    return max(0, end - size) * max(1, lines) // max(1, size)


def _said(
    found: dict[str, Any], asked: Asked, about: Mapping[str, Any], since: Mapping[int, int]
) -> dict[str, Any]:
    complete = {str(part): at for part, at in sorted(since.items())}
    found["index"] = {**about, "complete_from": complete, "keys": "verified"}
    found["asked"] = asked.plain()
    return found


def _checkpoints(folder: Path) -> list[Checkpoint]:
    """Those announced there; of two with one name the later."""
    if not checkpoints_path(folder).is_file():
        return []
    ledger = LocalLedger(checkpoints_path(folder))
    try:
        return list({one.name: one for one in read_checkpoints(ledger.catch_up())}.values())
    finally:
        ledger.close()


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
    """As a finished replay left it; of a service, as its alerts told of it last."""
    path = folder / common.INCIDENTS
    if path.is_file():
        known = list(_records(path, lambda line: line | {"id": line["id"]}))
    else:
        path = folder / "alerts.jsonl"
        try:
            known = common.told_incidents(folder)
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise StateError(f"{path}: holds a line that is no alert") from error
    for found in known:
        if name in (found["id"], *(part["id"] for part in found.get("parts", ()))):
            return found
    raise MissingError(f"No incident {name!r} is in {path}.")
