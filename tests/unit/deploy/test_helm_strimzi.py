"""The topics and rights of deploy/strimzi are what the transport makes and needs."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_topics import HEADER_ROOM, _topic_configs
from tests.unit.deploy.charts import DEPLOY, Object, check

SINGLE = {"control", "audit", "reviews", "checkpoints"}


def documents(name: str) -> list[Object]:
    return list(yaml.safe_load_all((DEPLOY / "strimzi" / name).read_text()))


def topics() -> dict[str, Any]:
    return {item["metadata"]["name"]: item["spec"] for item in documents("topics.yaml")}


def rights(user: str) -> set[tuple[str, str, str, str]]:
    (item,) = [u for u in documents("users.yaml") if u["metadata"]["name"] == user]
    return {
        (acl["resource"]["type"], acl["resource"]["name"], acl["resource"]["patternType"], word)
        for acl in item["spec"]["authorization"]["acls"]
        for word in acl["operations"]
    }


@pytest.mark.parametrize("name", ["topics.yaml", "users.yaml"])
def test_objects_are_valid_and_of_one_cluster(name: str) -> None:
    found = documents(name)
    for item in found:
        check(item)
    assert {item["metadata"]["labels"]["strimzi.io/cluster"] for item in found} == {"events"}


def test_topics_are_those_the_service_would_make() -> None:
    config, given = KafkaConfig(), topics()
    names = config.topics.names()
    assert set(given) == set(names.values())
    count = given["feedback"]["partitions"]
    limit = str(config.max_record_bytes)
    for role, name in names.items():
        spec = given[name]
        assert spec["partitions"] == (1 if role in SINGLE else count)
        assert spec["replicas"] == 3 and spec["config"]["min.insync.replicas"] == 2
        if role != "input":
            own = {key: str(value) for key, value in spec["config"].items()}
            assert own.items() >= _topic_configs(role, limit).items(), name
    room = config.max_record_bytes - given["feedback"]["config"]["max.message.bytes"]
    assert room >= HEADER_ROOM


def test_the_monitor_has_the_rights_that_were_tried_on_a_broker() -> None:
    """tests/kafka/test_kafka_security.py runs it with those of the document."""
    text = (DEPLOY / "kafka-security.md").read_text()
    kinds = {"topic": "topic", "group": "group", "transactional-id": "transactionalId"}
    tried = set()
    for line in re.findall(r"^acl (--.*)$", text, re.MULTILINE):
        ((kind, name),) = re.findall(r"--(topic|group|transactional-id) (\S+)", line)
        pattern = "prefix" if "prefixed" in line else "literal"
        # The hyphen behind the prefix stands in every transactional id.
        name = f"{name.rstrip('-')}-" if pattern == "prefix" else name
        tried |= {(kinds[kind], name, pattern, w) for w in re.findall(r"--operation (\w+)", line)}
    assert rights("poisoning-monitor") == tried


def test_nobody_else_may_write_what_the_monitor_or_the_learner_believes() -> None:
    believed = {
        *("feedback.accepted", "feedback.quarantine", "feedback.retractions"),
        *("monitor.state", "monitor.control", "monitor.reviews"),
    }
    for item in documents("users.yaml"):
        user = item["metadata"]["name"]
        assert all(word != "All" for *_, word in rights(user))
        assert not any(kind == "cluster" for kind, *_ in rights(user))
        if user != "poisoning-monitor":
            written = {name for _, name, _, word in rights(user) if word == "Write"}
            assert not written & believed
            assert all(pattern == "literal" for _, _, pattern, _ in rights(user))
    assert ("topic", "feedback", "literal", "Write") not in rights("poisoning-monitor")


def test_transactional_ids_of_the_service_are_covered() -> None:
    given = rights("poisoning-monitor")
    (prefix,) = {name for kind, name, *_ in given if kind == "transactionalId"}
    for instance in ("rel-poisoning-monitor-0", "reviews", "ledger-0123"):
        assert KafkaConfig(instance=instance).transactional_id.startswith(prefix)
