"""A whole desk in memory, with realistic data, for the interface, the console and the terminal.

``FakeDesk()`` is ready at once: 2,000 held events, six policy versions, an audit trail. What is
reviewed or changed stays so for as long as the object lives. ``attack(n)`` holds more events now.
"""

from __future__ import annotations

import base64
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from monitor.core.desk import (
    AuditEntry,
    Change,
    Held,
    HeldFilter,
    HeldPage,
    MissingError,
    Observed,
    ReviewOutcome,
    ReviewStatus,
)
from monitor.core.drill import Drill, DrillPlan, DrillState
from monitor.core.errors import UsageError
from monitor.runtime.inject import ATTACKS
from tests.unit.admin.fake_blast import FakeBlast
from tests.unit.admin.fake_data import held_events, one_held
from tests.unit.admin.fake_policy import FakePolicy

Noted = Callable[[str, str, str, dict[str, Any]], None]
CAP = 1000


class FakeQuarantine:
    """A :class:`~monitor.admin.desk.QuarantineDesk` in a dictionary."""

    def __init__(self, events: Sequence[Held], noted: Noted) -> None:
        self._lock = threading.RLock()
        self._events = {held.key: held for held in events}
        self._noted = noted
        self.clock: Callable[[], float] = time.time
        self.released_bytes: list[bytes] = []
        """What a learner would have got, in order."""

    def add(self, held: Held) -> None:
        with self._lock:
            self._events[held.key] = held

    def _chosen(self, chosen: HeldFilter) -> list[Held]:
        with self._lock:
            found = [held for held in self._events.values() if meant(held, chosen)]
        return sorted(found, key=lambda held: (-held.held_at, held.key))

    def search(self, chosen: HeldFilter, limit: int = 50, cursor: str | None = None) -> HeldPage:
        found = self._chosen(chosen)
        start = _after(cursor, found)
        page = [replace(held, value=b"", decision={}) for held in found[start : start + limit]]
        more = start + limit < len(found)
        return HeldPage(page, len(found), _cursor(page[-1]) if more and page else None)

    def get(self, key: str) -> Held:
        if key not in self._events:
            raise MissingError(f"no held event {key!r}; it may have been erased or have expired")
        return self._events[key]

    def counts(self, chosen: HeldFilter) -> Mapping[str, Mapping[str, int]]:
        found = self._chosen(chosen)
        return {
            "family": dict(Counter(f for held in found for f in held.families)),
            "source": dict(Counter(held.source for held in found).most_common(20)),
            "label": dict(Counter(held.label for held in found)),
            "status": dict(Counter(held.status.value for held in found)),
        }

    def release(
        self, chosen: HeldFilter, *, who: str, why: str, dry_run: bool = False
    ) -> ReviewOutcome:
        return self._review("release", ReviewStatus.RELEASED, chosen, (who, why, dry_run))

    def confirm(
        self, chosen: HeldFilter, *, who: str, why: str, dry_run: bool = False
    ) -> ReviewOutcome:
        return self._review("confirm", ReviewStatus.CONFIRMED, chosen, (who, why, dry_run))

    def _review(
        self, verb: str, status: ReviewStatus, chosen: HeldFilter, how: tuple[str, str, bool]
    ) -> ReviewOutcome:
        who, why, dry_run = how
        with self._lock:
            found = self._chosen(chosen)
            if len(found) > CAP:
                raise UsageError(f"{len(found)} events at once; at most {CAP}: narrow the filter")
            missing = [key for key in chosen.keys or () if key not in self._events]
            refused = dict.fromkeys(missing, "there is no such event")
            done = [held for held in found if held.status == ReviewStatus.OPEN]
            already = tuple(held.key for held in found if held.status == status)
            for held in found:
                if held.status not in (ReviewStatus.OPEN, status):
                    refused[held.key] = f"{held.reviewed_by} has {held.status.value} it"
            if not dry_run:
                now = self.clock()
                for held in done:
                    self._events[held.key] = replace(
                        held, status=status, reviewed_by=who, reviewed_at=now, review_reason=why
                    )
                    if verb == "release":
                        self.released_bytes.append(held.value)
                if done:
                    self._noted(who, verb, why, {"events": len(done)})
        return ReviewOutcome(
            verb, dry_run, tuple(held.key for held in done), already, refused,
            dict(Counter(held.source for held in done).most_common(20)),
            dict(Counter(held.label for held in done)),
        )  # fmt: skip

    def erase(self, source: str, *, who: str, why: str, dry_run: bool = False) -> int:
        with self._lock:
            keys = [key for key, held in self._events.items() if held.source == source]
            if not dry_run:
                for key in keys:
                    del self._events[key]
                self._noted(who, "erase", why, {"source": source, "events": len(keys)})
        return len(keys)

    def observed(self) -> Observed:
        status = Counter(held.status for held in self._events.values())
        held, judged = len(self._events), 1_200_000
        released, confirmed = status[ReviewStatus.RELEASED], status[ReviewStatus.CONFIRMED]
        reviewed = released + confirmed
        return Observed(
            promised=0.001, judged=judged, held=held, released=released, confirmed=confirmed,
            at_least=released / judged,
            estimated=held * released / reviewed / judged if reviewed else None,
        )  # fmt: skip

    def source(self, name: str) -> Mapping[str, Any]:
        found = self._chosen(HeldFilter(source=name))
        if not found:
            raise MissingError(f"nothing of source {name!r} has been held back")
        days = Counter(time.strftime("%Y-%m-%d", time.gmtime(held.held_at)) for held in found)
        return {
            "source": name,
            "held": len(found),
            "by_status": dict(Counter(held.status.value for held in found)),
            "by_day": dict(sorted(days.items())),
            "by_family": dict(Counter(f for held in found for f in held.families)),
            "first_seen": found[-1].held_at,
            "last_seen": found[0].held_at,
        }


