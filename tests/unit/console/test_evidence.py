"""Evidence of the detectors as panels, and of whatever else comes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from monitor.console.evidence import CLASSES, FEATURES, VALUES, read


def test_deviations_by_feature() -> None:
    found = read(
        {
            "label": "a",
            "mahalanobis": 7.5,
            "features": [
                {"name": "amount", "deviations": -6.1, "value": 77.0},
                {"name": "hour", "deviations": 2.0, "value": math.nan},
                {"name": "lost", "deviations": None},
            ],
        }
    )
    assert [panel.title for panel in found.panels] == [FEATURES]
    assert found.panels[0].rows == (
        ("amount", -6.1, "-6.1 deviations, value 77"),
        ("hour", 2.0, "+2.0 deviations"),
    )
    assert dict(found.rest) == {"label": "a", "mahalanobis": 7.5}


def test_columns_with_values_and_classes_with_shares() -> None:
    found = read(
        {
            "columns": ["f5", "f6"], "values": [-12.0, 82.0], "label": "anomaly",
            "own_share": 0.05, "other": "normal", "other_share": 0.9, "lift": 25.0,
        }
    )  # fmt: skip
    assert [panel.title for panel in found.panels] == [VALUES, CLASSES]
    assert found.panels[1].rows == (("normal", 0.9, "90 %"), ("anomaly", 0.05, "5 %"))
    assert found.rest == [("lift", 25.0)]


@pytest.mark.parametrize(
    "evidence",
    [
        {},
        {"features": "text", "columns": ["a"], "values": []},
        {"features": [1, 2], "given_probability": 0.5},
        {"features": [], "columns": [], "values": []},
        {"nested": {"a": {"b": [1]}}, "given": None, "given_probability": math.inf},
    ],
)
def test_any_shape_is_shown_and_none_is_lost(evidence: dict[str, Any]) -> None:
    found = read(evidence)
    assert found.panels == []
    assert {name.replace(" ", "_") for name, _ in found.rest} == set(evidence)


def test_values_of_columns_are_no_contributions() -> None:
    """What `undo`, `spectral` and `novelty` name are the event's values, in units of their own."""
    for evidence in (
        {"label": "a", "features": {"f1": 37.0, "f2": -4821.0}},
        {"columns": 2, "values": {"f1": 37.0, "f2": -4821.0}},
        {"columns": ["f1", "f2"], "values": [37.0, -4821.0]},
    ):
        (panel,) = read(evidence).panels
        assert (panel.title, panel.values) == (VALUES, True)
        assert [(name, said) for name, _, said in panel.rows] == [("f1", "37"), ("f2", "-4821")]


def test_shifts_and_what_was_expected_are_drawn_by_size() -> None:
    (shift,) = read({"source": "s", "shift": {"f3": 1.8, "f5": -1.9}}).panels
    assert "source" in shift.title and not shift.values
    assert [row[0] for row in shift.rows] == ["f5", "f3"]
    row = {"name": "f7", "value": 9.0, "expected": 5.0, "usual_error": 0.5}
    (structure,) = read({"columns": [row]}).panels
    assert structure.title == FEATURES
    assert structure.rows == (("f7", 8.0, "+8.0 deviations, value 9"),)
