"""The desk of the quarantine: what people see of held events, and what they do with them.

Reviews go one after the other among all threads and instances
(:class:`~monitor.core.ports.Reviewer`): whoever reviews first brings the store up to the end of
the reviews ledger, then decides, then commits, so that no event is reviewed twice. The ledger is
what counts; the store is read from it.
"""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitor.core.desk import (
    AuditEntry,
    Change,
    Held,
    HeldFilter,
    HeldPage,
    Observed,
    ReviewOutcome,
    ReviewStatus,
)
from monitor.core.errors import MonitorError, UsageError
from monitor.core.held import Original, Reviews, held_key, parse_key
from monitor.core.ports import CommitUnit, Reviewer
from monitor.core.provenance import DETECTOR as PROVENANCE
from monitor.runtime.quarantine_follower import Clock, Follower
from monitor.runtime.reviewing import operation, until_done
from monitor.store.filters import is_open
from monitor.store.held_store import HeldStore, Mark
from monitor.store.ledger_rows import Operation, erase_row, operation_row, review_row
from monitor.store.rows import short, source_digest

Confirmed = Callable[[Mapping[str, int], str, str], None]
Changes = Callable[[int, float | None], Sequence[Change]]

REMAINS = (
    "Gone from the quarantine store and the index of accepted events. Beyond their reach: the "
    "topics or files of the stream themselves, until their retention ends or somebody deletes "
    "them; entries of the audit trail; backups; and other instances' stores until they have heard "
    "of it."
)
MAX_PAGE = 1000
_SLICE = 20
_MAX_BYTES = 16 << 20
"""Of events in one release's transaction; what is left goes into the next."""
_STATUS = {"release": ReviewStatus.RELEASED, "confirm": ReviewStatus.CONFIRMED}


@dataclass(frozen=True, slots=True)
class Outside:
    """What the desk asks of the rest of the service.

    Attributes
    ----------
    promised
        The share of honest events that the policy accepts to see held back.
    confirmed
        Told of confirmed events: numbers by source, who, why. Called after they are recorded.
    changes
        Policy changes for the audit trail, the latest first: at most so many, before a time.
    accepted
        How many events of a source the index of accepted events has, and up to which place of
        each partition.
    audited
        Told of reviews and erasures when they are done, for the audit chain.
    notice
        Gets sentences for the operator.
    """

    promised: Callable[[], float] = lambda: 0.0
    confirmed: Confirmed | None = None
    changes: Changes | None = None
    accepted: Callable[[str], tuple[int, Mapping[int, int]]] = lambda _: (0, {})
    audited: Callable[[AuditEntry], None] = lambda _: None
    notice: Callable[[str], None] = lambda _: None


