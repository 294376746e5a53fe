"""The desk of the blast radius: what was learned from whom, which models are clean, taking back.

Retractions go the way of reviews: one at a time among all threads and instances, decided on the
reviews ledger read to its end, and committed together with the ledger's rows. So an event is
retracted once, whoever asks how often and whatever dies in between.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from monitor.core.blast import (
    Announced,
    Asked,
    Checkpoint,
    IndexSize,
    Place,
    Retracted,
    Retraction,
    RetractionOutcome,
    Wanted,
)
from monitor.core.desk import AuditEntry, ConflictError, MissingError
from monitor.core.errors import MonitorError, UsageError
from monitor.core.held import Reviews, held_key
from monitor.core.ports import CommitUnit, Ledger, Reviewer
from monitor.lineage.asking import Index, wanted_of
from monitor.lineage.checkpoints import checkpoint_row, refuse_beyond, refuse_changed
from monitor.lineage.reading import label_shown
from monitor.lineage.segment import Segment
from monitor.lineage.survey import Survey, chosen_of, label_of, places_of
from monitor.runtime.blast.follower import AcceptedFollower
from monitor.runtime.quarantine_follower import Clock
from monitor.runtime.reviewing import operation, until_done
from monitor.store.accepted_store import AcceptedStore
from monitor.store.ledger_rows import RETRACT, Operation, operation_row, retract_row
from monitor.store.rows import short

VERSION = 1
MAX_PAGE = 1000
_SLICE = 10_000
"""Events retracted in one transaction."""
_NAMED = 500
"""Retracted events that the audit chain names; `feedback.retractions` has all."""
_BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Around:
    """What the desk asks of the rest of the service.

    Attributes
    ----------
    incident
        An incident's account by its name, None where there is none.
    note
        Puts something into the audit trail, and its chain.
    chain
        Puts something into the chain alone.
    """

    incident: Callable[[str], Mapping[str, Any] | None] = lambda _: None
    note: Callable[[AuditEntry], None] = lambda _: None
    chain: Callable[[AuditEntry], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class _One:
    """An accepted event that is to be taken back: its place, and what the record says of it."""

    place: Place
    id: str
    source: str
    label: Any
    shown: str
    ts: float


class BlastRadius:
    """Answers what was learned, and takes it back. Thread-safe.

    Parameters
    ----------
    store, follower, reviewer
        The index, what keeps it up to date, and how retractions become visible.
    checkpoints
        Makes a ledger to announce checkpoints in.
    topic
        What the accepted events' topic, or file, is called.
    batch_events
        A micro-batch that is as large as this tells that the gate has more to do than it can.
    most
        Most events that one request retracts.
    keys
        ``verified`` where the index has the keys that decisions tell, ``claimed`` where it has
        what the records' headers say.
    """

    def __init__(
        self,
        store: AcceptedStore,
        follower: AcceptedFollower,
        reviewer: Reviewer,
        checkpoints: Callable[[], Ledger],
        *,
        topic: str,
        batch_events: int = 2048,
        most: int = 100_000,
        keys: str = "claimed",
        around: Around | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._store, self._follower, self._reviewer = store, follower, reviewer
        self._new_checkpoints, self._topic = checkpoints, topic
        self._batch_events, self._most, self._keys = batch_events, most, keys
        self.around = around or Around()
        self._clock = clock
        self._full_at = float("-inf")
        self._announcing = threading.Lock()
        follower.busy = self.busy

    def start(self) -> None:
        """Begin to follow the accepted events."""
        self._follower.start()

    def stop(self) -> None:
        """Stop following."""
        self._follower.stop()

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Note whether the gate is busy. As an observer of the loop."""
        if sum(len(part.raw) for part in unit.parts) >= self._batch_events:
            self._full_at = time.monotonic()

    def busy(self) -> bool:
        """Whether a micro-batch was full a moment ago, so that more is waiting."""
        return time.monotonic() - self._full_at < _BUSY_SECONDS

    def blast(self, asked: Asked, shown: int = 20) -> dict[str, Any]:
        """Which accepted events are meant, what they add up to, and which checkpoints are clean.

        Raises
        ------
        UsageError, MissingError
            For conditions that cannot be, and an incident that is not known.
        TransportError
            When the index cannot be asked.
        """
        if not 0 <= shown <= MAX_PAGE:
            raise UsageError(f"shown must be between 0 and {MAX_PAGE}, not {shown}.")
        self._sync()
        with contextlib.suppress(MonitorError):  # what is known of models is known
            self._follower.sync_checkpoints()
        wanted = self._wanted(asked)
        some = self._store.retractions() > 0
        survey = Survey(wanted, shown, self._store.retracted if some else None)
        for segment in self._store.segments(wanted):
            survey.add(segment)
        since = {part: at for part, at in self._store.since().items() if part >= 0}
        places = {part: at for part, at in self._store.places().items() if part >= 0}
        found = survey.result(self._store.checkpoints(), since)
        found["index"] = {
            "topic": self._topic,
            "events": self._store.size()[0],
            "complete_from": {str(part): at for part, at in sorted(since.items())},
            "read_up_to": {str(part): at for part, at in sorted(places.items())},
            "behind": self._follower.behind,
            "keys": self._keys,
        }
        found["asked"] = asked.plain()
        return found

    def _sync(self) -> None:
        self._follower.sync_reviews()
        self._follower.sync()

    def _wanted(self, asked: Asked) -> Wanted:
        incident = None
        if asked.incident is not None:
            incident = self.around.incident(asked.incident)
            if incident is None:
                raise MissingError(f"No incident {asked.incident!r} is known here (any more).")
        return wanted_of(asked, incident, Index(self._store.segments, self._store.last))

    def retract(
        self, asked: Asked, *, who: str, why: str, key: str | None = None, dry_run: bool = False
    ) -> RetractionOutcome:
        """Tell the learner to take the meant events back, each exactly once.

        Asked again with the same ``key`` by the same person it goes on where the first request
        stopped and takes nothing in addition: only events that were accepted before that one.

        Raises
        ------
        UsageError, MissingError
            As :meth:`blast`; also without a reason, or for more events than one request takes.
        ConflictError
            When the key was used for another request.
        TransportError
            When it cannot be done now; part of it may be. Ask again with the same key.
        """
        name = None if key is None else _request_name(who, key)
        what = operation(RETRACT, who, why, self._clock(), needed=not dry_run, name=name)
        self._sync()
        wanted, known = self._wanted(asked), self._store.request(what.id)
        if known is not None and known.asked.get("asked") != asked.plain():
            raise ConflictError("This idempotency key was used for another request.")
        places = {part: at for part, at in self._store.places().items() if part >= 0}
        if known is not None:
            places = {int(part): at for part, at in known.asked["upto"].items()}
        chosen = self._chosen(Wanted(wanted.must, wanted.some, wanted.since, wanted.until, places))
        if not dry_run:
            details = {
                "meant": len(chosen),
                "asked": asked.plain(),
                "upto": {str(part): at for part, at in places.items()},
                "by_label": dict(Counter(one.shown for one in chosen).most_common(20)),
            }
            self._take_back(what, chosen, details)
        done = self._done(what, chosen, dry_run)
        if done and not dry_run:
            # Asked again after a lost answer it stands there twice, under one operation.
            ids = [one.id for one in done[:_NAMED]]
            told = {"operation": what.id, "events": len(done), "asked": asked.plain(), "ids": ids}
            # The chain alone: the trail has it from the ledger.
            self.around.chain(AuditEntry(what.when, what.who, RETRACT, what.why, told))
        return RetractionOutcome(
            what.id,
            dry_run,
            len(done),
            len(chosen) - len(done),
            dict(Counter(one.source for one in done).most_common(MAX_PAGE)),
            dict(Counter(one.shown for one in done).most_common(MAX_PAGE)),
        )

    def _chosen(self, wanted: Wanted) -> list[_One]:
        chosen: list[_One] = []
        for found in chosen_of(self._store.segments(wanted), wanted):
            chosen += _ones(found)
            if len(chosen) > self._most:
                raise UsageError(
                    f"More than {self._most:,} events are meant, the most that one request "
                    "retracts (blast.max_retract_events): narrow it, for example by time."
                )
        return chosen

    def _take_back(
        self, what: Operation, chosen: Sequence[_One], details: Mapping[str, Any]
    ) -> None:
        for i in range(0, len(chosen), _SLICE):
            some = chosen[i : i + _SLICE]

            def job(some: Sequence[_One] = some) -> Reviews | None:
                """Decided while nobody else reviews."""
                self._follower.sync_reviews()
                gone = self._store.retracted([one.place for one in some])
                left = [one for one in some if one.place not in gone]
                if not left:
                    return None
                begun = self._store.request(what.id) is not None
                summary = [] if begun else [operation_row(what, details)]
                return Reviews(
                    rows=[*(retract_row(what, *one.place) for one in left), *summary],
                    retracted=[self._record(what, one) for one in left],
                )

            until_done(self._reviewer, self._follower.sync_reviews, job)

    def _record(self, what: Operation, one: _One) -> Retraction:
        part, pos = one.place
        record = {
            "version": VERSION,
            "retraction": what.id,
            "id": one.id,
            "source": one.source,
            "label": one.label,
            "ts": one.ts,
            "accepted": {"topic": self._topic, "partition": part, "offset": pos},
            "reason": what.why,
            "by": what.who,
            "at": what.when,
        }
        return Retraction(part, held_key(part, pos).encode(), orjson.dumps(record))

    def _done(self, what: Operation, chosen: Sequence[_One], dry_run: bool) -> list[_One]:
        """Those that the request took back, or would take back."""
        gone = self._store.retracted([one.place for one in chosen])
        return [
            one
            for one in chosen
            if (one.place not in gone if dry_run else gone.get(one.place) == what.id)
        ]

    def retractions(self, limit: int = 50, before: float | None = None) -> Sequence[Retracted]:
        """Requests for retraction, the latest first."""
        if not 1 <= limit <= MAX_PAGE:
            raise UsageError(f"limit must be between 1 and {MAX_PAGE}, not {limit}.")
        with contextlib.suppress(MonitorError):
            self._follower.sync_reviews()
        return self._store.requests(limit, before)

    def announce(self, checkpoint: Checkpoint, *, who: str, dated: bool = True) -> Announced:
        """Tell of a stored model; once told, its name stays with it.

        Parameters
        ----------
        checkpoint, who
            The model, and who tells of it.
        dated
            Whether its time was said, not only taken to be now.

        Raises
        ------
        UsageError
            For a partition that the accepted events do not have, or an offset beyond their end.
        ConflictError
            When the name is known with other offsets, or another time.
        TransportError
            When it cannot be written, or what is known cannot be read.
        """
        self._refuse_nowhere(checkpoint)
        with self._announcing:
            known = self._known(checkpoint.name)
            if known is not None:
                refuse_changed(known, checkpoint, dated=dated)
                return Announced(known, known=True)
            ledger = self._new_checkpoints()
            try:
                ledger.append([checkpoint_row(checkpoint)])
            finally:
                ledger.close()
            stands = self._known(checkpoint.name)
        details = {
            "name": checkpoint.name,
            "ts": checkpoint.ts,
            "offsets": {str(part): at for part, at in sorted(checkpoint.offsets.items())},
        }
        self.around.note(AuditEntry(self._clock(), who, "checkpoint", checkpoint.name, details))
        if stands is not None:  # another instance may have announced it in the same moment
            refuse_changed(stands, checkpoint)
        return Announced(checkpoint, known=False)

    def _known(self, name: str) -> Checkpoint | None:
        self._follower.sync_checkpoints()
        return next((one for one in self._store.checkpoints() if one.name == name), None)

    def _refuse_nowhere(self, checkpoint: Checkpoint) -> None:
        there = self._follower.partitions()
        unknown = sorted(checkpoint.offsets.keys() - there)
        if there and unknown:
            most = f"0 to {max(there)}" if len(there) > 1 else f"{max(there)} alone"
            raise UsageError(f"offsets: {self._topic} has no partition {unknown[0]}; it has {most}")
        read = self._store.places()
        if all(at <= read.get(part, 0) for part, at in checkpoint.offsets.items()):
            return
        ends: Mapping[int, int] = {}
        with contextlib.suppress(MonitorError):  # then the end is not known
            self._follower.sync()
            ends = self._follower.ends()
        refuse_beyond(checkpoint, ends, self._topic)

    def checkpoints(self) -> Sequence[Checkpoint]:
        """Stored models that are known, the latest first."""
        with contextlib.suppress(MonitorError):
            self._follower.sync_checkpoints()
        return self._store.checkpoints()

    def accepted_of(self, source: str) -> tuple[int, Mapping[int, int]]:
        """How many events of a source the index has, and the last place of each partition."""
        with contextlib.suppress(MonitorError):  # what cannot be reached cannot be erased either
            self._follower.sync()
        return self._store.erasable(short(source))

    def size(self) -> IndexSize:
        """For metrics."""
        events, size = self._store.size()
        return IndexSize(events, size, self._follower.behind, self._store.retractions())


def _ones(found: Segment) -> list[_One]:
    sources, ts = found.source.texts(), found.times[0].tolist()
    names = found.label.names
    return [
        _One(place, id_, source or "", label_of(found, row), label_shown(names[code]), when)
        for row, (place, id_, source, when, code) in enumerate(
            zip(places_of(found), found.ids, sources, ts, found.label.codes.tolist(), strict=True)
        )
    ]


def _request_name(who: str, key: str) -> str:
    """The name of a request with an idempotency key: nobody else's key means the same."""
    return hashlib.sha256(f"{who}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
