"""Channels that need an optional field say nothing, and cost nothing, where it is absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from monitor.core.types import Family, Verdict
from monitor.detectors import default_detectors
from monitor.gate import Gate

OPTIONAL = {Family.GRADIENT, Family.SHILLING}


def _lines(n: int, **extra: Any) -> list[bytes]:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(n, 3))
    wrong = rng.random(n) < 0.03
    y = (x[:, 0] > 0) ^ wrong
    source = np.where(wrong, rng.integers(0, 5, n), rng.integers(5, 80, n))
    return [
        orjson.dumps(
            {
                "id": str(i),
                "ts": i,
                "source": f"acct-{source[i]}",
                "label": int(y[i]),
                "features": x[i].tolist(),
                **extra,
            }
        )
        for i in range(n)
    ]


def _detectors(*, optional: bool) -> list[Any]:
    return [d for d in default_detectors() if optional or d.family not in OPTIONAL]


def test_without_gradients_and_subjects_the_decisions_are_the_same_bytes() -> None:
    lines = _lines(4000)
    plain, full = Gate(detectors=_detectors(optional=False)), Gate()
    flagged = 0
    for i in range(0, len(lines), 250):
        one, other = plain.check(lines[i : i + 250]), full.check(lines[i : i + 250])
        np.testing.assert_array_equal(one.risk, other.risk)
        assert list(one.records) == list(other.records)
        flagged += int((one.verdict != Verdict.ACCEPT).sum())
    assert flagged > 50


def test_a_state_stored_before_a_detector_was_listed_goes_on() -> None:
    lines = _lines(3000)
    old = Gate(detectors=_detectors(optional=False))
    old.check(lines[:2500])
    new = Gate()
    new.state = new.load(old.dump(old.state))
    one, other = old.check(lines[2500:]), new.check(lines[2500:])
    np.testing.assert_array_equal(one.risk, other.risk)


@pytest.mark.parametrize("extra", [{"gradient": [1.0, 2.0]}, {"subject": "item"}, {"subject": ""}])
def test_an_optional_field_that_never_varies_does_no_harm(extra: dict[str, Any]) -> None:
    gate = Gate()
    lines = _lines(3000, **extra)
    for i in range(0, len(lines), 250):
        decided = gate.check(lines[i : i + 250])
    assert 0.0 < (decided.verdict != Verdict.ACCEPT).mean() < 0.1
