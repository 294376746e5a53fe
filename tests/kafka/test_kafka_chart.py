"""The chart's pod on a real broker, as far as one process can be a pod.

Its settings file, environment, arguments, mounts, probes and test hook are what the chart renders;
topics and rights are those of deploy/strimzi. The broker asks for TLS, a login and rights. There is
no cluster here: that Kubernetes does with the objects what they say is not tested.
"""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
)

from monitor.admin.people import Role
from monitor.admin.tokens import TokenFile
from tests.kafka import secured
from tests.kafka.kafka_helpers import ROOT, broker_module
from tests.kafka.secured import SecuredBroker
from tests.unit.deploy.charts import DEPLOY, Object, gate, only, render

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

MOUNTS = "/etc/poisoning-monitor"
PARTITIONS = 2
EVENTS = 400
DEADLINE = 90.0
PRINCIPALS = {"poisoning-monitor": secured.USER}
"""Where the name in the broker's own user file is another than the KafkaUser's."""
_OPERATIONS = {"DescribeConfigs": "DESCRIBE_CONFIGS"}
_KINDS = {"transactionalId": "TRANSACTIONAL_ID"}


def _folder(above: Path, name: str) -> Path:
    (made := above / name).mkdir()
    return made


def _documents(name: str) -> list[Object]:
    return list(yaml.safe_load_all((DEPLOY / "strimzi" / name).read_text()))


def _make_topics(admin: KafkaAdminClient) -> None:
    """As the topic operator would, on a cluster of one broker."""
    wanted = {}
    for item in _documents("topics.yaml"):
        spec = item["spec"]
        configs = {key: str(value) for key, value in spec["config"].items()}
        wanted[item["metadata"]["name"]] = {
            "num_partitions": min(spec["partitions"], PARTITIONS),
            "replication_factor": 1,
            "configs": configs | {"min.insync.replicas": "1"},
        }
    admin.create_topics(wanted, wait_for_metadata=True)


def _grant(admin: KafkaAdminClient) -> None:
    """As the user operator would."""
    rights = []
    for user in _documents("users.yaml"):
        name = user["metadata"]["name"]
        for acl in user["spec"]["authorization"]["acls"]:
            what = acl["resource"]
            kind = ResourceType[_KINDS.get(what["type"], what["type"].upper())]
            pattern = "PREFIXED" if what["patternType"] == "prefix" else "LITERAL"
            resource = ResourcePattern(kind, what["name"], ACLResourcePatternType[pattern])
            for word in acl["operations"]:
                operation = ACLOperation[_OPERATIONS.get(word, word.upper())]
                principal = f"User:{PRINCIPALS.get(name, name)}"
                rights.append(ACL(principal, "*", operation, ACLPermissionType.ALLOW, resource))
    assert not admin.create_acls(rights)["failed"]


