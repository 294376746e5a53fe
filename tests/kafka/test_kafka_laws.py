"""The Kafka transport obeys the laws of all transports."""

from __future__ import annotations

import pytest

from monitor.transport.kafka import KafkaTransport
from tests.checks.transport_laws import TransportLaws


class KafkaHarness:
    exclusive = False

    def __init__(self, cluster) -> None:
        self.cluster = cluster

    def feed(self, values) -> None:
        opened = self.cluster.transport(partitions=1, instance="creates-the-topics")
        opened.close()
        self.cluster.produce([(0, None, value, None, None) for value in values])

    def transport(self) -> KafkaTransport:
        made = KafkaTransport(self.cluster.config(partitions=1))
        self.cluster.opened.append(made)
        return made

    def output(self, name):
        topic = getattr(self.cluster.topics, {"quarantined": "quarantine"}.get(name, name))
        return [record.value for record in self.cluster.read(topic)]


@pytest.mark.kafka
class TestKafka(TransportLaws):
    @pytest.fixture
    def harness(self, cluster):
        return KafkaHarness(cluster)
