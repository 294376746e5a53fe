"""The policy refuses what makes no sense, in words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from monitor.config.policy import Policy


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"flag_at": 1.5}, "less than 1"),
        ({"flag_at": 0.0}, "greater than 0"),
        ({"quarantine_at": 0.5}, "must not be larger"),
        ({"budget": {"typo": 1.0}}, "unknown family 'typo'"),
        ({"budget": {"sybil": -1.0}}, "must be a number"),
        ({"budget": {"sybil": float("nan")}}, "must be a number"),
        ({"budget": {"sybil": 0.0}}, "at least one family"),
        ({"mode": "panic"}, "enforce"),
        ({"flag_att": 0.1}, "Extra inputs"),
    ],
)
def test_bad_policies(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Policy.model_validate(change)


def test_shares_are_scaled_among_the_channels_that_exist() -> None:
    policy = Policy(budget={"sybil": 2.0, "backdoor": 1.0, "drift": 7.0})
    assert policy.share("sybil", ("sybil", "backdoor")) == pytest.approx(2.0 / 3.0)
    assert policy.share("label_flip", ("sybil", "backdoor")) == 0.0


def test_it_survives_json() -> None:
    policy = Policy(flag_at=0.02, version=7)
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
