"""``report`` on one attacked run of a local service: from its folder and by HTTP."""

from __future__ import annotations

import json
import re
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from monitor.admin.server import HttpServer
from monitor.cli import wiring, wiring_desk
from monitor.cli.app import execute
from monitor.cli.reports import digest_page
from monitor.cli.reports.counting import Counting, Of
from monitor.cli.reports.digest import Digest, Week, decide
from monitor.cli.reports.facts import Facts, Passed, lasting, versions
from monitor.cli.reports.words import passed_text
from monitor.config.settings import load_settings
from monitor.runtime.inject import Stream, honest_sources, inject

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&\u2028\x1b[31m\u202e"
N = 5_000
START = 1.7e9
DAYS = 12 * 86_400.0
"""The events' own time: the attack begins in the second week."""


def lines() -> tuple[list[bytes], int]:
    """Two classes of four features; three colluders, whose names are hostile, plant a backdoor.

    The lines, and how many of them are poison.
    """
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, N)
    x = np.round(rng.normal(size=(N, 4)) + 2.5 * y[:, None] * [1.0, 0.5, 0.0, 0.0], 4)
    ts = START + np.arange(N) * DAYS / N
    columns = ("a", f"b{EVIL}", "c", "d")
    stream = Stream("made", columns, x, y, ("no", f"yes{EVIL}"), honest_sources(N), ts)
    made = inject(stream, "backdoor", rate=0.06, colluders=3, clean_prefix=0.6)
    found = []
    for line, poison in zip(made.stream.lines(), made.poison.tolist(), strict=True):
        event = orjson.loads(line)
        if poison:
            event |= {"source": event["source"] + EVIL, "id": event["id"] + EVIL}
        found.append(orjson.dumps(event))
    return found, int(made.poison.sum())


@dataclass
class Ran:
    """A service that has judged the stream and still answers, and what it wrote."""

    url: str
    folder: Path
    incident: dict[str, Any]
    poison: int


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@contextmanager
def service(source: Path, folder: Path) -> Iterator[str]:
    """A local service in this process, with its desk on a port."""
    options = {
        "transport": "local", "local.from": str(source), "local.to": str(folder / "accepted.jsonl"),
        "local.out_dir": str(folder), "http.port": 0, "http.console": False,
        "batch.max_events": 500,
    }  # fmt: skip
    settings = load_settings(None, options=options)
    status = wiring.make_status()
    metrics = wiring.make_metrics(settings, status, live=True)
    gate, transport = wiring.make_gate(settings, local=True), wiring.run_transport(settings)
    manned = wiring_desk.make_manned(settings, gate, transport, status=status, metrics=metrics)
    app = wiring.make_app(
        settings, manned.service, status, metrics, manned.desk, incidents=manned.incidents
    )
    stop = threading.Event()
    loop = threading.Thread(target=manned.service.run, args=(stop,))
    with HttpServer().start(app) as server:
        loop.start()
        try:
            yield server.url
        finally:
            stop.set()
            loop.join(60)
            manned.close()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("run")
    source = folder / "in.jsonl"
    given, poison = lines()
    source.write_bytes(b"".join(line + b"\n" for line in [*given, b"no JSON"]))
    with (
        service(source, folder / "out") as url,
        httpx.Client(base_url=url, trust_env=False, timeout=30.0) as client,
    ):
        until(lambda: client.get("/v1/status").json()["events"] == N + 1)
        found = max(client.get("/v1/incidents").json()["items"], key=lambda one: one["events"])
        held = {"incident": found["id"]}
        until(lambda: client.get("/v1/quarantine", params=held).json()["total"] > 50)
        policy = client.get("/v1/policy").json()
        document = policy["policy"] | {"quarantine_at": 0.002}
        change = {"policy": document, "why": f"The ring {EVIL}"}
        told = client.put("/v1/policy", json=change, headers={"if-match": '"1"'})
        assert told.status_code == 200, told.text
        review = {"filter": held | {"status": "open"}, "why": f"Poison {EVIL}"}
        assert client.post("/v1/quarantine/confirm", json=review).status_code == 200
        checkpoint = {"name": "before", "offsets": {"0": 100}}
        assert client.post("/v1/checkpoints", json=checkpoint).status_code == 201
        asked = {"incident": found["id"]}
        until(lambda: client.post("/v1/blast", json=asked).json()["checkpoints"]["known"])
        until(lambda: not client.post("/v1/blast", json=asked).json()["index"]["behind"])
        yield Ran(url, folder / "out", found, poison)


