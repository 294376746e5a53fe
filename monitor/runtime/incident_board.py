"""The incidents of the partitions at hand, merged, for people and for metrics.

What is known of them is a part of each partition's state, so the board only looks at the latest
committed states: after a restart, or when a partition comes from another replica, nothing is
missing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monitor.core.incident import IncidentKind
from monitor.core.ports import CommitUnit
from monitor.decide.incident_account import account
from monitor.decide.incident_merge import merge
from monitor.decide.incident_state import IncidentBook

STATES = ("open", "closed")


@dataclass(frozen=True, slots=True)
class IncidentSnapshot:
    """The incidents at one moment.

    Attributes
    ----------
    incidents
        Accounts, the latest first; the open ones before the closed.
    count
        Number of incidents by state and family, which for faults of the data is ``data_fault``.
    changes
        Number of changes since the process began, by change and family.
    """

    incidents: tuple[dict[str, Any], ...] = ()
    count: Mapping[tuple[str, str], int] = field(default_factory=dict)
    changes: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def get(self, identifier: str) -> dict[str, Any] | None:
        """The incident of that name, or of which it is a part; None when there is none."""
        for found in self.incidents:
            if found["id"] == identifier or any(p["id"] == identifier for p in found["parts"]):
                return found
        return None

    def matching(self, state: str | None = None, family: str | None = None) -> list[dict[str, Any]]:
        """Those in a state and of a family (or kind); None for any."""
        return [
            found
            for found in self.incidents
            if state in (None, found["state"]) and family in (None, found["family"], found["kind"])
        ]


class IncidentBoard:
    """Observer of a :class:`~monitor.runtime.service.Service`. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._books: dict[int, IncidentBook] = {}
        self._changes: dict[tuple[str, str], int] = {}
        self._made: tuple[tuple[IncidentBook, ...], IncidentSnapshot] | None = None

    def holds(self, partition: int, state: Any) -> None:
        """The committed state of a partition is ``state`` now; None when it went elsewhere."""
        book = getattr(state, "incidents", None)
        with self._lock:
            if book is None:
                self._books.pop(partition, None)
            else:
                self._books[partition] = book

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Count the changes of a micro-batch."""
        with self._lock:
            for part in unit.parts:
                for change in part.decisions.changes:
                    name = (change.change.value, str(change.incident["family"]))
                    self._changes[name] = self._changes.get(name, 0) + 1

    def snapshot(self) -> IncidentSnapshot:
        """The incidents now. What has not changed is not put together again."""
        with self._lock:
            books, changes = dict(self._books), dict(self._changes)
            made = self._made
        now = tuple(books.values())
        if made is not None and len(made[0]) == len(now) and all(map(_is, made[0], now)):
            found = made[1]
        else:
            found = _put_together(books)
            with self._lock:
                self._made = (now, found)
        return IncidentSnapshot(found.incidents, found.count, changes)


def _is(a: object, b: object) -> bool:
    return a is b


def accounts(partition: int, book: IncidentBook) -> Sequence[dict[str, Any]]:
    """All incidents of a partition that did not become a part of others."""
    return [
        {**account(incident, book.columns, book.traffic), "partition": partition}
        for incident in (*book.closed, *book.open)
        if not incident.merged
    ]


def _put_together(books: Mapping[int, IncidentBook]) -> IncidentSnapshot:
    whole = merge(found for p, book in books.items() for found in accounts(p, book))
    whole.sort(key=lambda found: (found["state"] != "open", -found["last"]["ts"], found["id"]))
    count: dict[tuple[str, str], int] = {}
    for found in whole:
        fault = found["kind"] == IncidentKind.DATA_FAULT
        name = (str(found["state"]), str(found["kind"] if fault else found["family"]))
        count[name] = count.get(name, 0) + 1
    return IncidentSnapshot(tuple(whole), count)
