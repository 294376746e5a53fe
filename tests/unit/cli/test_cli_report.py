from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import numpy as np
import orjson
import pytest
from rich.console import Console

from monitor.cli import report_data
from monitor.cli.common import verdict_table
from monitor.cli.report import write_report
from monitor.cli.report_data import MAX_BUCKETS, Sample, Timeline, read_decisions, tally
from monitor.cli.report_page import embedded
from monitor.cli.report_plots import printable, shown
from monitor.config.policy import Policy
from monitor.core.errors import StateError

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&\u2028\x1b[31m\u202e"


def record(i: int, verdict: str = "accept", risk: float = 0.5, **extra: object) -> dict:
    action = {"quarantine": "hold", "invalid": "reject"}.get(verdict, "pass")
    alarm = verdict in ("flag", "quarantine")
    reasons = [{"detector": "label_conflict", "p_value": 1e-4, "text": "why"}] if alarm else []
    return {
        "id": f"e{i}",
        "ts": 1.0 * i,
        "source": f"s{i % 7}",
        "label": i % 2,
        "line": i + 1,
        "verdict": verdict,
        "action": action,
        "mode": "enforce",
        "risk": risk,
        "families": ["label_flip"] if alarm else [],
        "reasons": reasons,
        "policy_version": 1,
    } | extra


def bad(i: int) -> dict:
    reasons = [{"detector": "decode", "code": "not_json", "text": "is not JSON"}]
    return record(i, "invalid", 0.0, source=None, label=None, reasons=reasons)


def mixed(n: int = 400) -> list[dict]:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        risk = float(-np.log10(rng.random()))
        verdict = "quarantine" if risk > 3 or i % 40 == 7 else "flag" if risk > 2 else "accept"
        rows.append(bad(i) if i % 50 == 3 else record(i, verdict, risk))
    return rows


def page_of(tmp_path, records, **extra: object) -> str:
    counted = tally(records)
    summary = {
        "inputs": [EVIL],
        "policy": Policy().model_dump(mode="json"),
        "versions": {"poisoning-monitor": "0"},
        **counted.as_dict(),
    }
    write_report(tmp_path / "r.html", counted, summary, speed=[(0.0, 0), (1.0, 5), (2.0, 9)])
    return (tmp_path / "r.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Elements, attributes and text outside of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags[-1:] and self.tags[-1][0] == "script" and self.lasttag == "script":
            self.scripts[-1] += data
        else:
            self.text += data


def test_counts():
    counted = tally(mixed()).as_dict()
    verdicts = counted["verdicts"]
    assert sum(verdicts.values()) == counted["events"] == 400
    assert verdicts["invalid"] == counted["reject_codes"]["not_json"] == 8
    assert counted["actions"]["hold"] == verdicts["quarantine"]
    assert counted["families"]["label_flip"]["quarantine"] == verdicts["quarantine"]
    assert sum(sum(c.values()) for c in counted["classes"].values()) == 392
    held = [source["quarantine"] for source in counted["top_sources"]]
    assert held == sorted(held, reverse=True)


def test_hostile_text_cannot_leave_its_place(tmp_path):
    rows = mixed(60)
    for row in rows:
        row |= {"source": EVIL, "label": EVIL, "id": EVIL}
        for reason in row["reasons"]:
            reason["text"] = EVIL
            reason["detector"] = EVIL
        if row["families"]:
            row["families"] = [EVIL]
    page = page_of(tmp_path, rows)
    reader = Reader()
    reader.feed(page)
    assert [tag for tag, _ in reader.tags].count("script") == 3
    assert "img" not in [tag for tag, _ in reader.tags]
    assert not any(name.startswith("on") for _, attrs in reader.tags for name in attrs)
    body = page.replace(reader.scripts[1], "")
    assert "<script>alert" not in body and "\x1b" not in body and "\u202e" not in body
    for figure in orjson.loads(reader.scripts[0]).values():
        assert "<img" not in orjson.dumps(figure).decode()


def test_the_page_needs_no_network(tmp_path):
    page = page_of(tmp_path, mixed())
    reader = Reader()
    reader.feed(page)
    for tag, attrs in reader.tags:
        assert tag not in ("link", "iframe", "object", "base")
        assert not {"src", "href", "srcset"} & set(attrs), (tag, attrs)
    policy = next(a["content"] for t, a in reader.tags if "http-equiv" in a and t == "meta")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy and "unsafe-eval" not in policy


def test_every_plot_has_its_place_and_its_data(tmp_path):
    page = page_of(tmp_path, mixed())
    places = set(re.findall(r"id='plot-(\w+)'", page))
    figures = re.search(r"id='figures'>(.*?)</script>", page, re.DOTALL)
    assert figures is not None
    assert set(orjson.loads(figures[1])) == places
    assert {"risk", "time", "class", "source", "family", "detector", "share"} <= places


@pytest.mark.parametrize("rows", [[], [bad(0)], [record(0)], [record(0, warmup=True)]])
def test_odd_runs_have_a_report_too(tmp_path, rows):
    assert "Poisoning report" in page_of(tmp_path, rows)


def test_embedded_json_is_the_same_json():
    value = {"a": EVIL, "b": [1, 2.5, None]}
    assert orjson.loads(embedded(value)) == value
    assert not set("<>&\u2028") & set(embedded(value))


def test_printable():
    assert printable("a\x00b\u202ec\nd") == "a·b·c·d"
    assert printable("x" * 100, 10) == "x" * 9 + "…"
    assert shown("<b>&") == "&lt;b&gt;&amp;"


def test_samples_are_bounded_and_repeatable():
    first, second = Sample(10), Sample(10)
    for line in range(1000):
        first.add(line, (line,))
    for line in reversed(range(1000)):
        second.add(line, (line,))
    assert first.points() == second.points() and len(first.points()) == 10


def test_the_timeline_is_bounded_and_complete():
    timeline = Timeline()
    for line in range(10_001):
        timeline.add(line, line % 4)
    assert len(timeline.counts) <= MAX_BUCKETS
    assert sum(map(sum, timeline.counts)) == 10_001
    assert all(sum(bucket) == timeline.width for bucket in timeline.counts[:-1])


def test_sources_are_bounded_and_the_guilty_are_kept(monkeypatch):
    monkeypatch.setattr(report_data, "MAX_SOURCES", 20)
    rows = [record(i, source=f"calm-{i}") for i in range(200)]
    rows.insert(3, record(3, "quarantine", 4.0, source="ring"))
    counted = tally(rows)
    assert len(counted.sources) <= 40 and counted.sources_dropped
    assert counted.top_sources(1)[0][0] == "ring"


def test_only_the_riskiest_are_listed():
    rows = [record(i, "flag", 2.0 + i / 1000) for i in range(500)]
    top = tally(rows).riskiest()
    assert len(top) == 100
    assert [r["place"] for r in top[:2]] == [500, 499]


def test_a_damaged_decision_file_is_an_error_in_one_line(tmp_path):
    path = tmp_path / "decisions.jsonl"
    path.write_text('{"a":1}\n{"a":\n')
    with pytest.raises(StateError, match="line 2 is not a decision record"):
        list(read_decisions(path))
    with pytest.raises(StateError, match="cannot be read"):
        list(read_decisions(tmp_path / "absent"))


def test_what_the_warm_up_held_is_not_said_to_be_accepted(tmp_path):
    warm = {"warmup": True, "families": [], "reasons": [{"detector": "warmup", "text": "learning"}]}
    rows = [record(i, "quarantine", 0.0, **warm) for i in range(30)] + [
        record(i) for i in range(30, 50)
    ]
    counted = tally(rows)
    assert (counted.warmup, counted.warmup_passed) == (30, 0)
    assert counted.families == {"warm-up": [0, 0, 30, 0]} and counted.detectors == {}
    out = io.StringIO()
    Console(file=out, width=100).print(verdict_table(counted, "50 events"))
    assert "warm-up 30" in out.getvalue() and "unjudged" not in out.getvalue()
    page = page_of(tmp_path, rows)
    assert page.count("30 of them unjudged, during warm-up") == 1


def test_no_button_sends_the_stream_to_somebody_elses_server(tmp_path):
    page = page_of(tmp_path, mixed(100))
    assert "showSendToCloud: false" in page and "form-action 'none'" in page
