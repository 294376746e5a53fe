"""The ledger in a topic, on a real broker."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from monitor.core.errors import TransportError
from monitor.transport.kafka_ledger import KafkaLedger
from monitor.transport.kafka_port import make_client
from monitor.transport.kafka_records import Outgoing
from monitor.transport.kafka_topics import ensure_topics
from tests.checks.ledger_laws import LedgerLaws

pytestmark = pytest.mark.kafka


@pytest.fixture
def config(cluster):
    config = cluster.config(commit_deadline_seconds=6.0)
    admin = make_client(config).admin()
    counts = ensure_topics(admin, config)
    admin.close()
    assert counts[config.topics.reviews] == counts[config.topics.control] == 1
    return config


@pytest.fixture
def ledgers(config):
    made = []

    def make(**changes):
        made.append(KafkaLedger(replace(config, **changes), config.topics.reviews))
        return made[-1]

    yield make
    for ledger in made:
        ledger.close()


class TestKafkaLedger(LedgerLaws):
    pass


@pytest.mark.parametrize("client", ["kafka-python"], indirect=True)
def test_catching_up_waits_for_a_transaction_in_front(config, ledgers):
    """What was committed behind somebody's open transaction is not overlooked."""
    hanging = replace(
        config, instance="stuck", commit_deadline_seconds=3.0, request_timeout_seconds=3.0
    )
    stuck = make_client(hanging).producer(1 << 20)
    stuck.begin()
    stuck.send(Outgoing(config.topics.reviews, 0, [b"never"], [b"never"]))
    stuck.flush(10)
    ledgers().append([(b"behind", b"1")])
    client, topic = make_client(config), config.topics.reviews
    reader = client.reader(topic, [0])
    settled = reader.ends([0], 5.0)[0]
    reader.close(1)
    assert settled == 0 < client.log_ends(topic, [0], 5.0)[0]
    began = time.monotonic()
    assert list(ledgers().catch_up()) == [(b"behind", b"1")]
    assert time.monotonic() - began < 60
    stuck.close(1)


def test_no_broker_is_an_error_in_words(cluster):
    config = cluster.config(
        bootstrap_servers="127.0.0.1:9", request_timeout_seconds=2.0, commit_deadline_seconds=4.0
    )
    ledger = KafkaLedger(config, "nowhere")
    for attempt in (ledger.catch_up, lambda: ledger.append([(b"a", b"1")])):
        with pytest.raises(TransportError):
            attempt()
    ledger.close()
