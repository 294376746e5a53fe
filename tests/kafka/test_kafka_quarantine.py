"""Held records, the store that reads them, and releases exactly once, on a real broker."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from kafka.errors import KafkaError

from monitor.core.desk import HeldFilter, ReviewStatus
from monitor.core.errors import MonitorError, TransportError
from monitor.core.held import Original, Reviews
from monitor.core.types import Action
from monitor.runtime.quarantine import Quarantine
from monitor.runtime.quarantine_follower import Follower
from monitor.store.database import Database
from monitor.store.held_store import HeldStore
from monitor.store.writing import Bounds
from monitor.transport.kafka_headers import RawName, nullable
from monitor.transport.kafka_held import KafkaHeld
from monitor.transport.kafka_ledger import KafkaLedger
from monitor.transport.kafka_port import make_client
from monitor.transport.kafka_records import MAX_DECISION_BYTES, Outgoing
from monitor.transport.kafka_reviewer import KafkaReviewer
from monitor.transport.kafka_topics import ensure_topics
from tests.checks.postgres import database_url, postgres
from tests.kafka.kafka_helpers import ROOT, poll_until, unit

__all__ = ["database_url", "postgres"]
pytestmark = pytest.mark.kafka
WHO = {"who": "ann", "why": "looked at it"}
# Of now: the brokers delete, within half a minute, segments in which all records are a week old.
NOW = int(time.time() * 1000)
NO_END = Bounds(1e6, 10**6, 1 << 40)


def event(i, **more):
    body = {"id": f"e{i}", "ts": 1.7e9, "source": f"acct-{i % 3}", "label": "spam"}
    return json.dumps(body | {"features": [1.0, 2.0]} | more).encode()


def hold_all(cluster, records, *, decision=None):
    """Have the transport hold these records back."""
    transport = cluster.transport()
    cluster.produce(records)
    batches, _ = poll_until(transport, len(records))
    for raw in batches:
        made = unit(raw, actions=dict.fromkeys(range(len(raw)), Action.HOLD))
        if decision is not None:
            made.parts[0].decisions.records[:] = [decision] * len(raw)
        transport.commit(made)
    transport.close()


def read_all(source, n, seconds=20.0):
    found, deadline = [], time.monotonic() + seconds
    while len(found) < n and time.monotonic() < deadline:
        found += source.read(0.2).records
    return found


def settled(cluster, topic):
    """All committed records, once the brokers have marked the last transactions as such."""
    client = make_client(cluster.config())
    admin = client.admin()
    parts = range(admin.partition_counts([topic])[topic])
    admin.close()
    reader = client.reader(topic, parts)
    try:
        ends = client.log_ends(topic, parts, 5.0)
        wait(lambda: reader.ends(parts, 5.0) == ends)
    finally:
        reader.close(1)
    return cluster.read(topic)


def wait(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(MonitorError):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def desks(cluster, tmp_path):
    """Makes desks, each as an instance of its own has one."""
    opened = []

    def make(url=None, **changes) -> Quarantine:
        config = cluster.config(instance=f"i{len(opened)}", **changes)
        store = HeldStore(Database(url or f"sqlite:///{tmp_path}/{len(opened)}.db"), "s")
        follower = Follower(
            store,
            lambda: KafkaHeld(config),
            lambda: KafkaLedger(config, config.topics.reviews),
            bounds=NO_END,
            instance=config.instance,
        )
        desk = Quarantine(store, follower, KafkaReviewer(config))
        desk.start()
        opened.append(desk)
        return desk

    yield make
    for desk in opened:
        desk.stop()


AWKWARD = [
    (0, b"k", event(0), nullable([("sig", b"\x00\xff"), ("nothing", None)]), NOW + 1),
    (1, None, event(1), [], NOW + 2),
    (0, b"", event(2), [(RawName.of(b"caf\xe9"), b"x")], NOW + 3),
    # Somebody who knows what our headers are called.
    (
        *(1, b"k", event(3)),
        [("monitor-risk", b"999"), ("monitor-offset", b"0"), ("monitor-decision", b"{}")],
        NOW + 4,
    ),
]


def seen(records):
    return [
        (r.key, r.value, [(str(n), n.encode("utf-8"), v) for n, v in r.headers], r.timestamp)
        for r in records
    ]


def test_released_records_leave_as_they_came(cluster, desks, database_url):
    # confluent-kafka reads names that are not UTF-8 with a replacement.
    awkward = AWKWARD if cluster.client == "kafka-python" else [*AWKWARD[:2], AWKWARD[3]]
    hold_all(cluster, awkward)
    desk = desks(database_url)
    n = len(awkward)
    wait(lambda: desk.search(HeldFilter()).total == n)
    held = desk.search(HeldFilter(text="e3")).items[0]
    assert abs(held.held_at - time.time()) < 60
    assert (held.risk, held.source, held.status) == (3.25, "acct-0", ReviewStatus.OPEN)
    assert held.decision == {"offset": held.offset}
    outcome = desk.release(HeldFilter(status=ReviewStatus.OPEN), **WHO)
    assert len(outcome.done) == n
    released = settled(cluster, cluster.topics.accepted)
    came = cluster.read(cluster.topics.input)
    assert sorted(seen(released), key=str) == sorted(seen(came), key=str)
    assert Counter((r.partition, r.value) for r in released) == Counter(
        (r.partition, r.value) for r in came
    )
    assert desk.release(HeldFilter(label="spam"), **WHO).done == ()
    assert len(settled(cluster, cluster.topics.accepted)) == n


def test_a_decision_too_large_for_a_header_stays_behind(cluster):
    huge = b'{"text":"%s"}' % (b"x" * MAX_DECISION_BYTES)
    hold_all(cluster, [(0, b"k", event(0), [], NOW)], decision=huge)
    source = KafkaHeld(cluster.config())
    source.start({})
    (found,) = read_all(source, 1)
    source.close()
    assert found.decision == b""
    assert found.risk == 3.25
    assert found.reason.startswith("row 0 looks odd")


def test_reading_goes_on_where_it_was_told_to(cluster, caplog):
    hold_all(cluster, [(i % 2, b"%d" % i, event(i), [], NOW + i) for i in range(20)])
    cluster.produce([(0, b"x", b"put there by hand", [], NOW)], cluster.topics.quarantine)
    bad = [("monitor-risk", b"1"), ("monitor-offset", b"one")]
    cluster.produce([(0, b"x", b"put there by hand", bad, NOW)], cluster.topics.quarantine)
    source = KafkaHeld(cluster.config())
    source.start({})
    first = source.read(5.0)
    assert len(first.records) + len(read_all(source, 20 - len(first.records))) == 20
    end = source.read(1.0).places
    assert "cannot be read" in caplog.text
    source.start(first.places)
    assert len(read_all(source, 20 - len(first.records), 5.0)) == 20 - len(first.records)
    source.start(end)
    assert source.read(1.0).records == []
    # A topic that was made anew begins again.
    source.start({0: 10**6, 1: end[1]})
    again = read_all(source, 10, 10.0)
    assert {r.original.partition for r in again} == {0}
    source.close()


def test_no_topic_yet_is_an_error_and_no_more(cluster):
    source = KafkaHeld(cluster.config(request_timeout_seconds=3.0, commit_deadline_seconds=6.0))
    with pytest.raises(TransportError, match="no topic"):
        source.start({})
    with pytest.raises(TransportError):
        source.read(0.1)
    with pytest.raises(TransportError, match="not there"):
        KafkaReviewer(cluster.config()).exclusively(lambda: None)


@pytest.fixture
def topics(cluster):
    admin = make_client(cluster.config()).admin()
    ensure_topics(admin, cluster.config())
    admin.close()


def test_whoever_began_before_is_cut_off(cluster, topics):
    """Between its look at the ledger and its commit somebody else reviewed: it must not commit."""
    first, second = KafkaReviewer(cluster.config()), KafkaReviewer(cluster.config())
    rows = [(b"release/0-1", b"{}")]

    def job():
        second.exclusively(lambda: Reviews(rows, [Original(0, 1, b"second")]))
        return Reviews(rows, [Original(0, 1, b"first")])

    with pytest.raises(TransportError, match="somebody else") as error:
        first.exclusively(job)
    assert error.value.retry
    assert [r.value for r in settled(cluster, cluster.topics.accepted)] == [b"second"]
    first.exclusively(lambda: Reviews(rows, [Original(0, 1, b"third")]))
    assert len(settled(cluster, cluster.topics.accepted)) == 2


def test_a_transaction_that_hangs_is_cut_off_at_once(cluster, topics):
    config = cluster.config(instance="reviews")
    stuck = make_client(config).producer(1 << 20)
    stuck.begin()
    stuck.send(Outgoing(cluster.topics.accepted, 0, [b"k"], [b"never"]))
    stuck.flush(10)
    began = time.monotonic()
    KafkaReviewer(config).exclusively(lambda: Reviews((), [Original(0, 1, b"mine")]))
    assert [r.value for r in settled(cluster, cluster.topics.accepted)] == [b"mine"]
    assert time.monotonic() - began < 10
    stuck.close(1)


def test_a_job_that_fails_leaves_no_trace(cluster, topics):
    reviewer = KafkaReviewer(cluster.config())

    def job():
        raise TransportError("the store is down")

    with pytest.raises(TransportError, match="store is down"):
        reviewer.exclusively(job)
    reviewer.exclusively(lambda: Reviews([(b"release/0-1", b"{}")], [Original(0, 1, None)]))
    (released,) = settled(cluster, cluster.topics.accepted)
    assert released.value == b""


def test_instances_with_their_own_stores_release_each_event_once(cluster, desks):
    n = 60
    hold_all(cluster, [(i % 2, b"%d" % i, event(i), [], NOW + i) for i in range(n)])
    both = [desks(), desks()]
    for desk in both:
        wait(lambda desk=desk: desk.search(HeldFilter()).total == n)
    outcomes, errors = [], []

    def review(desk, verb, sources):
        try:
            for source in sources:
                outcomes.append(getattr(desk, verb)(HeldFilter(source=source), **WHO))
        except Exception as error:
            errors.append(error)

    names = ["acct-0", "acct-1", "acct-2"]
    work = [
        (both[0], "release", names),
        (both[1], "release", names[::-1]),
        (both[1], "confirm", names),
    ]
    threads = [threading.Thread(target=review, args=args) for args in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    done = [(key, o.verb) for o in outcomes for key in o.done]
    assert len(done) == len(dict(done)) == n
    released = {key for key, verb in done if verb == "release"}
    values = Counter(r.value for r in settled(cluster, cluster.topics.accepted))
    wait(lambda: both[0].counts(HeldFilter())["status"].get("open", 0) == 0)
    page = both[0].search(HeldFilter(status=ReviewStatus.RELEASED), 1000).items
    assert {held.key for held in page} == released
    assert values == dict.fromkeys((both[0].get(key).value for key in released), 1)


def test_an_end_that_the_brokers_do_not_know_is_looked_up_in_the_ledger(
    cluster, desks, monkeypatch
):
    """Of two that review at once, one may be told UNKNOWN_SERVER_ERROR when it commits."""
    hold_all(cluster, [(0, b"0", event(0), [], NOW)])
    desk, commit, ends = desks(), KafkaReviewer._commit, []
    wait(lambda: desk.search(HeldFilter()).total == 1)

    def unknown(self, producer, reviews):
        commit(self, producer, reviews)
        ends.append(reviews)
        raise KafkaError("Unhandled error in EndTxnResponse: [Error -1] UnknownError")

    monkeypatch.setattr(KafkaReviewer, "_commit", unknown)
    outcome = desk.release(HeldFilter(source="acct-0"), **WHO)
    assert len(ends) == 1
    assert len(outcome.done) == 1
    assert [r.value for r in settled(cluster, cluster.topics.accepted)] == [event(0)]


RELEASER = """
import sys
from dataclasses import replace
from monitor.core.desk import HeldFilter, ReviewStatus
from monitor.core.errors import TransportError
from monitor.runtime.quarantine import Quarantine
from monitor.runtime.quarantine_follower import Follower
from monitor.store.database import Database
from monitor.store.held_store import HeldStore
from monitor.store.writing import Bounds
from monitor.transport.kafka import KafkaConfig, Topics
from monitor.transport.kafka_held import KafkaHeld
from monitor.transport.kafka_ledger import KafkaLedger
from monitor.transport.kafka_reviewer import KafkaReviewer

