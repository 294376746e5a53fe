"""The operator's story again, on Kafka with two replicas: tests/web/driving.py tells it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from monitor.admin.people import Role
from monitor.admin.tokens import TokenFile
from tests.kafka.kafka_helpers import broker_module
from tests.kafka.test_kafka_service import Process, settings
from tests.web.driving import Stage, drive, until
from tests.web.test_drive import BACKLOG, Feed, judged, page, pytestmark, sync_api

__all__ = ["page"]
pytestmark = [*pytestmark, pytest.mark.kafka]
PARTITIONS = 2


@pytest.mark.parametrize("client", ["kafka-python"], indirect=True)
def test_two_replicas(cluster: Any, tmp_path: Any, page: Any, monkeypatch: Any) -> None:
    cluster.transport(partitions=PARTITIONS, instance="creates-the-topics").close()
    tokens = tmp_path / "tokens.json"
    token = TokenFile(tokens).create("olga", Role.OPERATOR)
    monkeypatch.setitem(os.environ, "MONITOR_HTTP__TOKENS_FILE", str(tokens))
    sent = 0

    def send(lines: list[bytes]) -> None:
        nonlocal sent
        places = range(sent, sent + len(lines))
        rows = zip(places, lines, strict=True)
        cluster.produce([(i % PARTITIONS, b"%d" % i, line, [], None) for i, line in rows])
        sent += len(lines)

    feed, urls, replicas = Feed(send), [], []
    for name in ("one", "two"):
        folder, port = tmp_path / name, broker_module().free_port()
        folder.mkdir()
        made = settings(cluster, instance=name, create_topics=False)
        made["http"] = {"enabled": True, "port": port}
        replicas.append(Process(folder, made))
        urls.append(f"http://127.0.0.1:{port}")
    with replicas[0], replicas[1]:
        until(lambda: sum(judged(url, token) for url in urls) >= BACKLOG, 150)
        feed.trickle()

        def learned() -> list[bytes]:
            return [record.value for record in cluster.read(cluster.topics.accepted)]

        found = drive(Stage(urls, token, feed.attack, learned), page, sync_api.expect)
    assert found["report_seconds"] < 2.0
    assert found["confirmed"] > 3
