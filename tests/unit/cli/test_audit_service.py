"""The audit chains of a service on files: people's actions, signed heads, anchors, and forgers."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import stat
import threading
import time

import numpy as np
import orjson
import pytest
from fastapi.testclient import TestClient

from monitor.cli import wiring, wiring_desk
from monitor.cli.app import execute
from monitor.config.settings import load_settings
from monitor.core.desk import AuditEntry, HeldFilter
from monitor.state.audit import Chaining, Head, Judging, extend, opened, seal
from tests.unit.cli.test_cli_app import event

EVENTS = 90


class Takes(http.server.BaseHTTPRequestHandler):
    """An anchor that keeps what it is sent; the first time it is out of order."""

    kept: list[bytes]
    refused = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if not Takes.refused:
            Takes.refused += 1
            self.send_error(503)
            return
        Takes.kept.append(body)
        self.send_response(201)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def endpoint():
    Takes.kept, Takes.refused = [], 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Takes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/heads"
    finally:
        server.shutdown()
        server.server_close()


def wait(until, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def running(settings, events):
    status = wiring.make_status()
    metrics = wiring.make_metrics(settings, status, live=False)
    gate = wiring.make_gate(settings, local=True, meter=metrics.meter)
    transport = wiring.run_transport(settings)
    manned = wiring_desk.make_manned(settings, gate, transport, status=status, metrics=metrics)
    stop = threading.Event()
    thread = threading.Thread(target=manned.service.run, args=(stop,))
    thread.start()
    try:
        wait(lambda: status.snapshot()["events"] >= events)
        yield manned
    finally:
        stop.set()
        thread.join(60)
        manned.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A service that ran twice, with people at it: its folder, public key, and anchors."""
    place = tmp_path_factory.mktemp("service")
    assert execute(["audit", "keys", "create", "--file", str(place / "key.pem")]) == 0
    lines = [event(i) for i in range(EVENTS)]
    (place / "in.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    with endpoint() as url:
        options = {
            "transport": "local",
            "local.from": str(place / "in.jsonl"),
            "local.to": str(place / "accepted.jsonl"),
            "local.out_dir": str(place / "out"),
            "gate.warmup": "hold",
            "batch.max_events": 20,
            "batch.linger_milliseconds": 5,
            "http.enabled": False,
            "audit.key_file": str(place / "key.pem"),
            "audit.anchor_file": str(place / "anchors.jsonl"),
            "audit.anchor_url": url,
            "audit.head_every_seconds": 0.2,
        }
        settings = load_settings(environ={}, options=options)
        with running(settings, EVENTS) as manned:
            desk = manned.desk
            desk.log.note(AuditEntry(5.0, "bob", "login", "from 10.0.0.9", {"role": "admin"}))
            policy = dict(desk.policy.current().policy) | {"flag_at": 0.02}
            desk.policy.propose(policy, base=1, who="ana", why="too quiet")
            wait(lambda: desk.quarantine.search(HeldFilter()).total == EVENTS)
            desk.quarantine.release(HeldFilter(source="s7"), who="ana", why="known")
            desk.quarantine.confirm(HeldFilter(source="s8"), who="ana", why="stolen")
            assert desk.quarantine.erase("s8", who="cas", why="asked to") > 0
            wait(lambda: Takes.kept)
            app = wiring.make_app(
                *(settings, manned.service, wiring.make_status()),
                wiring.make_metrics(settings, wiring.make_status(), live=False),
                manned.desk,
                chains=manned.chains,
            )
            with TestClient(app, base_url="http://127.0.0.1") as client:
                (place / "life.json").write_bytes(client.get("/v1/lineage/e7").content)
                (place / "heads.json").write_bytes(client.get("/v1/audit/heads").content)
                assert client.get("/v1/lineage/nobody").status_code == 404
        with running(settings, 0):
            more = b"".join(event(EVENTS + i) + b"\n" for i in range(30))
            with (place / "in.jsonl").open("ab") as stream:
                stream.write(more)
            wait(lambda: (place / "out/decisions.jsonl").read_bytes().count(b"\n") == EVENTS + 30)
        (place / "posted.jsonl").write_bytes(b"".join(line + b"\n" for line in Takes.kept))
    return place


def public(place, capsys):
    capsys.readouterr()
    assert execute(["audit", "keys", "public", "--file", str(place / "key.pem")]) == 0
    (place / "key.pub").write_text(capsys.readouterr().out)
    return ["--public-key", str(place / "key.pub")]


def verified(capsys, folder, *more):
    capsys.readouterr()
    execute(["audit", "verify", str(folder), "--json", *more])
    report = orjson.loads(capsys.readouterr().out)
    return report, {found["kind"] for found in report["findings"]}


def desk_records(folder):
    return [opened(line).record for line in (folder / "audit-desk.jsonl").open("rb")]


def test_what_people_did_is_chained_and_signed(made, capsys):
    assert stat.S_IMODE((made / "key.pem").stat().st_mode) == 0o600
    given = public(made, capsys)
    for anchors in ("anchors.jsonl", "posted.jsonl"):
        report, found = verified(capsys, made / "out", *given, "--anchors", str(made / anchors))
        assert not found
        assert report["trusted"] is True
        assert report["heads"] > 3
    counts = {chain["chain"]: chain["decisions"] for chain in report["chains"]}
    assert counts == {"desk-local": 0, "local-0": EVENTS + 30}
    records = desk_records(made / "out")
    assert sum(report["keys"].values()) > len(records)
    whats = [record.what for record in records if record.kind == "desk"]
    assert whats.count("service start") == whats.count("service stop") == 2
    did = [(r.what, r.who, r.why) for r in records if r.who not in ("monitor", "")]
    assert did == [
        ("login", "bob", "from 10.0.0.9"),
        ("policy edit", "ana", "too quiet"),
        ("release", "ana", "known"),
        ("confirm", "ana", "stolen"),
        ("erase", "cas", "asked to"),
    ]
    (released,) = [record for record in records if record.what == "release"]
    assert "0-7" in released.details["keys"]
    assert b's8"' not in b"".join((made / "out/audit-desk.jsonl").open("rb"))  # it is erased


def forge(folder):
    """What somebody with the folder, but without the key, would do: write all of it anew."""
    records = [
        record.replace(b'"hold"', b'"pass"')
        for record in (folder / "decisions.jsonl").read_bytes().split(b"\n")[:-1]
    ]
    lines, head = extend(
        *(Head(), Chaining("local", "9"), Judging(0, 1, "empty@0")),
        *(np.arange(len(records)), records),
    )
    (folder / "decisions.jsonl").write_bytes(b"".join(r + b"\n" for r in records))
    (folder / "audit.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return head


def test_who_writes_the_chain_anew_is_found_by_heads_and_anchors(made, capsys, tmp_path):
    given = public(made, capsys)
    folder = shutil.copytree(made / "out", tmp_path / "out")
    (folder / ".monitor/journal").unlink()  # its word does not count here
    head = forge(folder)
    assert verified(capsys, folder, *given)[1] & {"rewritten", "truncated"}
    # Without the people's chain nothing in the folder contradicts; an anchor does, a key as well.
    (folder / "audit-desk.jsonl").unlink()
    assert not verified(capsys, folder)[1]
    assert verified(capsys, folder, *given)[1] == {"signature"}
    for anchors in ("anchors.jsonl", "posted.jsonl"):
        found = verified(capsys, folder, *given, "--anchors", str(made / anchors))[1]
        assert found & {"rewritten", "truncated"}
    # A people's chain of the forger's own is signed by nobody, or by a key that is not known.
    told = {"when": 1.0, "heads": {"local-0": (head.seq, head.hash)}}
    line, _ = seal(Head(), "desk-local", "heads", told)
    (folder / "audit-desk.jsonl").write_bytes(line + b"\n")
    assert verified(capsys, folder, *given)[1] == {"signature"}


def test_a_tail_that_was_cut_off_is_missed(made, capsys, tmp_path):
    folder = shutil.copytree(made / "out", tmp_path / "out")
    (folder / ".monitor/journal").unlink()
    audit = (folder / "audit.jsonl").read_bytes().split(b"\n")[:-1]
    gone = opened(audit[-1]).record.count
    (folder / "audit.jsonl").write_bytes(b"".join(line + b"\n" for line in audit[:-1]))
    records = (folder / "decisions.jsonl").read_bytes().split(b"\n")[:-1]
    (folder / "decisions.jsonl").write_bytes(b"".join(r + b"\n" for r in records[:-gone]))
    report, found = verified(capsys, folder)
    assert found == {"truncated"}
    assert report["findings"][0]["place"] == f"record {len(audit)}"


def test_the_last_deeds_of_people_are_under_an_anchored_head(made, capsys, tmp_path):
    """Nothing was decided behind them, and still they cannot be cut off where anchors are kept."""
    given = [*public(made, capsys), "--anchors", str(made / "anchors.jsonl")]
    folder = shutil.copytree(made / "out", tmp_path / "out")
    lines = (folder / "audit-desk.jsonl").read_bytes().split(b"\n")[:-1]
    assert opened(lines[-1]).record.kind == "heads"
    for left in (len(lines) - 1, len(lines) // 2):
        (folder / "audit-desk.jsonl").write_bytes(b"".join(line + b"\n" for line in lines[:left]))
        assert verified(capsys, folder, *given)[1] == {"truncated"}


def exported(place, capsys, tmp_path):
    """An export of the events 20 to 69, and the options to verify it."""
    seconds = [orjson.loads(event(i))["ts"] for i in (20, 70)]
    out = tmp_path / "part.jsonl"
    asked = ["audit", "export", str(place / "out"), "--out", str(out)]
    assert execute([*asked, "--from", str(seconds[0]), "--to", str(seconds[1])]) == 0
    return out, public(place, capsys)


def test_an_export_proves_itself(made, capsys, tmp_path):
    out, given = exported(made, capsys, tmp_path)
    rows = [orjson.loads(row) for row in out.open("rb")]
    chosen = [orjson.loads(row["line"])["id"] for row in rows if row["type"] == "decision"]
    assert chosen == [f"e{i}" for i in range(20, 70)]
    report, found = verified(capsys, out, *given)
    assert not found
    assert report["keys"] and report["heads"] and not report["notes"]
    decided = {c["chain"]: (c["decisions"], c["records"]) for c in report["chains"]}
    assert decided["local-0"][0] == 50
    assert not verified(capsys, out, *given, "--anchors", str(made / "anchors.jsonl"))[1]

    def edited(change):
        lines = out.read_bytes().split(b"\n")[:-1]
        change(lines)
        other = tmp_path / "other.jsonl"
        other.write_bytes(b"".join(line + b"\n" for line in lines))
        return verified(capsys, other, *given)[1]

    assert edited(lambda rows: rows.__setitem__(5, rows[5].replace(b"hold", b"pass"))) == {
        "changed"
    }
    assert edited(lambda rows: rows.pop(5)) == {"truncated"}
    (at, *_) = [i for i, row in enumerate(rows) if row["type"] == "record"]
    wrong = edited(lambda rows: rows.__setitem__(at, rows[at].replace(b"version", b"Version", 1)))
    assert wrong
    assert execute(["audit", "verify", str(made / "in.jsonl")]) == 2


def test_the_life_of_an_event(made, capsys):
    assert execute(["audit", "show", "e7", "--dir", str(made / "out"), "--json"]) == 0
    (life,) = orjson.loads(capsys.readouterr().out)["events"]
    assert (life["line"], life["verdict"], life["policy_version"]) == (8, "quarantine", 1)
    assert life["audit"] == {"chain": "local-0", "record": 1, "index": 7}
    assert life["state"] == "empty@0"
    assert [(r["status"], r["who"], r["why"]) for r in life["reviews"]] == [
        ("released", "ana", "known")
    ]
    assert [(a["what"], a["chain"]) for a in life["actions"]] == [("release", "desk-local")]
    # The interface told the same while the service ran, and where the chain stood.
    (asked,) = orjson.loads((made / "life.json").read_bytes())["events"]
    assert asked == life
    told = orjson.loads((made / "heads.json").read_bytes())["heads"]["local-0"]
    lines = (made / "out/audit.jsonl").read_bytes().split(b"\n")
    assert opened(lines[told["seq"] - 1]).hash == told["hash"]
    assert execute(["audit", "show", "e7", "--dir", str(made / "out")]) == 0
    out = capsys.readouterr().out
    assert "record 1 of local-0" in out
    where = f"record {life['actions'][0]['seq']} of desk-local"
    assert [line.split(None, 1) for line in out.splitlines() if "ana" in line] == [
        ["review", f"released by ana: known ({where})"]
    ]
    assert execute(["audit", "show", "nobody", "--dir", str(made / "out")]) == 1


@pytest.mark.parametrize("kind", ["changed", "dropped", "signature"])
def test_what_people_did_cannot_be_changed(made, capsys, tmp_path, kind):
    folder = shutil.copytree(made / "out", tmp_path / "out")
    path = folder / "audit-desk.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1]
    (at,) = [i for i, line in enumerate(lines) if b'"what":"release"' in line]
    if kind == "changed":
        lines[at] = lines[at].replace(b'"who":"ana"', b'"who":"bob"')
    elif kind == "dropped":
        del lines[at]
    else:  # the signature of another record
        other = lines[at + 1]
        cut, foreign = lines[at].rfind(b',"signature":"'), other.rfind(b',"signature":"')
        lines[at] = lines[at][:cut] + other[foreign:]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    report, found = verified(capsys, folder)
    assert found == {kind}
    assert report["findings"][0]["place"] == f"record {at + 1}"


def test_a_key_that_others_can_read_is_refused(made, capsys, tmp_path):
    shutil.copy(made / "key.pem", tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o640)
    assert execute(["audit", "keys", "public", "--file", str(tmp_path / "key.pem")]) == 2
    assert "others may read" in capsys.readouterr().err
    assert execute(["audit", "keys", "create", "--file", str(tmp_path / "key.pem")]) == 2
