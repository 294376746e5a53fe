"""The live policy on a real broker, with two services as processes."""

from __future__ import annotations

import signal
import threading
import time
import urllib.request

import orjson
import pytest

from monitor.config.policy import Policy
from monitor.core.desk import ConflictError
from monitor.gate import Gate
from monitor.runtime.control import PolicyControl
from monitor.state.control import ControlState, Proposal, fold, proposal_row
from monitor.transport.kafka_ledger import KafkaLedger
from tests.kafka.kafka_helpers import broker_module
from tests.kafka.test_kafka_service import EVENTS, Process, check, events, settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(420)]


class Replica(Process):
    def __init__(self, folder, cluster, name):
        folder.mkdir()
        self.port = broker_module().free_port()
        made = settings(cluster, instance=name, group_instance_id=name, create_topics=False)
        made["http"] = {"enabled": True, "port": self.port}
        made["quarantine"] = {"url": f"sqlite:///{folder}/held.db"}
        super().__init__(folder, made)

    def status(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/status", timeout=5) as r:
                return orjson.loads(r.read())
        except OSError:
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-3000:]
            return {"policy_version": None, "events": 0, "partitions": {}, "notices": []}


class Book:
    """The control ledger, read and written by hand."""

    def __init__(self, cluster):
        self.ledger = KafkaLedger(cluster.config(), cluster.topics.control)
        self.state = ControlState()

    def reported(self):
        self.state = fold(self.state, self.ledger.read(0.05))
        return {said.instance: said.version for said in self.state.instances.values()}

    def change(self, base, proposal, **changes):
        document = {**self.state.current.model_dump(mode="json"), **changes}
        made = Proposal(
            proposal=proposal, base=base, kind="edit", who="ana", why="", when=0.0, policy=document
        )
        self.ledger.append([proposal_row(made)])


@pytest.fixture
def book(cluster):
    cluster.transport(partitions=4, instance="creates-the-topics").close()
    found = Book(cluster)
    yield found
    found.ledger.close()


def wait(until, seconds=60.0):
    began = time.monotonic()
    while not until():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize("client", ["kafka-python"], indirect=True)
def test_a_change_reaches_both_replicas_and_survives_a_crash(cluster, book, tmp_path):
    rows = list(events(EVENTS, 3))
    records = [(p, key, value, [("h", key)], None) for p, key, value in rows]
    one, two = (Replica(tmp_path / name, cluster, name) for name in ("one", "two"))
    with one, two:
        wait(lambda: one.status()["partitions"] and two.status()["partitions"])
        cluster.produce(records[: EVENTS // 2])
        wait(lambda: one.status()["events"] + two.status()["events"] >= EVENTS // 2, 180)
        wait(lambda: book.reported() == {"one": 1, "two": 1})
        assert len(book.state.applied) == 1  # though both began at the same time
        book.change(1, "second", learning_speed=0.5)
        assert wait(lambda: book.reported() == {"one": 2, "two": 2}) < 2.0
        assert [replica.status()["policy_version"] for replica in (one, two)] == [2, 2]
        cluster.produce(records[EVENTS // 2 : 3 * EVENTS // 4])
        done = 3 * EVENTS // 4
        wait(lambda: one.status()["events"] + two.status()["events"] >= done, 180)
        for replica in (one, two):
            replica.end(signal.SIGKILL)
        book.change(2, "third", learning_speed=1.0)
        one.start()
        two.start()
        wait(lambda: one.status()["partitions"] and two.status()["partitions"])
        assert [replica.status()["policy_version"] for replica in (one, two)] == [3, 3]
        cluster.produce(records[done:])
        wait(lambda: one.status()["events"] + two.status()["events"] >= EVENTS - done, 180)
        wait(lambda: book.reported() == {"one": 3, "two": 3})
        for replica in (one, two):
            # What was judged under version 2 was judged again under it.
            assert not [n for n in replica.status()["notices"] if "learned again under" in n]
            assert replica.end(signal.SIGTERM) == 0
    check(cluster, {key: value for _, key, value in rows}, {key: p for p, key, _ in rows})
    named = [
        orjson.loads(r.value)["policy_version"] for r in cluster.read(cluster.topics.decisions)
    ]
    assert [named.count(version) for version in (1, 2, 3)] == [
        EVENTS // 2,
        EVENTS // 4,
        EVENTS // 4,
    ]


class Still:
    """As much of a service as a control needs."""

    def __init__(self):
        self.gate = None

    def submit(self, job):
        from concurrent.futures import Future

        future = Future()
        future.set_result(job(self))
        return future


def test_of_two_at_the_same_time_one_gets_a_conflict(cluster, book):
    gate = Gate(policy=Policy())
    controls = [
        PolicyControl(
            lambda: KafkaLedger(cluster.config(), cluster.topics.control), gate, instance=name
        )
        for name in ("one", "two")
    ]
    try:
        for control in controls:
            control.begin(Still())
        assert len({control.current().proposal for control in controls}) == 1
        for base in range(1, 4):
            barrier, came = threading.Barrier(2), []

            def go(control, share, base=base, barrier=barrier, came=came):
                document = {**control.current().policy, "flag_at": share}
                barrier.wait(10)
                try:
                    came.append(control.propose(document, base=base, who="x", why="").state)
                except ConflictError:
                    came.append("conflict")

            threads = [
                threading.Thread(target=go, args=(control, 0.1 * base + 0.01 * i))
                for i, control in enumerate(controls)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert sorted(came) == ["applied", "conflict"]
            wait(lambda: len({control.current().proposal for control in controls}) == 1, 5.0)
    finally:
        for control in controls:
            control.close()
