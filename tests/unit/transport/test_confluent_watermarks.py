"""Where a partition ends is asked again while its leader changes.

The client's consumer is a stand-in here: a broker does not change leaders at a chosen moment.
"""

from __future__ import annotations

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import KafkaError, KafkaException

from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_confluent_consumer import ConfluentReader


class StandIn:
    """Answers with these errors first."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def get_watermark_offsets(self, *_: object) -> tuple[int, int]:
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        return (3, 8)


def reader(*codes: int) -> ConfluentReader:
    made = ConfluentReader.of(KafkaConfig(bootstrap_servers="127.0.0.1:1"), "t", [])
    made._consumer.close()
    made._consumer = StandIn(*codes)
    return made


def test_a_leader_that_moves_is_waited_for() -> None:
    passing = [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE]
    assert reader(*passing).ends([0, 1], 10.0) == {0: 8, 1: 8}
    assert reader(*passing).beginnings([0], 10.0) == {0: 3}


@pytest.mark.parametrize(
    ("code", "seconds"),
    [(KafkaError.TOPIC_AUTHORIZATION_FAILED, 10.0), (KafkaError.NOT_LEADER_FOR_PARTITION, -1.0)],
)
def test_other_errors_and_late_ones_are_not(code: int, seconds: float) -> None:
    with pytest.raises(KafkaException):
        reader(code).ends([0], seconds)
