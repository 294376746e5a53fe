"""The chain's laws: whatever is done to records or decisions is found, and named."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.errors import StateError
from monitor.state import audit_match
from monitor.state.audit import Chaining, Head, Judging, extend, opened, seal
from monitor.state.audit_links import Entry, check_links
from monitor.state.audit_match import DecisionCheck, Expected

BY = Chaining("feedback", "1.2.3")


def decision(offset: int, **more) -> bytes:
    found = {"id": f"e{offset}", "partition": 0, "offset": offset, "verdict": "accept"}
    return orjson.dumps(found | more)


def chain(sizes, gap_every=0):
    """Decisions and audit records of batches of these sizes."""
    head, lines, decisions, at = Head(), [], [], 0
    for size in sizes:
        offsets = []
        for _ in range(size):
            at += 2 if gap_every and at % gap_every == 0 else 1
            offsets.append(at)
        records = [decision(offset) for offset in offsets]
        more, head = extend(head, BY, Judging(0, 1, "x@0"), np.array(offsets), records)
        lines += more
        decisions += records
    return lines, decisions, head


def linked(lines):
    return check_links("feedback-0", [Entry.of(opened(line), i) for i, line in enumerate(lines)])


def compared(lines, decisions, block=7, **options):
    expected = (Expected.of(opened(line).record) for line in lines)
    check = DecisionCheck("feedback-0", expected, **options)
    for start in range(0, len(decisions), block):
        check.feed(decisions[start : start + block])
    check.finish()
    return check


def named(findings):
    return sorted({(found.kind, found.place) for found in findings})


SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(0, 5), st.integers(1, 30))
def test_what_was_not_touched_is_whole(sizes, gap_every, block):
    lines, decisions, head = chain(sizes, gap_every)
    links, check = linked(lines), compared(lines, decisions, block)
    assert links.findings == check.findings == []
    assert [len(run) for run in links.runs] == [len(sizes)]
    assert check.checked == len(decisions) == sum(sizes)
    assert (links.runs[0][-1].seq, links.runs[0][-1].hash) == (head.seq, head.hash)


def tampered(data, n, kinds):
    """How ``n`` records are tampered with: what is done, and to which."""
    kind = data.draw(st.sampled_from(kinds))
    i = data.draw(st.integers(0, n - 1))
    if kind in ("swap", "move"):
        j = data.draw(st.integers(0, n - 1).filter(lambda j: j != i)) if n > 1 else i
        return ("none" if n == 1 else kind), i, j
    return kind, i, data.draw(st.integers(0, n - 1))


def apply(rows, kind, i, j, other):
    rows = list(rows)
    if kind == "change":
        rows[i] = other
    elif kind == "drop":
        del rows[i]
    elif kind == "insert":
        rows.insert(i, other)
    elif kind == "copy":
        rows.insert(j, rows[i])
    elif kind == "swap":
        rows[i], rows[j] = rows[j], rows[i]
    elif kind == "move":
        rows.insert(j, rows.pop(i))
    return rows


@settings(max_examples=150, deadline=None)
@given(st.data(), SIZES, st.integers(0, 4), st.sampled_from([3, 5, 1000]))
def test_a_tampered_decision_is_found_and_named(data, sizes, gap_every, window):
    lines, decisions, _ = chain(sizes, gap_every)
    kinds = ("change", "drop", "insert", "copy", "swap", "move")
    kind, i, j = tampered(data, len(decisions), kinds)
    own = [orjson.loads(record)["offset"] for record in decisions]
    foreign = decision(own[i] if kind == "change" else own[-1] + 50, verdict="quarantine")
    rows = apply(decisions, kind, i, j, foreign)
    before, audit_match.WINDOW = audit_match.WINDOW, window
    try:
        check = compared(lines, rows)
    finally:
        audit_match.WINDOW = before
    found = {(f.kind, f.place) for f in check.findings}
    at = {f"offset {own[k]}" for k in (i, j)}
    if rows == decisions:
        assert not found
    elif window < 1000:  # however small the window, nothing goes unnoticed, and the rest is right
        assert found
        assert check.checked >= len(decisions) - 2 or kind in ("swap", "move")
    elif kind == "change":
        assert found == {("changed", f"offset {own[i]}")}
    elif kind == "drop":
        assert found == {("dropped", f"offset {own[i]}")}
    elif kind == "insert":
        assert found == {("inserted", f"offset {own[-1] + 50}")}
    elif kind == "copy":
        assert found == {("inserted", f"offset {own[i]}")}
    else:
        assert {k for k, _ in found} == {"moved"}
        assert {place for _, place in found} <= {f"offset {o}" for o in own}
        assert {place for _, place in found} & at if kind == "swap" else len(found) == 1
    if window == 1000:
        assert check.checked == len(decisions) - (kind in ("change", "drop"))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(2, 9))
def test_a_tampered_record_is_found_and_named(data, n):
    lines, _, _ = chain([3] * n)
    kinds = ("change", "drop", "insert", "copy", "swap", "move")
    kind, i, j = tampered(data, n, kinds)
    if kind == "drop" and i == n - 1:
        i = 0  # what is missing at the end only a signed head tells
    tree = orjson.loads(lines[i])
    tree["policy_version"] = 9
    known = ("version", "chain", "seq", "prev", "kind", "hash")
    fields = {name: value for name, value in tree.items() if name not in known}
    forged, _ = seal(Head(tree["seq"] - 1, tree["prev"]), tree["chain"], "decisions", fields)
    other = orjson.dumps(tree) if kind == "change" else forged
    rows = apply(lines, kind, i, j, other)
    findings = linked(rows).findings
    found = {(f.kind, f.place) for f in findings}
    if rows == lines:
        assert not found
    elif kind == "insert" and i == 0:  # a chain that was begun twice: which one counts?
        assert found == {("restart", "record 1")}
    elif kind in ("insert", "copy"):
        assert ("inserted", f"record {i + 1}") in found and len(found) == 1
    elif kind == "swap":
        assert found and {k for k, _ in found} == {"moved"}
        assert {p for _, p in found} & {f"record {i + 1}", f"record {j + 1}"}
    elif kind == "move":
        assert len(found) == 1 and found.pop()[0] == "moved"
    else:
        assert found == {({"change": "changed", "drop": "dropped"}[kind], f"record {i + 1}")}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 7))
def test_no_byte_of_a_record_can_be_changed(place, bit):
    lines, _, _ = chain([2, 3])
    line = bytearray(lines[0])
    line[place % len(line)] ^= 1 << bit
    try:
        entry = Entry.of(opened(bytes(line)), 0)
    except StateError:
        return
    rest = Entry.of(opened(lines[1]), 1)
    assert check_links("feedback-0", [entry, rest]).findings


def test_a_forged_record_with_a_right_hash_does_not_join():
    lines, _, _ = chain([3, 3, 3])
    forged, _ = extend(
        Head(1, opened(lines[0]).hash), BY, Judging(0, 2, "x@0"), np.arange(4, 7),
        [decision(k) for k in (4, 5, 6)],
    )  # fmt: skip
    assert named(linked([lines[0], *forged, lines[2]]).findings) == [("broken", "record 3")]


def test_a_chain_that_begins_anew_is_told():
    lines, _, _ = chain([2, 2])
    again, _, _ = chain([1])
    links = linked([*lines, *again])
    assert named(links.findings) == [("restart", "record 1")]
    assert [len(run) for run in links.runs] == [2, 1]


def test_decisions_from_before_the_chain_are_counted():
    lines, decisions, _ = chain([4])
    check = compared(lines, [decision(0), *decisions])
    assert (check.findings, check.uncovered, check.checked) == ([], 1, 4)
    assert named(compared(lines, [*decisions, decision(0)]).findings) == [("inserted", "offset 0")]


def test_decisions_that_a_topic_no_longer_keeps_are_counted():
    lines, decisions, _ = chain([4, 4])
    check = compared(lines, decisions[5:], may_expire=True)
    assert (check.findings, check.expired, check.checked) == ([], 5, 3)
    assert len(compared(lines, decisions[5:]).findings) == 5


def test_a_large_batch_makes_several_records():
    lines, decisions, head = chain([20_000])
    assert head.seq == len(lines) == 3
    assert compared(lines, decisions, 9000).checked == 20_000


@pytest.mark.parametrize("line", [b"", b"{}", b'{"version":1,"hash":"00"}', b"\xff" * 2000])
def test_what_is_no_record_is_refused(line):
    with pytest.raises(StateError):
        opened(line)
