"""An attack on a real stream, on Kafka: incident, blast radius, retractions, report, audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loadtest.streams import SHARED
from monitor.cli.app import execute
from tests.acceptance.story import Attacked, asking, named, taught, written
from tests.kafka.kafka_helpers import broker_module
from tests.kafka.test_kafka_service import Process, settings
from tests.web.driving import until

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(not SHARED.exists(), reason="the real streams are not here"),
]
EVENTS = 10_000


@pytest.mark.parametrize(
    ("stream", "client"),
    [("electricity", "confluent"), ("movielens", "kafka-python")],
    indirect=["client"],
)
def test_on_kafka(stream: str, cluster: Any, tmp_path: Path, capsys: Any) -> None:
    attacked = Attacked.of(stream, EVENTS, 0.5)
    cluster.transport(partitions=1, instance="creates-the-topics").close()
    port = broker_module().free_port()
    made = settings(cluster, partitions=1, create_topics=False)
    made |= {"http": {"enabled": True, "port": port, "console": False}, "policy": {"mode": "alert"}}
    url = f"http://127.0.0.1:{port}"
    rows = enumerate(attacked.lines)
    cluster.produce([(0, b"%d" % i, line, [], None) for i, line in rows])
    ask = asking(capsys, ["--url", url])
    with Process(tmp_path, made):
        until(lambda: _indexed(url), 150)
        incident = named(attacked, ask("incidents", "list")["items"])
        blast = ask("blast", "--incident", incident["id"])
        taught(attacked, blast)
        retract = ["blast", "--incident", incident["id"], "--retract", "--reason", "a ring"]
        for _ in range(2):  # the second time there is nothing left to take back
            ask(*retract, "--yes")
        page = tmp_path / "incident.html"
        where = ["--url", url, "--out", str(page)]
        assert execute(["report", "--incident", incident["id"], *where]) == 0
        written(page, incident)
    taken = [json.loads(record.value)["id"] for record in cluster.read(cluster.topics.retractions)]
    assert len(taken) == len(set(taken)) == blast["events"]
    config = tmp_path / "audited.yaml"
    config.write_text(yaml.safe_dump(made))
    assert execute(["audit", "verify", "--config", str(config)]) == 0


def _indexed(url: str) -> bool:
    """Whether all was judged, and what passed can be asked for."""
    try:
        judged = httpx.get(f"{url}/v1/status").json()["events"]
        index = httpx.post(f"{url}/v1/blast", json={"sources": ["nobody"]}).json()["index"]
        return judged == EVENTS and index["behind"] == 0 and index["events"] > 0.99 * EVENTS
    except (httpx.HTTPError, KeyError, ValueError):
        return False
