"""The Kafka transport against a real broker."""

from __future__ import annotations

import os

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from monitor.core.errors import StateError, TransportError, UsageError
from monitor.core.types import Action
from monitor.transport.kafka import KafkaTransport
from monitor.transport.kafka_headers import RawName, nullable
from tests.kafka.kafka_helpers import Looping, poll_until, unit

pytestmark = pytest.mark.kafka


def plain(count, partition=0, start=0):
    return [(partition, b"k%d" % i, b"v%d" % i, None, None) for i in range(start, start + count)]


def test_records_leave_as_they_came(cluster):
    transport = cluster.transport()
    headers = [("signature", b"\x00\xff"), ("twice", b"1"), ("twice", b"2"), ("ключ", b"")]
    rows = [
        (0, b"key", b'{"a": 1}', headers, 1_600_000_000_123),
        (0, None, b"\xff\xfe not text", [], 1_600_000_000_124),
        (0, b"", b"", [("empty", b"")], 1_600_000_000_125),
        (0, b"tombstone", None, [], 1_600_000_000_126),
        (0, b"held", b"x" * 10_000, headers, 1_600_000_000_127),
        (0, b"bad", b"{", headers, 1_600_000_000_128),
    ]
    cluster.produce(rows)
    (raw,), resumes = poll_until(transport, len(rows))
    assert {r.partition: (r.next_offset, r.stamp) for r in resumes} == {0: (0, None), 1: (0, None)}
    transport.commit(unit(raw, actions={4: Action.HOLD, 5: Action.REJECT}))

    accepted = cluster.read(cluster.topics.accepted)
    assert [(r.partition, r.key, r.value, r.headers, r.timestamp) for r in accepted] == rows[:4]
    (held,) = cluster.read(cluster.topics.quarantine)
    assert (held.key, held.value, held.timestamp) == (b"held", b"x" * 10_000, rows[4][4])
    assert held.headers[:4] == headers
    said = dict(held.headers[4:])
    assert said["monitor-risk"] == b"3.25"
    assert said["monitor-reason"].decode() == "row 4 looks odd – très"
    (refused,) = cluster.read(cluster.topics.invalid)
    assert (refused.key, refused.value) == (b"bad", b"{")
    assert refused.headers[:4] == headers
    said = dict(refused.headers[4:])
    assert said["monitor-error-code"] == b"not_json"
    assert said["monitor-error"].decode() == "row 5 looks odd – très"
    assert said["monitor-topic"].decode() == cluster.topics.input
    assert (said["monitor-partition"], said["monitor-offset"]) == (b"0", b"5")
    decided = cluster.read(cluster.topics.decisions)
    assert [(r.key, r.value) for r in decided] == [
        (b"0-%d" % i, b'{"offset":%d}' % i) for i in range(6)
    ]


def test_odd_headers_do_not_stop_the_service(cluster):
    """Null values, and names that are not UTF-8, which other clients can write."""
    transport = cluster.transport()
    odd = nullable([("plain", b"1"), ("null", None), (RawName.of(b"caf\xe9"), b"2")])
    cluster.produce([(0, b"k", b"v%d" % i, odd if i % 2 else None, None) for i in range(6)])
    (raw,), _ = poll_until(transport, 6)
    transport.commit(unit(raw, actions={3: Action.HOLD}))
    accepted = cluster.read(cluster.topics.accepted)
    (held,) = cluster.read(cluster.topics.quarantine)
    for found in (raw.headers[1], accepted[1].headers, accepted[4].headers, held.headers[:3]):
        assert found == [("plain", b"1"), ("null", None), ("caf\ufffd", b"2")]
        # librdkafka has no way to write such a name as it came.
        raw_name = b"caf\xe9" if cluster.client == "kafka-python" else "caf\ufffd".encode()
        assert found[2][0].encode() == raw_name


def test_nothing_is_visible_before_the_commit_and_position_goes_with_it(cluster):
    first = cluster.transport()
    cluster.produce(plain(30) + plain(30, partition=1))
    batches, _ = poll_until(first, 60)
    assert sorted(b.partition for b in batches) == [0, 1]
    assert cluster.read(cluster.topics.accepted) == []
    first.abort()
    again, _ = poll_until(first, 60)
    assert sorted(v for b in again for v in b.values) == sorted(
        v for b in batches for v in b.values
    )
    first.commit(unit(*(b for b in again if b.partition == 0)))
    first.close()

    second = cluster.transport()
    rest, resumes = poll_until(second, 30)
    assert {r.partition: r.next_offset for r in resumes} == {0: 30, 1: 0}
    assert [b.partition for b in rest] == [1]
    second.commit(unit(*rest))
    assert len(cluster.read(cluster.topics.accepted)) == 60


def test_a_failed_commit_leaves_nothing_and_can_be_tried_again(cluster):
    transport = cluster.transport()
    cluster.produce(plain(10))
    (raw,), _ = poll_until(transport, 10)
    broken = unit(raw)
    broken.parts[0].decisions.records[7] = 7  # not bytes
    with pytest.raises(TransportError):
        transport.commit(broken)
    transport.abort()
    (raw,), _ = poll_until(transport, 10)
    transport.commit(unit(raw))
    assert [r.value for r in cluster.read(cluster.topics.accepted)] == [
        b"v%d" % i for i in range(10)
    ]
    assert len(cluster.read(cluster.topics.decisions)) == 10


