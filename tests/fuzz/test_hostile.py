"""Hostile input: no crash, no lost neighbour, and work in proportion to the record at most."""

from __future__ import annotations

import functools
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.core.types import RawBatch, Verdict
from monitor.gate import Gate, GateConfig
from tests.fuzz.fuzz import seeds
from tests.fuzz.hostile import CORPUS, LOOKALIKES, events, mutated, record, records
from tests.fuzz.target import SEPARATOR, calls, check, neighbour, one_input, warm

FITS = {"negative zero", *(name for name in CORPUS if name.startswith("look-alike"))}
# Valid, though absurd: what they are worth is for the detectors to say.
ABSURD = {"2^64", "1e308", "400 digits", "a million digits", "long category", "gradient of zeros"}
ABSURD |= {"NUL in id", "NUL in source", "2^64 as label", "prediction flood", "gradient flood"}


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("young", [False, True])
def test_each_of_the_corpus(name: str, young: bool) -> None:
    (verdict,) = check([CORPUS[name]], young=young)
    if name not in FITS | ABSURD and not young:
        assert verdict == Verdict.INVALID
    if name in FITS and not young:
        assert verdict != Verdict.INVALID


def test_all_of_the_corpus_at_once_changes_no_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, state = warm()
    invalid = [v for name, v in CORPUS.items() if name not in FITS | ABSURD]
    alone = [neighbour(2000 + i) for i in range(len(invalid))]
    mixed = [v for pair in zip(alone, invalid, strict=True) for v in pair]
    # A state this young judges few records at a time, and where it cuts is no concern here.
    monkeypatch.setattr("monitor.gate.YOUNG_PART", 1000)
    raw = RawBatch.of(mixed, start=400)
    decided, after = gate.step(state, raw)
    calm, calm_after = gate.step(state, RawBatch(0, raw.offset[0::2], alone))
    assert decided.verdict[0::2].tolist() == calm.verdict.tolist()
    assert decided.risk[0::2].tolist() == calm.risk.tolist()
    assert (decided.verdict[1::2] == Verdict.INVALID).all()
    assert after.events == calm_after.events


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(records(), min_size=1, max_size=4), st.booleans())
def test_anything_between_neighbours(values: list[bytes], young: bool) -> None:
    check(values, young=young)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events(), min_size=1, max_size=6))
def test_odd_events_between_neighbours(values: list[bytes]) -> None:
    check(values)


@pytest.mark.parametrize("seed", range(40))
def test_the_fuzz_target_on_mutations(seed: int) -> None:
    rng = random.Random(seed)
    for value in rng.sample(seeds(), 3):
        one_input(value[:1] + mutated(value[1:], rng) + SEPARATOR + mutated(value[1:], rng))


def test_look_alike_labels_stay_apart() -> None:
    """Nothing is folded: a label that only looks like another is another."""
    gate = Gate(GateConfig(warmup_events=64))
    state = gate.step(gate.start(), RawBatch.of([neighbour(i) for i in range(400)]))[1]
    values = [record(label=label, id=f"x{i}") for i, label in enumerate(LOOKALIKES)]
    _, after = gate.step(state, RawBatch.of(values, start=400))
    assert set(LOOKALIKES) <= set(after.labels.values)


@functools.cache
def harmless() -> int:
    """Calls that an ordinary event takes, once the state is there."""
    check([neighbour(2999)])
    return calls(lambda: check([neighbour(3000)]))


@pytest.mark.parametrize("name", CORPUS)
def test_the_work_is_bounded(name: str) -> None:
    """In calls: at most some thousand more than an ordinary event, and a few each feature."""
    usual = harmless()
    work = calls(lambda: check([CORPUS[name]])) - usual
    size = len(CORPUS[name])
    most = 8_000 if size > 1 << 20 else 8_000 + size // 4
    assert work < most, (work, most)


def test_a_huge_message_is_not_even_read() -> None:
    gate, state = warm()
    big = {n: v for n, v in CORPUS.items() if len(v) > 1 << 20}
    assert big
    small = calls(lambda: gate.step(state, RawBatch.of([b"["], start=400)))
    for value in big.values():
        one = calls(lambda value=value: gate.step(state, RawBatch.of([value], start=400)))
        assert one < small + 100
