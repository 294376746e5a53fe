"""Whatever goes wrong in the client becomes a TransportError: exit code 3, start again."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest
from kafka import errors as kafka_errors

from monitor.core.errors import MonitorError, StateError, TransportError
from monitor.core.types import RawBatch
from monitor.transport import kafka_python, kafka_reader
from monitor.transport.kafka import KafkaConfig, KafkaTransport
from monitor.transport.kafka_port import as_transport_error, make_client
from monitor.transport.kafka_state import StoredState
from monitor.transport.kafka_worker import Worker
from tests.kafka.kafka_helpers import unit

ERRORS = [
    kafka_errors.KafkaTimeoutError("x"),
    kafka_errors.ProducerFencedError(),
    kafka_errors.CommitFailedError(),
    kafka_errors.CoordinatorNotAvailableError(),
    kafka_errors.NotLeaderForPartitionError(),
    kafka_errors.UnknownTopicOrPartitionError(),
    kafka_errors.TopicAuthorizationFailedError(),
    kafka_errors.OutOfOrderSequenceNumberError(),
    kafka_errors.InvalidTxnStateError(),
    ConnectionResetError("gone"),
    AssertionError("the client's own"),
    AttributeError("the client's own"),
    RuntimeError("the client's own"),
    ValueError("the client's own"),
]
IDS = [type(error).__name__ for error in ERRORS]


class Raises:
    """A client of which every call fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name):
        def fail(*_, **__):
            raise self.error

        return fail


@pytest.fixture
def opened():
    transport = KafkaTransport(KafkaConfig(request_timeout_seconds=0.2))
    transport._worker = Worker("test")
    yield transport
    transport._worker.stop()


@pytest.mark.parametrize("error", ERRORS, ids=IDS)
def test_polling(error, opened) -> None:
    opened._member = Raises(error)
    with pytest.raises(TransportError) as found:
        opened.poll(10, 0.0)
    assert found.value.exit_code == 3


@pytest.mark.parametrize("error", ERRORS, ids=IDS)
def test_reading_again(error) -> None:
    client = MagicMock()
    client.reader.return_value = _Closable(error)
    with pytest.raises(TransportError):
        list(kafka_reader.read_range(client, KafkaConfig(), 0, 1, 5))


class _Closable(Raises):
    def close(self, *_) -> None:
        pass


@pytest.mark.parametrize("error", ERRORS, ids=IDS)
def test_every_error_has_words(error, client) -> None:
    config = KafkaConfig(client=client)
    found = as_transport_error(error, "committing", config, make_client(config))
    assert isinstance(found, TransportError)
    assert str(found).startswith("committing")


@pytest.mark.parametrize(
    ("code", "retry", "words"),
    [
        ("_FENCED", False, "fenced.*kafka.instance"),
        ("PRODUCER_FENCED", False, "fenced.*kafka.instance"),
        ("FENCED_INSTANCE_ID", False, "fenced.*kafka.instance"),
        ("MSG_SIZE_TOO_LARGE", False, "max.message.bytes"),
        ("GROUP_AUTHORIZATION_FAILED", False, "grant this client"),
        ("_TIMED_OUT", True, "no answer in time"),
        ("ILLEGAL_GENERATION", True, "ILLEGAL_GENERATION"),
        ("UNKNOWN_MEMBER_ID", True, "UNKNOWN_MEMBER_ID"),
        ("NOT_COORDINATOR", True, "NOT_COORDINATOR"),
        ("_TRANSPORT", True, "_TRANSPORT"),
        ("_STATE", False, "_STATE"),
    ],
)
def test_errors_of_the_other_client(code, retry, words) -> None:
    library = pytest.importorskip("confluent_kafka")
    error = library.KafkaException(library.KafkaError(getattr(library.KafkaError, code)))
    config = KafkaConfig(client="confluent")
    found = as_transport_error(error, "committing", config, make_client(config))
    assert getattr(found, "retry", False) is retry
    with pytest.raises(TransportError, match=f"committing: .*{words}"):
        raise found


def test_stored_state_that_is_bad_is_not_cured_by_a_restart(opened) -> None:
    opened._member = Raises(StateError("damaged"))
    with pytest.raises(StateError):
        opened.poll(10, 0.0)


def test_a_call_that_hangs_is_given_up(opened) -> None:
    import threading

    release = threading.Event()
    with pytest.raises(MonitorError, match="did not finish"):
        opened._worker.call("waiting", 0.05, release.wait)
    with pytest.raises(TransportError, match="restart the process"):
        opened._worker.call("anything", 0.05, int)
    release.set()


def test_refused_offsets_are_not_sent_again_with_the_next_transaction(opened, monkeypatch) -> None:
    """The client keeps them (3.0.12), so after a failed commit there is another producer."""
    first, second = MagicMock(name="first"), MagicMock(name="second")
    first.send_offsets_to_transaction.side_effect = kafka_errors.CommitFailedError()
    made = iter([first, second])
    monkeypatch.setattr(kafka_python, "KafkaProducer", lambda **_: next(made))
    opened._producer = kafka_python.PythonProducer(opened.config, 1000)
    opened._member = MagicMock()
    opened._committed, opened._stored = {0: 0}, {0: StoredState()}
    opened._counts = dict.fromkeys(opened.config.topics.names().values(), 1)
    raw = RawBatch.of([b"{}"])
    with pytest.raises(TransportError):
        opened.commit(unit(raw))
    first.abort_transaction.assert_called_once()
    first.close.assert_called_once()
    opened.commit(unit(raw))
    second.init_transactions.assert_called_once()
    first.commit_transaction.assert_not_called()
    second.commit_transaction.assert_called_once()