def meant(held: Held, chosen: HeldFilter) -> bool:
    """Whether the filter means this event."""
    pairs = (
        (chosen.source, held.source),
        (chosen.subject, held.subject),
        (chosen.label, held.label),
        (chosen.incident, held.incident),
        (chosen.status, held.status),
    )
    texts = (held.key, held.event_id, held.source, held.subject or "", held.label)
    return (
        all(wanted is None or wanted == there for wanted, there in pairs)
        and (chosen.keys is None or held.key in chosen.keys)
        and (chosen.since is None or held.held_at >= chosen.since)
        and (chosen.until is None or held.held_at < chosen.until)
        and (chosen.detector is None or chosen.detector in held.detectors)
        and (chosen.family is None or chosen.family in held.families)
        and (chosen.risk_at_least is None or held.risk >= chosen.risk_at_least)
        and (chosen.text is None or any(chosen.text.lower() in text.lower() for text in texts))
    )


def _cursor(held: Held) -> str:
    return base64.urlsafe_b64encode(f"{held.held_at!r} {held.key}".encode()).decode()


def _after(cursor: str | None, found: Sequence[Held]) -> int:
    if cursor is None:
        return 0
    try:
        at, key = base64.b64decode(cursor, b"-_", validate=True).decode().split(" ")
        place = (-float(at), key)
    except ValueError as error:
        raise UsageError("cursor: not one that a page gave; start without it") from error
    return sum((-held.held_at, held.key) <= place for held in found)


