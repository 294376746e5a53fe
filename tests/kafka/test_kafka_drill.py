"""A drill on Kafka: no canary in any topic, whatever the service does meanwhile."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitor.cli.app import execute
from monitor.core.drill import MARK
from tests.kafka.kafka_helpers import broker_module
from tests.kafka.test_kafka_service import Process, settings
from tests.unit.runtime.test_drill import stream
from tests.web.driving import until

pytestmark = pytest.mark.kafka
BACKLOG = 3_000


@pytest.mark.parametrize("client", ["kafka-python"], indirect=True)
def test_no_canary_leaves(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.transport(partitions=1, instance="creates-the-topics").close()
    values = stream(12_000)
    port = broker_module().free_port()
    made = settings(cluster, create_topics=False, partitions=1)
    made["http"] = {"enabled": True, "port": port}
    made["policy"] = {"mode": "shadow"}  # everything passes: what leaked would be learned
    url = f"http://127.0.0.1:{port}"
    sent = 0

    def send(count: int) -> None:
        nonlocal sent
        rows = values[sent : sent + count]
        cluster.produce([(0, b"%d" % (sent + i), v, [], None) for i, v in enumerate(rows)])
        sent += len(rows)

    def judged() -> int:
        try:
            return int(httpx.get(f"{url}/v1/status", trust_env=False).json()["events"])
        except (httpx.TransportError, KeyError):
            return 0

    over = threading.Event()

    def trickle() -> None:
        while not over.wait(0.1) and sent < len(values):
            send(40)

    with Process(tmp_path, made):
        send(BACKLOG)
        until(lambda: judged() >= BACKLOG, 120)
        feeder = threading.Thread(target=trickle)
        feeder.start()
        try:
            wanted = ["drill", "--url", url, "--family", "backdoor", "--rate", "10", "--for", "4s"]
            assert execute([*wanted, "--json"]) == 0
        finally:
            over.set()
            feeder.join(30)
        until(lambda: judged() >= sent, 60)
        audit = httpx.get(f"{url}/v1/audit", trust_env=False).json()["entries"]
    drill = json.loads(capsys.readouterr().out)
    assert drill["state"] == "done" and drill["sent"] > 0 and drill["held"] > 0
    assert {entry["what"] for entry in audit} >= {"drill started", "drill done"}
    mark = MARK.encode()
    for topic in cluster.topics.names().values():
        for record in cluster.read(topic):
            assert mark not in (record.value or b"") and mark not in (record.key or b"")
    assert len(cluster.read(cluster.topics.accepted)) == sent
