"""The store on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.core.desk import AuditEntry, HeldFilter, MissingError, ReviewStatus
from monitor.core.errors import StateError, TransportError, UsageError
from monitor.core.held import HeldRecord, Original
from monitor.store import writing
from monitor.store.database import Database, parse_url
from monitor.store.held_store import HeldStore
from monitor.store.ledger_rows import (
    Operation,
    erase_row,
    judged_row,
    operation_row,
    review_row,
)
from monitor.store.rows import source_digest
from monitor.store.writing import Bounds
from tests.store.making import START, batch, record

WIDE = Bounds(1e6, 10**9, 1 << 50)


def opened(url, stream="s"):
    store = HeldStore(Database(url), stream)
    store.open()
    return store


@pytest.fixture
def store(database_url):
    store = opened(database_url)
    yield store
    store.close()


def keys(store, limit=1000, **filters):
    return [held.key for held in store.search(HeldFilter(**filters), limit, None).items]


def operation(verb="release", name="op1", when=START + 50):
    return Operation(name, verb, "ann", "it is fine", when)


def test_what_was_stored_comes_back_whole(store):
    made = record(7, partition=3, subject="item-9", incident="i-1", risk=4.25)
    store.add(batch(made), START)
    held = store.get("3-7")
    assert (held.partition, held.offset, held.held_at) == (3, 7, START + 7)
    assert (held.event_id, held.source, held.subject, held.label) == (
        *("e3-7", "acct-1", "item-9"),
        "spam",
    )
    assert (held.ts, held.risk, held.policy_version) == (START + 7, 4.25, 4)
    assert (held.incident, held.status) == ("i-1", ReviewStatus.OPEN)
    assert held.families == ("label_flip",)
    assert held.detectors == ("label_conflict",)
    assert held.decision["reasons"][0]["evidence"] == {"k": 1}
    assert held.value == made.original.value
    assert store.originals(["3-7"]) == {"3-7": made.original}
    (overview,) = store.search(HeldFilter(), 10, None).items
    assert overview.value == b""
    assert overview.decision == held.decision


def test_adding_again_changes_nothing(store):
    rows = [record(i) for i in range(900)]
    assert store.add(batch(*rows), START) == 900
    assert store.add(batch(*rows[:5], record(900), rows[8]), START) == 1
    assert store.search(HeldFilter(), 1, None).total == 901
    assert store.totals().held == 901


def test_where_reading_goes_on_is_kept_with_the_records(store):
    assert store.places() == {}
    store.add(batch(record(1), places={0: 5, 2: 7}), START)
    store.add(batch(record(2), places={2: 9}, judged=4), START)
    assert store.places() == {0: 5, 2: 9}
    assert store.totals().judged == 4


def test_a_failed_write_leaves_neither(store, monkeypatch):
    def broken(*_):
        raise RuntimeError("killed here")

    monkeypatch.setattr(writing, "count", broken)
    with pytest.raises(RuntimeError):
        store.add(batch(record(1)), START)
    assert store.search(HeldFilter(), 1, None).total == 0
    assert store.places() == {}


def test_every_filter(store):
    store.add(
        batch(
            record(0, source="a", label="spam", families=("backdoor", "sybil")),
            record(1, source="b", label="ham", risk=5.0, subject="item"),
            record(2, source="a", label="ham", detectors=("ring", "undo"), incident="i-7"),
            record(3, source="A%_\\c", text="100% odd", event_id="needle"),
        ),
        START,
    )
    store.apply([review_row(operation(), 0, 1)])
    assert keys(store) == ["0-3", "0-2", "0-1", "0-0"]
    expected = {
        ("source", "a"): ["0-2", "0-0"],
        ("source", "A"): [],
        ("subject", "item"): ["0-1"],
        ("label", "ham"): ["0-2", "0-1"],
        ("family", "sybil"): ["0-0"],
        ("family", "label_flip"): ["0-3", "0-2", "0-1"],
        ("detector", "undo"): ["0-2"],
        ("risk_at_least", 5.0): ["0-1"],
        ("incident", "i-7"): ["0-2"],
        ("status", ReviewStatus.OPEN): ["0-3", "0-2", "0-0"],
        ("status", ReviewStatus.RELEASED): ["0-1"],
        ("since", START + 2): ["0-3", "0-2"],
        ("until", START + 2): ["0-1", "0-0"],
        ("text", "NEEDLE"): ["0-3"],
        ("text", "100%"): ["0-3"],
        ("text", "%_\\"): ["0-3"],
        ("text", "0%o"): [],
        ("keys", ("0-1", "0-3", "9-9")): ["0-3", "0-1"],
        ("keys", ()): [],
    }
    for (name, value), found in expected.items():
        assert keys(store, **{name: value}) == found, (name, value)
        assert list(store.choose(HeldFilter(**{name: value}), 10)) == found[::-1]
    assert keys(store, source="a", label="ham", status=ReviewStatus.OPEN) == ["0-2"]
    for wrong in ({"keys": ("nonsense",)}, {"keys": ("1--2",)}, {"since": float("nan")}):
        with pytest.raises(UsageError):
            keys(store, **wrong)


def test_pages_go_through_everything_once(store):
    # Many at the same moment, in several partitions.
    rows = [record(i, partition=p, held_at=START + i // 10) for i in range(40) for p in range(3)]
    store.add(batch(*rows), START)
    seen, cursor, late = [], None, 0
    while True:
        page = store.search(HeldFilter(), 7, cursor)
        assert page.total == 120 + late
        seen += [(h.held_at, h.partition, h.offset) for h in page.items]
        cursor = page.cursor
        if cursor is None:
            break
        # What comes in meanwhile is later and moves no page.
        late += 1
        store.add(batch(record(1000 + late)), START)
    assert seen == sorted((START + i // 10, p, i) for i in range(40) for p in range(3))[::-1]
    with pytest.raises(UsageError, match="cursor"):
        store.search(HeldFilter(), 7, "bm9uc2Vuc2U=")


def test_of_two_reviews_the_first_counts_whenever_the_event_comes(store):
    store.add(batch(record(0)), START)
    rows = [
        review_row(operation(), 0, 0),
        review_row(operation("confirm", "op2"), 0, 0),
        review_row(operation("confirm", "op2"), 0, 5),
        operation_row(operation(), {"events": 1}),
    ]
    store.apply(rows)
    store.apply([rows[1]])
    store.apply(rows)
    store.add(batch(record(5)), START)
    held = store.get("0-0")
    assert held.status is ReviewStatus.RELEASED
    assert (held.reviewed_by, held.reviewed_at, held.review_reason) == (
        *("ann", START + 50),
        "it is fine",
    )
    assert store.get("0-5").status is ReviewStatus.CONFIRMED
    marks = store.choose(HeldFilter(keys=("0-0", "0-5")), 9)
    assert [mark.op for mark in marks.values()] == ["op1", "op2"]
    totals = store.totals()
    assert (totals.held, totals.released, totals.confirmed) == (2, 1, 1)
    (entry,) = store.audit(10, None)
    assert entry == AuditEntry(START + 50, "ann", "release", "it is fine", {"events": 1})


def test_rows_that_cannot_be_read_are_left_out(store, caplog):
    good = review_row(operation(), 0, 0)
    store.add(batch(record(0)), START)
    store.apply(
        [
            (b"release/0-0", b"{"),
            (b"release/0-0", b'{"v": 99}'),
            (b"release/nonsense", good[1]),
            (b"\xff", b'{"v": 1}'),
            (b"future/x", b'{"v": 1}'),
            (b"release/0-0", b'{"v": 1}'),
            (b"release/0-0", b"[1]"),
            (b"confirm/0-0", None),
            (b"erase/1", b'{"v": 1, "source_sha256": "x", "upto": {"a": 1}}'),
            good,
        ]
    )
    assert store.get("0-0").status is ReviewStatus.RELEASED
    assert caplog.text.count("left out") == 8


def test_an_erased_source_is_gone_and_does_not_come_back(store):
    mine = [record(i, source="acct-7", subject="s") for i in range(900)]
    others = [record(i, source="acct-8", partition=1) for i in range(3)]
    store.add(batch(*mine, *others), START)
    events, size, upto = store.erasable("acct-7")
    assert (events, upto) == (900, {0: 899})
    assert size > 900 * 300
    row = erase_row(operation("erase"), source_digest("acct-7"), upto)
    assert b"acct-7" not in row[1]
    store.apply([row])
    store.apply([row])
    assert keys(store) == ["1-2", "1-1", "1-0"]
    with pytest.raises(MissingError):
        store.get("0-5")
    assert store.originals(["0-5"]) == {}
    # A store that is built anew hears of the events again, before or after it hears of this.
    assert store.add(batch(*mine[:50]), START) == 0
    assert store.add(batch(record(900, source="acct-7"), record(7, partition=2)), START) == 2
    assert store.erasable("acct-7")[0] == 1


def test_erased_bytes_are_not_in_the_file_any_more(tmp_path):
    path = tmp_path / "q.db"
    store = opened(f"sqlite:///{path}")
    store.add(batch(*(record(i, source="gone-for-good") for i in range(300))), START)
    everything = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert b"gone-for-good" in everything
    store.apply([erase_row(operation("erase"), source_digest("gone-for-good"), {0: 10**6})])
    store.close()
    assert b"gone-for-good" not in b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_oldest_are_forgotten_first(store):
    rows = [record(i, held_at=START + i) for i in range(100)]
    store.add(batch(*rows), START)
    size = store.erasable("acct-1")[1]
    assert store.forget(WIDE, START + 100) == 0
    assert store.forget(Bounds(50 / 86_400, 10**6, 1 << 40), START + 100) == 50
    assert keys(store)[-1] == "0-50"
    assert store.forget(Bounds(1e6, 30, 1 << 40), START + 100) == 20
    assert keys(store)[-1] == "0-70"
    assert store.forget(Bounds(1e6, 10**6, size // 10), START + 100) in (20, 21)
    left = keys(store)
    assert left[0] == "0-99"
    assert len(left) in (9, 10)
    # What was counted stays counted.
    assert store.totals().held == 100


def test_forgetting_goes_on_until_the_bounds_hold(store, monkeypatch):
    monkeypatch.setattr("monitor.store.held_store._FORGET", 16)
    store.add(batch(*(record(i) for i in range(100))), START)
    assert store.forget(Bounds(1e6, 10, 1 << 40), START) == 90
    assert len(keys(store)) == 10


def test_a_rolling_audit_trail(store):
    for i in range(10):
        store.note(f"n{i}", AuditEntry(START + i, "ann", "login", "", {"at": i}))
    store.note("n9", AuditEntry(START, "eve", "twice", ""))
    assert [entry.details["at"] for entry in store.audit(3, None)] == [9, 8, 7]
    assert [entry.details["at"] for entry in store.audit(3, START + 5)] == [4, 3, 2]
    store.forget(WIDE, START, audit=4)
    assert len(store.audit(100, None)) == 4


def test_counts_and_a_sources_history(store):
    day = 86_400
    store.add(
        batch(
            record(0, source="a", label="x", families=("sybil", "backdoor"), held_at=START),
            record(1, source="a", label="y", families=("sybil",), held_at=START + day),
            record(2, source="b", label="y", families=(), held_at=START + 2 * day),
        ),
        START,
    )
    store.apply([review_row(operation("confirm"), 0, 1)])
    assert store.counts(HeldFilter()) == {
        "family": {"sybil": 2, "backdoor": 1},
        "source": {"a": 2, "b": 1},
        "label": {"y": 2, "x": 1},
        "status": {"open": 2, "confirmed": 1},
    }
    assert store.counts(HeldFilter(source="a", family="backdoor"))["label"] == {"x": 1}
    found = store.of_source("a")
    assert found["held"] == 2
    assert found["by_status"] == {"confirmed": 1, "open": 1}
    assert found["by_family"] == {"sybil": 2, "backdoor": 1}
    assert list(found["by_day"].items()) == [("2023-11-14", 1), ("2023-11-15", 1)]
    assert (found["first_seen"], found["last_seen"]) == (START, START + day)
    assert store.of_source("nobody")["held"] == 0


def test_what_was_held_before_counting_began_is_not_in_the_share(store):
    store.apply([judged_row("one", START + 5, 1000), judged_row("two", START + 9, 10)])
    store.apply([judged_row("one", START + 5, 2000)])
    store.add(batch(*(record(i) for i in range(10))), START)
    totals = store.totals()
    assert (totals.judged, totals.held) == (2010, 5)
    assert store.judged() == {"one": (START + 5, 2000), "two": (START + 9, 10)}


def test_a_decision_that_did_not_come_along_is_made_up_for(store):
    original = record(4, source="acct-3", label=True, subject="it").original
    store.add(batch(HeldRecord(original, b"", None, 2.5, "too odd")), START + 99)
    held = store.get("0-4")
    assert (held.source, held.label, held.subject) == ("acct-3", "true", "it")
    assert (held.held_at, held.ts, held.risk) == (START + 99, START + 4, 2.5)
    assert held.decision["reasons"][0]["text"] == "too odd"
    assert keys(store, text="too odd") == ["0-4"]


HOSTILE = st.text(max_size=40) | st.just("\0nul") | st.just("x" * 3000) | st.just("\ud7ff漢'\"%")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE), min_size=1, max_size=4))
def test_any_text_can_be_stored_and_found(store, rows):
    made = [
        record(i, source=source, label=label, subject=subject, event_id=source, text=label)
        for i, (source, label, subject) in enumerate(rows)
    ]
    with store._database.write() as connection:
        places = [(0, i) for i in range(10)]
        writing.remove(connection, places)
    store.add(batch(*made), START)
    for i, (source, label, subject) in enumerate(rows):
        assert f"0-{i}" in keys(store, source=source, label=label, subject=subject)
        assert store.get(f"0-{i}").value == made[i].original.value


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe not json", b"[1]", b'{"id": 5}'])
def test_bytes_that_are_no_event_are_stored_too(store, value):
    original = Original(0, 1, value)
    store.add(batch(HeldRecord(original, b"\xff", START)), START)
    assert store.originals(["0-1"]) == {"0-1": original}
    assert store.get("0-1").value == (value or b"")


def test_another_stream_or_version_is_refused(store, database_url):
    opened(database_url).close()
    with pytest.raises(UsageError, match="belongs to"):
        opened(database_url, stream="other")
    with store._database.write() as connection:
        connection.exec_driver_sql("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    with pytest.raises(StateError, match="version 99"):
        opened(database_url)


def test_urls_that_cannot_be_used():
    for url in ("nonsense", "mysql://u@h/d", "sqlite://", "sqlite:///:memory:"):
        with pytest.raises(UsageError, match=r"quarantine\.url"):
            Database(url)
    assert parse_url("sqlite:////tmp/x.db").database == "/tmp/x.db"
    assert "secret" not in str(Database("postgresql://u:secret@h/d"))
    with pytest.raises(UsageError) as error:
        Database("mysql://u:secret@h/d")
    assert "secret" not in str(error.value)


def test_a_database_that_is_down_says_so(tmp_path):
    store = HeldStore(Database(f"postgresql://u:secret@/d?host={tmp_path}"), "s")
    with pytest.raises(TransportError, match="does not work") as error:
        store.search(HeldFilter(), 1, None)
    assert "secret" not in str(error.value)
    (tmp_path / "file").write_bytes(b"")
    store = HeldStore(Database(f"sqlite:///{tmp_path}/file/q.db"), "s")
    with pytest.raises(TransportError):
        store.open()
    (tmp_path / "broken.db").write_bytes(b"this is no database" * 100)
    store = HeldStore(Database(f"sqlite:///{tmp_path}/broken.db"), "s")
    with pytest.raises(TransportError, match="does not work"):
        store.open()


def test_a_connection_that_broke_is_made_anew(postgres):
    store = opened(postgres.fresh())
    store.add(batch(record(0)), START)
    others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'monitor'"
    postgres.execute(f"SELECT pg_terminate_backend(pid) {others}")
    assert keys(store) == ["0-0"]
    store.add(batch(record(1)), START)
    with pytest.raises(TransportError), store._database.write() as connection:
        postgres.execute(f"SELECT pg_terminate_backend(pid) {others}")
        writing.add(connection, batch(record(2)), START)
    assert keys(store) == ["0-1", "0-0"]
    store.close()


def _write(url, partition, barrier):
    store = opened(url)
    barrier.wait(30)
    for i in range(40):
        # Each brings the same events, and one of its own.
        store.add(batch(record(i), record(i, partition=partition), places={0: i}), START)
        store.apply([review_row(operation(), 0, i), operation_row(operation(name=f"o{i}"), {})])
        store.forget(WIDE, START)
    store.close()


def test_several_processes_share_a_database(database_url):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    writers = [context.Process(target=_write, args=(database_url, p, barrier)) for p in (1, 2, 3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    store = opened(database_url)
    assert store.search(HeldFilter(), 1, None).total == 160
    assert store.totals().held == 160
    assert store.totals().released == 40
    assert len(store.audit(1000, None)) == 40
    store.close()


def test_a_killed_writer_leaves_a_whole_store(tmp_path):
    url = f"sqlite:///{tmp_path}/q.db"
    context = multiprocessing.get_context("spawn")
    for turn in range(2):
        barrier = context.Barrier(2)
        writer = context.Process(target=_write, args=(url, turn + 1, barrier))
        writer.start()
        barrier.wait(60)
        time.sleep(0.05)
        os.kill(writer.pid, 9)
        writer.join(10)
    connection = sqlite3.connect(Path(tmp_path) / "q.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    held, bodies, counted = (
        connection.execute(sql).fetchone()[0]
        for sql in (
            "SELECT count(*) FROM held",
            "SELECT count(*) FROM body",
            "SELECT coalesce(sum(n), 0) FROM counter WHERE name = 'held'",
        )
    )
    assert held == bodies == counted
    connection.close()