@dataclass
class Pod:
    """A process in the place of a pod."""

    objects: list[Object]
    folder: Path
    port: int
    token: str
    authority: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        container = gate(self.objects)
        environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        for entry in container["env"]:
            is_name = "fieldRef" in entry.get("valueFrom", {})
            environment[entry["name"]] = "rel-poisoning-monitor-0" if is_name else entry["value"]
        command = [sys.executable, "-m", "monitor", *map(self.here, container["args"])]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def here(self, text: str) -> str:
        """A path of the container's, in this folder."""
        return text.replace(MOUNTS, f"{self.folder}{MOUNTS}").replace(
            "/data/", f"{self.folder}/data/"
        )

    def client(self, *, token: bool = True) -> httpx.Client:
        context = ssl.create_default_context(cafile=self.authority)
        headers = {"authorization": f"Bearer {self.token}"} if token else {}
        base = f"https://127.0.0.1:{self.port}"
        return httpx.Client(
            base_url=base, verify=context, headers=headers, trust_env=False, timeout=20
        )

    def probe(self, name: str) -> int:
        """The answer to a probe as the kubelet asks it; 0 for none."""
        asked = gate(self.objects)[name]["httpGet"]
        assert asked["scheme"] == "HTTPS"
        try:
            with self.client(token=False) as client:
                return client.get(asked["path"]).status_code
        except httpx.TransportError:
            return 0

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait(self, what: str, found: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + DEADLINE
        while not (result := found()):
            assert self.process is not None and self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, f"{what}: not within {DEADLINE} s\n{self.log()}"
            time.sleep(0.2)
        return result


def _materialise(found: list[Object], secrets: dict[str, dict[str, Path]], pod: Pod) -> None:
    """Put what the pod mounts where the process finds it."""
    spec = only(found, "StatefulSet")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in gate(found)["volumeMounts"]:
        volume = volumes[mount["name"]]
        place = Path(f"{pod.folder}{mount['mountPath']}")
        place.mkdir(parents=True)
        if "configMap" in volume:
            for name, text in only(found, "ConfigMap")["data"].items():
                (place / name).write_text(pod.here(text).replace("0.0.0.0", "127.0.0.1"))
        for item in volume.get("secret", {}).get("items", ()):
            source = secrets[volume["secret"]["secretName"]][item["key"]]
            (place / item["path"]).write_bytes(source.read_bytes())
            (place / item["path"]).chmod(volume["secret"]["defaultMode"])


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[SecuredBroker]:
    module = broker_module()
    made = SecuredBroker(_folder(tmp_path, "broker"))
    try:
        try:
            made.start()
        except module.UnavailableError as error:
            pytest.skip(f"no Kafka: {error}")
        admin = KafkaAdminClient(bootstrap_servers=made.address)
        _make_topics(admin)
        _grant(admin)
        admin.close()
        yield made
    finally:
        made.stop()


@pytest.fixture
def pod(broker: SecuredBroker, tmp_path: Path) -> Iterator[Pod]:
    folder = _folder(tmp_path, "pod")
    port = broker_module().free_port()
    given = {
        "kafka": {
            "bootstrapServers": broker.login,
            "partitions": PARTITIONS,
            "protocol": "SASL_SSL",
            "sasl": {
                "mechanism": "SCRAM-SHA-512",
                "username": secured.USER,
                "existingSecret": "poisoning-monitor",
            },
            "tls": {"caSecret": "events-cluster-ca-cert"},
        },
        "http": {
            "port": port,
            "tokens": {"existingSecret": "monitor-tokens"},
            "tls": {"existingSecret": "monitor-tls"},
            "openMetrics": False,
        },
        "config": {"batch": {"linger_milliseconds": 20}},
    }
    tokens = TokenFile(folder / "tokens.json")
    token = tokens.create("ana", Role.OPERATOR)
    password = folder / "password"
    password.write_text(secured.PASSWORD)
    cert, key = broker.authority.issue("monitor-http")
    secrets = {
        "poisoning-monitor": {"password": password},
        "events-cluster-ca-cert": {"ca.crt": Path(broker.authority.file)},
        "monitor-tokens": {"tokens.json": tokens.path},
        "monitor-tls": {"tls.crt": Path(cert), "tls.key": Path(key)},
    }
    found = render(given)
    made = Pod(found, folder, port, token, broker.authority.file)
    _materialise(found, secrets, made)
    made.start()
    assert made.process is not None
    try:
        made.wait("start-up", lambda: made.probe("startupProbe") == 200)
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()


def as_user(broker: SecuredBroker, name: str) -> dict[str, Any]:
    """Options of a client that shows the certificate of a KafkaUser."""
    cert, key = broker.authority.issue(name)
    return {
        "bootstrap_servers": broker.certificates,
        "security_protocol": "SSL",
        "ssl_cafile": broker.authority.file,
        "ssl_certfile": cert,
        "ssl_keyfile": key,
    }


def event(i: int, source: str) -> bytes:
    features = [float(i % 7), float(i % 11) / 3]
    label = "yes" if i % 7 > 3 else "no"
    return orjson.dumps(
        {
            "id": f"{source}-{i}",
            "ts": 1.7e9 + i,
            "source": source,
            "label": label,
            "features": features,
        }
    )


def probes_say_in_turn_that_it_has_begun_judges_and_lives(pod: Pod) -> None:
    pod.wait("readiness", lambda: pod.probe("readinessProbe") == 200)
    assert pod.probe("livenessProbe") == 200


def feedback_goes_to_the_learner_by_the_rights_of_each(pod: Pod, broker: SecuredBroker) -> None:
    producer = KafkaProducer(**as_user(broker, "feedback-producer"))
    values = [event(i, f"s{i % 40}") for i in range(EVENTS)]
    for i, value in enumerate(values):
        producer.send("feedback", value, partition=i % PARTITIONS)
    producer.flush(30)
    with pytest.raises(kafka_errors.TopicAuthorizationFailedError):
        producer.send("feedback.accepted", b"poison", partition=0).get(10)
    producer.close(5)

    login = as_user(broker, "learner")
    learner = KafkaConsumer(
        "feedback.accepted", group_id="learner", auto_offset_reset="earliest",
        isolation_level="read_committed", **login,
    )  # fmt: skip
    read: list[bytes] = []

    def all_read() -> bool:
        for records in learner.poll(timeout_ms=200).values():
            read.extend(record.value for record in records)
        return len(read) >= EVENTS

    pod.wait("the learner's events", all_read)
    learner.close()
    assert sorted(read) == sorted(values)
    with pytest.raises(kafka_errors.KafkaError):
        KafkaProducer(**login).send("feedback.accepted", b"poison", partition=0).get(10)


def the_lag_can_be_read_by_its_reader(broker: SecuredBroker) -> None:
    """What KEDA's scaler asks: the group's offsets and the ends of the input."""
    login = as_user(broker, "lag-reader")
    admin = KafkaAdminClient(**login)
    found = admin.list_group_offsets(["poisoning-monitor"])
    offsets = found["poisoning-monitor"]
    assert sum(at.offset for at in offsets.values()) >= EVENTS
    admin.close()
    consumer = KafkaConsumer(**login)
    assert consumer.end_offsets(list(offsets))
    consumer.close()


def policy_and_reviews_work_by_the_same_rights(pod: Pod, broker: SecuredBroker) -> None:
    """The ledgers and the reviewer have transactional ids of their own."""
    with pod.client() as client:
        answer = client.get("/v1/policy")
        deny = [{"source": "ring", "why": "tested"}]
        document = answer.json()["policy"] | {"deny": deny}
        changed = client.put(
            "/v1/policy",
            json={"policy": document, "why": "The ring is back"},
            headers={"if-match": answer.headers["etag"]},
        )
        assert changed.status_code == 200, changed.text
        producer = KafkaProducer(**as_user(broker, "feedback-producer"))
        producer.send("feedback", event(1, "ring"), partition=0).get(10)
        producer.close(5)

        def held() -> list[Any]:
            answer = client.get("/v1/quarantine", params={"source": "ring"})
            return list(answer.json().get("items", ())) if answer.status_code == 200 else []

        (item, *_) = pod.wait("the held event", held)
        released = client.post(
            "/v1/quarantine/release", json={"filter": {"keys": [item["key"]]}, "why": "A mistake"}
        )
        assert released.status_code == 200, released.text
        assert client.post("/v1/quarantine/erase", json={}).status_code == 403


def the_test_hook_passes(pod: Pod) -> None:
    (container,) = only(pod.objects, "Pod")["spec"]["containers"]
    python, *arguments = container["command"]
    assert python == "python"
    *script, url, metrics = arguments
    assert url == "https://rel-poisoning-monitor:8765"
    here = [*script, f"https://127.0.0.1:{pod.port}", metrics]
    ran = subprocess.run([sys.executable, *here], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    wrong = [*script, f"https://127.0.0.1:{pod.port}", "200"]
    ran = subprocess.run([sys.executable, *wrong], capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and "/metrics 401 instead of 200" in ran.stdout


def it_ends_within_its_grace(pod: Pod) -> None:
    assert pod.process is not None
    spec = only(pod.objects, "StatefulSet")["spec"]["template"]["spec"]
    pod.process.send_signal(signal.SIGTERM)
    assert pod.process.wait(spec["terminationGracePeriodSeconds"]) == 0, pod.log()
    said = pod.log()
    assert secured.PASSWORD not in said and pod.token not in said
    left = {p.relative_to(pod.folder / "data").parts[0] for p in (pod.folder / "data").rglob("*")}
    assert left == {"monitor-data"}


def test_a_pod_of_the_chart_from_its_start_to_its_end(pod: Pod, broker: SecuredBroker) -> None:
    """In one test, since a broker and a pod cost half a minute."""
    probes_say_in_turn_that_it_has_begun_judges_and_lives(pod)
    feedback_goes_to_the_learner_by_the_rights_of_each(pod, broker)
    the_lag_can_be_read_by_its_reader(broker)
    policy_and_reviews_work_by_the_same_rights(pod, broker)
    the_test_hook_passes(pod)
    it_ends_within_its_grace(pod)