bootstrap, client, mark, url, name = sys.argv[1:]
topics = Topics(**{role: f"{mark}.{n}" for role, n in Topics().names().items()})
config = KafkaConfig(
    client=client, bootstrap_servers=bootstrap, group_id=f"g-{mark}", transactional_id_prefix=mark,
    instance=name, topics=topics, request_timeout_seconds=10.0, commit_deadline_seconds=10.0,
)
store = HeldStore(Database(url), "s")
follower = Follower(
    store, lambda: KafkaHeld(config), lambda: KafkaLedger(config, topics.reviews),
    bounds=Bounds(1e6, 10**6, 1 << 40),
)
desk = Quarantine(store, follower, KafkaReviewer(config))
store.open()
follower.sync_reviews()
print("ready", flush=True)
while True:
    chosen = desk.search(HeldFilter(status=ReviewStatus.OPEN), 10).items
    if not chosen:
        break
    try:
        desk.release(HeldFilter(keys=tuple(h.key for h in chosen[:7])), who=name, why="test")
    except TransportError as error:
        print(error, file=sys.stderr, flush=True)
        continue
    print("released", flush=True)
"""


@pytest.mark.parametrize("client", ["confluent"], indirect=True)
def test_killed_and_competing_releasers_release_each_event_once(cluster, desks, tmp_path):
    n, rng = 150, random.Random(7)
    hold_all(cluster, [(i % 2, b"%d" % i, event(i), [], NOW + i) for i in range(n)])
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in "ab"]
    for url in urls:  # fill the stores first
        desk = desks(url)
        wait(lambda desk=desk: desk.search(HeldFilter()).total == n)
        desk.stop()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(i):
        args = [cluster.bootstrap, cluster.client, cluster.mark, urls[i % 2], f"r{i}"]
        process = subprocess.Popen(
            [sys.executable, "-c", RELEASER, *args], stdout=subprocess.PIPE, env=env
        )
        assert process.stdout.readline() == b"ready\n"
        return process

    for turn in range(4):
        pair = [start(2 * turn), start(2 * turn + 1)]
        if turn < 3:
            pair[0].stdout.readline()  # one release went through; the next is on its way
            time.sleep(rng.uniform(0.0, 0.4))
            for process in pair:
                process.send_signal(signal.SIGKILL)
        for process in pair:
            process.stdout.read()
            process.stdout.close()
            assert process.wait(120) == (-signal.SIGKILL if turn < 3 else 0)
    values = Counter(r.value for r in settled(cluster, cluster.topics.accepted))
    assert values == {event(i): 1 for i in range(n)}
    reviews = [r.key for r in settled(cluster, cluster.topics.reviews) if b"release/" in r.key]
    assert len(reviews) == len(set(reviews)) == n
