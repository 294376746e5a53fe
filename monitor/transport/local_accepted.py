"""Reads what a local run let through: accepted lines, up to what is committed.

An accepted line is the next one of the decisions to pass, or one that somebody released; the
event's id tells which, and so where the line stood in the input.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from monitor.core.blast import NOWHERE, AcceptedBatch
from monitor.core.errors import TransportError
from monitor.transport.local_journal import failed, last_entry

LINES, BYTES, DECISIONS = 0, -1, -2
"""Parts of the source: lines and bytes that were read, and bytes of decisions."""
_CHUNK_BYTES = 1 << 20
_PAUSE = 0.05
_PASS = b'"action":"pass"'


class _Decision(msgspec.Struct, gc=False):
    line: int
    id: Any = None
    partition: int = 0
    action: str = ""
    key_id: str | None = None


class _Event(msgspec.Struct, gc=False):
    id: Any = None


_decision_of = msgspec.json.Decoder(_Decision).decode
_event_of = msgspec.json.Decoder(_Event).decode


class LocalAccepted:
    """The file of accepted lines as a :class:`~monitor.core.ports.AcceptedSource`.

    Parameters
    ----------
    folder
        Where the run keeps its journal and decisions.
    path
        The accepted lines; ``accepted.jsonl`` in the folder by default.
    """

    def __init__(self, folder: Path, path: Path | None = None) -> None:
        self._folder = folder
        self._path = folder / "accepted.jsonl" if path is None else path
        self._places = {LINES: 0, BYTES: 0, DECISIONS: 0}

    def start(self, places: Mapping[int, int]) -> None:
        """Go on behind these lines."""
        self._places = {part: places.get(part, 0) for part in (LINES, BYTES, DECISIONS)}

    def read(self, timeout_seconds: float) -> AcceptedBatch:
        """What was committed since, about a megabyte at a time.

        Raises
        ------
        TransportError
            When a file cannot be read.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            entry = last_entry(self._folder / ".monitor")
            lengths = entry.lengths if entry is not None else {}
            end, decided = lengths.get("accepted", 0), lengths.get("decisions", 0)
            if entry is not None and end < self._places[BYTES]:
                # A power cut took lines away, or another run began: nothing holds any more.
                self._places = {LINES: 0, BYTES: 0, DECISIONS: 0}
                return AcceptedBatch(places=dict(self._places), anew=True)
            if self._places[BYTES] < end:
                return self._take(end, decided)
            left = deadline - time.monotonic()
            if left <= 0:
                return AcceptedBatch(places=dict(self._places))
            time.sleep(min(_PAUSE, left))

    def _take(self, end: int, decided: int) -> AcceptedBatch:
        start = self._places[BYTES]
        lines = self._lines(self._path, start, end)
        first, now = self._places[LINES], time.time()
        told = self._told([_id(line) for line in lines], decided)
        reached = start + sum(map(len, lines)) + len(lines)
        self._places = self._places | {LINES: first + len(lines), BYTES: reached}
        return AcceptedBatch(
            part=[0] * len(lines),
            pos=range(first, first + len(lines)),
            at=[now] * len(lines),
            values=lines,
            origin=[NOWHERE if one is None else (one.partition, one.line - 1) for one in told],
            places=dict(self._places),
            behind=(end - reached) * len(lines) // max(1, reached - start),
            keys=[None if one is None else one.key_id for one in told],
        )

    def _told(self, ids: Sequence[Any], decided: int) -> list[_Decision | None]:
        """What was decided about lines with these ids, in order; moves on in the decisions."""
        found: list[_Decision | None] = []
        path, at = self._folder / "decisions.jsonl", self._places[DECISIONS]
        waiting: list[tuple[int, _Decision | None]] = []
        for name in ids:
            while not waiting and at < decided:
                lines = self._lines(path, at, decided)
                ends = at
                for line in lines:
                    ends += len(line) + 1
                    told = _decision_of(line) if _PASS in line else None
                    waiting.append((ends, told if told and told.action == "pass" else None))
                waiting = [one for one in waiting if one[1] is not None] or waiting[-1:]
                if waiting[0][1] is None:  # none of these passed
                    at = waiting.pop()[0]
            if waiting and waiting[0][1] is not None and waiting[0][1].id == name:
                at, told = waiting.pop(0)
                found.append(told)
            else:
                found.append(None)
        self._places = self._places | {DECISIONS: at}
        return found

    def _lines(self, path: Path, start: int, end: int) -> list[bytes]:
        """Whole lines from ``start``, and at least one."""
        try:
            with path.open("rb") as stream:
                stream.seek(start)
                data = stream.read(min(_CHUNK_BYTES, end - start))
                if not data.endswith(b"\n"):
                    data += stream.readline()
        except OSError as error:
            raise failed("read", path, error) from error
        if not data.endswith(b"\n"):
            raise TransportError(f"{path} is shorter than its journal says: read again")
        return data.split(b"\n")[:-1]

    def ends(self) -> Mapping[int, int]:
        """How many lines there are; told once all that is committed was read."""
        entry = last_entry(self._folder / ".monitor")
        end = entry.lengths.get("accepted", 0) if entry is not None else 0
        return {LINES: self._places[LINES]} if self._places[BYTES] == end else {}

    def close(self) -> None:
        """Nothing is kept open."""


def _id(line: bytes) -> Any:
    try:
        return _event_of(line).id
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def default_path(folder: Path) -> Path:
    """Where the index of a local run lies, beside its journal."""
    return folder / ".monitor" / "accepted.db"


def checkpoints_path(folder: Path) -> Path:
    """Where the checkpoints of a local run are announced."""
    return folder / ".monitor" / "checkpoints.jsonl"
