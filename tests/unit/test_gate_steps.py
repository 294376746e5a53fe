"""A step is a function of state and batch, however the gate cuts the batch up inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from monitor.core.errors import RejectCode
from monitor.core.types import Action, DecisionBatch, RawBatch, Verdict
from monitor.gate import YOUNG_PART, YOUNG_SHARE, Gate, GateConfig, GateState

CONFIG = GateConfig(warmup_events=100)
INVALID = [b"{", b"\xff", b"[]", b'{"id":1}']


def values(n: int, seed: int = 0) -> list[bytes]:
    """Ordinary events, some flipped by few sources, some copies, some gradients, some invalid."""
    rng = np.random.default_rng(seed)
    found: list[bytes] = []
    for i in range(n):
        y, source = bool(rng.random() < 0.4), f"s{rng.integers(40)}"
        x = rng.normal(size=3) + 2.5 * y
        if rng.random() < 0.05:
            y, source = not y, f"bad{rng.integers(2)}"
        event: dict[str, Any] = {
            "id": f"{seed}-{i}",
            "ts": 1.7e9 + i,
            "source": source,
            "label": y,
            "features": {"a": x[0], "b": x[1], "c": x[2], "d": "xyz"[int(rng.integers(3))]},
            "subject": f"item{rng.integers(20)}",
        }
        if i % 3 == 0:
            event["gradient"] = (x * (1 if y else -1)).tolist()
        found.append(orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY))
        if rng.random() < 0.05:
            found[-1] = INVALID[i % len(INVALID)]
    return found


OLD = 1500 * YOUNG_SHARE + 500
"""Events after which the batches here are judged whole."""


def raw(n: int, start: int = 0, seed: int = 0) -> RawBatch:
    whole = values(start + n, seed)
    return RawBatch.of(whole[start:], start=start)


@pytest.fixture(scope="module")
def states() -> dict[str, GateState]:
    """At every age: nothing seen, half warm, young, grown up."""
    gate = Gate(CONFIG)
    found = {"new": gate.start()}
    found["half warm"] = gate.step(found["new"], raw(40))[1]
    found["young"] = gate.step(found["new"], raw(700))[1]
    found["old"] = gate.step(found["young"], raw(OLD, 700))[1]
    assert found["young"].events < OLD <= found["old"].events
    return found


AGES = ("new", "half warm", "young", "old")


def same(one: DecisionBatch, other: DecisionBatch) -> None:
    assert list(one.records) == list(other.records)
    for name in ("offset", "risk", "channel", "verdict", "action", "reject", "warmup", "p_value"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert dict(one.reasons) == dict(other.reasons) and dict(one.families) == dict(other.families)


@pytest.mark.parametrize("age", AGES)
def test_nothing_but_state_and_batch_matters(age: str, states: dict[str, GateState]) -> None:
    batch, state = raw(600, 20_000, seed=3), states[age]
    used, fresh = Gate(CONFIG), Gate(CONFIG)
    before = used.digest(state)
    for other in states.values():
        used.step(other, raw(50, 5))
    used.check(values(300, seed=9))
    (one, after), (two, again) = used.step(state, batch), fresh.step(state, batch)
    same(one, two)
    assert used.digest(after) == fresh.digest(again) != before
    assert used.digest(state) == before
    back = fresh.load(used.dump(state))
    three, restored = fresh.step(back, batch)
    same(one, three)
    assert fresh.digest(restored) == used.digest(after)


@pytest.mark.parametrize("age", AGES)
def test_a_step_is_its_parts_one_after_the_other(age: str, states: dict[str, GateState]) -> None:
    gate, batch, state = Gate(CONFIG), raw(1500, 20_000, seed=4), states[age]
    whole, after = gate.step(state, batch)
    parts, start, lengths = [], 0, []
    while start < len(batch):
        if state.schema is None:
            size = 1
            while gate.step(state, batch.part(start, start + size))[1].schema is None:
                size += 1
        else:
            size = max(YOUNG_PART, state.events // YOUNG_SHARE)
        part, state = gate.step(state, batch.part(start, start + size))
        parts.append(part)
        lengths.append(len(part))
        start += size
    same(whole, DecisionBatch.joined(parts))
    assert gate.digest(state) == gate.digest(after)
    assert (len(lengths) == 1) == (age == "old") and sum(lengths) == len(batch)


@pytest.mark.parametrize("age", AGES)
def test_joined_decisions_stay_with_their_rows(age: str, states: dict[str, GateState]) -> None:
    batch = raw(1500, 20_000, seed=5)
    decided, _ = Gate(CONFIG).step(states[age], batch)
    assert len(decided) == len(decided.records) == len(batch) == len(decided.p_value)
    np.testing.assert_array_equal(decided.offset, batch.offset)
    assert set(decided.reasons) | set(decided.families) <= set(range(len(batch)))
    told = 0
    for row, record in enumerate(map(orjson.loads, decided.records)):
        assert record["offset"] == batch.offset[row]
        assert record["verdict"] == Verdict(decided.verdict[row]).word
        assert record["action"] == Action(decided.action[row]).word
        assert record["risk"] == pytest.approx(decided.risk[row], abs=1e-6)
        assert record.get("warmup", False) == decided.warmup[row]
        reasons = decided.reasons.get(row, ())
        if decided.reject[row]:
            word = RejectCode(decided.reject[row]).word
            assert record["reasons"][0] == {"detector": "decode", "code": word} | {
                "text": reasons[0].text
            }
            continue
        event = orjson.loads(batch.values[row])
        assert (record["id"], record["label"]) == (event["id"], event["label"])
        if not decided.warmup[row]:
            assert [r["text"] for r in record["reasons"]] == [r.text for r in reasons]
            assert record["families"] == list(decided.families.get(row, ()))
            assert bool(reasons) == (decided.verdict[row] != Verdict.ACCEPT)
            told += bool(reasons)
    assert told > 10
    strong = {row: decided.channels[c] for row, c in enumerate(decided.channel) if c != 255}
    assert all(strong[row] in found for row, found in decided.families.items())


def test_a_restart_between_any_two_batches_changes_nothing() -> None:
    sizes = [30, 50, 90, 10, 200, 1, 700, 64, 65, 2000, 8000, 500]
    ends = np.cumsum([0, *sizes])
    everything = RawBatch.of(values(int(ends[-1]), seed=6))
    calm, state = Gate(CONFIG), Gate(CONFIG).start()
    restarted = state
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        part = everything.part(start, end)
        one, state = calm.step(state, part)
        gate = Gate(CONFIG)
        two, restarted = gate.step(gate.load(gate.dump(restarted)), part)
        assert list(one.records) == list(two.records)
        assert calm.digest(state) == gate.digest(restarted)
    assert state.events > 8000


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("batch", [[], INVALID, INVALID * 100], ids=["empty", "few", "many"])
def test_batches_without_a_valid_event(
    age: str, batch: list[bytes], states: dict[str, GateState]
) -> None:
    gate = Gate(CONFIG)
    decided, after = gate.step(states[age], RawBatch.of(batch, start=7))
    assert len(decided) == len(decided.records) == len(batch)
    assert (decided.verdict == Verdict.INVALID).all() and (decided.action == Action.REJECT).all()
    assert not decided.warmup.any() and decided.p_value.shape == (len(batch), len(gate.channels))
    assert set(decided.reasons) == set(range(len(batch)))
    assert gate.digest(after) == gate.digest(states[age])


def test_an_empty_check_before_and_after() -> None:
    gate = Gate(CONFIG)
    assert len(gate.check([])) == 0
    gate.check(values(200))
    assert len(gate.check([])) == 0
    assert gate.check([b"{"]).offset.tolist() == [200]
