"""The first events of a stream: what becomes of them, and what is learned from them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.config.policy import Policy
from monitor.core.errors import RejectCode
from monitor.core.limits import Limits
from monitor.core.ports import Resume
from monitor.core.schema import SchemaSpec
from monitor.core.types import Action, DecisionBatch, Mode, RawBatch, Verdict
from monitor.decide.warmup import LEAST_KEPT, keep
from monitor.gate import Gate, GateConfig, GateState
from monitor.state.recovery import advance, begin, recover, seal

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


SPEC = SchemaSpec(("a", "b", "c"), (False, False, True))


def test_an_explicit_schema_holds_from_the_first_event_on() -> None:
    gate = Gate(GateConfig(schema=SPEC, warmup_events=WARM))
    odd = [
        event(0, features=[1.0, 2.0, 3.0]),
        event(1, features={"a": 1.0, "b": 2.0, "c": "x", "d": 1e308}),
        event(2, features={"a": "1", "b": 2.0, "c": "x"}),
        event(3, features={"c": 5, "a": None}),
    ]
    decided = gate.check(odd)
    assert decided.reject.tolist() == [
        RejectCode.WRONG_DIMENSION,
        RejectCode.UNKNOWN_FEATURE,
        RejectCode.WRONG_TYPE,
        RejectCode.OK,
    ]
    assert decided.warmup.tolist() == [False] * 3 + [True] and gate.state.events == 1
    said = orjson.loads(decided.records[1])
    assert said["id"] == "e1" and said["verdict"] == "invalid" and said["families"] == ["invalid"]
    assert said["reasons"][0]["text"].startswith('features has the unknown name "d"')
    # What was refused does not count: the warm-up ends after WARM events that fit.
    decided = gate.check([*odd[:3], *[event(i) for i in range(10, 10 + WARM)]])
    assert decided.warmup.sum() == WARM - 1 and gate.state.schema is not None
    assert gate.state.schema.layout.names == SPEC.names


@pytest.mark.parametrize("names", [("0", "1"), ("f0", "f1")])
@pytest.mark.parametrize("array", [True, False])
def test_numbered_names_fit_arrays_and_objects(names: tuple[str, ...], array: bool) -> None:
    gate = Gate(GateConfig(schema=SchemaSpec(names, (False, False)), warmup_events=WARM))

    def features(i: int, as_array: bool) -> Any:
        return [i, -i] if as_array else {names[0]: i, names[1]: -i}

    many = [event(i, features=features(i, array)) for i in range(40)]
    few = [event(i, features=features(i, not array)) for i in range(40, WARM - 1)]
    assert not gate.check([*many, *few, event(90, features=[1.0])]).reject[:-1].any()
    decided = gate.check([event(91, features=features(91, not array))])
    assert decided.reject.tolist() == [RejectCode.WRONG_DIMENSION]
    assert gate.state.schema is not None and gate.state.schema.layout.array == array
    assert gate.state.events == 40


def test_the_step_that_learns_the_schema_is_held_against_it() -> None:
    gate = Gate(GateConfig(warmup_events=WARM))
    values = [event(i) for i in range(WARM + 20)]
    values[3] = event(3, features=[1.0, 2.0])
    values[5] = event(5, features={"a": 1e308, "b": 0.0, "c": "x"})
    values[7] = event(7, features={"a": 1.0, "b": 0.0, "c": "x", "own": 1.0})
    values[8] = b"{"
    decided = gate.check(values)
    wrong = {3: RejectCode.WRONG_DIMENSION, 7: RejectCode.UNKNOWN_FEATURE, 8: RejectCode.NOT_JSON}
    assert {int(i): decided.reject[i] for i in np.flatnonzero(decided.reject)} == wrong
    assert words(decided)[5] == "quarantine" and decided.action[5] == Action.HOLD
    assert "features.a is 1e+308" in texts(decided, 5)[0] and len(texts(decided, 5)) == 1
    assert decided.risk[5] == pytest.approx(3.0)
    assert decided.warmup.sum() == WARM - 3 and words(decided).count("quarantine") == 1
    # All of the batch that was read, but for the three odd ones, is in the baselines.
    assert gate.state.events == len(values) - 4


def test_odd_events_of_earlier_steps_are_let_through_but_not_learned() -> None:
    usual = [event(i) for i in range(WARM)]
    odd = [event(1000 + i, features={"a": 1e308, "b": -1e300, "c": "x"}) for i in range(2)]
    odd += [event(1010, features=[1.0, 2.0]), event(1011, features={"q": 1.0})]
    clean, mixed = (Gate(GateConfig(warmup_events=WARM + n)) for n in (0, len(odd)))
    assert set(words(mixed.check(odd))) == {"accept"}
    clean.check(usual)
    mixed.check(usual)
    assert mixed.state.schema is not None and clean.state.schema is not None
    assert mixed.state.schema.columns == clean.state.schema.columns
    np.testing.assert_array_equal(mixed.state.schema.scales.knots, clean.state.schema.scales.knots)
    one, other = clean.state.detectors, mixed.state.detectors
    for name in ("class_moments", "label_conflict"):
        a, b = one[name].moments, other[name].moments
        np.testing.assert_array_equal(a.outer, b.outer)
    assert clean.state.events == mixed.state.events == WARM


def test_heavy_tails_and_sparse_numbers_are_believable() -> None:
    rng = np.random.default_rng(0)
    values = [
        event(
            i,
            features={
                "amount": float(np.exp(4 * rng.normal())),
                "pareto": float(rng.pareto(0.5)),
                "stamp": 1.7e18 if i % 40 == 0 else 0.0,
                "hash": float(rng.integers(0, 2**63)) if i % 30 == 0 else None,
            },
        )
        for i in range(512)
    ]
    assert not (Gate().check(values).verdict != Verdict.ACCEPT).any()


def test_huge_events_neither_fill_the_state_nor_end_the_warm_up() -> None:
    config = GateConfig(Limits(), warmup_events=WARM, warmup_max_bytes=20_000)
    gate = Gate(config)
    huge = [event(i, meta="m" * 500_000) for i in range(1000, 1020)]
    small = [event(i) for i in range(WARM - len(huge))]
    decided = gate.check([*huge, *small[:-1]])
    assert decided.warmup.all() and (decided.verdict == Verdict.ACCEPT).all()
    assert gate.state.events == WARM - 1 and gate.state.schema is None
    assert set(gate.state.warm) == set(small[:-1])
    assert len(gate.dump(gate.state)) < 25_000
    gate.check(small[-1:])
    assert gate.state.schema is not None and gate.state.events == len(small)


def test_a_stream_of_huge_events_is_learned_from_a_few() -> None:
    gate = Gate(GateConfig(warmup_events=WARM, warmup_max_bytes=1))
    values = [event(i, meta="m" * (1000 + i)) for i in range(WARM + 10)]
    assert gate.check(values).warmup.sum() == WARM
    assert gate.state.schema is not None and gate.state.events == LEAST_KEPT + 10


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 40), max_size=60),
    st.lists(st.integers(0, 60), max_size=5),
    st.integers(1, 400),
)
def test_what_is_kept_does_not_depend_on_the_batches(
    sizes: list[int], cuts: list[int], most: int
) -> None:
    values = [bytes([i]) * size for i, size in enumerate(sizes)]
    whole = keep((), values, most)
    parts: tuple[bytes, ...] = ()
    places = sorted({0, len(values), *[min(cut, len(values)) for cut in cuts]})
    for start, stop in itertools.pairwise(places):
        parts = keep(parts, values[start:stop], most)
    assert parts == whole
    assert sum(map(len, whole)) <= most or len(whole) == min(LEAST_KEPT, len(values))


CONFIGS = {
    "learned": GateConfig(warmup_events=WARM),
    "explicit": GateConfig(warmup_events=WARM, schema=SPEC),
    "held": GateConfig(warmup_events=WARM, warmup="hold"),
    "tight": GateConfig(warmup_events=WARM, warmup_max_bytes=3000),
}


def stream(n: int = 200) -> list[bytes]:
    values = [event(i) for i in range(n)]
    values[2::17] = [b"{not json" for _ in values[2::17]]
    values[5] = event(5, features={"a": 1e308, "b": 0.0, "c": "y"})
    values[6] = event(6, features=[1.0])
    return values


def batches(cut: int) -> list[RawBatch]:
    values = stream()
    return [
        RawBatch.of(values[start : start + cut], start=start)
        for start in range(0, len(values), cut)
    ]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("cut", [1, 7, 60, 100])
def test_a_restart_inside_the_warm_up_changes_nothing(name: str, cut: int) -> None:
    gate = Gate(CONFIGS[name])
    state, states, records = gate.start(), [], []
    for raw in batches(cut):
        states.append(state)
        decisions, state = gate.step(state, raw)
        records.append(list(decisions.records))
    half_warm = [i for i, s in enumerate(states) if s.schema is None][:: max(1, 30 // cut)]
    for at in half_warm:
        again = Gate(CONFIGS[name])
        back: GateState = again.load(gate.dump(states[at]))
        assert again.digest(back) == gate.digest(states[at])
        for raw, before in zip(batches(cut)[at:], records[at:], strict=True):
            decisions, back = again.step(back, raw)
            assert list(decisions.records) == before
        assert again.digest(back) == gate.digest(state)


@pytest.mark.parametrize("snapshot_at", [None, 1])
def test_a_stream_that_ends_inside_the_warm_up_goes_on_where_it_ended(
    snapshot_at: int | None,
) -> None:
    gate, parts = Gate(CONFIGS["learned"]), batches(20)
    stamp, state, snapshot = begin(0, 0), gate.start(), None
    for i, raw in enumerate(parts[:3]):
        state = gate.step(state, raw)[1]
        store, end = i == snapshot_at, raw.next_offset
        stamp = advance(stamp, end, len(raw), policy_version=1, snapshot=store)
        snapshot = seal(0, end, gate.dump(state)) if store else snapshot
    assert state.schema is None
    again = Gate(CONFIGS["learned"])
    found, _ = recover(
        Resume(0, stamp.next_offset, stamp.encode(), snapshot),
        start=again.start,
        load=again.load,
        step=lambda state, raw: again.step(state, raw)[1],
        read_range=lambda _, start, stop: iter([RawBatch.of(stream()[start:stop], start=start)]),
    )
    assert again.digest(found) == gate.digest(state)
    for raw in parts[3:]:
        (one, state), (other, found) = gate.step(state, raw), again.step(found, raw)
        assert list(one.records) == list(other.records)
    assert again.digest(found) == gate.digest(state)


def test_a_shorter_warm_up_after_a_restart_ends_at_once() -> None:
    long, short = (Gate(GateConfig(warmup_events=n)) for n in (200, 50))
    long.check([event(i) for i in range(100)])
    short.state = short.load(long.dump(long.state))
    decided = short.check([b"{", event(101), event(102)])
    assert decided.warmup.tolist() == [False] * 3 and short.state.schema is not None
    assert short.state.events == 102
