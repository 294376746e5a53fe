"""What lies around the gate: counts, reviews, drills, replays, and the cost of not being used."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from monitor.cli.app import execute
from monitor.config.policy import Policy
from monitor.core.desk import HeldFilter
from monitor.core.ports import CommitUnit, PartitionCommit
from monitor.core.provenance import Outcome
from monitor.gate import Gate
from monitor.runtime.drill.desk import _trusting
from monitor.runtime.quarantine import Outside, Quarantine
from monitor.runtime.status import Status
from monitor.store.held_store import Mark, ReviewStatus
from monitor.telemetry.metrics import Metrics
from tests.fuzz.target import calls
from tests.unit.provenance.test_provenance_laws import (
    GATE,
    PRIVATE,
    batch,
    ed25519,
    event,
    headers,
    policy,
)


def test_outcomes_are_counted_with_bounded_labels() -> None:
    value = event(1)
    rows = [(value, headers("k-1", value)), (value, []), (value, headers("k-2", value))]
    raw = batch([*rows, (b"{", [])])
    for refused, rejects in (("quarantine", 0.0), ("reject", 1.0)):
        gate = Gate(GATE, policy(ed25519("k-1"), default="required", refused=refused))
        decided, _ = gate.step(gate.start(), raw)
        unit = CommitUnit((PartitionCommit(raw, decided, 4, b"", None),))
        metrics, status = Metrics(clock=None), Status()
        metrics.committed(unit, {"poll": 0.0})
        status.committed(unit, {"poll": 0.0})
        text = metrics.expose()[0].decode()
        for outcome, n in (("verified", 1), ("signature_missing", 1), ("key_unknown", 1)):
            name = f'poisoning_monitor_provenance_events_total{{outcome="{outcome}"}} {n}.0'
            assert name in text
        assert f'rejects_total{{code="key_unknown"}} {rejects}' in text
        lines = [line for line in text.splitlines() if "provenance_events_total{" in line]
        assert len(lines) == len(Outcome)
        assert "k-1" not in text and "k-2" not in text and "acct-1" not in text
        verdicts = status.snapshot()["verdicts"]
        assert verdicts["quarantine"] == (2 if refused == "quarantine" else 0)


def test_unused_it_costs_nothing_whatever_headers_there_are() -> None:
    rows = [(value, headers("k-1", value)) for value in map(event, range(200))]
    plain, raw = batch([(value, []) for value, _ in rows]), batch(rows)
    gate = Gate(GATE)
    state = gate.step(gate.start(), raw)[1]
    calls(lambda: gate.step(state, plain))  # fill caches
    work = [calls(lambda sent=sent: gate.step(state, sent)) for sent in (plain, raw)]  # type: ignore[misc]
    assert work[0] == work[1]
    asked = gate.with_policy(policy(ed25519("k-1")))
    assert calls(lambda: asked.step(state, plain)) > work[0] + 2 * len(rows)


def test_a_source_does_not_pay_for_what_others_send_in_its_name() -> None:
    told: list[Mapping[str, int]] = []
    marks = {
        f"0-{i}": Mark(ReviewStatus.OPEN, source, "x")
        for i, source in enumerate(("victim", "victim", "bad"))
    }

    class Store:
        def choose(self, chosen: HeldFilter, limit: int) -> dict[str, Mark]:
            if chosen.detector == "provenance":
                return {key: marks[key] for key in ("0-0", "0-1")}
            return dict(marks)

    class Reviewer:
        def exclusively(self, job: Any) -> None:
            reviews = job()
            by = _operation(reviews)
            for key, mark in list(marks.items()):
                marks[key] = Mark(ReviewStatus.CONFIRMED, mark.source, "x", by)

    parts: Any = (Store(), SimpleNamespace(sync_reviews=lambda: None), Reviewer())
    desk = Quarantine(*parts, outside=Outside(confirmed=lambda by, who, why: told.append(by)))
    outcome = desk.confirm(HeldFilter(source="x"), who="ann", why="forged")
    assert len(outcome.done) == 3 and outcome.by_source == {"victim": 2, "bad": 1}
    assert told == [{"bad": 1}]


def _operation(reviews: Any) -> str:
    """The operation's identifier, as the ledger's rows have it."""
    found: str = json.loads(reviews.rows[0][1])["op"]
    return found


def test_drills_judge_canaries_that_nobody_signed() -> None:
    gate = Gate(GATE, policy(ed25519("k-1"), default="required"))
    decided, _ = _trusting(gate).step(gate.start(), batch([(event(1), [])]))
    assert decided.provenance is None and decided.verdict.tolist() == [0]
    assert gate.step(gate.start(), batch([(event(1), [])]))[0].verdict.tolist() == [2]
    plain = Gate(GATE, Policy())
    assert _trusting(plain) is plain


def test_a_recording_is_replayed_with_its_signatures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [event(i, f"acct-{i % 5}") for i in range(300)]
    recorded, key = tmp_path / "in.jsonl", tmp_path / "secret.key"
    recorded.write_bytes(b"\n".join(values) + b"\n")
    private = Ed25519PrivateKey.from_private_bytes(PRIVATE["k-1"])
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert execute(["keys", "sign", str(recorded), "--key", str(key), "--key-id", "k-1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    forged = {7, 120, 299}
    for row in forged:
        other = json.loads(lines[(row + 1) % 300])
        lines[row] = json.dumps({**json.loads(lines[row]), "signature": other["signature"]})
    lines[50] = "{}"
    beside = tmp_path / "in.headers"
    beside.write_text("\n".join(lines) + "\n")
    document = tmp_path / "policy.yaml"
    wanted = policy(ed25519("k-1"), default="required").provenance.model_dump(mode="json")
    document.write_text(yaml.safe_dump({"provenance": wanted}))
    common = ["replay", str(recorded), "--no-report", "--policy", str(document)]

    def refused(name: str, *more: str) -> set[int]:
        out = tmp_path / name
        assert execute([*common, "--out", str(out), *more]) == 0
        records = [json.loads(line) for line in (out / "decisions.jsonl").open()]
        assert all((r["key_id"] == "k-1") == (r["verdict"] == "accept") for r in records)
        return {
            row
            for row, record in enumerate(records)
            if any(reason["detector"] == "provenance" for reason in record["reasons"])
        }

    assert refused("signed", "--headers", str(beside)) == {50, *forged}
    assert refused("bare") == set(range(300))
    assert "--headers" in capsys.readouterr().err
    # In mode shadow forged events pass, but none of them counts as the key's.
    assert refused("passed", "--headers", str(beside), "--mode", "shadow") == {50, *forged}
    look = ["blast", "--dir", str(tmp_path / "passed"), "--key", "k-1", "--json"]
    capsys.readouterr()
    assert execute([*look, "--shown", "1000"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len((tmp_path / "passed" / "accepted.jsonl").read_bytes().splitlines()) == 300
    assert found["events"] == 296 and found["index"]["keys"] == "verified"
    assert not {one["id"] for one in found["items"]} & {f"e-{row}" for row in (50, *forged)}
    beside.write_text("no JSON\n")
    assert execute([*common, "--out", str(tmp_path / "x"), "--headers", str(beside)]) == 2
    assert "line 1" in capsys.readouterr().err


def test_the_producer_of_the_examples_signs_as_the_gate_reads() -> None:
    path = Path(__file__).parents[3] / "deploy" / "examples" / "signed_producer.py"
    spec = importlib.util.spec_from_file_location("signed_producer", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    value, private = event(1), Ed25519PrivateKey.from_private_bytes(PRIVATE["k-1"])
    made = example.signed_headers(value, "k-1", private)
    gate = Gate(GATE, policy(ed25519("k-1"), default="required"))
    assert gate.step(gate.start(), batch([(value, made)]))[0].key_ids == {0: "k-1"}
    page = (path.parents[1] / "provenance.md").read_text(encoding="utf-8")
    assert all(f"`{outcome.word}`" in page for outcome in Outcome if outcome.is_refusal)


def test_what_it_costs_can_be_measured(tmp_path: Path) -> None:
    from loadtest import provenance

    made = tmp_path / "out.json"
    given = ["--events", "64", "--prime", "600", "--repeats", "1", "--json", str(made)]
    assert provenance.main(given) == 0
    found = json.loads(made.read_text())["per_cpu_second"]
    assert len(found) == 7 and min(found.values()) > 0
    assert found["verify hmac-sha256"] > found["verify ed25519"]
