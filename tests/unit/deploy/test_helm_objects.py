"""What the chart renders, over all value sets: valid, unprivileged, without secrets, of a piece."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python.chart import lint

from monitor.admin.auth import Auth
from monitor.cli import wiring
from monitor.config.kafka_security import KafkaSecuritySettings
from monitor.config.settings import Settings, load_settings
from tests.unit.deploy.charts import (
    CHART,
    NEWEST,
    OLDEST,
    SETS,
    Object,
    check,
    containers,
    gate,
    notes,
    objects,
    of_kind,
    only,
    pods,
    values,
)

ALWAYS = {
    *("ConfigMap", "NetworkPolicy", "Pod", "PodDisruptionBudget"),
    *("Service", "ServiceAccount", "StatefulSet"),
}
WARNING = 2
SECRET_URL = "postgresql://gate:not-shown@db.example.org/quarantine"
FROM_SECRETS = {"MONITOR_GATE__HASH_SEED": "8317402219", "MONITOR_QUARANTINE__URL": SECRET_URL}

every_set = pytest.mark.parametrize("name", SETS)


def text_of(found: list[Object]) -> Iterator[tuple[str, str]]:
    """Every text in the objects, with its path."""

    def walk(path: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(f"{path}.{key}", inner)
        elif isinstance(value, list):
            for i, inner in enumerate(value):
                yield from walk(f"{path}[{i}]", inner)
        elif isinstance(value, str):
            yield path, value

    for item in found:
        yield from walk(f"{item['kind']}/{item['metadata']['name']}", item)


def settings_file(found: list[Object]) -> str:
    """The file the service is given."""
    maps = [item["data"] for item in of_kind(found, "ConfigMap")]
    (text,) = (data["monitor.yaml"] for data in maps if "monitor.yaml" in data)
    return str(text)


def environment(found: list[Object], pod: str = "rel-0") -> dict[str, str]:
    """The container's variables, as the kubelet would fill them in."""
    result = {}
    for entry in gate(found)["env"]:
        source = entry.get("valueFrom", {})
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "metadata.name"
            result[entry["name"]] = pod
        elif "secretKeyRef" in source:
            result[entry["name"]] = FROM_SECRETS.get(entry["name"], "from-a-secret")
        else:
            result[entry["name"]] = entry["value"]
    return result


def loaded(found: list[Object], folder: Path, pod: str = "rel-0") -> Settings:
    path = folder / "monitor.yaml"
    path.write_text(settings_file(found))
    return load_settings(path, environ=environment(found, pod))


def transactional_id(settings: Settings) -> str:
    """By the transport's own rule. Without the files of TLS, which are not here."""
    kafka = settings.kafka.model_copy(update={"security": KafkaSecuritySettings()})
    return wiring.kafka_config(settings.model_copy(update={"kafka": kafka})).transactional_id


@every_set
def test_lint_has_nothing_to_say(name: str) -> None:
    for version in (OLDEST, NEWEST):
        told = lint(CHART, values(name), strict=True, kube_version=f"v{version}")
        assert not told["errors"]
        assert not [m for m in told["messages"] if m["severity"] >= WARNING]


@every_set
def test_every_object_is_valid_for_the_oldest_and_the_newest(name: str) -> None:
    found = objects(name)
    assert {item["kind"] for item in found} >= ALWAYS
    for item in found:
        for version in (OLDEST, NEWEST):
            check(item, version)


@every_set
def test_names_and_labels_are_taken_by_kubernetes(name: str) -> None:
    seen = set()
    for item in objects(name):
        meta = item["metadata"]
        assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", meta["name"])
        key = (item["kind"], meta["name"], meta.get("namespace"))
        assert key not in seen
        seen.add(key)
        for label in meta["labels"].values():
            assert re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", label), label


