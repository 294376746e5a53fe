"""Every query of every dashboard and alert rule, on the running service under attack.

A real broker, the generator of the compose stack, the monitor as a process, and a real Prometheus
with the shipped rules. What only happens in trouble is made to happen: an attack, broken records, a
detector that fails, a change of the policy, a review.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.checks.prometheus import Prometheus, free_port, need
from tests.kafka.kafka_helpers import Cluster
from tests.observability import grafana_queries as queries
from tests.observability.monitor_with_fault import FAULT_WEIGHT

ROOT = queries.ROOT
PARTITIONS = 2
STEP_SECONDS = 2
SETTLE_SECONDS = 90.0
COMES_WITH_ISSUE_8 = (
    "incidents and drills are not built yet; the metric is, and is tested by itself"
)
ABSENT = {
    "poisoning_monitor_incidents": COMES_WITH_ISSUE_8,
    "poisoning_monitor_drill_recall": COMES_WITH_ISSUE_8,
    "poisoning_monitor_drill_delay_events": COMES_WITH_ISSUE_8,
    "poisoning_monitor_drill_canaries_total": COMES_WITH_ISSUE_8,
}
"""Metrics that the service does not give here, and why. One that it gives fails the test."""

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


class Stack:
    """The processes, and where they answer."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.began = time.time()
        self.port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10.0)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.prometheus: Prometheus

    def start(self, name: str, *command: str | Path) -> None:
        """A process that is stopped at the end."""
        with (self.folder / f"{name}.log").open("wb") as log:
            arguments = [sys.executable, *map(str, command)]
            self.processes.append(subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=log))

    def start_monitor(self) -> None:
        """The service, with a detector that can be made to fail."""
        cluster = self.cluster
        settings = {
            "kafka": {
                "client": cluster.client,
                "bootstrap_servers": cluster.bootstrap,
                "group_id": f"g-{cluster.mark}",
                "transactional_id_prefix": cluster.mark,
                "instance": "one",
                "topics": cluster.topics.names(),
                "partitions": PARTITIONS,
            },
            "batch": {"max_events": 500},
            "http": {"port": self.port, "console": False},
            "quarantine": {"dir": str(self.folder / "store")},
        }
        config = self.folder / "monitor.yaml"
        config.write_text(yaml.safe_dump(settings))
        program = Path(__file__).with_name("monitor_with_fault.py")
        self.start("monitor", program, "run", "--config", config)
        self.until(lambda: self._answers("/readyz"), "the monitor is not ready")

    def start_generator(self) -> None:
        """Twelve seconds of honest accounts, then an attack for the rest of the test."""
        program = ROOT / "deploy" / "compose" / "generator.py"
        options = ["--rate", "300", "--calm", "12", "--attack", "48", "--share", "0.15"]
        where = [
            "--bootstrap-servers",
            self.cluster.bootstrap,
            "--topic",
            self.cluster.topics.input,
        ]
        self.start("generator", program, *where, *options, "--attacks", "flip")

    def start_prometheus(self) -> None:
        """With the shipped rules as they are; only intervals are shorter."""
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "deploy" / "prometheus" / "rules.yml")],
            "scrape_configs": [
                {
                    "job_name": "poisoning-monitor",
                    "static_configs": [{"targets": [f"127.0.0.1:{self.port}"]}],
                }
            ],
        }
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        self.prometheus = Prometheus(self.folder / "prometheus", path)

    def fail_a_detector(self) -> None:
        """Send the event that the fault waits for."""
        event = {
            "id": "fault-1",
            "ts": time.time(),
            "source": "acct-0001",
            "label": "fraud",
            "features": {f"f{column}": 0.5 for column in range(8)},
            "weight": FAULT_WEIGHT,
        }
        self.cluster.produce([(0, None, json.dumps(event).encode(), None, None)])

    def change_the_policy(self) -> None:
        """A second version."""
        body = self.ask("GET", "/v1/policy")
        document = {**body["policy"], "flag_at": 0.011}
        self.ask(
            "PUT",
            "/v1/policy",
            json={"policy": document, "why": "a test"},
            headers={"if-match": f'"{body["policy"]["version"]}"'},
        )

    def anything_to_review(self) -> bool:
        """Whether at least two events are in the store."""
        return self.ask("GET", "/v1/quarantine?status=open")["total"] > 1

    def review(self) -> None:
        """Release one held event and confirm another, which makes version 3 of the policy."""
        held = self.ask("GET", "/v1/quarantine?status=open&limit=2")["items"]
        for verb, item in zip(("release", "confirm"), held, strict=True):
            body = {"filter": {"keys": [item["key"]]}, "why": "a test"}
            self.ask("POST", f"/v1/quarantine/{verb}", json=body)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of an answer that is none of trouble."""
        answer = self.http.request(method, path, **options)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json()

    def _answers(self, path: str) -> bool:
        try:
            return self.http.get(path).is_success
        except httpx.HTTPError:
            return False

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
        """Wait; with the ends of the logs when it takes too long."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}:\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        """Their ends."""
        found = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{p.name}: {p.read_text(errors='replace')[-2500:]}" for p in found)

    def stop(self) -> None:
        """All of it, by the ids of what was started."""
        if hasattr(self, "prometheus"):
            self.prometheus.stop()
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self.http.close()

    def has_data(self, asked: queries.Asked) -> bool:
        """Whether the query has a number: now, or for a curve at some time of the test."""
        expr = asked.filled().expr
        if asked.instant:
            found = [row["value"][1] for row in self.prometheus.query(expr)]
        else:
            span = {"start": self.began, "end": time.time(), "step": STEP_SECONDS}
            answer = self.prometheus.get("/api/v1/query_range", query=expr, **span)
            found = [value for row in answer["data"]["result"] for _, value in row["values"]]
        return any(not math.isnan(float(value)) for value in found)

    def has_exemplars(self, asked: queries.Asked) -> bool:
        """Whether there are points with partition and offset for the query."""
        span = {"start": self.began, "end": time.time()}
        answer = self.prometheus.get("/api/v1/query_exemplars", query=asked.filled().expr, **span)
        found = [one["labels"] for row in answer["data"] for one in row["exemplars"]]
        return bool(found) and all({"partition", "offset"} <= set(labels) for labels in found)


@pytest.fixture(scope="module")
def stack(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything up, the attack seen, and what only happens in trouble under way."""
    need("prometheus")
    with Cluster(bootstrap, "confluent") as cluster:
        found = Stack(cluster, tmp_path_factory.mktemp("grafana"))
        try:
            found.start_monitor()
            found.start_prometheus()
            found.start_generator()
            held = 'poisoning_monitor_events_total{verdict="quarantine"} > 50'
            found.until(lambda: bool(found.prometheus.query(held)), "nothing was held back")
            found.fail_a_detector()
            found.change_the_policy()
            found.until(
                lambda: found.ask("GET", "/v1/quarantine")["total"] > 1, "nothing to review"
            )
            found.review()
            yield found
        finally:
            found.stop()


