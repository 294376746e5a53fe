"""The in-memory model obeys the laws it is used to stand in for."""

from __future__ import annotations

import pytest

from tests.checks.transport_laws import TransportLaws
from tests.sim.model import ModelTransport, Store


class ModelHarness:
    exclusive = False

    def __init__(self) -> None:
        self.store = Store({0: []})

    def feed(self, values: list[bytes]) -> None:
        self.store.records[0] += list(enumerate(values, len(self.store.records[0])))

    def transport(self) -> ModelTransport:
        return ModelTransport(self.store)

    def output(self, name: str) -> list[bytes]:
        return [value for _, _, value in self.store.outputs[name]]


class TestModel(TransportLaws):
    @pytest.fixture
    def harness(self) -> ModelHarness:
        return ModelHarness()
