"""Lives of events and signing keys as the console words them."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from monitor.config.policy_provenance import ProvenancePolicy
from monitor.console import history, life, registry
from monitor.console.registry import Origin, Told
from monitor.core.desk import Change
from monitor.provenance import edit

KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
REVIEW = {"key": "0-7", "status": "released", "who": "ana", "why": "A retry", "at": 50.0}
RELEASE = {
    "what": "release", "who": "ana", "why": "A retry", "when": 49.9, "chain": "desk-a", "seq": 3
}  # fmt: skip


def test_a_review_and_its_audit_record_are_one_deed() -> None:
    confirm = RELEASE | {"what": "confirm", "who": "ben", "when": 20.0, "seq": 2}
    (first, second) = life.deeds({"reviews": [REVIEW], "actions": [RELEASE, confirm]})
    assert (first.what, first.who, first.when) == ("Confirmed as poison", "ben", 20.0)
    assert second == life.Deed(
        50.0, "ana", "Released to the learner", "A retry", "record 3 of the audit chain desk-a"
    )
    # Another reason is another deed: nothing that somebody did is left out.
    other = life.deeds({"reviews": [REVIEW], "actions": [RELEASE | {"why": "By mistake"}]})
    assert [(deed.why, bool(deed.proof)) for deed in other] == [
        ("By mistake", True), ("A retry", False)
    ]  # fmt: skip


def test_what_is_not_known_of_a_deed_is_said_last() -> None:
    odd: dict[str, Any] = {
        "reviews": [{"status": "released"}, "no mapping"], "actions": [{"what": "erase", "when": 1}]
    }  # fmt: skip
    erased, released = life.deeds(odd)
    assert (erased.what, erased.who, released.when) == ("Erase", "somebody", None)
    assert life.deeds({}) == [] and life.deeds({"reviews": None}) == []


def test_only_held_events_have_a_page_of_their_own() -> None:
    held = {"action": "hold", "partition": 2, "offset": 41}
    assert life.held_address(held) == "/quarantine/2-41"
    assert life.held_address({"action": "hold", "partition": 0, "line": 1}) == "/quarantine/0-0"
    assert life.held_address(held | {"action": "pass"}) is None
    assert life.held_address(held | {"offset": None}) is None


@pytest.mark.parametrize("event_id", ["evt-7", "-rf", "$(reboot)", "a'b\"c", "; ls", "ü"])
def test_the_command_names_just_the_id(event_id: str) -> None:
    assert shlex.split(life.command(event_id))[-2:] == ["--", event_id]


@pytest.mark.parametrize("event_id", ["a\nreboot", "a\x1b[2J", "a\u202eb", "a\x00"])
def test_what_cannot_be_seen_is_not_for_pasting(event_id: str) -> None:
    assert life.command(event_id).endswith(" -- ID")


def key(name: str, *sources: str, **more: Any) -> dict[str, Any]:
    made = {"id": name, "algorithm": "ed25519", "public_key": KEY, "sources": list(sources)}
    return made | more


def document(*keys: dict[str, Any], **more: Any) -> dict[str, Any]:
    part = ProvenancePolicy.model_validate({"keys": list(keys)}).model_dump(mode="json")
    return {"mode": "enforce", "provenance": part} | more


def version(number: int, who: str, policy: dict[str, Any]) -> Change:
    change = Change(
        f"p-{number}", number, number - 1, "edit", "applied", who, "", 10.0 * number, {}
    )
    return Change(**{name: getattr(change, name) for name in change.__slots__} | {"policy": policy})


def test_the_history_says_who_added_and_who_revoked_a_key() -> None:
    first = document(key("a", "x-*"))
    second = edit.added(first, key("b", "*"))
    third = edit.revoked(second, "b", now=25.0, after_ts=5.0, why="Lost")
    fourth = edit.revoked(third, "b", now=99.0, after_ts=None, why="All of it")
    made = [
        version(1, "monitor", first), version(2, "ana", second), version(3, "ben", third),
        version(4, "cleo", fourth), version(5, "dora", fourth),
    ]  # fmt: skip
    told = registry.origins(made[::-1])
    assert told["a"] == Origin(added=Told("monitor", 10.0, 1))
    assert told["b"] == Origin(added=Told("ana", 20.0, 2), revoked=Told("cleo", 40.0, 4))
    # Where the history that is left begins later, nothing is made up.
    assert registry.origins(made[:1:-1]) == {
        "a": Origin(),
        "b": Origin(revoked=Told("cleo", 40.0, 4)),
    }
    assert registry.origins([]) == {} == registry.origins([version(1, "monitor", {})])


def test_no_more_versions_are_read_than_needed() -> None:
    read: list[int] = []

    def versions() -> Any:
        for number in (5, 4, 3, 2, 1):
            read.append(number)
            yield version(number, "ana", document(*([key("a", "*")] if number > 3 else [])))

    assert registry.origins(versions())["a"].added == Told("ana", 40.0, 4)
    assert read == [5, 4, 3]


def test_good_keys_come_first() -> None:
    policy = document(
        key("a", "*", revoked_at=1.0), key("b", "*", valid_until=5.0),
        key("c", "*", valid_from=50.0), key("d", "*"),
    )  # fmt: skip
    found = registry.listed(policy, 10.0)
    assert [(one["id"], one["state"]) for one in found] == [
        ("d", "valid"), ("c", "not yet valid"), ("b", "expired"), ("a", "revoked"),
    ]  # fmt: skip
    assert [registry.may_be_revoked(one) for one in found] == [True, True, True, False]


def test_the_consequences_of_revoking() -> None:
    policy = document(
        key("a", "shop-*", "bank"), key("b", "shop*"), key("c", "bank", valid_until=5.0)
    )
    said = registry.consequences(policy, "a", 10.0, None)
    assert said[0].endswith("whatever time the event claims: it is held back.")
    # c has expired, so nobody else speaks for the bank; b still does for the shops.
    assert "No other valid key speaks for bank:" in said[-1]
    assert len(registry.consequences(policy, "b", 10.0, None)) == 3
    assert len(registry.consequences(policy, "c", 10.0, None)) == 2
    (partly, *_) = registry.consequences(policy, "a", 10.0, 86400.0)
    assert "from 1970-01-02 00:00:00 UTC on is refused, earlier events stay good" in partly
    (passes, *_) = registry.consequences(policy | {"mode": "alert"}, "a", 10.0, None)
    assert "let through, since the policy's mode is alert" in passes
    policy["provenance"]["refused"] = "reject"
    (rejected, *_) = registry.consequences(policy | {"mode": "alert"}, "a", 10.0, None)
    assert "dead letters" in rejected


def test_a_version_in_the_address_is_a_number() -> None:
    assert [history.version_of(text) for text in ("12", "٣", "1e3", "")] == [12, None, None, None]
