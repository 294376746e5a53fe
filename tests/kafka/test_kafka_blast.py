"""From an attack that got through to its retraction, on a real broker, put together as ``run``."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from monitor.cli import wiring, wiring_desk
from monitor.cli.wiring_blast import make_blast
from monitor.core.blast import Asked
from monitor.core.errors import TransportError
from monitor.transport.kafka_reviewer import KafkaReviewer
from tests.kafka.test_kafka_quarantine import NOW, event, settled, wait
from tests.kafka.test_kafka_quarantine_service import settings_of
from tests.unit.provenance.test_provenance_laws import ed25519, headers

pytestmark = pytest.mark.kafka
N = 240
ASKED = Asked(sources=("acct-71",))
BY_KEY = Asked(keys=("k-1",))
WHO = {"who": "ann", "why": "the account was taken over"}


def value(i):
    return event(i, source="acct-71" if i % 4 == 1 else f"acct-{i % 9}", ts=NOW / 1000 + i)


def signed(i):
    """The account's key signs its events; others are not signed, or say so of a bad header."""
    if i % 4 == 1:
        return headers("k-1", value(i))
    return [("key-id", b"\xff"), ("signature", b"?")] if i % 4 == 2 else []


def retract_with_a_lost_answer(desk, monkeypatch):
    """The first transaction is committed, and nobody hears of it."""
    commit = KafkaReviewer._commit

    def lost(self, producer, reviews):
        commit(self, producer, reviews)
        raise TransportError("the connection broke in the very last step")

    monkeypatch.setattr("monitor.runtime.blast.desk._SLICE", 25)
    with monkeypatch.context() as patch:
        patch.setattr(KafkaReviewer, "_commit", lost)
        with pytest.raises(TransportError):
            desk.retract(ASKED, key="12345678", **WHO)


def at_once(*desks):
    """The same request to several instances, and what each answers."""
    with ThreadPoolExecutor(len(desks)) as pool:
        asked = [pool.submit(desk.retract, ASKED, key="12345678", **WHO) for desk in desks]
        return [one.result(60) for one in asked]


@pytest.mark.parametrize("client", ["kafka-python"], indirect=True)
def test_what_got_through_is_found_and_retracted_once(cluster, tmp_path, monkeypatch):
    cluster.transport(partitions=2, instance="creates-the-topics").close()
    a, b = (
        settings_of(
            cluster,
            name,
            **{
                "policy": {"mode": "shadow", "provenance": {"keys": [ed25519("k-1")]}},  # all pass
                "gate.warmup": "accept",
                "quarantine.dir": str(tmp_path / name),
                "blast.dir": str(tmp_path / name),
                "http.enabled": False,
            },
        )
        for name in "ab"
    )
    transport, status = wiring.run_transport(a), wiring.make_status()
    metrics = wiring.make_metrics(a, status, live=True)
    gate = wiring.make_gate(a, local=False, meter=metrics.meter)
    manned = wiring_desk.make_manned(a, gate, transport, status=status, metrics=metrics)
    # Another instance, which has no partition of the input.
    desk, other = manned.blast, make_blast(b, wiring.run_transport(b), lambda: None)
    stop = threading.Event()
    thread = threading.Thread(target=manned.service.run, args=(stop,))
    thread.start()
    other.start()
    try:
        cluster.produce([(i % 2, b"%d" % i, value(i), signed(i), NOW + i) for i in range(N)])
        model = {"version": 1, "name": "before", "ts": 1.0, "offsets": {"0": 0, "1": 0}}
        late = model | {"name": "after", "ts": 2.0, "offsets": {"0": 0, "1": 10**6}}
        said = [json.dumps(model).encode(), b"nonsense", json.dumps(late).encode()]
        cluster.produce(
            [(0, b"m%d" % i, s, [], NOW) for i, s in enumerate(said)], cluster.topics.checkpoints
        )
        for one in (desk, other):
            wait(lambda one=one: one.blast(ASKED)["events"] == N // 4)
            found = one.blast(ASKED)["checkpoints"]
            assert found["last_clean"]["name"] == "before" and found["certain"]
            assert [m["name"] for m in found["tainted"]] == ["after"]
            assert one.blast(BY_KEY)["keys"] == {"distinct": 1, "top": {"k-1": N // 4}}
        retract_with_a_lost_answer(desk, monkeypatch)
        one, same = at_once(desk, other)
        assert one == same
        assert one.events == N // 4
        again = other.retract(ASKED, who="ben", why="to be sure")
        assert (again.events, again.already) == (0, N // 4)
        by_key = other.retract(BY_KEY, who="ben", why="its key was stolen")
        assert (by_key.events, by_key.already) == (0, N // 4)
        (kept,) = other.retractions()
        assert kept.events == N // 4
        wait(lambda: "retract" in {entry.what for entry in manned.quarantine.audit()})
    finally:
        stop.set()
        thread.join(60)
        manned.close()
        other.stop()
    taken_back = [json.loads(r.value) for r in settled(cluster, cluster.topics.retractions)]
    assert Counter(r["id"] for r in taken_back) == {f"e{i}": 1 for i in range(1, N, 4)}
    # Each names the very record that the learner got.
    accepted = {(r.partition, r.offset): r.value for r in settled(cluster, cluster.topics.accepted)}
    for record in taken_back:
        at = record["accepted"]
        assert at["topic"] == cluster.topics.accepted
        assert json.loads(accepted[at["partition"], at["offset"]])["id"] == record["id"]
