"""Faults on a real broker of one's own: suspended past max.poll.interval, fenced, broker restart.

Short forms of loadtest/reliability.py, which has the others and the numbers for the README.
"""

from __future__ import annotations

import random

import pytest

pytest.importorskip("confluent_kafka")

from loadtest import reliability
from loadtest.reliability import Setting, Size
from tests.kafka.kafka_helpers import broker_module

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(420)]

SIZES = {"stop": Size(5000, 1, 1000), "twin": Size(4000, 1, 1000), "broker": Size(6000, 1, 1500)}


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory, request):
    """A broker that may be stopped and killed, which the shared one may not."""
    module = broker_module()
    broker = module.Broker(tmp_path_factory.mktemp("own-broker"))
    try:
        broker.start()
    except module.UnavailableError as error:
        pytest.skip(f"no Kafka of one's own: {error}")
    yield broker
    broker.stop()


# The broker's restart takes longest, and meets one process with each of the clients.
PAIRS = [("stop", "kafka-python"), ("twin", "confluent")]


@pytest.mark.parametrize(("name", "client"), [*PAIRS, ("broker", "mixed")])
def test_nothing_is_lost_or_doubled(name, client, own_broker, tmp_path):
    faults = []
    setting = Setting(
        own_broker,
        tmp_path,
        SIZES[name],
        random.Random(name),
        lambda decided: None,
        lambda: faults.append(name),
        client,
    )
    fleet = reliability.SCENARIOS[name][1](setting)
    ledger = fleet.ledger()
    assert len(faults) == SIZES[name].faults
    assert ledger.clean, ledger
    assert ledger.events_in == ledger.events_out == SIZES[name].events
    if name == "twin":
        assert fleet.restarts[3] == 1
