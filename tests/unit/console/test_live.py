"""The sentence that says whether somebody attacks, and the rates behind it."""

from __future__ import annotations

from typing import Any

import pytest

from monitor.console.live import KEPT, Live, Window, mood

POLICY = {"flag_at": 0.01, "quarantine_at": 0.001}
READY = {"ready": True, "stopped": None}


def window(accept: int, flag: int, held: int, seconds: float = 60.0) -> Window:
    verdicts = {"accept": accept, "flag": flag, "quarantine": held}
    return Window(seconds, verdicts, {"sybil": held, "backdoor": held // 3})


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (window(10_000, 90, 9), "calm"),
        (window(10_000, 90, 40), "attack"),
        (window(10_000, 500, 9), "elevated"),
        # Few events say little, however large their share is.
        (window(50, 0, 9), "calm"),
        (window(0, 0, 0), "idle"),
        # Right after the start nothing is known yet.
        (Window(0.0, {}, {}), "calm"),
    ],
)
def test_a_mood_compares_with_what_the_policy_promises(seen: Window, word: str) -> None:
    assert mood(seen, READY, POLICY).word == word


def test_an_attack_is_told_in_numbers() -> None:
    told = mood(window(9_950, 10, 40), READY, POLICY)
    assert told.text == (
        "40 events held in the last minute, 4.0 times what the policy promises. "
        "Mostly sybil (75\u00a0%)."
    )


@pytest.mark.parametrize(
    ("status", "title"),
    [
        ({"ready": False, "stopped": None}, "Starting"),
        ({"ready": True, "stopped": "out of disk"}, "The gate has stopped"),
    ],
)
def test_a_gate_that_does_not_judge_says_so_first(status: dict[str, Any], title: str) -> None:
    assert mood(window(10_000, 90, 400), status, POLICY).title == title


def counted(n: int) -> dict[str, Any]:
    return {"verdicts": {"accept": 100 * n, "quarantine": n}, "families": {"sybil": n}}


def test_a_window_is_the_last_minute_and_rates_are_per_second() -> None:
    live = Live()
    for tick in range(60):
        live.add(1000.0 + 2 * tick, counted(4 * tick))
    seen = live.window()
    assert (seen.seconds, seen.verdicts["quarantine"], seen.families["sybil"]) == (60.0, 120, 120)
    assert seen.share("quarantine") == pytest.approx(1 / 101)
    points = live.rates("verdicts", ("quarantine",))["quarantine"]
    assert len(points) == 59 and {rate for _, rate in points} == {2.0}


def test_a_restart_is_no_negative_rate_and_memory_is_bounded() -> None:
    live = Live()
    live.add(0.0, counted(1000))
    live.add(2.0, counted(3))
    assert live.rates("families", ("sybil",))["sybil"] == [(2000.0, 0)]
    for tick in range(2 * KEPT):
        live.add(4.0 + tick, counted(tick))
    assert len(live.samples) == KEPT
