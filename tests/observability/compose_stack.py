"""The services of deploy/compose.yaml as processes on this machine, in place of containers.

Commands, environment and Prometheus' settings are those of the files; only addresses, folders and
topics' names are of the test, the attack comes sooner, and Prometheus looks every second.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.checks.prometheus import Prometheus, free_port
from tests.kafka.kafka_helpers import Cluster
from tests.observability.grafana_queries import ROOT, Asked
from tests.observability.monitor_with_fault import FAULT_WEIGHT

DEPLOY = ROOT / "deploy"
SERVICES: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
STEP_SECONDS = 2
SOONER = ["--rate", "300", "--calm", "10", "--attack", "48", "--attacks", "flip"]


class Stack:
    """The processes, and where they answer."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.began = time.time()
        self.port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10.0)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.prometheus: Prometheus
        self.reader: httpx.Client

    def start(self, name: str, *command: str | Path, env: Mapping[str, str] | None = None) -> None:
        """A process that is stopped at the end."""
        arguments = [sys.executable, *map(str, command)]
        with (self.folder / f"{name}.log").open("wb") as log:
            made = subprocess.Popen(
                arguments, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **(env or {})}
            )
        self.processes.append(made)

    def start_monitor(self) -> None:
        """By the compose file's environment, with a detector that can be made to fail."""
        topics = self.cluster.topics.names()
        given: dict[str, str] = dict(SERVICES["monitor"]["environment"])
        given |= {
            "MONITOR_KAFKA__BOOTSTRAP_SERVERS": self.cluster.bootstrap,
            "MONITOR_KAFKA__GROUP_ID": f"g-{self.cluster.mark}",
            "MONITOR_KAFKA__TRANSACTIONAL_ID_PREFIX": self.cluster.mark,
            "MONITOR_KAFKA__PARTITIONS": "2",
            "MONITOR_QUARANTINE__DIR": str(self.folder),
            "MONITOR_BLAST__DIR": str(self.folder),
            "MONITOR_HTTP__HOST": "127.0.0.1",
            "MONITOR_HTTP__PORT": str(self.port),
            "MONITOR_HTTP__TOKENS_FILE": str(self.folder / "tokens.json"),
            "MONITOR_HTTP__CONSOLE": "false",
            **{f"MONITOR_KAFKA__TOPICS__{role.upper()}": name for role, name in topics.items()},
        }
        self.http.headers["authorization"] = f"Bearer {self._token()}"
        program = Path(__file__).with_name("monitor_with_fault.py")
        self.start("monitor", program, "run", env=given)

    def _token(self) -> str:
        (command,) = SERVICES["tokens"]["command"]
        here = command.replace("/data/", f"{self.folder}/")
        here = here.replace("poisoning-monitor", f"{sys.executable} -m monitor")
        ran = subprocess.run(["sh", "-c", here], cwd=ROOT, capture_output=True, check=True)
        return ran.stdout.decode().strip()

    def start_script(self, name: str, topic: str, *more: str) -> None:
        """The generator or a learner, by the compose file's command."""
        script, *options = SERVICES[name]["command"]
        here = [part.replace("kafka:9092", self.cluster.bootstrap) for part in options]
        given = ["--topic", topic, *more]
        self.start(name, script.replace("/compose/", f"{DEPLOY}/compose/"), *here, *given)

    def start_all(self) -> None:
        """Everything but Grafana, Alertmanager and the broker, which is there."""
        self.start_monitor()
        self.start_prometheus()
        topics, mark = self.cluster.topics, self.cluster.mark
        self.start_script("generator", topics.input, *SOONER)
        every = ["--every", "1"]
        self.start_script("learner", topics.accepted, "--group", f"{mark}-a", *every)
        self.start_script("learner-ungated", topics.input, "--group", f"{mark}-b", *every)
        self.until(lambda: self._answers("/readyz"), "the monitor is not ready")

    def start_prometheus(self) -> None:
        """By the compose file's settings, with the shipped rules as they are."""
        config = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text("utf-8"))
        config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [
            path.replace("/etc/prometheus/shipped", str(DEPLOY / "prometheus"))
            for path in config["rule_files"]
        ]
        (job,) = config["scrape_configs"]
        job["static_configs"][0]["targets"] = [f"127.0.0.1:{self.port}"]
        del config["alerting"]
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        self.prometheus = Prometheus(self.folder / "prometheus", path)
        self.reader = httpx.Client(base_url=self.prometheus.url, timeout=15.0)

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
        self.ask(
            "PUT",
            "/v1/policy",
            json={"policy": {**body["policy"], "flag_at": 0.011}, "why": "a test"},
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

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 90.0) -> None:
        """Wait; with the ends of the logs when it takes too long."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}:\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        """Their ends."""
        found = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{p.name}: {p.read_text(errors='replace')[-2500:]}" for p in found)

    def reports(self, name: str) -> list[dict[str, Any]]:
        """What a learner has said so far."""
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stop(self) -> None:
        """All of it, by the ids of what was started."""
        if hasattr(self, "prometheus"):
            self.reader.close()
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

    def series(self, asked: Asked) -> list[dict[str, Any]]:
        """What a curve is drawn from, over the time of the test."""
        span = {"start": self.began, "end": time.time(), "step": STEP_SECONDS}
        return self._read("query_range", query=asked.filled().expr, **span)["result"]

    def _read(self, kind: str, **parameters: Any) -> Any:
        """What Prometheus answers; one connection for the many queries."""
        answer = self.reader.get(f"/api/v1/{kind}", params=parameters)
        assert answer.is_success, (parameters, answer.text)
        return answer.json()["data"]

    def has_data(self, asked: Asked) -> bool:
        """Whether the query has a number: now, or for a curve at some time of the test."""
        if asked.instant:
            rows = self._read("query", query=asked.filled().expr)["result"]
            found = [row["value"][1] for row in rows]
        else:
            found = [value for row in self.series(asked) for _, value in row["values"]]
        return any(not math.isnan(float(value)) for value in found)

    def has_exemplars(self, asked: Asked) -> bool:
        """Whether there are points with partition and offset for the query."""
        span = {"start": self.began, "end": time.time()}
        rows = self._read("query_exemplars", query=asked.filled().expr, **span)
        found = [one["labels"] for row in rows for one in row["exemplars"]]
        return bool(found) and all({"partition", "offset"} <= set(labels) for labels in found)
