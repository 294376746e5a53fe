"""Incidents on Kafka: changes in the alerts topic with the batch, and what a restart keeps."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from monitor.gate import Gate
from monitor.runtime.incident_board import IncidentBoard
from monitor.runtime.service import Service
from monitor.transport.kafka import KafkaTransport
from tests.unit.test_gate_incidents import BATCH, CONFIG, asked, attacked
from tests.web.driving import until

pytestmark = pytest.mark.kafka
EVENTS = 4_000


@contextmanager
def serving(cluster: Any) -> Iterator[IncidentBoard]:
    """A service in a thread, until the block ends."""
    board, stop = IncidentBoard(), threading.Event()
    transport = KafkaTransport(cluster.config(partitions=1))
    service = Service(Gate(CONFIG), transport, observers=[board], batch_events=BATCH)
    thread = threading.Thread(target=service.run, args=(stop,))
    thread.start()
    try:
        yield board
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize("client", ["kafka-python"], indirect=True)
def test_changes_are_alerts_and_a_restart_forgets_nothing(cluster: Any) -> None:
    cluster.transport(partitions=1, instance="creates-the-topics").close()
    lines = attacked().stream.lines()[:EVENTS]
    cluster.produce([(0, b"%d" % i, line, [], None) for i, line in enumerate(lines)])
    with serving(cluster) as board:
        until(lambda: len(cluster.read(cluster.topics.decisions)) == EVENTS, 120)
        until(lambda: board.snapshot().matching("open"), 30)
        found = board.snapshot().incidents
        page = asked("/v1/incidents?state=open", board).json()
        assert [one["id"] for one in page["items"]] == [
            one["id"] for one in found if one["state"] == "open"
        ]
    alerts = cluster.read(cluster.topics.alerts)
    told = [orjson.loads(record.value) for record in alerts]
    assert {one["change"] for one in told} >= {"opened", "updated"}
    assert [record.key.decode() for record in alerts] == [one["id"] for one in told]
    first = found[0]
    assert (first["family"], first["sources"]["estimate"]) == ("label_flip", 5)
    assert any(one["id"] == first["id"] and one["change"] == "opened" for one in told)
    # What is told of an incident was decided in the same transaction.
    decided = [orjson.loads(record.value) for record in cluster.read(cluster.topics.decisions)]
    members = sum(one["incident"] == first["id"] for one in decided)
    assert 0 < members <= first["events"]
    with serving(cluster) as board:
        until(lambda: board.snapshot().incidents, 60)
        assert board.snapshot().incidents == found
    assert len(cluster.read(cluster.topics.alerts)) == len(alerts)
