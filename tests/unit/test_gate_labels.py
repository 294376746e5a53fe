"""The room for labels, seen from the gate: attacks on it, and the stored state."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from monitor.core.errors import RejectCode
from monitor.core.limits import Limits
from monitor.core.types import DecisionBatch, RawBatch
from monitor.gate import Gate, GateConfig
from monitor.state import codec

LIMIT = 128


def event(i: int, label: Any, source: str) -> bytes:
    rng = np.random.default_rng(i)
    x = rng.normal(size=2) + (label in ("y", "item-1"))
    base = {"id": f"e{i}", "ts": 1.7e9 + i, "source": source, "label": label}
    return orjson.dumps({**base, "features": x.tolist()})


def ordinary(n: int, start: int = 0) -> list[bytes]:
    return [event(i, "yn"[i % 2], f"s{i % 25}") for i in range(start, start + n)]


def gate() -> Gate:
    made = Gate(GateConfig(Limits(max_labels=LIMIT), warmup_events=128))
    made.check(ordinary(1500))
    return made


def refused(decided: DecisionBatch) -> int:
    return int((decided.reject == RejectCode.LABEL_LIMIT).sum())


@pytest.mark.parametrize("attackers", [1, 50])
def test_an_attack_on_the_labels_costs_honest_sources_nothing(attackers: int) -> None:
    watched = gate()
    junk = [event(10**6 + i, f"junk-{i}", f"bad{i % attackers}") for i in range(1024)]
    for first in range(0, len(junk), 256):
        watched.check(junk[first : first + 256])
    assert len(watched.state.labels) <= (LIMIT // 4 if attackers == 1 else LIMIT)
    items = [event(10**5 + i, f"item-{i % 110}", f"s{i % 25}") for i in range(1100)]
    decided = [watched.check(items[first : first + 110]) for first in range(0, 1100, 110)]
    assert [refused(part) for part in decided] == [0] * 10
    table = watched.state.labels
    assert (table.find([f"item-{i}" for i in range(110)]) >= 0).all()
    assert table.find(["n", "y"]).tolist() == [1, 0]


def test_the_sentence_says_whose_fault_it_is() -> None:
    watched = gate()
    decided = watched.check([event(10**6 + i, f"junk-{i}", "bad") for i in range(100)])
    said = orjson.loads(decided.records[-1])["reasons"][0]
    assert said["code"] == "label_limit"
    assert said["text"].endswith("its source has brought too many that are hardly used")


def test_only_accepted_events_count_as_use() -> None:
    watched = gate()
    before = sum(watched.state.labels.used)
    decided = watched.check([*ordinary(200, 2000), b"{", event(1, "y", "s1")])
    accepted = int((decided.verdict == 0).sum())
    assert accepted < len(decided)
    assert sum(watched.state.labels.used) == before + accepted


def test_a_restart_in_the_middle_of_an_attack_changes_nothing() -> None:
    watched = gate()
    junk = [event(10**6 + i, f"junk-{i}", f"bad{i % 50}") for i in range(600)]
    watched.check(junk[:300])
    one, other = watched.state, watched.load(watched.dump(watched.state))
    for part in (junk[300:], ordinary(300, 3000)):
        assert watched.digest(one) == watched.digest(other)
        raw = RawBatch.of(part)
        (first, one), (second, other) = watched.step(one, raw), watched.step(other, raw)
        assert first.records == second.records
    assert watched.digest(one) == watched.digest(other)


@pytest.mark.parametrize("written", [1, 2])
def test_a_state_of_an_older_format_goes_on(written: int) -> None:
    watched = gate()
    tree = codec.unseal(watched.dump(watched.state))
    old = {name: part for name, part in tree.items() if name != "recent"} | {"format": written}
    if written == 1:
        old["labels"] = [row[:2] for row in tree["labels"]]
    loaded = watched.load(codec.seal(old))
    assert loaded.labels.values == watched.state.labels.values
    part = ordinary(200, 4000)
    decided = watched.check(part)
    watched.state = loaded
    assert [orjson.loads(r)["risk"] for r in watched.check(part).records] == [
        orjson.loads(r)["risk"] for r in decided.records
    ]
