"""Whatever goes wrong in the client becomes a TransportError: exit code 3, start again."""

from __future__ import annotations

import pytest
from kafka import errors as kafka_errors

from monitor.core.errors import MonitorError, StateError, TransportError
from monitor.transport import kafka_reader
from monitor.transport.kafka import KafkaConfig, KafkaTransport
from monitor.transport.kafka_clients import Worker, as_transport_error

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
def test_reading_again(error, monkeypatch) -> None:
    monkeypatch.setattr(kafka_reader, "new_reader", lambda *_: _Closable(error))
    with pytest.raises(TransportError):
        list(kafka_reader.read_range(KafkaConfig(), 0, 1, 5))


class _Closable(Raises):
    def close(self, **_) -> None:
        pass


@pytest.mark.parametrize("error", ERRORS, ids=IDS)
def test_every_error_has_words(error) -> None:
    found = as_transport_error(error, "committing", KafkaConfig())
    assert isinstance(found, TransportError)
    assert str(found).startswith("committing")


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
    from unittest.mock import MagicMock

    from kafka.structs import ConsumerGroupMetadata, MemberState

    from monitor.core.types import RawBatch
    from monitor.transport import kafka_clients
    from monitor.transport.kafka_state import StoredState
    from tests.kafka.kafka_helpers import unit

    first, second = MagicMock(name="first"), MagicMock(name="second")
    first.send_offsets_to_transaction.side_effect = kafka_errors.CommitFailedError()
    monkeypatch.setattr(kafka_clients, "new_producer", lambda *_: second)
    opened._producer, opened._committed, opened._stored = first, {0: 0}, {0: StoredState()}
    opened._counts = dict.fromkeys(opened.config.topics.names().values(), 1)
    opened._counts["state"] = 1
    opened._group = MagicMock(spec=ConsumerGroupMetadata)
    opened._group.state, opened._group.generation_id = MemberState.STABLE, 3
    raw = RawBatch.of([b"{}"])
    with pytest.raises(TransportError):
        opened.commit(unit(raw))
    first.abort_transaction.assert_called_once()
    first.close.assert_called_once()
    second.init_transactions.assert_called_once()
    opened.commit(unit(raw))
    first.commit_transaction.assert_not_called()
    second.commit_transaction.assert_called_once()
