"""Releases of a local run: whatever dies when, a released line is among the accepted ones once."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from monitor.core.errors import MonitorError, TransportError
from monitor.core.held import Original, Reviews
from monitor.runtime.service import Service
from monitor.transport.local import FileLines, FollowFile, LocalTransport
from monitor.transport.local_held import LocalHeld
from monitor.transport.local_journal import last_entry
from monitor.transport.local_ledger import LocalLedger
from monitor.transport.local_release import REVIEWS, LocalReviewer
from tests.sim.toy import ToyGate
from tests.unit.transport.test_local_crashes import Disk, Killed, lines

WANTED = [b"released-1", b"released-2", b"", b"carriage\r"]
TAKEN_BACK = [b"retraction-1", b"retraction-2"]


def rows(name):
    return [(b"release/%d" % i, name) for i in range(len(WANTED))]


def ledger_rows(out):
    ledger = LocalLedger(out / ".monitor" / REVIEWS)
    try:
        return list(ledger.catch_up())
    finally:
        ledger.close()


def accepted(out):
    return (out / "accepted.jsonl").read_bytes().split(b"\n")[:-1]


def retractions(out):
    return (out / "retractions.jsonl").read_bytes().split(b"\n")[:-1]


def transport_of(path, out):
    return LocalTransport(FollowFile(path), out, fsync="snapshot")


@pytest.fixture
def place(tmp_path):
    """A run that has judged some lines and was stopped, and its accepted lines."""
    path, out = tmp_path / "in.jsonl", tmp_path / "out"
    path.write_bytes(b"\n".join(lines(40)) + b"\n")
    run_for(path, out, 40)
    return path, out, accepted(out)


def run_for(path, out, until, job=None):
    """Run until so many lines are judged; ``job`` gets transport and service in between."""
    stop, transport = threading.Event(), transport_of(path, out)
    service = Service(
        ToyGate(), transport, batch_events=8, linger_seconds=0.01, snapshot_every_batches=2
    )
    failures = []

    def watch():
        try:
            while (last_entry(out / ".monitor") or NOTHING).next_offset < until:
                stop.wait(0.01)
            if job is not None:
                job(transport, service)
        except BaseException as error:
            failures.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        service.run(stop)
    finally:
        thread.join()
    if failures:
        raise failures[0]


class NOTHING:
    next_offset = 0


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
def test_a_failure_at_every_change_of_the_disk(tmp_path, kill):
    """The process dies, or the disk is full, at the n-th change; the next start goes on."""
    nth, failed = 1, True
    seen = {"released": 0, "not": 0}
    while failed:
        path, out = tmp_path / f"in{nth}.jsonl", tmp_path / f"out{nth}"
        path.write_bytes(b"\n".join(lines(20)) + b"\n")
        run_for(path, out, 20)
        before = accepted(out)
        transport = transport_of(path, out)
        transport.open()
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, nth, kill)
            with contextlib.suppress(Killed, MonitorError):
                transport.release(WANTED, rows(b"first"), TAKEN_BACK)
            failed = disk.count >= nth
            with contextlib.suppress(Killed, MonitorError):
                if not kill:
                    transport.close()
            transport._release()
        # Whoever comes next: all or nothing, and the ledger agrees with the learner's file.
        transport = transport_of(path, out)
        transport.open()
        known = ledger_rows(out)
        if known:
            assert set(known) == set(rows(b"first"))
            assert accepted(out) == before + WANTED, nth
            assert retractions(out) == TAKEN_BACK
            seen["released"] += 1
        else:
            assert accepted(out) == before, nth
            assert retractions(out) == []
            transport.release(WANTED, rows(b"second"), TAKEN_BACK)
            assert ledger_rows(out) == rows(b"second")
            seen["not"] += 1
        transport.close()
        # And judging goes on as if nothing had been.
        with path.open("ab") as stream:
            stream.write(b"\n".join(lines(30)[20:]) + b"\n")
        run_for(path, out, 30)
        assert accepted(out)[: len(before) + 4] == before + WANTED
        assert accepted(out).count(WANTED[0]) == 1
        assert retractions(out) == TAKEN_BACK
        nth += 1
    assert seen["released"] > 1
    assert seen["not"] > 1


def test_what_could_not_be_taken_back_stops_the_run(place, monkeypatch):
    path, out, before = place
    transport = transport_of(path, out)
    transport.open()

    def fails(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        write = os.write
        patch.setattr(os, "write", lambda fd, data: (write(fd, bytes(data)[:3]), fails())[0])
        patch.setattr(os, "ftruncate", fails)
        with pytest.raises(TransportError):
            transport.release(WANTED, rows(b"x"))
    for attempt in (lambda: transport.release(WANTED, rows(b"y")), lambda: commit(transport)):
        with pytest.raises(TransportError, match="start again"):
            attempt()
    transport._release()
    transport_of(path, out).open()
    assert accepted(out) == before
    assert ledger_rows(out) == []


def commit(transport):
    from monitor.core.ports import CommitUnit

    transport.commit(CommitUnit(()))


def test_the_ledgers_disk_is_full_for_a_while(place, monkeypatch):
    """The journal knows of the release; later commits carry its rows on until they are there."""
    path, out, before = place

    def full(self, rows):
        raise TransportError("No space left on device")

    def job(transport, service):
        with monkeypatch.context() as patch:
            patch.setattr(LocalLedger, "append", full)
            with pytest.raises(TransportError, match="No space"):
                service.submit(lambda _: transport.release(WANTED, rows(b"x"))).result(10)
            with path.open("ab") as stream:
                stream.write(b"\n".join(lines(60)[40:]) + b"\n")
            while last_entry(out / ".monitor").next_offset < 60:
                pass
            assert last_entry(out / ".monitor").reviews == tuple(rows(b"x"))
        assert ledger_rows(out) == []
        service.submit(lambda _: transport.release([], [])).result(10)
        assert ledger_rows(out) == rows(b"x")

    run_for(path, out, 40, job)
    assert accepted(out)[: len(before) + 4] == before + WANTED


def test_reviews_through_the_loop(place):
    path, out, before = place
    original = Original(0, 3, b"three")

    def job(transport, service):
        ledger = LocalLedger(out / ".monitor" / REVIEWS)
        reviewer = LocalReviewer(service.submit, transport, ledger)
        reviewer.exclusively(lambda: None)
        reviewer.exclusively(lambda: Reviews([(b"confirm/0-1", b"c")]))
        reviewer.exclusively(lambda: Reviews([(b"release/0-3", b"r")], [original]))
        ledger.close()

    run_for(path, out, 40, job)
    assert ledger_rows(out) == [(b"confirm/0-1", b"c"), (b"release/0-3", b"r")]
    assert accepted(out) == [*before, b"three"]


def test_a_stopped_or_busy_loop_refuses(place, monkeypatch):
    monkeypatch.setattr("monitor.transport.local_release._LOOP_SECONDS", 0.05)
    ledger = LocalLedger(place[1] / ".monitor" / REVIEWS)
    reviewer = LocalReviewer(lambda _: Future(), None, ledger)
    with pytest.raises(TransportError, match="busy"):
        reviewer.exclusively(lambda: None)
    service = Service(ToyGate(), transport_of(*place[:2]))
    stop = threading.Event()
    stop.set()
    service.run(stop)
    reviewer = LocalReviewer(service.submit, None, ledger)
    with pytest.raises(MonitorError, match="stopped"):
        reviewer.exclusively(lambda: None)


class HoldGate(ToyGate):
    """Decisions in the wire's words, as far as they are read here."""

    def step(self, state, raw):
        decisions, after = super().step(state, raw)
        words = ["pass", "hold", "reject"]
        verdicts = ["accept", "flag", "quarantine", "invalid"]
        for i in range(len(raw)):
            decisions.records[i] = json.dumps(
                {
                    "id": raw.values[i].decode(),
                    "partition": 0,
                    "line": int(raw.offset[i]) + 1,
                    "verdict": verdicts[decisions.verdict[i]],
                    "action": words[decisions.action[i]],
                    "reasons": [{"text": 'says "action":"hold" and "verdict":"invalid"'}],
                },
                separators=(",", ":"),
            ).encode()
        return decisions, after


