"""The real gate on the failing transport: crashes change no decision, to the byte."""

from __future__ import annotations

import json
import random
import threading

import pytest

from monitor.core.errors import TransportError
from monitor.gate import Gate, GateConfig
from monitor.runtime.service import Service
from monitor.state.audit import Chaining
from tests.checks.audit_whole import chains_whole
from tests.sim.model import STEPS, Crash, ModelTransport, Store


def events(seed: int, n: int = 420) -> list[bytes]:
    rng = random.Random(seed)
    found = []
    for i in range(n):
        label = rng.choice(["buy", "skip"])
        centre = 1.0 if label == "buy" else -1.0
        event = {
            "id": f"e{i if rng.random() > 0.02 else rng.randrange(i + 1)}",
            "ts": 1.7e9 + i,
            "source": f"s{rng.randrange(9)}",
            "label": label if rng.random() > 0.05 else "buy",
            "features": {"a": rng.gauss(centre, 1), "b": rng.gauss(0, 1), "c": rng.choice("xyz")},
        }
        found.append(json.dumps(event).encode() if rng.random() > 0.03 else b"{not json")
    return found


def run_to_the_end(store: Store, rng: random.Random, chance: float) -> int:
    deaths = 0

    def fault(step: str) -> None:
        if step in (*STEPS, "poll") and deaths < 12 and rng.random() < chance:
            raise rng.choice([Crash, TransportError])(step)

    while True:
        gate = Gate(GateConfig(warmup_events=64))
        transport = ModelTransport(store, fault, churn=0.0 if chance == 0.0 else 0.1)
        service = Service(
            *(gate, transport),
            batch_events=32,
            snapshot_every_batches=4,
            digests=True,
            chaining=Chaining("feedback", "1"),
        )
        try:
            service.run(threading.Event())
        except (Crash, TransportError):
            deaths += 1
        else:
            return deaths


@pytest.mark.parametrize("seed", range(4))
def test_crashes_change_no_decision(seed: int) -> None:
    values = list(enumerate(events(seed)))
    stormy, calm = Store({0: values}), Store({0: values})
    assert run_to_the_end(stormy, random.Random(seed), 0.06) > 1
    assert run_to_the_end(calm, random.Random(seed), 0.0) == 0
    assert stormy.outputs == calm.outputs
    assert len(calm.outputs["decisions"]) == len(values)
    assert chains_whole(calm.outputs["audit"], calm.outputs["decisions"]) == len(values)
