"""The parts of the policy document: what is refused, what expires, what differs."""

from __future__ import annotations

from typing import Any

import pytest

from monitor.config.policy import Policy
from monitor.config.policy_diff import policy_diff
from monitor.config.policy_parts import KNOWN_DETECTORS, MAX_LISTED, MAX_OVERRIDES
from monitor.config.settings import checked_policy
from monitor.core.errors import UsageError
from monitor.detectors import DETECTORS, OPTIONAL


def override(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "scope": "source", "match": "acct-7", "flag_at": 0.1, **changes}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"detectors": {"undoo": {}}}, "detectors: unknown detector 'undoo'; did you mean 'undo'?"),
        ({"detectors": {"undo": {"weight": -1.0}}}, "undo.weight: must be greater than or equal"),
        ({"detectors": {"undo": {"weight": float("nan")}}}, "undo.weight"),
        ({"detectors": {"undo": {"mode": "off"}}}, "undo.mode: must be 'shadow', 'alert'"),
        ({"overrides": [override(scope="planet")]}, "overrides.0.scope: must be 'label'"),
        ({"overrides": [override(flag_at=1.0)]}, "overrides.0.flag_at: must be less than 1"),
        ({"overrides": [override(flag_at=None)]}, "changes nothing"),
        ({"overrides": [override(quarantine_at=0.5)]}, "must not be larger"),
        ({"overrides": [override(match=3)]}, "a source is matched by a text"),
        ({"overrides": [override(scope="label", match=1.5)]}, "overrides.0.match"),
        ({"overrides": [override(match="")]}, "overrides.0.match"),
        ({"overrides": [override(), override()]}, "has the id 'a' twice"),
        ({"overrides": [override(flagat=0.1)]}, "no such setting; did you mean 'flag_at'?"),
        ({"overrides": [override(id=f"{i}") for i in range(MAX_OVERRIDES + 1)]}, "at most 1000"),
        ({"deny": [{"source": f"{i}"} for i in range(MAX_LISTED + 1)]}, "at most 10000"),
        ({"deny": [{"source": "x"}, {"source": "x"}]}, "has the source 'x' twice"),
        ({"allow": [{"source": "x" * 2000}]}, "allow.0.source: String should have at most"),
        ({"allow": [{"source": "x", "expires_at": -1.0}]}, "allow.0.expires_at"),
        ({"learning_speed": 1.5}, "learning_speed: must be less than or equal to 1"),
        ({"confirmed": {"x": 0}}, "confirmed.x"),
        ({"confirmed": {"x": 1.5}}, "confirmed.x"),
        ({"deny": "everybody"}, "deny: must be a valid list"),
    ],
)
def test_what_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as error:
        checked_policy(change, "policy")
    assert says in str(error.value) and len(str(error.value)) < 600


def test_every_detector_is_known() -> None:
    assert tuple(kind.name for kind in (*DETECTORS, *OPTIONAL)) == KNOWN_DETECTORS


def test_labels_may_be_texts_numbers_or_booleans() -> None:
    matches = ["fraud", 7, True]
    made = checked_policy(
        {"overrides": [override(id=str(m), scope="label", match=m) for m in matches]}, "policy"
    )
    assert [(o.match, o.text) for o in made.overrides] == [
        ("fraud", "fraud"),
        (7, "7"),
        (True, "true"),
    ]
    again = Policy.model_validate_json(made.model_dump_json())
    assert [type(o.match) for o in again.overrides] == [str, int, bool]


def test_what_has_expired_goes() -> None:
    policy = Policy.model_validate(
        {
            "overrides": [override(expires_at=10.0), override(id="b", expires_at=20.0)],
            "deny": [{"source": "x", "expires_at": 10.0}, {"source": "y"}],
            "allow": [{"source": "z", "expires_at": 30.0}],
        }
    )
    assert policy.without_expired(9.9) is policy
    left = policy.without_expired(20.0)
    assert not left.overrides and [e.source for e in left.deny] == ["y"]
    assert left.allow == policy.allow


def test_differences_are_named_by_path() -> None:
    before = Policy.model_validate(
        {
            "overrides": [override(), override(id="b")],
            "deny": [{"source": "x"}, {"source": "y"}],
            "detectors": {"undo": {"weight": 2.0}},
        }
    ).model_dump(mode="json")
    after = Policy.model_validate(
        {
            "version": 9,
            "flag_at": 0.02,
            "overrides": [override(flag_at=0.3), override(id="c")],
            "deny": [{"source": "y"}],
            "detectors": {"undo": {"weight": 2.0, "mode": "alert"}, "ring": {}},
        }
    ).model_dump(mode="json")
    found = {d.path: (d.before, d.after) for d in policy_diff(before, after)}
    assert found.pop("overrides[b]")[1] is None and found.pop("overrides[c]")[0] is None
    assert found.pop("deny[x]")[1] is None
    assert found.pop("detectors.ring") == (None, {"mode": "enforce", "weight": 1.0})
    assert found == {
        "flag_at": (0.01, 0.02),
        "overrides[a].flag_at": (0.1, 0.3),
        "detectors.undo.mode": ("enforce", "alert"),
    }
    assert policy_diff(before, before) == []
    assert policy_diff({"a": True}, {"a": 1})[0].after == 1


def test_the_order_of_overrides_is_a_difference() -> None:
    one = Policy.model_validate({"overrides": [override(), override(id="b")]})
    other = Policy.model_validate({"overrides": [override(id="b"), override()]})
    found = policy_diff(one.model_dump(mode="json"), other.model_dump(mode="json"))
    assert [(d.path, d.before, d.after) for d in found] == [
        ("overrides.order", ["a", "b"], ["b", "a"])
    ]