class Reader(HTMLParser):
    """Elements and text of a page outside of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.scripts:
            self.scripts[-1] += data
        else:
            self.text += data


def read(path: Path) -> Reader:
    page = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    allowed = {
        "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "main", "span",
        "section", "figure", "figcaption", "div", "table", "thead", "tbody", "tr", "th", "td", "b",
        "i", "br", "footer", "script", "small", "dl", "dt", "dd", "ul", "li", "code", "a",
    }  # fmt: skip
    assert {tag for tag, _ in reader.tags} <= allowed
    names = {name for _, attrs in reader.tags for name in attrs}
    assert not {name for name in names if name.startswith("on") or name == "src"}
    assert len(reader.scripts) == 3 and "alert(" not in "".join(reader.scripts[::2])
    json.loads(reader.scripts[0])
    assert "default-src 'none'" in page
    assert "\x1b" not in page and "\u202e" not in page
    return reader


def report(*arguments: str) -> int:
    return execute(("report", *arguments))


def test_incident_from_the_folder(ran: Ran, tmp_path: Path) -> None:
    out, data = tmp_path / "i.html", tmp_path / "new" / "i.json"
    about = ("--dir", str(ran.folder), "--incident", ran.incident["id"])
    base = ("--runbooks", "https://wiki.example.com/runbooks/")
    assert report(*about, *base, "--out", str(out), "--out", str(data)) == 0
    made = json.loads(data.read_bytes())
    one, traffic, passed = made["incident"], made["traffic"], made["passed"]
    assert made["report"] == "incident" and one["id"] == ran.incident["id"]
    assert one["runbook"] == f"https://wiki.example.com/runbooks/{one['family']}.md"
    # Every event in the window is in the timeline, and every event of the incident is.
    bins = traffic["timeline"]
    assert sum(sum(bins[word]) for word in traffic["verdicts"]) == traffic["verdicts"]["accept"] + (
        traffic["verdicts"]["flag"] + traffic["verdicts"]["quarantine"]
        + traffic["verdicts"]["invalid"]
    )  # fmt: skip
    decisions = [json.loads(line) for line in (ran.folder / "decisions.jsonl").open("rb")]
    mine = [d for d in decisions if d["incident"] == one["id"]]
    assert sum(bins["mine"]) == len(mine) > 50
    # What passed is what passed of the ring, counted by hand.
    ring = [d for d in decisions if (d["source"] or "").endswith(EVIL)]
    assert len(ring) == ran.poison
    assert passed["judged_by"] == "sources"
    assert passed["before"] + passed["after"] == sum(d["action"] == "pass" for d in ring)
    first = next(i for i, d in enumerate(ring) if d["action"] == "hold")
    assert passed["before"] == sum(d["action"] == "pass" for d in ring[:first])
    assert [e["id"] for e in passed["events"]] == [d["id"] for d in ring if d["action"] == "pass"][
        : len(passed["events"])
    ]
    # Of a service's folder, too, whose incidents are as its alerts told of them last.
    accepted = (ran.folder / "accepted.jsonl").read_bytes().count(b"\n")
    assert made["blast"]["index"]["events"] == accepted > 0
    assert made["blast"]["checkpoints"]["last_clean"]["name"] == "before"
    told = [event["risk"] for event in made["evidence"]]
    assert told == sorted(told, reverse=True) and all(e["reasons"] for e in made["evidence"])
    assert made["people"]["reviews"]["confirmed"] >= 50
    changes = [d for c in made["people"]["policy"] for d in c["differences"]]
    assert {"path": "quarantine_at", "before": 0.001, "after": 0.002} in changes
    assert [a["what"] for a in made["people"]["actions"]] == ["checkpoint", "confirm"]
    stale = made["incident"]["events"] < len(mine)
    assert ["last told of it" in said for said in made["missing"]] == [True] * stale
    page = read(out)
    for said in ("Incident report", "Let through", "Decisions by people", "alert(1)"):
        assert said in page.text, said
    assert "Poison" in page.text and one["first"]["id"][:9] in page.text
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert one["runbook"] in links
    assert {"timeline", "risk", "source"} == set(json.loads(page.scripts[0]))


def test_incident_by_http(ran: Ran, tmp_path: Path) -> None:
    out, data = tmp_path / "i.html", tmp_path / "i.json"
    about = ("--url", ran.url, "--incident", ran.incident["id"])
    assert report(*about, "--out", str(out), "--out", str(data)) == 0
    made = json.loads(data.read_bytes())
    assert made["origin"] == ran.url and made["passed"] is None
    assert made["blast"]["checkpoints"]["last_clean"]["name"] == "before"
    assert not made["traffic"]["whole"] and "accept" in made["traffic"]["verdicts"]
    assert made["traffic"]["verdicts"]["quarantine"] > 50
    assert made["evidence"][0]["reasons"][0]["text"], "an event's page has the sentence"
    assert made["people"]["reviews"]["confirmed"] >= 50
    assert any("no list of what it accepted" in said for said in made["missing"])
    page = read(out)
    assert "not known here" in page.text and "alert(1)" in page.text
    assert made["incident"]["runbook"] in page.text


def test_period_and_text(ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.html"
    assert report("--dir", str(ran.folder), "--json", "--out", str(out)) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["traffic"]["verdicts"]["invalid"] == 1 and made["traffic"]["codes"]
    assert sum(made["traffic"]["verdicts"].values()) == N + 1
    assert ran.incident["id"] in [one["id"] for one in made["incidents"]]
    assert "family" in json.loads(read(out).scripts[0])
    half = START + DAYS / 2
    assert report("--dir", str(ran.folder), "--to", str(half)) == 0
    said = capsys.readouterr().out
    assert "accept" in said and ran.incident["id"] not in said
    assert report("--dir", str(ran.folder), "--incident", ran.incident["id"]) == 0
    said = capsys.readouterr().out
    bad = {c for c in said if unicodedata.category(c)[0] == "C"} - {"\n"}
    assert not bad and "let through:" in said and "deploy/runbooks/" in said
    assert report("--url", ran.url, "--from", "0") == 0
    assert "quarantine" in capsys.readouterr().out


def test_weekly(ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, data, mail = (tmp_path / f"w.{form}" for form in ("html", "json", "txt"))
    files = [word for path in (out, data, mail) for word in ("--out", str(path))]
    assert report("--dir", str(ran.folder), "--weekly", *files) == 0
    made = json.loads(data.read_bytes())
    this, before = made["this"], made["before"]
    # Seven of the stream's twelve days, and the five before them.
    assert this["events"] + before["events"] == N + 1
    assert this["events"] / N == pytest.approx(7 / 12, abs=0.01)
    assert this["verdicts"]["quarantine"] > 10 * before["verdicts"]["quarantine"]
    assert sum(this["incidents"].values()) >= 1 and made["top"][0]["id"] == ran.incident["id"]
    assert made["backlog"]["open"] >= 0 and "older_than_a_week" in made["backlog"]
    text = mail.read_text(encoding="utf-8")
    assert re.search(rf"^events +{this['events']:,} +{before['events']:,}$", text, re.M)
    assert max(map(len, text.splitlines())) <= 100 and "\x1b" not in text
    page = read(out).text
    assert "This week and the week before" in page
    # Each figure stands under its clock; both weeks are the same stretch of it, in UTC.
    own, wall = "by the events' own times", "by the wall clock"
    rows = text[text.index(f"\n{own}\n") :]
    order = [rows.index(f"\n{word}") for word in (own, "events ", "incidents:", wall, "released")]
    assert order == sorted(order)
    assert "Both weeks are UTC." in " ".join(text.split()) and "Both weeks are UTC." in page
    assert re.search(r"^Poisoning digest, \S+ \d\d:\d\d UTC to \S+ \d\d:\d\d UTC$", text, re.M)
    assert made["clocks"]["verdicts"] == "event" and made["clocks"]["reviews"] == "wall"
    # The stream is of another year than the reviews of it, which must not just be missing.
    assert made["this"]["reviews"] == {"released": 0, "confirmed": 0}
    (late,) = [said for said in made["missing"] if "came after this week's end" in said]
    assert "UTC" in late and "--to" in late
    capsys.readouterr()
    assert report("--url", ran.url, "--weekly", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["this"]["events"] is None and made["this"]["verdicts"]["quarantine"] > 50
    assert made["this"]["reviews"]["confirmed"] >= 50
    assert made["clocks"]["verdicts"] == "wall" and made["clocks"]["incidents"] == "event"
    assert [c["version"] for c in made["policy"]][:2] == [1, 2]
    assert any("Prometheus" in said for said in made["missing"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--incident", "i-0"), 2, "no incident 'i-0'; the largest are i-"),
        (("--incident", "i-0", "--weekly"), 2, "--incident goes alone"),
        (("--weekly", "--from", "1"), 2, "leave --from out"),
        (("--from", "2", "--to", "1"), 2, "--from must be before --to"),
        (("--from", "tomorrow"), 2, "--from: 'tomorrow' must be Unix seconds"),
        (("--out", "r.pdf"), 2, "must end in .html, .json or .txt"),
        (("--out", "."), 2, "must end in .html"),
    ],
)
def test_bad_usage(
    ran: Ran,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    assert report("--dir", str(ran.folder), *arguments) == code
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1


def test_what_is_not_there(
    ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MONITOR_URL", raising=False)
    assert report() == 2
    assert "say what the report is about" in capsys.readouterr().err
    assert report("--url", ran.url, "--incident", "i-0") == 2
    assert "No incident 'i-0'" in capsys.readouterr().err
    assert report("--url", ran.url, "--incident", "../policy") == 2
    assert execute(["incidents", "list", "--url", ran.url, "--cursor", "zzz"]) == 2
    assert "cursor: 'zzz' is not the end of a page" in " ".join(capsys.readouterr().err.split())
    assert report("--url", "http://127.0.0.1:9", "--weekly") == 3
    assert "cannot be reached" in capsys.readouterr().err
    assert report("--dir", str(tmp_path), "--weekly") == 2
    assert "has no decisions.jsonl" in capsys.readouterr().err
    (tmp_path / "decisions.jsonl").write_text('{"ts": 1.0, "verd')
    assert report("--dir", str(tmp_path)) == 1
    assert "line 1 is not a decision record" in capsys.readouterr().err
    (tmp_path / "decisions.jsonl").write_text("")
    assert report("--dir", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "There is no event in this time." in said and "has no quarantine store" in said


def told(folder: Path, *accounts: dict[str, Any]) -> None:
    """A folder in which a service has told of incidents, and judged nothing."""
    (folder / "decisions.jsonl").write_bytes(b"")
    lines = [orjson.dumps({"type": "incident", "change": "opened", **one}) for one in accounts]
    (folder / "alerts.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def test_one_that_became_part_of_another_and_a_fault_of_the_data(
    ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ran.incident | {"merged_into": None, "parts": []}
    fault = {"kind": "data_fault", "family": "frozen", "text": "Feature 'b' holds one value."}
    none = {"events": 0, "labels": [], "families": {}, "common": {}, "evidence": []}
    told(
        tmp_path,
        base | {"id": "i-1"},
        base | {"id": "i-3", "merged_into": "i-2"},
        base | {"id": "i-2", "merged_into": "i-1"},
        base | fault | none | {"id": "i-9", "sources": {"estimate": 0, "top": []}},
    )
    assert report("--dir", str(tmp_path), "--incident", "i-3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["incident"]["id"] == "i-1"
    assert (
        report("--dir", str(tmp_path), "--incident", "i-9", "--out", str(tmp_path / "f.html")) == 0
    )
    page = (tmp_path / "f.html").read_text()
    assert "deploy/runbooks/data_fault.md" in page and "Plotly" not in page
    assert "Let through" not in page


def test_a_week_knows_its_drills_and_reviews() -> None:
    week, actions = Week(0.0, 10.0), []
    for when, what, details in (
        (1.0, "drill started", {"family": "backdoor", "canaries": 10, "recall": None}),
        (2.0, "drill done", {"family": "backdoor", "canaries": 10, "recall": 0.5}),
        (3.0, "drill done", {"family": "backdoor", "canaries": 30, "recall": 0.9}),
        (4.0, "release", {"events": 3}),
        (5.0, "confirm", {"events": 4}),
        (10.0, "confirm", {"events": 100}),
    ):
        actions.append({"when": when, "what": what, "details": details})
    digest = Digest("here", 0.0, week, Week(-10.0, 0.0))
    decide(digest, None, actions)
    assert week.drills == {"backdoor": {"canaries": 40, "recall": pytest.approx(0.8)}}
    assert week.reviews == {"released": 3, "confirmed": 4} and digest.policy is None
    digest.backlog = {"open": 3, "older_than_a_week": 1, "families": {"sybil": 2, "replay": 3}}
    said = digest_page.text(digest)
    assert "80 % of 40" in said and "3 held events wait for a review, 1 for over a week" in said
    digest.backlog |= {"open": 1, "older_than_a_week": 0}
    assert "1 held event waits for a review" in " ".join(digest_page.text(digest).split())
    assert "drill" in digest_page.page(digest)


def account(events: int, top: dict[str, int]) -> dict[str, Any]:
    rows = [{"source": name, "events": many} for name, many in top.items()]
    return {"id": "i-1", "events": events, "first": {"ts": 10.0}, "sources": {"top": rows}}


def decision(ts: Any, source: str, verdict: str, **more: Any) -> dict[str, Any]:
    action = {"quarantine": "hold", "invalid": "reject"}.get(verdict, "pass")
    base = {
        "id": f"{source}-{ts}", "ts": ts, "source": source, "label": 1, "verdict": verdict,
        "action": action, "risk": 1.0, "families": [], "reasons": [], "incident": None, "line": 1,
    }  # fmt: skip
    return base | more


@pytest.mark.parametrize("others", [0, 41])
def test_the_words_about_what_passed_leave_nothing_out(others: int) -> None:
    facts = Facts("incident", "out", 0.0, 0.0, 1.0, passed=Passed("sources", others=others))
    told = passed_text(facts)
    assert told.startswith("None of what its hostile sources sent reached the learner.")
    assert ("41 of other sources reached the learner" in told) == bool(others)


def test_what_passed_is_the_hostile_sources() -> None:
    """An account that is mostly honest since is not counted, whatever it sent of the incident."""
    of = Of.incident(account(10, {"ring": 6}), sent={"ring": 6, "mixed": 3, "stray": 1})
    assert of.sources == {"ring", "mixed"}
    counting = Counting(0.0, 100.0, of)
    for ts in range(5):
        counting.add(decision(float(ts), "ring", "accept"))
        counting.add(decision(float(ts), "mixed", "accept"))
    counting.add(decision(11.0, "ring", "flag", incident="i-1"))
    counting.add(decision(12.0, "ring", "quarantine", incident="i-1"))
    counting.add(decision(13.0, "ring", "accept"))
    counting.add(decision(14.0, "ring", "quarantine", incident="i-1"))
    for ts in range(20, 30):
        counting.add(decision(float(ts), "mixed", "accept"))
    counting.add(decision(31.0, "mixed", "quarantine", incident="i-1"))
    counting.add(decision(32.0, "mixed", "flag", incident="i-1"))
    passed = counting.passed()
    assert (passed.before, passed.after, passed.flagged, passed.noticed) == (6, 1, 1, 12.0)
    assert passed.others == 1, "an event of the incident that passed is not kept quiet"
    assert {event["source"] for event in passed.events} == {"ring"}
    assert counting.passed(hostile=False).judged_by == "incident"
    rows = {row["source"]: row for row in counting.traffic().sources}
    assert rows["ring"]["hostile"] and not rows["mixed"]["hostile"]


def test_where_nobody_stands_out_only_the_incidents_own_count() -> None:
    of = Of.incident(account(100, {f"s{i}": 1 for i in range(10)}))
    assert not of.sources
    counting = Counting(0.0, 100.0, of)
    counting.add(decision(1.0, "s1", "accept"))
    counting.add(decision("1970-01-01T00:00:12Z", "s2", "flag", incident="i-1"))
    counting.add(decision(None, "s3", "quarantine", incident="i-1", action="pass"))
    passed = counting.passed()
    assert passed.judged_by == "incident"
    # In a mode that holds nothing back the one that was quarantined passed, too.
    assert (passed.before, passed.after, passed.noticed) == (1, 1, 12.0)


def test_versions_tell_what_changed() -> None:
    changes = [
        {"version": v, "when": float(v), "policy": {"version": v, "flag_at": 0.01 * v}, "why": "w"}
        for v in (1, 2, 3)
    ]
    found = versions(changes, 2.0, 2.5)
    assert [(one["version"], len(one["differences"])) for one in found] == [(2, 1)]
    assert lasting(59.9) == "59 s" and lasting(60) == "1 min 0 s"
