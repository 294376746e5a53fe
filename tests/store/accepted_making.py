"""Accepted events by hand, a topic of them in memory, and a desk on it."""

from __future__ import annotations

import json
import threading
import time

from monitor.core.blast import NOWHERE, AcceptedBatch
from monitor.core.errors import TransportError
from monitor.runtime.blast import AcceptedFollower, BlastRadius
from monitor.store.accepted_store import AcceptedStore
from monitor.store.accepted_writing import Kept
from monitor.store.database import Database
from tests.unit.runtime.memory_ledger import Log

START = 1_700_000_000.0
NO_END = Kept(1e6, 1 << 40, 16)


def event(i, *, source="acct-1", label="a", features=(1.0, 2.0), **more):
    body = {"id": f"e{i}", "ts": START + i, "source": source, "label": label}
    features = features if isinstance(features, dict) else list(features)
    return json.dumps(body | {"features": features} | more).encode()


class Topic:
    """Accepted events of some partitions; ``records`` are (partition, offset, value)."""

    def __init__(self, partitions=1):
        self.partitions, self.records, self.anew = partitions, [], False
        self.keys = {}
        self.failing = None
        self.starts = 0

    def add(self, value, partition=0, gap=0, key=None):
        taken = [offset for part, offset, _ in self.records if part == partition]
        self.records.append((partition, (taken[-1] + 1 if taken else 0) + gap, value))
        self.keys[self.records[-1][:2]] = key

    def source(self, most=7):
        return _Source(self, most)


class _Source:
    def __init__(self, topic, most):
        self.topic, self.most, self.places = topic, most, {}

    def start(self, places):
        self.topic.starts += 1
        self.places = {part: places.get(part, 0) for part in range(self.topic.partitions)}

    def read(self, timeout_seconds):
        if self.topic.failing:
            raise self.topic.failing
        if self.topic.anew:
            self.topic.anew = False
            return AcceptedBatch(anew=True)
        left = [r for r in self.topic.records if r[1] >= self.places[r[0]]]
        found = left[: self.most]
        if not found:
            time.sleep(min(timeout_seconds, 0.002))
        for part, offset, _ in found:
            self.places[part] = offset + 1
        begins = dict.fromkeys(self.places, 0)
        return AcceptedBatch(
            [r[0] for r in found],
            [r[1] for r in found],
            [START] * len(found),
            [r[2] for r in found],
            [NOWHERE] * len(found),
            dict(self.places),
            begins,
            len(left) - len(found),
            keys=[self.topic.keys[r[:2]] for r in found],
        )

    def ends(self):
        ends = dict.fromkeys(range(self.topic.partitions), 0)
        return ends | {part: offset + 1 for part, offset, _ in self.topic.records}

    def close(self):
        pass


class RefusedError(TransportError):
    retry = True


class Reviewer:
    """One at a time; dies as it is told: before, or after what it does became visible."""

    def __init__(self, log):
        self.lock, self.log, self.sent, self.failures = threading.Lock(), log, [], []

    def exclusively(self, job):
        with self.lock:
            failure = self.failures.pop() if self.failures else None
            if failure == "before":
                raise RefusedError("fenced")
            if failure == "dies before":
                raise TransportError("gone")
            reviews = job()
            if reviews is not None:
                self.log.open().append(reviews.rows)
                self.sent += [json.loads(one.value) for one in reviews.retracted]
            if failure == "after":
                raise RefusedError("the connection broke in the very last step")
            if failure == "dies after":
                raise TransportError("gone")


class Lineage:
    """Desks on one topic, one ledger and one database."""

    def __init__(self, url, partitions=1, kept=NO_END):
        self.url, self.kept = url, kept
        self.topic, self.log, self.models = Topic(partitions), Log(), Log()
        self.reviewer = Reviewer(self.log)
        self.opened = []

    def store(self):
        return AcceptedStore(Database(self.url), "s", self.kept)

    def follower(self, most=7):
        return AcceptedFollower(
            self.store(),
            lambda: self.topic.source(most),
            self.log.open,
            self.models.open,
            segment_events=self.kept.segment_events,
            keep_checkpoints=5,
        )

    def desk(self, **more) -> BlastRadius:
        """Follows in its own thread."""
        follower = self.follower()
        desk = BlastRadius(
            follower._store, follower, self.reviewer, self.models.open, topic="accepted", **more
        )
        desk.start()
        self.opened.append(desk)
        deadline = time.monotonic() + 30
        while follower._source is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        return desk

    def close(self):
        for desk in self.opened:
            desk.stop()


def contents(store):
    """Everything in the index, in order: place and id."""
    from monitor.core.blast import Wanted
    from monitor.lineage.survey import places_of

    return [
        (*place, name)
        for segment in store.segments(Wanted())
        for place, name in zip(places_of(segment), segment.ids, strict=True)
    ]
