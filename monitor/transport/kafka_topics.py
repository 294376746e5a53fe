"""Sees to it that the topics exist, at start."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from monitor.core.errors import TransportError, UsageError
from monitor.transport.kafka_clients import KafkaConfig

log = logging.getLogger(__name__)

_COMPACTED = ("state", "control", "reviews")
_SINGLE_PARTITION = ("control", "audit", "reviews")
# Held and refused records carry a few headers more than they came with.
HEADER_ROOM = 64 * 1024
_NO_ERROR = 0
_TOPIC_EXISTS = 36


def ensure_topics(admin: Any, config: KafkaConfig) -> dict[str, int]:
    """Create what is missing and return the number of partitions of every topic.

    Raises
    ------
    UsageError
        When topics are missing or too small and ``create_topics`` is off.
    TransportError
        When the brokers refuse to create them.
    """
    wanted = config.topics.names()
    if len(set(wanted.values())) < len(wanted):
        raise UsageError("kafka.topics: every topic needs a name of its own")
    present = partition_counts(admin, wanted.values())
    missing = {role: name for role, name in wanted.items() if name not in present}
    if missing and not config.create_topics:
        raise UsageError(
            f"missing Kafka topics: {', '.join(missing.values())}; create them, or set "
            "kafka.create_topics: true"
        )
    if missing:
        count = present.get(config.topics.input, config.partitions)
        _create(admin, config, missing, count)
        present = partition_counts(admin, wanted.values())
    _grow_state(admin, config, present)
    return present


def partition_counts(admin: Any, names: Any) -> dict[str, int]:
    """Number of partitions of each topic that exists."""
    names = list(names)
    existing = set(admin.list_topics()) & set(names)
    if not existing:
        return {}
    found = admin.describe_topics(sorted(existing))
    return {t["name"]: len(t["partitions"]) for t in found if t["error_code"] == _NO_ERROR}


def largest_record(admin: Any, config: KafkaConfig) -> int:
    """Bytes of the largest record that must be writable: what the input allows, and headers."""
    resource = ConfigResource(ConfigResourceType.TOPIC, config.topics.input)
    try:
        found = admin.describe_configs([resource], config_filter="all")
        limit = int(found["topic"][config.topics.input]["max.message.bytes"]["value"])
    except (kafka_errors.KafkaError, KeyError, TypeError, ValueError) as error:
        log.info("cannot read max.message.bytes of %s: %r", config.topics.input, error)
        return config.max_record_bytes
    return max(config.max_record_bytes, limit + HEADER_ROOM)


def _create(admin: Any, config: KafkaConfig, missing: Mapping[str, str], count: int) -> None:
    limit = (
        str(largest_record(admin, config))
        if config.topics.input not in missing.values()
        else (str(config.max_record_bytes))
    )
    request = {
        name: {
            "num_partitions": 1 if role in _SINGLE_PARTITION else count,
            "replication_factor": config.replication_factor,
            "configs": _topic_configs(role, limit),
        }
        for role, name in missing.items()
    }
    answer = admin.create_topics(
        request, timeout_ms=config.request_timeout_ms, raise_errors=False, wait_for_metadata=False
    )
    # Another instance that starts at the same moment may have been first.
    refused = [t for t in answer["topics"] if t["error_code"] not in (_NO_ERROR, _TOPIC_EXISTS)]
    if refused:
        first = refused[0]
        why = first.get("error_message") or kafka_errors.for_code(first["error_code"]).__name__
        raise TransportError(
            f"cannot create Kafka topic {first['name']!r}: {why}; create it by hand, or change "
            "kafka.partitions and kafka.replication_factor"
        )
    admin.wait_for_topics(sorted(missing.values()), timeout_ms=config.request_timeout_ms)
    log.info("created Kafka topics %s", ", ".join(missing.values()))


def _topic_configs(role: str, limit: str) -> dict[str, str]:
    if role == "input":
        return {}
    configs = {"max.message.bytes": limit}
    if role in _COMPACTED:
        # Small segments and an eager cleaner keep the part that must be read at a restart short.
        configs |= {
            "cleanup.policy": "compact",
            "segment.bytes": str(32 << 20),
            "min.cleanable.dirty.ratio": "0.1",
            "max.compaction.lag.ms": "600000",
        }
    return configs


def _grow_state(admin: Any, config: KafkaConfig, present: dict[str, int]) -> None:
    """The state of input partition n is in partition n of the state topic, so both need it."""
    need, have = present[config.topics.input], present[config.topics.state]
    if have >= need:
        return
    if not config.create_topics:
        raise UsageError(
            f"Kafka topic {config.topics.state!r} has {have} partitions and the input "
            f"{config.topics.input!r} has {need}: add partitions to the former"
        )
    admin.create_partitions({config.topics.state: need}, raise_errors=False)
    admin.wait_for_topics([config.topics.state], timeout_ms=config.request_timeout_ms)
    present[config.topics.state] = need