def test_state_comes_back_with_its_partition(cluster):
    transport = cluster.transport()
    big, small = os.urandom(1_300_000), os.urandom(700)
    commits = [
        (b"s1", None),
        (b"s2", big),
        (b"s3", None),
        (b"s4", small),
        (b"s5", big),
        (b"s6", small),
    ]
    for number, (stamp, snapshot) in enumerate(commits):
        cluster.produce(plain(5, start=5 * number))
        (raw,), _ = poll_until(transport, 5)
        transport.commit(unit(raw, stamp=stamp, snapshot=snapshot))
        expected = next((s for _, s in reversed(commits[: number + 1]) if s), None)
        if number in {0, 2, 3, 5}:
            transport.close()
            transport = cluster.transport()
            resumes = []
            while len(resumes) < 2:
                resumes += transport.poll(10, 0.5).assigned
            mine = next(r for r in resumes if r.partition == 0)
            assert (mine.next_offset, mine.stamp) == (5 * (number + 1), stamp)
            assert mine.snapshot == expected


def test_a_second_process_with_the_same_id_fences_the_first(cluster):
    first = cluster.transport()
    cluster.produce(plain(5))
    (raw,), _ = poll_until(first, 5)
    second = cluster.transport()
    with pytest.raises(TransportError, match="fenced"):
        first.commit(unit(raw))
    first.close()
    batches, _ = poll_until(second, 5)
    second.commit(unit(*batches))
    assert len(cluster.read(cluster.topics.accepted)) == 5


def test_two_instances_share_and_hand_over_partitions(cluster):
    with Looping(cluster.transport(instance="a")) as first:
        cluster.produce(plain(500) + plain(500, partition=1))
        first.wait(lambda: len(first.done) == 1000)
        with Looping(cluster.transport(instance="b")) as second:
            second.wait(lambda: second.resumed)
            first.wait(lambda: first.revoked)  # it may hear of the end of the rebalance later
            (moved,) = second.resumed
            assert [moved.partition] == first.revoked
            assert (moved.next_offset, moved.stamp, moved.snapshot) == (500, b"stamp", b"snapshot")
            cluster.produce(plain(500, start=500) + plain(500, partition=1, start=500))
            second.wait(lambda: len(second.done) == 500)
            first.wait(lambda: len(first.done) == 1500)
        # The one that stays takes over again.
        cluster.produce(plain(500, start=1000) + plain(500, partition=1, start=1000))
        first.wait(lambda: len(first.done) == 2500)
    accepted = cluster.read(cluster.topics.accepted)
    assert sorted((r.partition, r.value) for r in accepted) == sorted(
        (p, b"v%d" % i) for p in (0, 1) for i in range(1500)
    )


def test_read_range_brings_exactly_those_offsets(cluster):
    transport = cluster.transport()
    cluster.produce(plain(1000))
    found = [o for b in transport.read_range(0, 250, 750) for o in b.offset.tolist()]
    assert found == list(range(250, 750))
    assert list(transport.read_range(0, 5, 5)) == []
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    admin.delete_records({TopicPartition(cluster.topics.input, 0): 100})
    admin.close()
    with pytest.raises(StateError, match="begins at offset 100"):
        list(transport.read_range(0, 50, 200))


def test_topics_are_created_as_configured(cluster):
    cluster.transport(partitions=3)
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    names = list(cluster.topics.names().values())
    counts = {t["name"]: len(t["partitions"]) for t in admin.describe_topics(names)}
    admin.close()
    assert counts[cluster.topics.input] == counts[cluster.topics.state] == 3
    assert counts[cluster.topics.control] == 1


def test_missing_topics_are_named(cluster):
    transport = KafkaTransport(cluster.config(create_topics=False))
    with pytest.raises(UsageError, match=f"{cluster.mark}.feedback.accepted.*create_topics"):
        transport.open()


def test_lag_counts_what_was_not_read(cluster):
    transport = cluster.transport()
    cluster.produce(plain(100))
    poll_until(transport, 0)
    lags = []
    while not lags or lags[-1] != (0, 0):
        polled = transport.poll(40, 0.2)
        lags.append((sum(map(len, polled.batches)), polled.lag_events))
    assert (40, 60) in lags


def test_a_record_that_the_brokers_refuse_fails_the_whole_commit(cluster):
    transport = cluster.transport()
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    limit = ConfigResource(
        ConfigResourceType.TOPIC, cluster.topics.accepted, {"max.message.bytes": "20000"}
    )
    admin.alter_configs([limit])
    admin.close()
    cluster.produce([*plain(3), (0, b"big", os.urandom(50_000), None, None)])
    batches, _ = poll_until(transport, 4)
    with pytest.raises(TransportError, match=r"larger than a topic takes.*max\.message\.bytes"):
        transport.commit(unit(*batches))
    transport.abort()
    (raw,), _ = poll_until(transport, 4)
    transport.commit(unit(raw, actions=dict.fromkeys(range(4), Action.HOLD)))
    assert cluster.read(cluster.topics.accepted) == []
    assert len(cluster.read(cluster.topics.quarantine)) == 4
    assert len(cluster.read(cluster.topics.decisions)) == 4
