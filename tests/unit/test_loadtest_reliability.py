"""The reliability and soak scripts: what they count, and that they notice what is wrong."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from loadtest import soak
from loadtest.reliability_view import markdown
from loadtest.soak_stream import BLOCK, Endless, Shape, values

pytest.importorskip("confluent_kafka")
from loadtest.reliability import SCENARIOS, Row
from loadtest.reliability_fleet import Ledger, events


@dataclass(frozen=True)
class Record:
    key: bytes
    value: bytes
    partition: int = 0
    offset: int = 0
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def fed(n: int = 6) -> list[Record]:
    return [Record(b"k%d" % i, b"v%d" % i, i % 2, i // 2) for i in range(n)]


def decided(rows: list[Record]) -> list[dict[str, Any]]:
    return [{"partition": r.partition, "offset": r.offset} for r in rows]


def ledger(rows: list[Record], outputs: list[Record], said: list[dict[str, Any]]) -> Ledger:
    return Ledger.of(rows, {"accepted": outputs, "quarantine": [], "invalid": []}, said)


def test_a_clean_ledger() -> None:
    found = ledger(fed(), fed(), decided(fed()))
    assert found.clean
    assert (found.events_in, found.events_out, found.by_output["accepted"]) == (6, 6, 6)


def test_each_kind_of_wrong_is_noticed() -> None:
    rows = fed()
    spoilt = [replace(rows[0], value=b"other"), *rows[1:]]
    wrong = {
        "lost": ledger(rows, rows[1:], decided(rows)),
        "doubled": ledger(rows, [*rows, rows[-1]], decided(rows)),
        "changed": ledger(rows, spoilt, decided(rows)),
        "out_of_order": ledger(rows, rows[::-1], decided(rows)),
        "decisions_lost": ledger(rows, rows, decided(rows[1:])),
        "decisions_doubled": ledger(rows, rows, decided([*rows, rows[0]])),
    }
    for name, found in wrong.items():
        assert getattr(found, name) > 0, name
        assert not found.clean


def test_the_table() -> None:
    found = ledger(fed(), fed()[1:], decided(fed()))
    found.restarts = {"3": 2}
    row = Row("kill", "SIGKILL", 7, 1.5, found)
    from dataclasses import asdict

    text = markdown({"quick": True, "kafka": "4.1", "rows": [asdict(row)]})
    assert "| SIGKILL | 7 | 6 | 5 | 1 | 0 | 2 | 2 |" in text
    assert "`python loadtest/reliability.py --quick`" in text


def test_scenarios_do_less_when_quick() -> None:
    assert {"kill", "broker", "stop", "twin", "members", "three"} == set(SCENARIOS)
    for _, _, small, full in SCENARIOS.values():
        assert small.events < full.events and small.faults < full.faults
    assert (SCENARIOS["kill"][3].events, SCENARIOS["kill"][3].faults) == (100_000, 50)


def test_the_stream_is_the_same_each_time() -> None:
    one, other = list(events(200, 1)), list(events(200, 1))
    assert one == other
    assert {p for p, _, _ in one} == {0, 1, 2, 3}


SHAPE = Shape(events=3 * BLOCK + 100, features=3, labels=4, sources=1000)


def test_any_record_of_the_soak_can_be_made_again() -> None:
    whole = values(SHAPE, 0, SHAPE.events)
    assert len(whole) == SHAPE.events
    assert values(SHAPE, 2000, 4200) == whole[2000:4200]
    again = [v for raw in Endless(SHAPE).read_range(0, 100, 5000) for v in raw.values]
    assert again == whole[100:5000]


def test_a_short_soak() -> None:
    """In this process: what is told on the way, and that the state comes back."""
    receive, send = multiprocessing.Pipe(duplex=False)
    soak.child(SHAPE, BLOCK, 2, send)
    rows: list[dict[str, Any]] = []
    while receive.poll():
        rows.append(receive.recv())
    *readings, recovery = rows
    assert [r["events"] for r in readings] == [BLOCK, 2 * BLOCK, 3 * BLOCK]
    assert all(r["resident_megabytes"] > 10 and r["cpu_us"] > 0 for r in readings)
    assert recovery["recovered"] is True
    assert recovery["decided"] == SHAPE.events


def outcome(**changes: float) -> list[str]:
    reading = {"resident_megabytes": 100.0, "state_megabytes": 10.0, "cpu_us": 20.0}
    rows = [reading | {"events": i} for i in range(9)]
    rows[-1] = rows[-1] | changes
    if "cpu_us" in changes:
        rows[-3:] = [row | {"cpu_us": changes["cpu_us"]} for row in rows[-3:]]
    found = soak.Outcome("x", SHAPE, soak.Limits(200, 50), rows)
    found.recovery = {"recovered": True, "decided": SHAPE.events}
    found.judge()
    return found.broken


def test_limits_of_the_soak() -> None:
    assert outcome() == []
    assert "resident" in outcome(resident_megabytes=201.0)[0]
    assert "stored state" in outcome(state_megabytes=51.0)[0]
    assert "growth" in outcome(state_megabytes=13.0)[0]
    assert "cost" in outcome(cpu_us=31.0)[0]
