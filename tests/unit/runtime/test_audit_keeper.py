"""The chain of people's actions when what it is written to fails, or somebody else writes too."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from monitor.core.desk import AuditEntry
from monitor.core.errors import TransportError
from monitor.runtime import audit_keeper
from monitor.runtime.audit_keeper import AuditKeeper, Writing
from monitor.runtime.standing import Standing
from monitor.state.audit import Chaining, Head, opened, seal
from monitor.state.audit_keys import SigningKey
from monitor.state.audit_verify import Verification


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(audit_keeper, "PAUSE_SECONDS", 0.01)


class MemoryLog:
    """A list of lines; ``faults`` says of each append what goes wrong with it."""

    def __init__(self, *faults):
        self.lines, self.faults, self.opened = [], list(faults), 0

    def open(self):
        self.opened += 1
        return self.lines[-1] if self.lines else None

    def append(self, lines):
        fault = self.faults.pop(0) if self.faults else ""
        if fault != "lost":
            self.lines += lines
        if fault:
            raise TransportError(f"this one is {fault}")

    def close(self):
        pass


class MemoryAnchor:
    def __init__(self, failures=0):
        self.kept, self.failures = [], failures

    def keep(self, line):
        if self.failures:
            self.failures -= 1
            raise TransportError("not now")
        self.kept.append(line)


def key(number):
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def entry(number):
    return AuditEntry(float(number), "ann", f"action {number}", "why", {"n": number})


def keeper(log, **how):
    told = []
    made = AuditKeeper(log, Writing("desk-a", "1", **how), notice=told.append)
    made.start()
    return made, told


def commit(chain, seq):
    line, _ = seal(Head(seq - 1, "0" * 64), chain, "decisions", {})
    return SimpleNamespace(parts=(SimpleNamespace(audit=(line,), chain=chain),))


def report(lines, trusted=None):
    check = Verification(list(lines).__getitem__, trusted)
    for number, line in enumerate(lines):
        check.add(line, number, f"line {number + 1}")
    check.link()
    return check.report()


def whats(lines):
    return [opened(line).record.what for line in lines]


def wait(until):
    deadline = time.monotonic() + 20.0
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("faults", [("lost",), ("kept",), ("lost", "kept"), ("kept", "lost")])
def test_a_failed_write_is_neither_lost_nor_doubled(faults):
    log = MemoryLog("", *faults)
    made, told = keeper(log)
    for number in range(6):
        made.record(entry(number))
    made.close()
    assert whats(log.lines) == [f"action {number}" for number in range(6)]
    assert report(log.lines).findings == ()
    assert log.opened == 1 + len(faults)
    assert told and "cannot be written, it waits" in told[0]


def test_the_next_process_continues_the_chain_and_may_have_another_key():
    log = MemoryLog()
    for number in (1, 2):
        made, _ = keeper(log, key=key(number))
        made.record(entry(number))
        made.close()
    assert [opened(line).record.seq for line in log.lines] == [1, 2, 3, 4]
    both = {key(number).id: key(number).public for number in (1, 2)}
    assert report(log.lines, both).findings == ()
    only = {key(2).id: key(2).public}
    assert [f.place for f in report(log.lines, only).findings] == ["record 1", "record 2"]
    # A key that was signed with is not left off without notice.
    made, _ = keeper(log)
    made.record(entry(3))
    made.close()
    assert [(f.kind, f.place) for f in report(log.lines).findings] == [("signature", "record 5")]


def test_what_another_process_added_is_continued_not_forked():
    log = MemoryLog("", "lost")
    made, _ = keeper(log)
    made.record(entry(0))
    found = opened(log.lines[0])
    foreign, _ = seal(Head(1, found.hash), "desk-a", "desk", {"what": "foreign"})
    log.lines.append(foreign)
    made.record(entry(1))
    made.close()
    assert whats(log.lines) == ["action 0", "foreign", "action 1"]
    assert report(log.lines).findings == ()


def test_a_chain_that_ends_in_a_changed_record_is_not_continued():
    log = MemoryLog()
    made, _ = keeper(log)
    made.record(entry(0))
    made.close()
    log.lines[0] = log.lines[0].replace(b"ann", b"bob")
    made, told = keeper(log)
    made.record(entry(1), wait_seconds=0.0)
    wait(lambda: told)
    made.close()
    assert "ends in a record that was changed" in told[0]
    assert len(log.lines) == 1


def test_heads_are_written_by_number_of_records_and_at_the_end_and_anchored():
    log, anchor, late = MemoryLog(), MemoryAnchor(), MemoryAnchor(failures=1)
    how = {"every_seconds": 3600.0, "every_records": 3, "anchors": (anchor, late)}
    made, told = keeper(log, key=key(1), **how)
    made.committed(commit("feedback-0", 1), {})
    made.committed(commit("feedback-1", 1), {})
    assert not log.lines
    made.committed(commit("feedback-0", 2), {})
    wait(lambda: len(log.lines) == 1 and anchor.kept)
    made.committed(commit("feedback-1", 2), {})
    assert {name: head.seq for name, head in made.heads.items()} == {
        "feedback-0": 2,
        "feedback-1": 2,
    }
    made.close()
    heads = [opened(line).record.heads for line in log.lines]
    assert [{name: seq for name, (seq, _) in told.items()} for told in heads] == [
        {"feedback-0": 2, "feedback-1": 1},
        {"feedback-0": 2, "feedback-1": 2},
    ]
    assert anchor.kept == late.kept == log.lines
    assert told == ["Heads of the audit chain cannot be anchored: not now"]


@pytest.mark.parametrize("every_seconds", [0.05, 3600.0])
def test_what_people_do_is_under_a_head_where_nothing_is_decided(every_seconds):
    """So that its cut tail is missed, too: while the service runs, and at the latest at its end."""
    log, anchor = MemoryLog(), MemoryAnchor()
    made, _ = keeper(log, key=key(1), every_seconds=every_seconds, anchors=(anchor,))
    for number in range(3):
        made.record(entry(number))
    if every_seconds < 1.0:
        wait(lambda: anchor.kept)
    made.close()
    kinds = [opened(line).record.kind for line in log.lines]
    assert kinds[-1] == "heads" and kinds.count("desk") == 3
    assert anchor.kept == [line for line in log.lines if opened(line).record.kind == "heads"]
    # A head on top of a head says nothing new.
    assert "heads,heads" not in ",".join(kinds)


def test_what_there_is_no_room_for_is_counted(monkeypatch):
    monkeypatch.setattr(audit_keeper, "MOST_WAITING", 2)
    log = MemoryLog()
    made = AuditKeeper(log, Writing("desk-a", "1"))
    for number in range(5):
        made.record(entry(number))
    made.start()
    made.close()
    assert whats(log.lines) == ["action 0", "action 1", "records lost"]
    assert opened(log.lines[-1]).record.details == {"records": 3}


def test_details_of_any_kind_and_size_are_kept_within_bounds():
    log = MemoryLog()
    made, _ = keeper(log)
    made.record(AuditEntry(1.0, "a", "odd", "", {"path": object, "of": (1, 2)}))
    made.record(AuditEntry(1.0, "a", "long", "", {"text": "x" * 300_000}))
    made.close()
    odd, long = (opened(line).record.details for line in log.lines)
    assert odd["of"] == [1, 2]
    assert set(long) == {"left_out_bytes"}
    assert report(log.lines).findings == ()


def test_heads_name_the_partitions_of_the_process_idle_or_not():
    """So that an end is proven of those that rest, and nobody vouches for what another writes."""
    log, heard = MemoryLog(), []
    made, _ = keeper(log, key=key(1), every_seconds=3600.0)
    inner = SimpleNamespace(restored=lambda *given: heard.append(given), revoked=heard.append)
    listener = Standing(inner, made, Chaining("feedback", "1"))
    stamps = [SimpleNamespace(audit=Head(seq, str(seq) * 64)) for seq in (0, 4, 7)]
    for partition, stamp in enumerate(stamps):
        listener.restored(partition, stamp, 0.1)
    made.committed(commit("feedback-0", 1), {})
    made.committed(commit("feedback-2", 8), {})
    listener.revoked(2)
    made.close()
    (told,) = [opened(line).record.heads for line in log.lines]
    assert {name: seq for name, (seq, _) in told.items()} == {"feedback-0": 1, "feedback-1": 4}
    assert heard[-1] == 2 and len(heard) == 4
