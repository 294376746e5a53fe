"""The desk of the quarantine on a real ledger and both databases, with a stream by hand."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from monitor.core.desk import AuditEntry, Change, HeldFilter, MissingError, ReviewStatus
from monitor.core.errors import MonitorError, TransportError, UsageError
from monitor.core.held import HeldBatch
from monitor.core.types import Verdict
from monitor.runtime.quarantine import REMAINS, Outside, Quarantine
from monitor.runtime.quarantine_follower import Follower
from monitor.store.database import Database
from monitor.store.held_store import HeldStore
from monitor.store.writing import Bounds
from monitor.transport.local_ledger import LocalLedger
from tests.store.making import record

WHO = {"who": "ann", "why": "looked at it"}


class Stream:
    """A quarantine topic in memory."""

    def __init__(self):
        self.records, self.at, self.failing = [], 0, None

    def start(self, places):
        self.at = places.get(0, 0)

    def read(self, timeout_seconds):
        if self.failing:
            raise self.failing
        if self.at >= len(self.records):
            time.sleep(min(timeout_seconds, 0.01))
        found = self.records[self.at : self.at + 50]
        self.at += len(found)
        return HeldBatch(found, {0: self.at})

    def close(self):
        pass


class RefusedError(TransportError):
    retry = True


class OneLock:
    """A reviewer for several desks in one process; fails as it is told."""

    def __init__(self, path):
        self.lock, self.ledger, self.sent = threading.Lock(), LocalLedger(path), []
        self.failures = []  # before, or after it became visible

    def exclusively(self, job):
        with self.lock:
            failure = self.failures.pop() if self.failures else None
            if failure == "before":
                raise RefusedError("fenced")
            reviews = job()
            if reviews is not None:
                self.ledger.append(reviews.rows)
                self.sent += reviews.released
            if failure == "after":
                raise RefusedError("the connection broke in the very last step")


class Place:
    """Some desks on one stream, one ledger and one database."""

    def __init__(self, tmp_path, url):
        self.stream, self.path, self.url = Stream(), tmp_path / "reviews.jsonl", url
        self.reviewer = OneLock(self.path)
        self.confirmed, self.notices, self.changes, self.opened = [], [], [], []

    def desk(self, url=None, **more) -> Quarantine:
        follower = Follower(
            HeldStore(Database(url or self.url), "s"),
            self._source,
            lambda: LocalLedger(self.path),
            bounds=Bounds(1e6, 10**6, 1 << 40),
            instance=more.pop("instance", ""),
            notice=self.notices.append,
        )
        outside = Outside(
            promised=lambda: 0.001,
            confirmed=more.pop("confirmed", lambda *args: self.confirmed.append(args)),
            changes=lambda limit, before: self.changes[:limit],
            notice=self.notices.append,
        )
        desk = Quarantine(follower._store, follower, self.reviewer, outside=outside, **more)
        desk.start()
        self.opened.append(desk)
        return desk

    def _source(self):
        source = Stream()
        source.records = self.stream.records
        source.failing = self.stream.failing
        return source

    def hold(self, *records):
        self.stream.records += records


@pytest.fixture
def place(tmp_path, database_url):
    place = Place(tmp_path, database_url)
    yield place
    for desk in place.opened:
        desk.stop()


def wait(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = condition()
        except MonitorError:
            found = False
        if found:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.02)


def holding(place, n, **more):
    place.hold(*(record(i, source=f"acct-{i % 3}", **more) for i in range(n)))
    desk = place.desk()
    wait(lambda: desk.search(HeldFilter()).total == n)
    return desk


def test_released_events_go_to_the_learner_once(place):
    desk = holding(place, 10)
    chosen = HeldFilter(keys=("0-1", "0-2", "0-99"))
    plan = desk.release(chosen, who="ann", why="", dry_run=True)
    assert (plan.done, plan.dry_run, place.reviewer.sent) == (("0-1", "0-2"), True, [])
    outcome = desk.release(chosen, **WHO)
    assert outcome.done == ("0-1", "0-2")
    assert outcome.by_source == {"acct-1": 1, "acct-2": 1}
    assert outcome.by_label == {"spam": 2}
    assert list(outcome.refused) == ["0-99"]
    assert place.reviewer.sent == [r.original for r in place.stream.records[1:3]]
    again = desk.release(chosen, **WHO)
    assert (again.done, again.already) == ((), ("0-1", "0-2"))
    assert len(place.reviewer.sent) == 2
    held = desk.get("0-1")
    assert (held.status, held.reviewed_by) == (ReviewStatus.RELEASED, "ann")
    assert held.review_reason == "looked at it"


def test_reviews_are_final(place):
    desk = holding(place, 4)
    desk.release(HeldFilter(keys=("0-0",)), **WHO)
    desk.confirm(HeldFilter(keys=("0-1",)), **WHO)
    for dry_run in (True, False):
        outcome = desk.confirm(HeldFilter(keys=("0-0", "0-1")), **WHO, dry_run=dry_run)
        assert (outcome.done, outcome.already) == ((), ("0-1",))
        assert "released already" in outcome.refused["0-0"]
        outcome = desk.release(HeldFilter(keys=("0-1",)), **WHO, dry_run=dry_run)
        assert "confirmed already" in outcome.refused["0-1"]
    assert len(place.reviewer.sent) == 1
    assert place.confirmed == [({"acct-1": 1}, "ann", "looked at it")]


def test_bulk_by_filter_up_to_a_bound(place):
    place.hold(*(record(i, source=f"acct-{i % 3}") for i in range(60)))
    desk = place.desk(bulk=30)
    wait(lambda: desk.search(HeldFilter()).total == 60)
    outcome = desk.confirm(HeldFilter(source="acct-0", status=ReviewStatus.OPEN), **WHO)
    assert len(outcome.done) == 20
    assert place.confirmed == [({"acct-0": 20}, "ann", "looked at it")]
    with pytest.raises(UsageError, match="More than 30"):
        desk.release(HeldFilter(label="spam"), **WHO, dry_run=True)
    with pytest.raises(UsageError, match="condition"):
        desk.release(HeldFilter(), **WHO)
    with pytest.raises(UsageError, match="why"):
        desk.release(HeldFilter(source="acct-1"), who="ann", why="  ")
    with pytest.raises(UsageError, match="shorter"):
        desk.release(HeldFilter(source="acct-1"), who="ann", why="x" * 2000)
    with pytest.raises(UsageError, match="limit"):
        desk.search(HeldFilter(), limit=0)
    assert desk.counts(HeldFilter())["status"] == {"open": 40, "confirmed": 20}
    assert desk.source("acct-0")["by_status"] == {"confirmed": 20}


def test_a_large_release_goes_in_several_transactions(place, monkeypatch):
    monkeypatch.setattr("monitor.runtime.quarantine._SLICE", 2)
    monkeypatch.setattr("monitor.runtime.quarantine._MAX_BYTES", 500)
    commits, append = [], place.reviewer.ledger.append
    monkeypatch.setattr(place.reviewer.ledger, "append", lambda r: (commits.append(r), append(r)))
    desk = holding(place, 30)
    outcome = desk.release(HeldFilter(label="spam"), **WHO)
    assert len(outcome.done) == 30
    assert [o.offset for o in place.reviewer.sent] == list(range(30))
    assert len(commits) == 5
    (entry,) = desk.audit()
    assert entry.details["events"] == 30
    # When it fails on the way, asking again does the rest.
    place.hold(*(record(100 + i, label="ham") for i in range(30)))
    wait(lambda: desk.search(HeldFilter(label="ham")).total == 30)
    monkeypatch.setattr("monitor.runtime.reviewing._ATTEMPTS", 1)
    place.reviewer.failures = ["before", None, "after", None]
    for _ in range(2):
        with pytest.raises(TransportError):
            desk.release(HeldFilter(label="ham"), **WHO)
    assert desk.release(HeldFilter(label="ham"), **WHO).done
    assert sorted(o.offset for o in place.reviewer.sent) == [*range(30), *range(100, 130)]


@pytest.mark.parametrize("failure", ["before", "after"])
def test_a_failure_on_the_way_is_tried_again(place, failure):
    """Also when it is not known whether the first attempt went through."""
    desk = holding(place, 5)
    place.reviewer.failures = [failure, failure]
    outcome = desk.release(HeldFilter(source="acct-0"), **WHO)
    assert outcome.done == ("0-0", "0-3")
    assert Counter(o.offset for o in place.reviewer.sent) == {0: 1, 3: 1}
    place.reviewer.failures = ["before"] * 20
    with pytest.raises(TransportError, match="fenced"):
        desk.release(HeldFilter(source="acct-1"), **WHO)
    assert len(place.reviewer.sent) == 2


def test_many_reviewers_at_once_review_each_event_once(place, tmp_path):
    """Desks that share the database, and one with a database of its own."""
    place.hold(*(record(i, source=f"acct-{i % 3}") for i in range(60)))
    urls = (None, None, f"sqlite:///{tmp_path}/own.db")
    desks = [place.desk(url) for url in urls]
    for desk in desks:
        wait(lambda desk=desk: desk.search(HeldFilter()).total == 60)
    outcomes = []

    def review(desk, verb):
        for source in ("acct-0", "acct-1", "acct-2"):
            outcomes.append(getattr(desk, verb)(HeldFilter(source=source), **WHO))

    threads = [
        threading.Thread(target=review, args=(desk, verb))
        for desk in desks
        for verb in ("release", "confirm")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 18
    done = [(key, o.verb) for o in outcomes for key in o.done]
    assert len(done) == len({key for key, _ in done}) == 60
    released = {key for key, verb in done if verb == "release"}
    assert Counter(f"0-{o.offset}" for o in place.reviewer.sent) == dict.fromkeys(released, 1)
    for desk in desks:
        wait(lambda desk=desk: desk.counts(HeldFilter())["status"].get("open", 0) == 0)
        found = desk.search(HeldFilter(status=ReviewStatus.RELEASED), 100).items
        assert {held.key for held in found} == released
    assert sum(sum(counts.values()) for counts, _, _ in place.confirmed) == 60 - len(released)


def test_a_store_that_was_deleted_comes_back(place, tmp_path):
    desk = holding(place, 10)
    desk.release(HeldFilter(keys=("0-1",)), **WHO)
    desk.confirm(HeldFilter(keys=("0-2",)), **WHO)
    desk.erase("acct-0", **WHO)
    before = desk.search(HeldFilter(), 100)
    audit = desk.audit()
    fresh = place.desk(f"sqlite:///{tmp_path}/anew.db")
    wait(lambda: fresh.search(HeldFilter()).total == before.total)
    wait(lambda: fresh._store.places() == {0: 10})
    assert fresh.search(HeldFilter(), 100).items == before.items
    assert fresh.audit() == audit


def test_erasing_a_source(place):
    desk = holding(place, 10)
    assert desk.erase("acct-0", who="ann", why="", dry_run=True) == 4
    assert desk.search(HeldFilter()).total == 10
    with pytest.raises(UsageError, match="why"):
        desk.erase("acct-0", who="ann", why="")
    # What was held a moment ago is erased as well.
    place.hold(record(10, source="acct-0"))
    assert desk.erase("acct-0", **WHO) == 5
    assert desk.search(HeldFilter(source="acct-0")).total == 0
    with pytest.raises(MissingError):
        desk.get("0-0")
    (entry,) = desk.audit()
    assert (entry.who, entry.what, entry.details["events"]) == ("ann", "erase", 5)
    assert entry.details["remains"] == REMAINS
    assert "acct-0" not in repr(entry)
    assert b"acct-0" not in place.path.read_bytes()
    assert desk.erase("acct-0", **WHO) == 0
    assert desk.erase("nobody", **WHO) == 0


def judged(desk, n, invalid=0):
    verdict = np.full(n + invalid, int(Verdict.ACCEPT), dtype=np.uint8)
    verdict[:invalid] = int(Verdict.INVALID)
    part = SimpleNamespace(decisions=SimpleNamespace(verdict=verdict))
    desk.committed(SimpleNamespace(parts=(part,)), {})


def test_the_observed_share_beside_the_promised_one(place, monkeypatch):
    monkeypatch.setattr("monitor.runtime.quarantine_follower._COUNT_SECONDS", 0.05)
    desk = place.desk(instance="one")
    wait(desk._store.judged)
    now = time.time()
    place.hold(*(record(i, held_at=now + 60) for i in range(10)), record(10, held_at=now - 60))
    judged(desk, 2000, invalid=7)
    wait(lambda: desk.observed().judged == 2000)
    wait(lambda: desk.search(HeldFilter()).total == 11)
    seen = desk.observed()
    assert (seen.promised, seen.held, seen.released, seen.estimated) == (0.001, 10, 0, None)
    desk.release(HeldFilter(keys=("0-0",)), **WHO)
    desk.confirm(HeldFilter(keys=("0-1", "0-2", "0-3")), **WHO)
    seen = desk.observed()
    assert (seen.released, seen.confirmed) == (1, 3)
    assert seen.at_least == 1 / 2000
    assert seen.estimated == 0.25 * 10 / 2000
    # The same instance goes on counting after a restart, another one counts beside it.
    desk.stop()
    again, other = place.desk(instance="one"), place.desk(instance="two")
    judged(again, 100)
    judged(other, 10)
    wait(lambda: again.observed().judged == 2110)


def test_the_audit_trail_tells_of_changes_reviews_and_notes(place):
    desk = holding(place, 4)
    desk.release(HeldFilter(source="acct-1"), **WHO)
    now = time.time()
    desk.note(AuditEntry(now + 5, "eve", "login refused", "", {"from": "::1"}))
    place.changes.append(
        Change("p", 3, 2, "edit", "applied", "bob", "attack", now + 9, {}, approved_by="ann")
    )
    entries = desk.audit()
    assert [e.what for e in entries] == ["policy edit", "login refused", "release"]
    assert entries[0].details["approved_by"] == "ann"
    assert entries[2].details["filter"] == {"source": "acct-1"}
    assert entries[2].details["first_keys"] == ["0-1"]
    assert [e.what for e in desk.audit(limit=1)] == ["policy edit"]
    assert [e.what for e in desk.audit(before=now + 5)] == ["release"]
    with pytest.raises(UsageError):
        desk.audit(limit=0)


def test_a_callback_that_fails_does_not_undo_a_confirmation(place):
    def fails(*_):
        raise TransportError("no control ledger")

    place.hold(record(0))
    desk = place.desk(confirmed=fails)
    wait(lambda: desk.search(HeldFilter()).total == 1)
    assert desk.confirm(HeldFilter(keys=("0-0",)), **WHO).done == ("0-0",)
    assert any("no control ledger" in text for text in place.notices)


def test_the_follower_comes_back_after_failures(place, monkeypatch):
    monkeypatch.setattr("monitor.runtime.following._FIRST_PAUSE", 0.005)
    desk = holding(place, 3)
    source = desk._follower._source
    place.stream.failing = source.failing = TransportError("no broker")
    wait(lambda: any("no broker" in text for text in place.notices))
    time.sleep(0.1)
    assert len(place.notices) == 1
    with pytest.raises(MonitorError):
        desk._follower.sync_held()
    assert desk.get("0-1").status is ReviewStatus.OPEN
    place.stream.failing = None
    place.hold(record(3))
    wait(lambda: desk.search(HeldFilter()).total == 4)


def test_reviews_that_were_read_but_not_stored_are_read_again(place, monkeypatch):
    desk = holding(place, 3)
    store, apply, failed = desk._store, desk._store.apply, []

    def once(rows):
        if not failed:
            failed.append(1)
            raise TransportError("the database went away")
        apply(rows)

    monkeypatch.setattr(store, "apply", once)
    # Whether the desk or the follower comes upon it first, nothing is lost.
    with contextlib.suppress(TransportError):
        desk.release(HeldFilter(keys=("0-1",)), **WHO)
    assert failed
    wait(lambda: desk.get("0-1").status is ReviewStatus.RELEASED)
    assert len(place.reviewer.sent) == 1