class Quarantine:
    """Implements QuarantineDesk and AuditDesk, and observes commits to count them.

    Parameters
    ----------
    store, follower, reviewer
        The view, what keeps it up to date, and how reviews become visible.
    bulk
        Most events that one call reviews.
    """

    def __init__(
        self,
        store: HeldStore,
        follower: Follower,
        reviewer: Reviewer,
        *,
        outside: Outside | None = None,
        bulk: int = 10_000,
        clock: Clock = time.time,
    ) -> None:
        self._store, self._follower, self._reviewer = store, follower, reviewer
        self._outside = outside or Outside()
        self._bulk, self._clock = bulk, clock

    def start(self) -> None:
        """Begin to follow the stream."""
        self._follower.start()

    def stop(self) -> None:
        """Stop following."""
        self._follower.stop()

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Count a committed micro-batch."""
        self._follower.judged.add(unit)

    def search(self, chosen: HeldFilter, limit: int = 50, cursor: str | None = None) -> HeldPage:
        """Held events, the latest first, without their bytes."""
        if not 1 <= limit <= MAX_PAGE:
            raise UsageError(f"limit must be between 1 and {MAX_PAGE}, not {limit}.")
        return self._store.search(chosen, limit, cursor)

    def get(self, key: str) -> Held:
        """One event with its bytes and its decision."""
        return self._store.get(key)

    def counts(self, chosen: HeldFilter) -> Mapping[str, Mapping[str, int]]:
        """Numbers of the chosen events by ``family``, ``source``, ``label`` and ``status``."""
        return self._store.counts(chosen)

    def source(self, name: str) -> Mapping[str, Any]:
        """History of a source: held events by status, label, day and family; first, last."""
        return self._store.of_source(name)

    def observed(self) -> Observed:
        """The observed false-positive share beside the promised one."""
        found = self._store.totals()
        # After a rebuild there may be reviews of events that are not counted any more.
        held = max(found.held, found.released + found.confirmed)
        judged = max(found.judged, held)
        reviewed = found.released + found.confirmed
        honest = found.released / reviewed if reviewed else None
        return Observed(
            promised=self._outside.promised(),
            judged=judged,
            held=held,
            released=found.released,
            confirmed=found.confirmed,
            at_least=found.released / judged if judged else 0.0,
            estimated=None if honest is None else honest * held / judged,
        )

    def release(
        self, chosen: HeldFilter, *, who: str, why: str, dry_run: bool = False
    ) -> ReviewOutcome:
        """Send the original bytes to the learner's topic, each exactly once."""
        return self._review("release", chosen, who, why, dry_run)

    def confirm(
        self, chosen: HeldFilter, *, who: str, why: str, dry_run: bool = False
    ) -> ReviewOutcome:
        """Mark as poison; counts against their sources from now on."""
        outcome = self._review("confirm", chosen, who, why, dry_run)
        if outcome.done and not dry_run and self._outside.confirmed is not None:
            try:
                self._outside.confirmed(self._their_own(outcome), who, why)
            except Exception as error:  # the events are confirmed: go on, but say so
                told = error if isinstance(error, MonitorError) else repr(error)
                self._outside.notice(f"Confirmed, but not counted against the sources: {told}")
        return outcome

    def _their_own(self, outcome: ReviewOutcome) -> dict[str, int]:
        """Done events by source, without those whose source is only claimed.

        Else whoever cannot sign for a source could still have it suspected.
        """
        counts = Counter(outcome.by_source)
        for i in range(0, len(outcome.done), MAX_PAGE):
            some = HeldFilter(keys=outcome.done[i : i + MAX_PAGE], detector=PROVENANCE)
            counts.subtract(mark.source for mark in self._store.choose(some, MAX_PAGE).values())
        return {source: n for source, n in counts.items() if n > 0}

    def _review(
        self, verb: str, chosen: HeldFilter, who: str, why: str, dry_run: bool
    ) -> ReviewOutcome:
        marks = self._chosen(chosen)
        what = self._operation(verb, who, why, needed=not dry_run)
        chosen_first = tuple(marks)

        def job() -> Reviews | None:
            return self._reviews(what, chosen, chosen_first)

        while not dry_run and (left := _open(marks)):
            self._until_done(job)
            # Of those chosen at first: nothing that came in the meantime.
            marks = self._marks(chosen_first)
            if _open(marks) >= left:
                break
        asked = (*chosen_first, *(chosen.keys or ()))
        outcome = _outcome(what, asked, marks, dry_run=dry_run)
        if outcome.done and not dry_run:
            self._audited(what, {"events": len(outcome.done), "keys": outcome.done})
        return outcome

    def _audited(self, operation: Operation, details: Mapping[str, Any]) -> None:
        o = operation
        told = {"operation": o.id, **details}
        self._outside.audited(AuditEntry(o.when, o.who, o.verb, o.why, told))

    def _chosen(self, chosen: HeldFilter) -> dict[str, Mark]:
        if is_open(chosen):
            raise UsageError("Say which events: at least one condition is needed.")
        marks = self._store.choose(chosen, self._bulk + 1)
        if len(marks) > self._bulk:
            raise UsageError(
                f"More than {self._bulk:,} events are chosen, the most that one call reviews "
                "(quarantine.max_bulk_events): narrow it, or go step by step."
            )
        return marks

    def _marks(self, keys: Sequence[str]) -> dict[str, Mark]:
        found: dict[str, Mark] = {}
        for i in range(0, len(keys), MAX_PAGE):
            some = HeldFilter(keys=tuple(keys[i : i + MAX_PAGE]))
            found |= self._store.choose(some, MAX_PAGE)
        return found

    def _operation(self, verb: str, who: str, why: str, *, needed: bool) -> Operation:
        return operation(verb, who, why, self._clock(), needed=needed)

    def _reviews(
        self, operation: Operation, chosen: HeldFilter, wanted: Sequence[str]
    ) -> Reviews | None:
        """What is to become visible, decided while nobody else reviews."""
        self._follower.sync_reviews()
        now = self._marks(wanted)
        keys = [key for key, mark in now.items() if mark.status is ReviewStatus.OPEN]
        if not keys:
            return None
        begun = any(mark.op == operation.id for mark in now.values())
        summary = [] if begun else [operation_row(operation, _details(chosen, keys, now))]
        originals: tuple[Original, ...] = ()
        if operation.verb == "release":
            originals = self._some_originals(keys)
            keys = [held_key(o.partition, o.offset) for o in originals]
        rows = [review_row(operation, *parse_key(key)) for key in keys]
        return Reviews(rows=[*rows, *summary], released=originals)

    def _some_originals(self, keys: Sequence[str]) -> tuple[Original, ...]:
        """The first of these records as they came: not more than fit into memory at once."""
        found: list[Original] = []
        size = 0
        for i in range(0, len(keys), _SLICE):
            some = self._store.originals(keys[i : i + _SLICE])
            found += [some[key] for key in keys[i : i + _SLICE] if key in some]
            size += sum(len(original.value or b"") for original in some.values())
            if size >= _MAX_BYTES:
                break
        return tuple(found)

    def _until_done(self, job: Callable[[], Reviews | None]) -> None:
        until_done(self._reviewer, self._follower.sync_reviews, job)

    def erase(self, source: str, *, who: str, why: str, dry_run: bool = False) -> int:
        """Remove what is stored of a source, held and accepted; how many events that were.

        :data:`REMAINS` says what stays elsewhere.
        """
        what = self._operation("erase", who, why, needed=not dry_run)
        with contextlib.suppress(MonitorError):  # what cannot be reached cannot be erased either
            self._follower.sync_held()
        events, size, upto = self._store.erasable(source)
        indexed, accepted = self._outside.accepted(source)
        if dry_run or not events + indexed:
            return events + indexed
        digest = source_digest(short(source))
        details = {
            "source_sha256": digest,
            "events": events,
            "bytes": size,
            "accepted_events": indexed,
            "remains": REMAINS,
        }
        rows = [erase_row(what, digest, upto, accepted), operation_row(what, details)]
        self._until_done(lambda: Reviews(rows=rows))
        self._audited(what, details)
        return events + indexed

    def audit(self, limit: int = 100, before: float | None = None) -> Sequence[AuditEntry]:
        """Changes, reviews, erasures and logins, the latest first."""
        if not 1 <= limit <= MAX_PAGE:
            raise UsageError(f"limit must be between 1 and {MAX_PAGE}, not {limit}.")
        entries = self._store.audit(limit, before)
        if self._outside.changes is not None:
            bound = math.inf if before is None else before
            changes = self._outside.changes(limit, before)
            entries += [change_entry(change) for change in changes if change.when < bound]
        return sorted(entries, key=lambda entry: entry.when, reverse=True)[:limit]

    def note(self, entry: AuditEntry) -> None:
        """Remember what was done elsewhere, such as a refused login. Kept by this store alone."""
        self._store.note(uuid.uuid4().hex, entry)


