"""What single values of the chart do, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python.errors import HelmError

from monitor.config.settings import load_settings
from tests.unit.deploy.charts import (
    CHART,
    CUSTOM,
    DEPLOY,
    Object,
    check,
    gate,
    objects,
    of_kind,
    only,
    render,
    values,
)

REFUSED = {
    "no brokers": ("kafka.bootstrapServers", {"kafka__bootstrapServers": ""}),
    "no port of a broker": ("bootstrapServers", {"kafka__bootstrapServers": "kafka"}),
    "no tokens": ("http.tokens.existingSecret", {"http__tokens": {}}),
    "neither TLS nor insecure": ("http.tls.existingSecret", {"http__insecure": False}),
    "TLS and insecure": ("http.insecure", {"http__tls": {"existingSecret": "tls"}}),
    "a login without a name": ("kafka.sasl", {"kafka__protocol": "SASL_SSL"}),
    "certificates without TLS": ("kafka.tls", {"kafka__tls": {"caSecret": "ca"}}),
    "more replicas than partitions": ("5 replicas for 4 partitions", {"replicas": 5}),
    "the same by autoscaling": (
        "9 replicas for 4 partitions",
        {"autoscaling": {"type": "hpa", "maxReplicas": 9}},
    ),
    "fewest above most": (
        "autoscaling.minReplicas",
        {"autoscaling": {"type": "keda", "minReplicas": 4, "maxReplicas": 3}},
    ),
    "metrics behind a token that nobody has": (
        "tokenSecret",
        {"http__openMetrics": False, "metrics": {"serviceMonitor": {"enabled": True}}},
    ),
    "what the chart sets": (
        "config.kafka.bootstrap_servers: the chart sets this",
        {"config": {"kafka": {"bootstrap_servers": "other:9092"}}},
    ),
    "the same in depth": (
        "config.kafka.security.protocol",
        {"config": {"kafka": {"security": {"protocol": "SSL"}}}},
    ),
    "another transport": ("config.transport", {"config": {"transport": "local"}}),
    "a password": (
        "config.kafka.security.password: a secret",
        {"config": {"kafka": {"security": {"password": "hidden"}}}},
    ),
    "a database with its password": (
        "config.quarantine.url: a secret",
        {"config": {"quarantine": {"url": "postgresql://u:p@h/d"}}},
    ),
    "a seed": ("config.gate.hash_seed: a secret", {"config": {"gate": {"hash_seed": 7}}}),
    "client certificates that the kubelet has not": (
        "tls_client_ca_file",
        {"config": {"http": {"tls_client_ca_file": "/ca.pem"}}},
    ),
    "no interface for the probes": ("http.enabled", {"config": {"http": {"enabled": False}}}),
    "KEDA with a login it cannot be given": (
        "autoscaling.keda.authenticationRef",
        {
            "kafka__protocol": "SASL_SSL",
            "kafka__sasl": {"mechanism": "OAUTHBEARER"},
            "autoscaling": {"type": "keda"},
        },
    ),
    "a word for a number": ("replicas", {"replicas": "three"}),
    "a value that is none": ("replicaCount", {"replicaCount": 3}),
    "a topic that is none": ("topics", {"kafka__topics": {"inputs": "x"}}),
    "a password in the environment": (
        "extraEnv",
        {"extraEnv": [{"name": "MONITOR_KAFKA__SECURITY__PASSWORD", "value": "hidden"}]},
    ),
    "a database's password in the environment": (
        "extraEnv",
        {"extraEnv": [{"name": "MONITOR_QUARANTINE__URL", "value": "postgresql://u:p@h/d"}]},
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_work_is_refused_with_a_sentence(why: str) -> None:
    word, changes = REFUSED[why]
    render(values("minimal"))
    with pytest.raises(HelmError) as caught:
        render(values("minimal", **changes))
    assert word in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_the_defaults_alone_say_what_is_missing() -> None:
    with pytest.raises(HelmError, match=r"kafka\.bootstrapServers: say where the brokers are"):
        render({})


def test_pods_restart_when_settings_change_and_only_then() -> None:
    def stamp(**changes: Any) -> str:
        pod = only(render(values("minimal", **changes)), "StatefulSet")["spec"]["template"]
        return str(pod["metadata"]["annotations"]["checksum/config"])

    assert stamp() == stamp(replicas=2) == stamp(resources={})
    assert stamp() != stamp(config={"batch": {"max_events": 100}})


def test_replicas_are_the_autoscalers_when_there_is_one() -> None:
    assert only(objects("minimal"), "StatefulSet")["spec"]["replicas"] == 1
    for name in ("hpa", "keda", "everything"):
        assert "replicas" not in only(objects(name), "StatefulSet")["spec"]


def test_reserves_count_as_ready() -> None:
    found = render(values("minimal", replicas=6, standby=True))
    assert gate(found)["readinessProbe"]["httpGet"]["path"] == "/readyz?standby=true"


def test_hpa_asks_for_the_lag_of_the_service() -> None:
    spec = only(objects("hpa"), "HorizontalPodAutoscaler")["spec"]
    (metric,) = spec["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert f"`{name}`" in (DEPLOY / "metrics.md").read_text()
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 4)
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "20000"}
    assert spec["scaleTargetRef"]["kind"] == "StatefulSet"


def test_hpa_may_go_by_the_processor() -> None:
    wanted = {"type": "hpa", "minReplicas": 1, "hpaMetric": "cpu", "cpuPercent": 70}
    found = render(values("minimal", autoscaling=wanted))
    scaler = only(found, "HorizontalPodAutoscaler")
    check(scaler)
    (metric,) = scaler["spec"]["metrics"]
    assert metric["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    assert "cpu" in gate(found)["resources"]["requests"]


def test_keda_asks_for_the_groups_lag_with_the_services_login() -> None:
    found = objects("keda")
    scaled = only(found, "ScaledObject")["spec"]
    config = yaml.safe_load(only(found, "ConfigMap")["data"]["monitor.yaml"])["kafka"]
    (trigger,) = scaled["triggers"]
    asked = trigger["metadata"]
    assert all(isinstance(value, str) for value in asked.values())
    assert asked["consumerGroup"] == config["group_id"]
    assert asked["topic"] == config["topics"]["input"]
    assert asked["bootstrapServers"] == config["bootstrap_servers"]
    assert (asked["sasl"], asked["tls"]) == ("scram_sha256", "enable")
    assert scaled["minReplicaCount"] >= 1 and scaled["maxReplicaCount"] <= config["partitions"]
    assert scaled["fallback"]["replicas"] == 4
    login = only(found, "TriggerAuthentication")
    assert trigger["authenticationRef"] == {"name": login["metadata"]["name"]}
    variables = {entry["name"]: entry for entry in gate(found)["env"]}
    (user,) = login["spec"]["env"]
    assert variables[user["name"]]["value"] == "monitor"
    assert gate(found)["name"] == user["containerName"]
    refs = {ref["parameter"]: ref["name"] for ref in login["spec"]["secretTargetRef"]}
    assert refs == {"password": "monitor-kafka", "ca": "kafka-ca"}


def test_keda_may_have_a_login_of_its_own() -> None:
    found = objects("everything")
    assert not of_kind(found, "TriggerAuthentication")
    (trigger,) = only(found, "ScaledObject")["spec"]["triggers"]
    assert trigger["authenticationRef"]["kind"] == "ClusterTriggerAuthentication"


def test_keda_without_security_needs_no_login() -> None:
    found = render(values("minimal", autoscaling={"type": "keda", "minReplicas": 1}))
    (trigger,) = only(found, "ScaledObject")["spec"]["triggers"]
    assert "authenticationRef" not in trigger and "sasl" not in trigger["metadata"]
    for item in found:
        check(item)


def test_other_logins_come_by_config_and_environment(tmp_path: Path) -> None:
    oauth = {"token_url": "https://id.example.org/token", "client_id": "monitor"}
    variable = "MONITOR_KAFKA__SECURITY__OAUTH__CLIENT_SECRET"
    secret = {"secretKeyRef": {"name": "monitor-oauth", "key": "client-secret"}}
    found = render(
        values(
            "minimal",
            kafka__protocol="SASL_SSL",
            kafka__sasl={"mechanism": "OAUTHBEARER"},
            config={"kafka": {"security": {"oauth": oauth}}},
            extraEnv=[{"name": variable, "valueFrom": secret}],
        )
    )
    path = tmp_path / "monitor.yaml"
    path.write_text(only(found, "ConfigMap")["data"]["monitor.yaml"])
    security = load_settings(path, environ={variable: "from-a-secret"}).kafka.security
    assert (security.mechanism, security.oauth.client_id) == ("OAUTHBEARER", "monitor")
    assert {"name": variable, "valueFrom": secret} in gate(found)["env"]


def test_prometheus_finds_pods_that_are_not_ready_too() -> None:
    for name in ("production", "security", "everything"):
        found = objects(name)
        spec = only(found, "ServiceMonitor")["spec"]
        chosen = [
            service
            for service in of_kind(found, "Service")
            if spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        ]
        (service,) = chosen
        assert service["spec"]["publishNotReadyAddresses"] is True
        (endpoint,) = spec["endpoints"]
        assert endpoint["port"] == service["spec"]["ports"][0]["name"] == endpoint["scheme"]
        assert service["metadata"]["labels"][spec["jobLabel"]]
        token = endpoint.get("authorization", {}).get("credentials")
        assert (token is None) is values(name)["http"].get("openMetrics", True)


def test_the_test_hook_knows_whether_metrics_are_open() -> None:
    for name, code in (("production", "200"), ("security", "401")):
        pod = only(objects(name), "Pod")
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert pod["spec"]["containers"][0]["command"][-1] == code


def test_storage_is_kept_only_where_asked() -> None:
    bare = only(objects("minimal"), "StatefulSet")["spec"]
    assert "volumeClaimTemplates" not in bare
    kept = only(objects("security"), "StatefulSet")["spec"]
    (claim,) = kept["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["metadata"]["name"] not in {v["name"] for v in kept["template"]["spec"]["volumes"]}


def test_openshift_chooses_the_user_itself() -> None:
    """There the values take the numbers out, and null is how Helm does that."""
    nobody = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
    found = render(values("minimal", podSecurityContext=nobody))
    context = only(found, "StatefulSet")["spec"]["template"]["spec"]["securityContext"]
    assert "runAsUser" not in context and context["runAsNonRoot"] is True


@pytest.mark.parametrize("release", ["a" * 53, "poisoning-monitor", "poisoning-monitor-eu-west-1"])
def test_long_names_still_fit(release: str) -> None:
    found = render(values("everything", nameOverride=""), release=release)
    for item in found:
        assert len(item["metadata"]["name"]) <= 63
        check(item)


def test_custom_kinds_are_all_rendered_somewhere() -> None:
    seen = {item["kind"] for name in ("everything", "keda") for item in objects(name)}
    assert {kind for kind in CUSTOM if not kind.startswith("Kafka")} <= seen


def test_every_value_is_explained_by_the_schema() -> None:
    """What may be set is what values.yaml shows, but for free maps."""
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    given = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(path: str, wanted: Object, here: Object) -> None:
        properties = wanted.get("properties", {})
        if not properties:
            return
        extra = {"global"} if not path else set()
        optional = {"initialDelaySeconds", "successThreshold", "name", "kind"}
        assert set(properties) - extra - optional <= set(here) or not here, path
        assert set(here) <= set(properties), path
        for key, value in here.items():
            if isinstance(value, dict):
                compare(f"{path}.{key}", properties[key], value)

    compare("", schema, given)
