"""What confluent-kafka's errors mean, also where the interpreter has put another in front.

That the client logs while an error is on its way cannot be brought about at will, so the chain of
errors is made here as the interpreter makes it.
"""

from __future__ import annotations

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import KafkaError, KafkaException

from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_confluent import Adapter
from monitor.transport.kafka_port import Fault

CONFIG = KafkaConfig(bootstrap_servers="127.0.0.1:1")


def behind(error: BaseException, times: int) -> BaseException:
    for _ in range(times):
        outer = SystemError("<class 'logging.LogRecord'> returned a result with an exception set")
        outer.__cause__ = error
        error = outer
    return error


@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_fenced_client_is_told_from_a_broken_one(times: int) -> None:
    fenced = KafkaException(KafkaError(KafkaError._FENCED))
    assert Adapter(CONFIG).fault(behind(fenced, times))[0] is Fault.FENCED
    timed_out = KafkaException(KafkaError(KafkaError.REQUEST_TIMED_OUT))
    assert Adapter(CONFIG).fault(behind(timed_out, times))[0] is not Fault.FENCED


def test_an_error_of_the_interpreter_itself_stays_one() -> None:
    assert Adapter(CONFIG).fault(SystemError("out of order")) == (
        Fault.OTHER,
        "SystemError: out of order",
    )