class FakeLog:
    """A :class:`~monitor.admin.desk.AuditDesk` in a list."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    def audit(self, limit: int = 100, before: float | None = None) -> Sequence[AuditEntry]:
        found = sorted(self.entries, key=lambda entry: -entry.when)
        return [entry for entry in found if before is None or entry.when < before][:limit]

    def note(self, entry: AuditEntry) -> None:
        self.entries.append(entry)


class FakeDrills:
    """A :class:`~monitor.admin.desk.DrillDesk` whose drills are over at once, all but one held."""

    def __init__(self, noted: Noted) -> None:
        self._drills: list[Drill] = []
        self._noted = noted
        self.quiet = False

    def start(self, plan: DrillPlan, *, who: str, why: str) -> Drill:
        if plan.attack and plan.attack not in ATTACKS:
            raise UsageError(f"unknown attack {plan.attack!r}")
        n, name = plan.canaries, f"{len(self._drills):010x}"
        drill = Drill(name, plan, DrillState.DONE, who, why, 1.0, 2.0, n, n, n - 1)
        if self.quiet:
            drill = replace(drill, state=DrillState.FAILED, sent=0, held=0, note="No event came.")
        self._drills.append(drill)
        self._noted(who, "drill done", why, {"drill": drill.id})
        return drill

    def stop(self, drill_id: str, *, who: str) -> Drill:
        return self.get(drill_id)

    def get(self, drill_id: str) -> Drill:
        for drill in self._drills:
            if drill.id == drill_id:
                return drill
        raise MissingError(f"There is no drill {drill_id}.")

    def list(self) -> Sequence[Drill]:
        return self._drills[::-1]


class FakeDesk:
    """A :class:`~monitor.admin.desk.Desk`.

    Parameters
    ----------
    held, events
        How many events are held back, and how many a what-if looks at.
    now
        Unix seconds that count as the present for the data; the clock's by default.
    two_person
        Whether changes of an enforcing policy wait for a second person.
    """

    def __init__(
        self,
        held: int = 2000,
        events: int = 50_000,
        now: float | None = None,
        two_person: bool = False,
    ) -> None:
        ahead = 0.0 if now is None else now - time.time()
        self.clock: Callable[[], float] = lambda: time.time() + ahead
        self.began = self.clock()
        self.log = FakeLog()
        self.drills = FakeDrills(self._noted)
        self.blast = FakeBlast(self._noted, now=self.began)
        self.policy = FakePolicy(self.began, events, two_person)
        self.policy.clock = self.clock
        for change in self.policy.history():
            self._changed(change)
        self.policy.listeners.append(self._changed)
        self._rng = np.random.default_rng(3)
        self._number = held
        self.quarantine = FakeQuarantine(held_events(held, self.began), self._noted)
        self.quarantine.clock = self.clock
        self.quarantine.confirm(
            HeldFilter(source="ring-1-000"), who="ben", why="The ring of last week"
        )
        some = self.quarantine.search(HeldFilter(family="replay"), limit=12).items
        self.quarantine.release(
            HeldFilter(keys=tuple(held.key for held in some)),
            who="ana",
            why="A retry of the shop's",
        )

    def _noted(self, who: str, what: str, why: str, details: dict[str, Any]) -> None:
        self.log.note(AuditEntry(self.clock(), who, what, why, details))

    def _changed(self, change: Change) -> None:
        details = {"version": change.version, "base": change.base}
        self.log.note(
            AuditEntry(change.when, change.who, f"policy {change.kind}", change.why, details)
        )

    def attack(self, events: int) -> None:
        """Hold so many more events, now."""
        now = self.clock()
        for _ in range(events):
            self._number += 1
            self.quarantine.add(one_held(self._number, now, now, self._rng))

    def status(self) -> Mapping[str, Any]:
        """As the service's; the counts rise by 400 events a second."""
        counts = self.quarantine.counts(HeldFilter())
        passed = int(400 * max(0.0, self.clock() - self.began))
        held = sum(counts["status"].values())
        events = 1_200_000 + passed
        flagged = events // 130
        verdicts = {
            "accept": events - flagged - held - 12,
            "flag": flagged,
            "quarantine": held,
            "invalid": 12,
        }
        now = self.policy.current()
        return {
            "ready": True,
            "stopped": None,
            "started_at": self.began - 3000.0,
            "uptime_seconds": 3000.0 + passed / 400,
            "idle_seconds": 0.02,
            "partitions": {str(p): events // 4 for p in range(4)},
            "views": {},
            "lag_events": 0,
            "events": events,
            "batches": events // 900,
            "warmup": 512,
            "verdicts": verdicts,
            "actions": {"pass": events - held - 12, "hold": held, "reject": 12},
            "families": dict(counts["family"]),
            "rejects": {"not_json": 9, "missing_field": 3},
            "classes": {
                "legit": {"accept": verdicts["accept"] * 4 // 5, "flag": flagged // 2,
                          "quarantine": counts["label"].get("legit", 0)},
                "fraud": {"accept": verdicts["accept"] // 5, "flag": flagged // 2,
                          "quarantine": counts["label"].get("fraud", 0)},
            },
            "rates": {"10s": 400.0, "60s": 398.2},
            "stage_seconds": {"poll": 12.0, "judge": 95.0, "commit": 21.0},
            "last_batch_seconds": {"poll": 0.01, "judge": 0.09, "commit": 0.02},
            "batch_seconds": {"p50": 0.11, "p99": 0.19},
            "policy_version": now.version,
            "mode": now.policy["mode"],
            "notices": [],
        }  # fmt: skip
