"""Reads what a local run holds back: decisions and held lines, up to what is committed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from monitor.core.held import HeldBatch, HeldRecord, Original
from monitor.transport.local_journal import failed, last_entry

DECISIONS, HELD = 0, 1
"""Parts of the source: bytes that were read of each file."""
_NAMES = {DECISIONS: "decisions", HELD: "quarantined"}
_CHUNK_BYTES = 1 << 20
_PAUSE = 0.05
_HOLD = b'"action":"hold"'
_INVALID = b'"verdict":"invalid"'


class _Place(msgspec.Struct, gc=False):
    line: int
    partition: int = 0
    action: str = ""
    verdict: str = ""


_place_of = msgspec.json.Decoder(_Place).decode


class LocalHeld:
    """``quarantined.jsonl`` and ``decisions.jsonl`` of a folder that a service writes to.

    Both are in the input's order, so the held lines are those of the decisions to hold.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places = {DECISIONS: 0, HELD: 0}

    def start(self, places: Mapping[int, int]) -> None:
        """Go on behind these bytes."""
        self._places = {part: places.get(part, 0) for part in _NAMES}

    def read(self, timeout_seconds: float) -> HeldBatch:
        """What was committed since, about a megabyte of decisions at a time.

        Raises
        ------
        TransportError
            When a file cannot be read.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            entry = last_entry(self._folder / ".monitor")
            lengths = entry.lengths if entry is not None else {}
            ends = {part: lengths.get(name, 0) for part, name in _NAMES.items()}
            if any(self._places[part] > ends[part] for part in _NAMES):
                # A power cut took what was not on the disk yet; it is judged again, the same.
                self._places = ends
            if self._places[DECISIONS] < ends[DECISIONS]:
                return self._take(ends)
            left = deadline - time.monotonic()
            if left <= 0:
                return HeldBatch(places=dict(self._places))
            time.sleep(min(_PAUSE, left))

    def _take(self, ends: Mapping[int, int]) -> HeldBatch:
        lines = self._decisions(ends[DECISIONS])
        judged = sum(1 for line in lines if _INVALID not in line or not _is(line, "invalid"))
        held = [line for line in lines if _HOLD in line and _is(line, "hold")]
        path = self._folder / f"{_NAMES[HELD]}.jsonl"
        values: list[bytes] = []
        if held:
            try:
                with path.open("rb") as stream:
                    stream.seek(self._places[HELD])
                    values = list(itertools.islice(stream, len(held)))
            except OSError as error:
                raise failed("read", path, error) from error
        self._places = {
            DECISIONS: self._places[DECISIONS] + sum(map(len, lines)),
            HELD: self._places[HELD] + sum(map(len, values)),
        }
        records = []
        for decision, value in zip(held, values, strict=False):
            place = _place_of(decision)
            original = Original(place.partition, place.line - 1, value.removesuffix(b"\n"))
            records.append(HeldRecord(original, decision.removesuffix(b"\n")))
        return HeldBatch(records, dict(self._places), judged)

    def _decisions(self, end: int) -> list[bytes]:
        """Whole lines from where reading stands, and at least one."""
        path = self._folder / f"{_NAMES[DECISIONS]}.jsonl"
        start = self._places[DECISIONS]
        try:
            with path.open("rb") as stream:
                stream.seek(start)
                data = stream.read(min(_CHUNK_BYTES, end - start))
                if not data.endswith(b"\n"):
                    data += stream.readline()
        except OSError as error:
            raise failed("read", path, error) from error
        return [line + b"\n" for line in data.split(b"\n")[:-1]]

    def close(self) -> None:
        """Nothing is kept open."""


def _is(line: bytes, word: str) -> bool:
    """Whether that word is said of the event, and not by it in a text."""
    place = _place_of(line)
    return word in (place.action, place.verdict)


def default_path(folder: Path) -> Path:
    """Where the store of a local run lies, beside its journal."""
    return folder / ".monitor" / "quarantine.db"
