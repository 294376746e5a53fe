"""The interface on a real service: it tells what happened, and asking changes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from monitor.admin.app import create_app
from monitor.admin.server import HttpServer
from monitor.config.settings import Settings
from monitor.gate import Gate, GateConfig
from monitor.runtime.service import Service
from monitor.runtime.status import Status
from monitor.telemetry.metrics import Metrics
from monitor.transport.local import FollowFile, LocalTransport

EVENTS = 300


def line(i: int) -> bytes:
    rng = np.random.default_rng(i)
    event = {
        "id": f"e{i}",
        "ts": 1.7e9 + i,
        "source": f"s{i % 7}",
        "label": bool(i % 2),
        "features": (rng.normal(size=3) + i % 2).round(3).tolist(),
    }
    return orjson.dumps(event)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[httpx.Client, Service[Any], Path]]:
    source = tmp_path / "in.jsonl"
    source.touch()
    status = Status()
    metrics = Metrics(status=status.snapshot, clock=None)
    service: Service[Any] = Service(
        Gate(GateConfig(warmup_events=100, local=True)),
        LocalTransport(FollowFile(source), tmp_path / "out"),
        observers=(status, metrics),
        on_status=status,
        linger_seconds=0.02,
    )
    stop = threading.Event()
    loop = threading.Thread(target=service.run, args=(stop,))
    app = create_app(status=status, service=service, settings=Settings(), metrics=metrics)
    with (
        HttpServer().start(app) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client,
    ):
        assert client.get("/readyz").status_code == client.head("/readyz").status_code == 503
        assert client.get("/startupz").status_code == 503
        assert client.post("/v1/check", json={}).status_code == 503
        loop.start()
        try:
            yield client, service, source
        finally:
            stop.set()
            loop.join(20)
        assert client.get("/healthz").status_code == 503
        assert client.get("/readyz").json()["detail"] == "The loop has ended: stopped."


def wait_for(client: httpx.Client, events: int) -> dict[str, Any]:
    for _ in range(400):
        seen: dict[str, Any] = client.get("/v1/status").json()
        if seen["events"] >= events:
            return seen
        time.sleep(0.02)
    raise AssertionError(f"only {seen['events']} events after 8 s")


def test_whole(running: tuple[httpx.Client, Service[Any], Path]) -> None:
    client, service, source = running
    with source.open("ab") as file:
        file.writelines(line(i) + b"\n" for i in range(EVENTS - 1))
        file.write(b"broken\n")
    seen = wait_for(client, EVENTS)
    assert client.get("/readyz").status_code == 200
    assert client.get("/healthz").status_code == client.get("/startupz").status_code == 200
    assert seen["verdicts"]["invalid"] == 1
    text = client.get("/metrics").text
    assert 'poisoning_monitor_rejects_total{code="not_json"} 1.0' in text
    assert 'poisoning_monitor_class_events_total{class="true",verdict="accept"}' in text
    flagged = client.get("/v1/events/flagged?verdict=invalid").json()["events"]
    assert [event["line"] for event in flagged] == [EVENTS]

    before = service.submit(lambda s: s.gate.digest(s._held[0].state)).result(10)
    lines = b"\n".join([line(1000), b"{", line(1001)])
    answers = [
        client.post("/v1/check", content=lines, headers={"content-type": "application/x-ndjson"})
        for _ in range(2)
    ]
    assert answers[0].content == answers[1].content
    decided = [orjson.loads(text) for text in answers[0].content.splitlines()]
    assert [d["id"] for d in decided] == ["e1000", None, "e1001"]
    assert [d["line"] for d in decided] == [EVENTS + 1, EVENTS + 2, EVENTS + 3]
    assert decided[1]["verdict"] == "invalid" and decided[1]["reasons"][0]["code"] == "not_json"
    one = client.post("/v1/check", json=orjson.loads(line(1000))).json()
    assert one["id"] == "e1000" and one["verdict"] in ("accept", "flag", "quarantine")
    after = service.submit(lambda s: s.gate.digest(s._held[0].state)).result(10)
    assert before == after
    assert client.get("/v1/status").json()["events"] == EVENTS