def test_every_query_has_data(stack: Stack) -> None:
    left = queries.all_queries()
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        left = [asked for asked in left if not stack.has_data(asked)]
        unexplained = [asked for asked in left if not asked.metrics() & set(ABSENT)]
        if not unexplained:
            break
        if time.monotonic() > deadline:
            lines = "\n".join(f"{asked.place}: {asked.filled().expr}" for asked in unexplained)
            pytest.fail(f"no data:\n{lines}\n{stack.logs()}")
        time.sleep(1.0)
    excused = {name for asked in left for name in asked.metrics()}
    for name, why in ABSENT.items():
        there = stack.prometheus.query(name)
        assert not there and name in excused, f"{name} has data, take it off the list ({why})"


def test_every_exemplar_query_has_exemplars(stack: Stack) -> None:
    wanted = [asked for asked in queries.all_queries() if asked.exemplar]
    assert len(wanted) >= 3
    for asked in wanted:
        stack.until(lambda asked=asked: stack.has_exemplars(asked), f"none for {asked.place}", 30.0)


def test_every_variable_has_values(stack: Stack) -> None:
    asked = [one for board in queries.boards().values() for one in queries.variable_queries(board)]
    for query, label in asked:
        span = {"start": stack.began, "end": time.time()}
        path = f"/api/v1/label/{label}/values"
        answer = stack.prometheus.get(path, **{"match[]": query.filled().expr}, **span)
        assert answer["data"], query.place


def test_policy_changes_are_marked_with_their_versions(stack: Stack) -> None:
    (board, *_) = queries.boards().values()
    (asked,) = (a for a in queries.annotation_queries(board) if a.place.endswith("Policy changes"))

    def marked() -> set[str]:
        span = {"start": stack.began, "end": time.time(), "step": STEP_SECONDS}
        answer = stack.prometheus.get("/api/v1/query_range", query=asked.filled().expr, **span)
        return {row["metric"]["version"] for row in answer["data"]["result"]}

    stack.until(lambda: marked() == {"2", "3"}, "versions 2 and 3 are not marked", 30.0)