def _open(marks: Mapping[str, Mark]) -> int:
    return sum(mark.status is ReviewStatus.OPEN for mark in marks.values())


def _outcome(
    operation: Operation, asked: Sequence[str], marks: Mapping[str, Mark], *, dry_run: bool
) -> ReviewOutcome:
    wanted = _STATUS[operation.verb]
    done, already, refused = [], [], {}
    for key, mark in marks.items():
        if mark.op == operation.id or (dry_run and mark.status is ReviewStatus.OPEN):
            done.append(key)
        elif mark.status is wanted:
            already.append(key)
        elif mark.status is ReviewStatus.OPEN:
            refused[key] = "it could not be reviewed; try again"
        else:
            refused[key] = f"it is {mark.status.value} already, and that is final"
    for key in asked:
        if key not in marks:
            refused[key] = "there is no such held event (any more), or the filter excludes it"
    return ReviewOutcome(
        verb=operation.verb,
        dry_run=dry_run,
        done=tuple(done),
        already=tuple(already),
        refused=refused,
        by_source=Counter(marks[key].source for key in done),
        by_label=Counter(marks[key].label for key in done),
    )


def _details(chosen: HeldFilter, keys: Sequence[str], marks: Mapping[str, Mark]) -> dict[str, Any]:
    """What the audit trail keeps of a bulk review; the ledger has a row for each event anyway."""
    given: dict[str, Any] = {
        name: getattr(chosen, name)
        for name in chosen.__slots__
        if name != "keys" and getattr(chosen, name) is not None
    }
    if chosen.keys is not None:
        given["keys"] = len(chosen.keys)
    return {
        "events": len(keys),
        "first_keys": list(keys[:20]),
        "by_label": dict(Counter(marks[key].label for key in keys).most_common(20)),
        "filter": given,
    }


def change_entry(change: Change) -> AuditEntry:
    """A change of the policy as an entry of the audit trail."""
    what = f"policy {change.kind}"
    details: dict[str, Any] = {
        "version": change.version,
        "base": change.base,
        "state": change.state,
        "proposal": change.proposal,
    }
    if change.approved_by is not None:
        details["approved_by"] = change.approved_by
    return AuditEntry(change.when, change.who, what, change.why, details)
