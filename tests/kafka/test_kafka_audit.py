"""The audit chains on a real broker: whole over SIGKILL and rebalance, and forgers are found."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from dataclasses import replace

import orjson
import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from monitor.cli import wiring, wiring_audit, wiring_desk
from monitor.cli.app import execute
from monitor.config.settings import load_settings
from monitor.core.desk import AuditEntry
from monitor.core.errors import TransportError
from monitor.state.audit import Head, opened, seal
from monitor.transport.audit_folder import Trust
from monitor.transport.audit_topics import verify_topics
from monitor.transport.kafka_chain import KafkaChainLog
from tests.checks.audit_made import careful, read
from tests.kafka.test_kafka_service import Process, Progress, settings
from tests.unit.cli.test_cli_app import event

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
PARTITIONS, FIRST, EVENTS = 2, 400, 900


@contextlib.contextmanager
def running(made, name):
    """The service in this process, as another instance."""
    ours = made.kafka.model_copy(update={"instance": name, "group_instance_id": name})
    made = made.model_copy(update={"kafka": ours})
    status = wiring.make_status()
    metrics = wiring.make_metrics(made, status, live=True)
    gate = wiring.make_gate(made, local=False, meter=metrics.meter)
    transport = wiring.run_transport(made)
    manned = wiring_desk.make_manned(made, gate, transport, status=status, metrics=metrics)
    stop, errors = threading.Event(), []

    def loop():
        try:
            manned.service.run(stop)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield manned
    finally:
        stop.set()
        thread.join(60)
        manned.close()
    assert not errors


def wait(until, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Tail:
    """What is in a topic, read on each time."""

    def __init__(self, cluster, topic):
        self._consumer = KafkaConsumer(
            bootstrap_servers=cluster.bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        partitions = self._consumer.partitions_for_topic(topic)
        self._consumer.assign([TopicPartition(topic, p) for p in partitions])
        self._values = []

    def more(self):
        for rows in self._consumer.poll(50, max_records=5000).values():
            self._values += [row.value for row in rows]
        return self._values


def produce(cluster, numbers):
    cluster.produce([(i % PARTITIONS, b"k%d" % i, event(i), [], None) for i in numbers])


def copied(cluster, topic, change):
    """A topic with what is left of another's records after ``change``, by partition."""
    rows = cluster.read(topic)
    name = f"{topic}.forged"
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    try:
        admin.create_topics([NewTopic(name, max(row.partition for row in rows) + 1, 1)])
    finally:
        admin.close()
    changed = change([(row.partition, row.key, row.value, [], None) for row in rows])
    cluster.produce(changed, topic=name)
    return name


def kinds(report):
    return [(found.kind, found.chain.rpartition("-")[2]) for found in report.findings]


