"""Facts from a folder: of a replay, or of a service on files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from monitor.cli import common
from monitor.cli.blast_folder import blast_of
from monitor.cli.report_data import read_decisions
from monitor.cli.reports.counting import Counting, Of
from monitor.cli.reports.facts import (
    Facts,
    People,
    Record,
    apart,
    backlog_of,
    clock,
    seconds_of,
    sorted_actions,
    versions,
    within,
)
from monitor.core.blast import Asked
from monitor.core.desk import HeldFilter, ReviewStatus
from monitor.core.errors import MonitorError, StateError, UsageError
from monitor.core.incident import IncidentKind
from monitor.core.runbooks import runbook
from monitor.decide.incident_facts import short

if TYPE_CHECKING:
    from monitor.store.held_store import HeldStore

DECISIONS, ALERTS = "decisions.jsonl", "alerts.jsonl"
CONTROL = Path(".monitor") / "control.jsonl"
AROUND, LEAST_AROUND = 0.15, 30.0
"""How much of an incident's length is shown before and behind it, and at least how many seconds."""
MOST_ACTIONS = 1_000
SHOWN = 20
TAUGHT = "What the incident has taught the model"
UNCHANGED = (
    "Changes of the policy are not known: the folder has no control ledger. (A replay judges by "
    "one policy and has none.)"
)
STALE = (
    "The account stands as the service last told of it: {:,} events up to {}. It tells again when "
    "an incident has grown by half. Plots, evidence and what passed are of all events since, too."
)
NO_TRAIL = (
    "Decisions by people are not known: the folder has no quarantine store, which keeps reviews, "
    "drills and logins."
)


class _Glance(msgspec.Struct, gc=False):
    ts: Any = None
    source: Any = None
    incident: Any = None


class Folder:
    """A folder with decisions.

    Raises
    ------
    UsageError
        When it is none.
    StateError
        When its files were changed by something else.
    """

    def __init__(self, path: Path) -> None:
        if not (path / DECISIONS).is_file():
            raise UsageError(
                f"--dir: {path} has no {DECISIONS}; name a folder that `replay --out` or "
                "`run --out` wrote"
            )
        self.path = path
        self.finished = (path / common.INCIDENTS).is_file()
        self.incidents = [_with_runbook(one) for one in _incidents(path)]
        told = _lines(path / ALERTS)
        self._merged = {a["id"]: a["merged_into"] for a in told if a.get("merged_into")}

    def bounds(self) -> tuple[float, float]:
        """The times of the earliest and the latest event; (0, 0) where none has a time."""
        first, last = math.inf, -math.inf
        for told in self._glances():
            at = seconds_of(told.ts)
            first, last = (first, last) if at is None else (min(first, at), max(last, at))
        return (first, last) if first <= last else (0.0, 0.0)

    def events_of(self, ids: Collection[str]) -> tuple[float, Counter[str]]:
        """The time of the latest event of the incidents ``ids``, and how many each source sent."""
        last, sent = -math.inf, Counter[str]()
        for told in self._glances():
            if told.incident in ids:
                at = seconds_of(told.ts)
                last = last if at is None else max(last, at)
                sent[short(str(told.source))] += 1
        return last, sent

    def _glances(self) -> Iterator[_Glance]:
        """A little of each decision, in order: much faster than all of it."""
        decode = msgspec.json.Decoder(_Glance).decode
        with (self.path / DECISIONS).open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield decode(line)
                except msgspec.MsgspecError as error:
                    raise StateError(
                        f"{self.path / DECISIONS}: line {number} is not a decision record"
                    ) from error

    def get(self, identifier: str) -> Record:
        """One incident, also by the name of one that became part of it. Raises UsageError."""
        into = identifier
        for _ in self._merged:  # each may have become part of a later one
            into = self._merged.get(into, into)
        for one in self.incidents:
            if into in (one["id"], *(part["id"] for part in one.get("parts", ()))):
                return one
        largest = ", ".join(one["id"] for one in apart(self.incidents)[0][:3])
        hint = f"; the largest are {largest}" if largest else ": none was found there"
        raise UsageError(f"--incident: {self.path} has no incident {identifier[:64]!r}{hint}")

    def merged_into(self, identifier: str) -> set[str]:
        """An incident and those that became part of it."""
        found, before = {identifier}, 0
        while len(found) > before:
            before = len(found)
            found |= {one for one, into in self._merged.items() if into in found}
        return found

    def count(self, counting: Counting) -> Counting:
        """Have all decisions counted."""
        for record in read_decisions(self.path / DECISIONS):
            counting.add(record)
        return counting

    def people(self, start: float, end: float, incident: str | None) -> tuple[People, list[str]]:
        """What people decided from ``start`` to ``end``, and what of it is not known."""
        people, missing = People(), []
        control = self.path / CONTROL
        if control.is_file():
            people.policy = versions(_policies(control), start, end)
        else:
            missing.append(UNCHANGED)
        try:
            with _store(self.path) as store:
                if store is None:
                    return people, [*missing, NO_TRAIL]
                entries = [asdict(entry) for entry in store.audit(MOST_ACTIONS, None)]
                if incident is not None:
                    people.reviews = dict(store.counts(HeldFilter(incident=incident))["status"])
        except MonitorError as error:
            return people, [*missing, f"Decisions by people are not known: {error}"]
        sorted_actions(people, (one for one in entries if start <= one["when"] <= end))
        return people, missing

    def backlog(self, before: float) -> Record | None:
        """Held events that nobody has decided about; None where no store keeps them."""
        try:
            with _store(self.path) as store:
                if store is None:
                    return None
                status = ReviewStatus.OPEN
                return backlog_of(
                    lambda until=None: store.counts(HeldFilter(status=status, until=until)), before
                )
        except MonitorError:
            return None  # people() has said why


