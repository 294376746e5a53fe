"""Sees to it that the topics exist, at start."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from monitor.core.errors import TransportError, UsageError
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_port import Admin, NewTopic

log = logging.getLogger(__name__)

_COMPACTED = ("state", "control", "reviews", "checkpoints")
_SINGLE_PARTITION = ("control", "audit", "reviews", "checkpoints")
# Held and refused records carry a few headers more than they came with.
HEADER_ROOM = 64 * 1024


def ensure_topics(admin: Admin, config: KafkaConfig) -> dict[str, int]:
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
    present = admin.partition_counts(list(wanted.values()))
    missing = {role: name for role, name in wanted.items() if name not in present}
    if missing and not config.create_topics:
        raise UsageError(
            f"missing Kafka topics: {', '.join(missing.values())}; create them, or set "
            "kafka.create_topics: true; topics that this login may not describe look the same"
        )
    if missing:
        count = present.get(config.topics.input, config.partitions)
        _create(admin, config, missing, count)
        present = admin.partition_counts(list(wanted.values()))
    _grow_state(admin, config, present)
    return present


def largest_record(admin: Admin, config: KafkaConfig) -> int:
    """Bytes of the largest record that must be writable: what the input allows, and headers."""
    limit = admin.largest_message(config.topics.input)
    if limit is None:
        log.info("cannot read max.message.bytes of %s", config.topics.input)
        return config.max_record_bytes
    return max(config.max_record_bytes, limit + HEADER_ROOM)


def _create(admin: Admin, config: KafkaConfig, missing: Mapping[str, str], count: int) -> None:
    limit = (
        str(largest_record(admin, config))
        if config.topics.input not in missing.values()
        else (str(config.max_record_bytes))
    )
    topics = {
        name: NewTopic(
            1 if role in _SINGLE_PARTITION else count,
            config.replication_factor,
            _topic_configs(role, limit),
        )
        for role, name in missing.items()
    }
    for name, why in admin.create(topics).items():
        raise TransportError(
            f"cannot create Kafka topic {name!r}: {why}; create it by hand, or change "
            "kafka.partitions and kafka.replication_factor"
        )
    admin.wait_for(
        {name: topic.partitions for name, topic in topics.items()}, config.request_timeout_seconds
    )
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


def _grow_state(admin: Admin, config: KafkaConfig, present: dict[str, int]) -> None:
    """The state of input partition n is in partition n of the state topic, so both need it."""
    need, have = present[config.topics.input], present[config.topics.state]
    if have >= need:
        return
    if not config.create_topics:
        raise UsageError(
            f"Kafka topic {config.topics.state!r} has {have} partitions and the input "
            f"{config.topics.input!r} has {need}: add partitions to the former"
        )
    admin.grow(config.topics.state, need)
    admin.wait_for({config.topics.state: need}, config.request_timeout_seconds)
    present[config.topics.state] = need