@pytest.mark.parametrize("client", ["confluent"], indirect=True)
def test_chains_are_whole_over_a_kill_and_a_rebalance(cluster, tmp_path, capsys):
    assert execute(["audit", "keys", "create", "--file", str(tmp_path / "key.pem")]) == 0
    (tmp_path / "key.pub").write_text(capsys.readouterr().out)
    asked = settings(cluster, group_instance_id="one", partitions=PARTITIONS)
    asked |= {"batch": {"max_events": 40}, "audit": {"key_file": str(tmp_path / "key.pem")}}
    cluster.transport(partitions=PARTITIONS, instance="creates-the-topics").close()
    produce(cluster, range(FIRST))
    with Process(tmp_path, asked) as process:
        Progress(cluster).wait(1, process)
        started = Tail(cluster, cluster.topics.audit)
        wait(lambda: any(b"service start" in value for value in started.more()))
        process.end(signal.SIGKILL)
    decisions = Tail(cluster, cluster.topics.decisions)
    made = load_settings(process.config, environ={})
    with running(made, "one") as one, running(made, "two") as two:
        wait(lambda: len(one.service.partitions) == len(two.service.partitions) == 1)
        produce(cluster, range(FIRST, EVENTS))
        two.desk.log.note(AuditEntry(5.0, "bob", "login", "from 10.0.0.9"))
        wait(lambda: len(decisions.more()) == EVENTS)

    given = ["--config", str(process.config), "--public-key", str(tmp_path / "key.pub"), "--json"]
    assert execute(["audit", "verify", *given]) == 0
    report = orjson.loads(capsys.readouterr().out)
    decided = {chain["chain"]: chain["decisions"] for chain in report["chains"]}
    halves = {f"{cluster.topics.input}-{p}": EVENTS // 2 for p in range(PARTITIONS)}
    assert decided == {"desk-one": 0, "desk-two": 0} | halves
    assert report["notes"] == []
    check_that_an_export_is_whole(process.config, tmp_path, capsys)
    records = [opened(row.value).record for row in cluster.read(cluster.topics.audit)]
    assert [r.who for r in records if r.what == "login"] == ["bob"]
    # One chain of an instance's goes on in the process after the one that was killed.
    assert [r.what for r in records if r.chain == "desk-one"].count("service start") == 2

    assert execute(["audit", "show", "e7", "--config", str(process.config), "--json"]) == 0
    (life,) = orjson.loads(capsys.readouterr().out)["events"]
    assert (life["partition"], life["offset"]) == (1, 3)
    assert life["audit"]["chain"] == f"{cluster.topics.input}-1"
    assert life["state"] == "empty@0"
    config = wiring.kafka_config(made)

    def forged(**topics):
        other = replace(config, topics=replace(config.topics, **topics))
        return verify_topics(other, Trust())

    def few(rows):
        changed = rows[20]
        rows[20] = (*changed[:2], changed[2].replace(b'"accept"', b'"flag"'), *changed[3:])
        return [*rows[:-7], *rows[-6:]]

    topic = copied(cluster, cluster.topics.decisions, few)
    assert kinds(forged(decisions=topic)) == [("changed", "0"), ("dropped", "1")]
    topic = copied(cluster, cluster.topics.audit, lambda rows: rows[: len(rows) // 2])
    assert ("truncated", "0") in kinds(forged(audit=topic))
    # A decision that somebody else writes to the topic, and a copy of one that was made.
    (first, *_) = cluster.read(cluster.topics.decisions)
    foreign = first.value.replace(b'"accept"', b'"flag"')
    cluster.produce(
        [(0, b"0-99999", foreign, [], None), (0, first.key, first.value, [], None)],
        topic=cluster.topics.decisions,
    )
    found = wiring_audit.verified(None, made, Trust())
    assert kinds(found) == [("inserted", "0"), ("inserted", "0")]
    check_that_one_process_writes_a_chain(config)


def check_that_an_export_is_whole(config, folder, capsys):
    """It passes with the key, and a partition that is left out of it is missed."""
    out, key = folder / "part.jsonl", ["--public-key", str(folder / "key.pub")]
    since, until = (str(orjson.loads(event(i))["ts"]) for i in (100, 700))
    asked = ["audit", "export", "--config", str(config), "--from", since, "--to", until]
    assert execute([*asked, "--out", str(out)]) == 0
    rows = read(out.read_bytes())
    chosen = [orjson.loads(row["line"])["id"] for row in rows if row["type"] == "decision"]
    assert sorted(chosen) == sorted(f"e{i}" for i in range(100, 700))
    assert execute(["audit", "verify", str(out), *key]) == 0
    gone = next(name for name in rows[0]["chains"] if name.endswith("-1"))
    out.write_bytes(careful([row for row in rows if gone not in (row.get("chain"), chain_of(row))]))
    assert execute(["audit", "verify", str(out), *key]) == 1
    assert f"chain {gone} is not in the export" in " ".join(capsys.readouterr().out.split())


def chain_of(row):
    return opened(row["line"].encode()).record.chain if row["type"] == "record" else None


def check_that_one_process_writes_a_chain(config):
    """Whoever takes an instance's chain over cuts the process before off; nothing is forked."""
    first, second = (KafkaChainLog(config, "desk-x") for _ in range(2))
    try:
        assert first.open() is None
        one, head = seal(Head(), "desk-x", "desk", {"what": "one"})
        first.append([one])
        assert second.open() == one
        two, _ = seal(head, "desk-x", "desk", {"what": "two"})
        with pytest.raises(TransportError):
            first.append([two])
        second.append([two])
        assert first.open() == two
    finally:
        first.close()
        second.close()