@every_set
def test_no_container_has_privileges(name: str) -> None:
    found = objects(name)
    assert len(list(containers(found))) == 2
    for pod in pods(found):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any("hostPath" in volume for volume in pod.get("volumes", ()))
    for container in containers(found):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True and context["runAsNonRoot"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert not any("hostPort" in port for port in container.get("ports", ()))
    assert only(found, "ServiceAccount")["automountServiceAccountToken"] is False


@every_set
def test_secrets_are_named_and_never_given(name: str) -> None:
    found = objects(name)
    assert not of_kind(found, "Secret")
    for container in containers(found):
        for entry in container.get("env", ()):
            if re.search(r"PASSWORD|SECRET|TOKEN|SEED|URL", entry["name"]):
                assert set(entry["valueFrom"]) == {"secretKeyRef"}
    config = yaml.safe_load(settings_file(found))
    flat = json.dumps(config)
    assert '"password":' not in flat and "client_secret" not in flat and "hash_seed" not in flat
    for path, text in text_of(found):
        assert "-----BEGIN" not in text and not re.search(r"://[^/\s:]+:[^/\s@]+@", text), path


@every_set
def test_the_service_takes_the_settings(name: str, tmp_path: Path) -> None:
    found = objects(name)
    settings = loaded(found, tmp_path)
    given = values(name)
    kafka = settings.kafka
    assert kafka.instance == "rel-0"
    assert kafka.bootstrap_servers == given["kafka"]["bootstrapServers"]
    assert kafka.group_instance_id == ("rel-0" if given["kafka"].get("staticMembership") else None)
    assert settings.http.host == "0.0.0.0" and settings.http.tokens_file is not None
    assert settings.http.insecure is (settings.http.tls_cert_file is None)
    # Whatever stands in `config` arrives.
    for section, wanted in given.get("config", {}).items():
        got = getattr(settings, section).model_dump(mode="json", by_alias=True)
        for key, value in wanted.items():
            shown = [dict(v) for v in got[key]] if key == "schema" else got[key]
            assert shown == value, (section, key)
    wiring.make_gate(settings, local=False)
    two = loaded(found, tmp_path, "rel-1")
    ids = {transactional_id(s) for s in (settings, two)}
    assert ids == {f"{kafka.transactional_id_prefix}-rel-{i}" for i in range(2)}


@every_set
def test_files_of_the_settings_are_mounted(name: str, tmp_path: Path) -> None:
    found = objects(name)
    pod = only(found, "StatefulSet")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    claims = only(found, "StatefulSet")["spec"].get("volumeClaimTemplates", ())
    volumes |= {claim["metadata"]["name"]: claim for claim in claims}
    there, writable = {"/etc/poisoning-monitor/config/monitor.yaml"}, set()
    for mount in gate(found)["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "secret" in volume:
            assert mount["readOnly"] is True and volume["secret"]["defaultMode"] == 0o440
            assert "subPath" not in mount
            there |= {f"{mount['mountPath']}/{i['path']}" for i in volume["secret"]["items"]}
        elif not mount.get("readOnly"):
            writable.add(mount["mountPath"])
    assert {"/data", "/tmp"} <= writable
    settings = loaded(found, tmp_path)
    asked = re.findall(r"/etc/poisoning-monitor/\S+", settings_file(found))
    assert {*asked, *gate(found)["args"][2:]} <= there
    assert settings.quarantine.dir.startswith("/data/")
    # Nothing is mounted that nobody reads.
    assert there == {*asked, gate(found)["args"][2]}


@every_set
def test_probes_ask_what_the_service_answers(name: str) -> None:
    container = gate(objects(name))
    wanted = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    (port,) = container["ports"]
    for probe, path in wanted.items():
        asked = container[probe]["httpGet"]
        assert asked["path"].partition("?")[0] == path and Auth().is_open("GET", path)
        assert asked["port"] == port["name"]
        assert asked["scheme"] == ("HTTP" if values(name)["http"].get("insecure") else "HTTPS")
    assert ("standby=true" in container["readinessProbe"]["httpGet"]["path"]) is bool(
        values(name).get("standby")
    )
    # Longer than what the loop may wait for the brokers without being stuck.
    live = container["livenessProbe"]
    kafka = Settings().kafka
    silent = 60 + live["periodSeconds"] * live["failureThreshold"]
    assert silent > 3 * (kafka.request_timeout_seconds + kafka.commit_deadline_seconds)


@every_set
def test_selectors_meet_the_pods_and_only_those(name: str) -> None:
    found = objects(name)
    stateful = only(found, "StatefulSet")
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    test_labels = only(found, "Pod")["metadata"]["labels"]
    services = of_kind(found, "Service")
    selectors = [service["spec"]["selector"] for service in services]
    selectors.append(stateful["spec"]["selector"]["matchLabels"])
    selectors.append(only(found, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
    selectors.append(only(found, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    spec = stateful["spec"]["template"]["spec"]
    selectors += [s["labelSelector"]["matchLabels"] for s in spec["topologySpreadConstraints"]]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= test_labels.items()
    headless = [s["metadata"]["name"] for s in services if s["spec"].get("clusterIP") == "None"]
    assert headless == [stateful["spec"]["serviceName"]]
    for service in services:
        assert service["spec"]["ports"][0]["targetPort"] == gate(found)["ports"][0]["name"]


@every_set
def test_the_network_is_open_where_it_has_to_be(name: str, tmp_path: Path) -> None:
    found = objects(name)
    spec = only(found, "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (incoming,) = spec["ingress"]
    assert [p["port"] for p in incoming["ports"]] == [gate(found)["ports"][0]["containerPort"]]
    peers = [p["podSelector"]["matchLabels"] for p in incoming["from"] if p.get("podSelector")]
    test_labels = only(found, "Pod")["metadata"]["labels"]
    assert any(peer.items() <= test_labels.items() for peer in peers)
    outgoing = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    settings = loaded(found, tmp_path)
    brokers = {int(b.rpartition(":")[2]) for b in settings.kafka.bootstrap_servers.split(",")}
    assert {53, *brokers} <= outgoing
    assert (5432 in outgoing) is (settings.quarantine.url == SECRET_URL)


@every_set
def test_notes_tell_what_was_chosen(name: str) -> None:
    said, given = notes(values(name)), values(name)
    topics = given["kafka"].get("topics", {})
    assert topics.get("accepted", "feedback.accepted") in said and "read_committed" in said
    assert ("travel in the clear" in said) is bool(given["http"].get("insecure"))
    shadow = given.get("config", {}).get("policy", {}).get("mode") == "shadow"
    assert ("holds events back" in said) is not shadow
