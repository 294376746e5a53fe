"""The control ledger's records fold into the same policy everywhere, in whatever portions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.config.policy import Policy
from monitor.core.types import Mode
from monitor.state.control import (
    KEPT_OUTCOMES,
    MAX_WAITING,
    Answer,
    ControlState,
    Proposal,
    Report,
    Row,
    answer_row,
    fold,
    needs_second,
    proposal_row,
    report_row,
)


def proposal(name: str, base: int, **more: Any) -> Row:
    policy = Policy(**more.pop("policy", {})).model_dump(mode="json")
    values = {"kind": "edit", "who": "ana", "why": "", "when": 1.0, **more}
    return proposal_row(Proposal(proposal=name, base=base, policy=policy, **values))


def answer(name: str, who: str, approve: bool = True) -> Row:
    return answer_row(Answer(proposal=name, approve=approve, who=who, why="so", when=2.0))


def test_the_first_with_a_base_wins() -> None:
    rows = [proposal(name, base) for name, base in [("a", 0), ("b", 0), ("c", 1), ("d", 1)]]
    state = fold(ControlState(), rows)
    assert state.version == 2 and state.current is not None and state.current.version == 2
    assert {name: change.state for name, change in state.outcome.items()} == {
        "a": "applied",
        "b": "overtaken",
        "c": "applied",
        "d": "overtaken",
    }
    assert [entry.change.proposal for entry in state.applied.values()] == ["a", "c"]
    assert state.policy(1) == Policy(version=1) and state.policy(7) is None
    assert state.applied[2].full().policy["version"] == 2


def test_a_repeated_append_changes_nothing() -> None:
    rows = [proposal("a", 0), proposal("b", 1)]
    assert fold(ControlState(), [*rows, *rows, *rows[::-1]]) == fold(ControlState(), rows)


def test_a_waiting_proposal_is_applied_by_somebody_else_only() -> None:
    state = fold(ControlState(), [proposal("a", 0), proposal("b", 1, waits=True)])
    assert state.version == 1 and list(state.waiting) == ["b"]
    assert fold(state, [answer("b", "ana")]).version == 1
    assert fold(state, [answer("nothing", "ben")]) == state
    after = fold(state, [answer("b", "ben")])
    assert after.version == 2 and not after.waiting
    assert after.applied[2].change.approved_by == "ben"
    gone = fold(state, [answer("b", "ben", approve=False), answer("b", "cleo")])
    assert gone.version == 1 and not gone.waiting and gone.outcome["b"].state == "rejected"
    assert [(c.who, c.why, c.state) for c in gone.answered] == [("ben", "so", "rejected")]
    overtaken = fold(state, [proposal("c", 1), answer("b", "ben")])
    assert overtaken.version == 2 and overtaken.outcome["b"].state == "overtaken"


def test_what_waits_and_what_is_told_is_bounded() -> None:
    rows = [proposal("a", 0)]
    rows += [proposal(f"w{i}", 1, waits=True) for i in range(MAX_WAITING + 20)]
    state = fold(ControlState(), rows)
    assert len(state.waiting) == MAX_WAITING and "w0" not in state.waiting
    rows = [proposal(f"x{i}", 7) for i in range(KEPT_OUTCOMES + 20)]
    assert len(fold(state, rows).outcome) == KEPT_OUTCOMES


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ((b"policy/2/x", b"{"), "damaged"),
        ((b"policy/2/x", b'{"format":2}'), "format 2"),
        ((b"policy/2/x", b'{"format":1}'), "damaged"),
        ((b"other/2", b'{"format":1}'), "no known kind"),
        ((b"\xff\xfe", b"\xff\xfe"), "damaged"),
        ((b"policy/2/x", proposal("x", 1)[1].replace(b'"flag_at"', b'"flag_it"')), "flag_it"),
    ],
)
def test_a_bad_record_is_noticed_and_left_out(row: Row, says: str) -> None:
    state = fold(ControlState(), [proposal("a", 0), row, (b"policy/2/y", None), proposal("b", 1)])
    assert state.version == 2 and state.skipped == 1
    assert len(state.notices) == 1 and says in state.notices[0]
    assert not fold(state, []).notices  # said once


def test_instances_report_by_which_version_they_judge() -> None:
    rows = [report_row(Report(instance=n, version=v, when=1.0)) for n, v in [("a", 1), ("a", 2)]]
    assert rows[0][0] == rows[1][0]  # compaction keeps the latest
    assert fold(ControlState(), rows).instances["a"].version == 2


def test_who_needs_a_second_person() -> None:
    alert, enforce = Policy(mode=Mode.ALERT), Policy()
    assert needs_second(alert, enforce) and needs_second(enforce, alert)
    assert not needs_second(alert, Policy(mode=Mode.SHADOW)) and needs_second(None, enforce)
    override = {"id": "a", "scope": "source", "match": "x", "mode": "enforce"}
    some = Policy.model_validate({"mode": "alert", "overrides": [override]})
    assert needs_second(alert, some)


RECORDS = st.lists(
    st.one_of(
        st.builds(
            lambda n, base, waits: proposal(f"p{n}", base, waits=waits),
            st.integers(0, 12),
            st.integers(0, 5),
            st.booleans(),
        ),
        st.builds(
            lambda n, who, yes: answer(f"p{n}", who, yes),
            st.integers(0, 12),
            st.sampled_from(["ana", "ben"]),
            st.booleans(),
        ),
        st.just((b"policy/1/z", b"damaged")),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=60)
@given(rows=RECORDS, cut=st.integers(0, 30))
def test_the_portions_make_no_difference(rows: list[Row], cut: int) -> None:
    whole, parts = fold(ControlState(), rows), fold(fold(ControlState(), rows[:cut]), rows[cut:])
    assert (whole.version, whole.current, whole.skipped) == (
        parts.version,
        parts.current,
        parts.skipped,
    )
    assert whole.applied == parts.applied and whole.waiting == parts.waiting
    assert whole.outcome == parts.outcome
    versions = list(whole.applied)
    assert versions == list(range(1, whole.version + 1))  # none is left out, none twice
    for number, entry in whole.applied.items():
        assert entry.change.base == number - 1 and entry.change.state == "applied"
