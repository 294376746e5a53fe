"""Budget, combination and verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.config.policy import Policy
from monitor.core.types import Action, Mode, Verdict
from monitor.decide.channels import NO_CHANNEL, combine
from monitor.decide.verdicts import actions, verdicts

NAMES = ("label_flip", "backdoor", "sybil")


def test_independent_channels_keep_the_total_promise() -> None:
    rng = np.random.default_rng(1)
    p = {name: rng.random(400_000) for name in NAMES}
    tail = combine(p, NAMES, Policy(), 400_000).tail
    for promised in (0.1, 0.01, 0.001):
        assert (tail <= promised).mean() == pytest.approx(promised, rel=0.15)


def test_the_strongest_channel_is_named_and_not_diluted() -> None:
    p = {name: np.array([0.5, 0.5]) for name in NAMES}
    p["backdoor"] = np.array([0.5, 1e-7])
    combined = combine(p, NAMES, Policy(), 2)
    assert NAMES[combined.channel[1]] == "backdoor"
    assert combined.risk[1] > 5.5


def test_silent_channels_give_their_share_to_the_others() -> None:
    p = {"label_flip": np.array([0.001])}
    combined = combine(p, NAMES, Policy(), 1)
    assert combined.tail[0] == pytest.approx(0.001)
    assert combined.share.tolist() == [1.0, 0.0, 0.0]


def test_without_any_channel_nothing_is_said() -> None:
    combined = combine({}, NAMES, Policy(), 3)
    assert combined.channel.tolist() == [NO_CHANNEL] * 3
    assert combined.risk.tolist() == [0.0] * 3


@given(st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=30))
def test_a_smaller_p_never_lowers_the_risk(values: list[float]) -> None:
    p = np.sort(np.array(values))
    risk = combine({"label_flip": p, "sybil": np.full(len(p), 0.4)}, NAMES, Policy(), len(p)).risk
    assert (np.diff(risk) <= 1e-12).all()


def test_mode_changes_the_action_and_never_the_verdict() -> None:
    tail = np.array([0.5, 0.005, 0.0005])
    verdict = verdicts(tail, Policy())
    assert verdict.tolist() == [Verdict.ACCEPT, Verdict.FLAG, Verdict.QUARANTINE]
    verdict = np.append(verdict, np.uint8(Verdict.INVALID))
    by_mode = {mode: actions(verdict, mode).tolist() for mode in Mode}
    assert by_mode[Mode.ENFORCE] == [Action.PASS, Action.PASS, Action.HOLD, Action.REJECT]
    assert by_mode[Mode.SHADOW] == by_mode[Mode.ALERT]
    assert by_mode[Mode.SHADOW] == [Action.PASS, Action.PASS, Action.PASS, Action.REJECT]