def incident_facts(path: Path, identifier: str, now: float) -> Facts:
    """The facts about one incident.

    Parameters
    ----------
    path
        The folder.
    identifier
        The incident's, or that of a part of it.
    now
        Unix seconds; people may have acted until then.
    """
    folder = Folder(path)
    found = folder.get(identifier)
    first, last = float(found["first"]["ts"]), float(found["last"]["ts"])
    around = max(AROUND * (last - first), LEAST_AROUND)
    ids = folder.merged_into(found["id"])
    latest, sent = folder.events_of(Of.incident(found, ids).ids)
    of, last = Of.incident(found, ids, sent), max(last, latest)
    counted = folder.count(Counting(first - around, last + around, of))
    facts = _facts("incident", folder, counted, now)
    facts.incident = found
    if found["kind"] != IncidentKind.DATA_FAULT:  # whose events are everybody's
        facts.passed = counted.passed(hostile=found["kind"] == IncidentKind.CAMPAIGN)
    facts.incidents = [one for one in facts.incidents if one["id"] != found["id"]]
    facts.data_faults = [one for one in facts.data_faults if one["id"] != found["id"]]
    try:
        facts.blast = blast_of(path, Asked(incident=found["id"]), SHOWN)
    except MonitorError as error:
        facts.missing.append(f"{TAUGHT} could not be read: {error}")
    facts.people, missing = folder.people(first - around, max(now, last), found["id"])
    facts.missing += missing
    if not folder.finished and last > found["last"]["ts"]:
        facts.missing.append(STALE.format(found["events"], clock(found["last"]["ts"])))
    return facts


def period_facts(path: Path, start: float | None, end: float | None, now: float) -> Facts:
    """The facts about the time from ``start`` to ``end``; None for all there is."""
    folder = Folder(path)
    if start is None or end is None:
        first, last = folder.bounds()
        start = first if start is None else start
        end = max(last, start) if end is None else end
    counted = folder.count(Counting(start, end))
    facts = _facts("period", folder, counted, now)
    facts.people, missing = folder.people(start, end, None)
    facts.missing += missing
    if not counted.tally.events:
        facts.missing.append("There is no event in this time.")
    return facts


def _facts(report: str, folder: Folder, counted: Counting, now: float) -> Facts:
    near = [one for one in folder.incidents if within(one, counted.start, counted.end)]
    incidents, faults = apart(near)
    return Facts(
        report,
        str(folder.path),
        now,
        counted.start,
        counted.end,
        incidents=incidents,
        data_faults=faults,
        traffic=counted.traffic(),
        evidence=counted.evidence(),
    )


def _incidents(path: Path) -> list[Record]:
    """As a finished replay left them; of a service, as its alerts told of them last."""
    finished = path / common.INCIDENTS
    if finished.is_file():
        return list(_lines(finished))
    try:
        return common.told_incidents(path)
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise StateError(f"{path / ALERTS}: holds a line that is no alert") from error


def _with_runbook(incident: Record) -> Record:
    return incident | {"runbook": runbook(str(incident["kind"]), str(incident["family"]))}


def _lines(path: Path) -> Iterator[Record]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise StateError(f"{path}: line {number} is not JSON") from error


def _policies(path: Path) -> list[Record]:
    """All versions of the policy, the first one first. Read without the ledger's lock."""
    from monitor.state.control import ControlState, fold  # noqa: PLC0415 - slow to import
    from monitor.transport.local_ledger import decode_rows  # noqa: PLC0415

    rows = [row for line in path.read_bytes().splitlines() for row in decode_rows(line) or ()]
    applied = fold(ControlState(), rows).applied
    return [asdict(applied[number].full()) for number in sorted(applied)]


@contextmanager
def _store(folder: Path) -> Iterator[HeldStore | None]:
    """The quarantine's store; None where the folder has none."""
    from monitor.store.database import Database, sqlite_url  # noqa: PLC0415 - slow to import
    from monitor.store.held_store import HeldStore  # noqa: PLC0415
    from monitor.transport.local_held import default_path  # noqa: PLC0415

    path = default_path(folder)
    if not path.is_file():
        yield None
        return
    store = HeldStore(Database(sqlite_url(path)), "local")
    try:
        yield store
    finally:
        store.close()
