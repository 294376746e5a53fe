"""An attack on Kafka becomes an alert with its runbook at the receiver, and is resolved after it.

Everything is real: the broker, the service as a process, Prometheus with the shipped rules, and
Alertmanager. Only the intervals are shorter than shipped.
"""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml

from loadtest.streams import load
from monitor.runtime.inject import inject
from tests.checks.prometheus import Alertmanager, Prometheus, free_port, need
from tests.kafka.test_kafka_service import Process, settings
from tests.observability.shipped import PROMETHEUS, ROOT, RULES

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]
BACKLOG, CALM = 5_000, 13_500  # the attack is in what follows, see tests/web/test_drive.py
ATTACK = 2_500
A_SECOND = 40
BASE = "deploy/runbooks/"


class Receiver:
    """Alerts as a webhook gets them."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        kept = self.alerts

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                kept.extend(orjson.loads(body)["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, status: str) -> list[dict[str, Any]]:
        """PoisoningRateHigh pages with this status."""
        return [
            alert
            for alert in list(self.alerts)
            if alert["status"] == status
            and alert["labels"]["alertname"] == "PoisoningRateHigh"
            and alert["labels"]["severity"] == "page"
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Feed:
    """A backlog, a trickle of honest events, and the attack in between when it is asked for."""

    def __init__(self, cluster: Any) -> None:
        honest = load("electricity")
        found = inject(honest, "flip", rate=0.05, pattern="burst", colluders=5, seed=0)
        self._cluster, self._clean = cluster, honest.lines()
        self._attacked, self._sent = found.stream.lines(), 0
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._trickle, daemon=True)
        self._send(self._clean[:BACKLOG])

    def _send(self, lines: Any) -> None:
        with self._lock:
            rows = [(0, b"%d" % (self._sent + i), v, [], None) for i, v in enumerate(lines)]
            self._cluster.produce(rows)
            self._sent += len(rows)

    def _trickle(self) -> None:
        at = BACKLOG
        while not self._stop.wait(0.5) and at < CALM:
            self._send(self._clean[at : at + A_SECOND // 2])
            at += A_SECOND // 2

    def attack(self) -> None:
        self._send(self._attacked[CALM : CALM + ATTACK])

    @contextmanager
    def trickling(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(30)


def until(condition: Callable[[], Any], seconds: float, said: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, said()
        time.sleep(0.2)
    return found


def configured(folder: Path, service: str, alertmanager: str) -> Path:
    """The shipped prometheus.yml with addresses and intervals of this test."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] |= {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "evaluation_interval": "1s",
    }
    config["rule_files"] = [str(RULES)]  # unchanged
    config["scrape_configs"][0]["static_configs"] = [{"targets": [service]}]
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def receiving(folder: Path, url: str) -> Path:
    """The shipped alertmanager.yml with the receiver's address and shorter waits."""
    config = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text())
    config["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    for receiver in config["receivers"]:
        for hook in receiver["webhook_configs"]:
            hook["url"] = url
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.mark.parametrize("client", ["confluent"], indirect=True)
def test_an_attack_pages_with_its_runbook_and_resolves(
    cluster: Any, tmp_path: Path, receiver: Receiver
) -> None:
    need("prometheus"), need("alertmanager")
    cluster.transport(partitions=1, instance="creates-the-topics").close()
    port = free_port()
    made = settings(cluster, partitions=1, create_topics=False)
    made |= {"http": {"enabled": True, "port": port, "console": False}}
    feed, service = Feed(cluster), f"127.0.0.1:{port}"
    manager = Alertmanager(tmp_path / "alertmanager", receiving(tmp_path, receiver.url))
    with manager, Process(tmp_path, made) as process:

        def said() -> str:
            return process.log.read_text(errors="replace")[-3000:] + str(receiver.alerts)

        def judged() -> bool:
            try:
                return httpx.get(f"http://{service}/v1/status").json()["events"] >= BACKLOG
            except (httpx.HTTPError, KeyError):
                return False

        # The backlog is the history that operators have; Prometheus comes when it is judged.
        until(judged, 120, said)
        config = configured(tmp_path, service, manager.address)
        with Prometheus(tmp_path / "prometheus", config) as prometheus, feed.trickling():
            prometheus.wait_for("rate(poisoning_monitor_events_total[1m]) > 0")
            calm = prometheus.query("poisoning_monitor:burn:rate1m")
            assert not receiver.of("firing"), (calm, receiver.alerts)
            began = datetime.now(UTC)
            feed.attack()
            fired = until(lambda: receiver.of("firing"), 60, said)
            assert datetime.fromisoformat(fired[0]["startsAt"]) > began
            _fit_for_a_person(fired[0])
            family = fired[0]["labels"]["family"]
            until(
                lambda: [a for a in receiver.of("resolved") if a["labels"]["family"] == family],
                120,
                said,
            )
            _latency_with_exemplars(prometheus)


def _fit_for_a_person(alert: dict[str, Any]) -> None:
    notes = alert["annotations"]
    page = notes["runbook_url"]
    assert page == f"{BASE}{alert['labels']['family']}.md"
    assert (ROOT / page).is_file()
    assert alert["labels"]["family"] in notes["summary"]
    assert "times the share" in notes["description"]


def _latency_with_exemplars(prometheus: Prometheus) -> None:
    """Every event's latency, and which one was slow, as the service tells it to Prometheus."""
    counted = prometheus.query("poisoning_monitor_event_latency_seconds_count")
    assert float(counted[0]["value"][1]) > BACKLOG
    found = prometheus.get(
        "/api/v1/query_exemplars",
        query="poisoning_monitor_event_latency_seconds_bucket",
        start=time.time() - 300,
        end=time.time(),
    )["data"]
    labels = [set(e["labels"]) for series in found for e in series["exemplars"]]
    assert labels and all(names == {"partition", "offset"} for names in labels)
