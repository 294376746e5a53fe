"""Committed position and stored state are read at different moments: when that matters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from monitor.core.errors import TransportError
from monitor.transport import kafka_reader
from monitor.transport.kafka import KafkaConfig
from monitor.transport.kafka_state import StoredState


class Readings:
    """Scripted pairs of (committed, stored), the last one for ever, and a clock to go with it."""

    def __init__(self, pairs, *, seconds_each: float, pause_first: float = 0.0) -> None:
        self._pairs: Iterator = iter(pairs)
        self._now, self._step, self._pause = 0.0, seconds_each, pause_first
        self._pair = (0, 0)
        self.taken = 0

    def committed(self, config, member, partition):
        self._pair = next(self._pairs, self._pair)
        self.taken += 1
        return self._pair[0]

    def states(self, client, config, partitions):
        self._now += self._pause
        self._pause = 0.0
        return {p: StoredState(next_offset=self._pair[1]) for p in partitions}

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += self._step


@pytest.fixture
def settle(monkeypatch):
    def run(readings: Readings):
        monkeypatch.setattr(kafka_reader, "_committed", readings.committed)
        monkeypatch.setattr(kafka_reader, "read_states", readings.states)
        monkeypatch.setattr(kafka_reader, "time", readings)
        found = kafka_reader.resume(None, KafkaConfig(), None, [0])[0]
        return found[0].next_offset, found[1].next_offset

    return run


def test_they_agree_at_once(settle) -> None:
    readings = Readings([(5, 5)], seconds_each=0.2)
    assert settle(readings) == (5, 5)
    assert readings.taken == 1


def test_the_state_lags_for_a_moment(settle) -> None:
    assert settle(Readings([(9, 5), (9, 5), (9, 9)], seconds_each=0.2)) == (9, 9)


def test_suspended_between_the_two_readings(settle) -> None:
    """The first pair is stale by minutes; the next readings agree."""
    assert settle(Readings([(5, 9), (9, 9)], seconds_each=0.2, pause_first=600.0)) == (9, 9)


def test_suspended_while_someone_else_works_on(settle) -> None:
    pairs = [(i, i + 5) for i in range(0, 100_000, 5)]
    with pytest.raises(TransportError, match="another instance"):
        settle(Readings(pairs, seconds_each=0.2, pause_first=600.0))


def test_a_difference_that_stays_is_handed_on(settle) -> None:
    """Offsets that were reset by hand: recovery says what to do about it."""
    readings = Readings([(5, 9)], seconds_each=0.2)
    assert settle(readings) == (5, 9)
    assert readings.taken > 40