def test_held_lines_are_read_with_their_decisions(tmp_path, monkeypatch):
    monkeypatch.setattr("monitor.transport.local_held._CHUNK_BYTES", 700)
    path, out = tmp_path / "in.jsonl", tmp_path / "out"
    every = [*lines(90), b"\xff\r", b'{"a":\r1}']
    path.write_bytes(b"\n".join(every[:60]))
    source = LocalHeld(out)
    source.start({})
    assert source.read(0.0).records == ()
    transport = LocalTransport(FileLines([path]), out, finishes=False)
    Service(HoldGate(), transport, batch_events=16).run(threading.Event())
    # What is behind the committed length does not count.
    for name in ("decisions", "quarantined"):
        with (out / f"{name}.jsonl").open("ab") as stream:
            stream.write(b'{"line":9,"action":"hold"}\n')
    places, found, judged = {}, [], 0
    for _ in range(200):
        source.start(places)  # a new process each time
        batch = source.read(0.0)
        places, judged = batch.places, judged + batch.judged
        found += batch.records
        if not batch.records and batch.places == places and batch.judged == 0:
            break
    decisions = [json.loads(x) for x in (out / "decisions.jsonl").read_bytes().splitlines()[:60]]
    held = [d for d in decisions if d["action"] == "hold"]
    assert len(held) > 5
    assert [json.loads(r.decision) for r in found] == held
    assert [r.original.offset for r in found] == [d["line"] - 1 for d in held]
    assert [r.original.value for r in found] == [every[d["line"] - 1] for d in held]
    assert judged == sum(d["verdict"] != "invalid" for d in decisions)


def test_files_that_a_power_cut_shortened_are_read_from_where_they_end(place):
    out = place[1]
    source = LocalHeld(out)
    source.start({0: 10**9, 1: 10**9})
    ends = last_entry(out / ".monitor").lengths
    assert source.read(0.0).places == {0: ends["decisions"], 1: ends["quarantined"]}


def test_the_journals_end_is_found_whatever_stands_there(place, tmp_path):
    hidden = place[1] / ".monitor"
    whole = (hidden / "journal").read_bytes()
    last = last_entry(hidden)
    assert last.next_offset == 40
    for torn in (b"12345678 {", b"00000000 {}\n", b"x" * 100_000):
        (hidden / "journal").write_bytes(whole + torn)
        assert last_entry(hidden) == last
    (hidden / "journal").write_bytes(whole.split(b"\n")[0] + b"\n")
    assert last_entry(hidden) is None
    assert last_entry(tmp_path / "nowhere") is None
    assert Path(hidden).is_dir()
