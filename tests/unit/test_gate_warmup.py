"""The first events of a stream: what becomes of them, and what is learned from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from monitor.config.policy import Policy
from monitor.core.types import Action, DecisionBatch, Mode, Verdict
from monitor.gate import Gate, GateConfig

WARM = 64


def event(i: int, **fields: Any) -> bytes:
    rng = np.random.default_rng(i)
    y = bool(rng.random() < 0.5)
    features = {"a": rng.normal() + 2 * y, "b": rng.normal(), "c": "xyz"[i % 3]}
    base = {"id": f"e{i}", "ts": 1.7e9 + i, "source": f"s{i % 9}", "label": y, "features": features}
    return orjson.dumps({**base, **fields})


def words(decided: DecisionBatch) -> list[str]:
    return [Verdict(v).word for v in decided.verdict]


def texts(decided: DecisionBatch, row: int) -> list[str]:
    return [reason["text"] for reason in orjson.loads(decided.records[row])["reasons"]]


@pytest.mark.parametrize("mode", list(Mode))
def test_hold_is_a_verdict_and_the_mode_decides_what_is_done(mode: Mode) -> None:
    gate = Gate(GateConfig(warmup="hold", warmup_events=WARM), Policy(mode=mode))
    decided = gate.check([event(i) for i in range(WARM - 1)] + [b"{"])
    assert words(decided) == ["quarantine"] * (WARM - 1) + ["invalid"]
    done = Action.HOLD if mode is Mode.ENFORCE else Action.PASS
    assert decided.action.tolist() == [done] * (WARM - 1) + [Action.REJECT]
    assert decided.warmup.tolist() == [True] * (WARM - 1) + [False]
    said = "held back" if mode is Mode.ENFORCE else "in this mode nothing is held back"
    assert said in texts(decided, 0)[0]


@pytest.mark.parametrize("warmup", ["accept", "hold"])
def test_neither_mode_nor_warm_up_setting_changes_what_is_learned(warmup: Any) -> None:
    digests = set()
    for mode in Mode:
        gate = Gate(GateConfig(warmup=warmup, warmup_events=WARM), Policy(mode=mode))
        verdicts = gate.check([event(i) for i in range(400)]).verdict
        digests.add((gate.digest(gate.state), verdicts.tobytes()))
    assert len(digests) == 1
