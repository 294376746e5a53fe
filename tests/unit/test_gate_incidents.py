"""Incidents through the gate: in decisions, over restarts, on the board, over HTTP, in files."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from monitor.admin.app import create_app
from monitor.cli import incidents as terminal
from monitor.cli.app import execute
from monitor.config.settings import Settings
from monitor.core.types import DecisionBatch, RawBatch
from monitor.gate import Gate, GateConfig
from monitor.runtime.incident_board import IncidentBoard
from monitor.runtime.inject import Attacked, Stream, honest_sources, inject
from monitor.runtime.status import Status
from monitor.telemetry.metrics import Metrics

N, BATCH = 6_000, 250
CONFIG = GateConfig(warmup_events=256)


@functools.cache
def attacked(seed: int = 0) -> Attacked:
    """Two Gaussian classes of four features; five colluders flip labels from a third on."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, N)
    x = np.round(rng.normal(size=(N, 4)) + 2.5 * y[:, None] * [1.0, 0.5, 0.0, 0.0], 4)
    ts = 1.7e9 + np.arange(N, dtype=np.float64)
    stream = Stream("made", tuple("abcd"), x, y, ("no", "yes"), honest_sources(N), ts)
    return inject(stream, "targeted", rate=0.05)


def steps() -> Iterator[RawBatch]:
    lines = attacked().stream.lines()
    for start in range(0, N, BATCH):
        yield RawBatch.of(lines[start : start + BATCH], start=start)


@functools.cache
def judged() -> tuple[Gate, tuple[DecisionBatch, ...], tuple[Any, ...]]:
    gate = Gate(CONFIG)
    state, made, states = gate.start(), [], []
    for raw in steps():
        decisions, state = gate.step(state, raw)
        made.append(decisions)
        states.append(state)
    return gate, tuple(made), tuple(states)


def test_an_attack_is_one_or_two_incidents_of_its_family() -> None:
    _, made, states = judged()
    records = [orjson.loads(r) for d in made for r in d.records]
    named = {r["incident"] for r in records} - {None}
    assert 1 <= len(named) <= 2
    board = IncidentBoard()
    board.holds(0, states[-1])
    first = max(board.snapshot().incidents, key=lambda one: one["events"])
    assert (first["kind"], first["family"]) == ("campaign", "label_flip")
    assert first["sources"]["estimate"] <= 8
    poison = attacked().poison
    inside = [p for p, r in zip(poison.tolist(), records, strict=True) if r["incident"]]
    assert np.mean(inside) > 0.9
    assert all(r["incident"] is None for r in records if r["verdict"] == "accept")


@pytest.mark.parametrize("new_ids", [False, True])
def test_a_batch_that_is_sent_twice_is_a_fault_and_nobodys_attack(new_ids: bool) -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, N)
    x = np.round(rng.normal(size=(N, 4)) + 2.5 * y[:, None], 4)
    ts = 1.7e9 + np.arange(N, dtype=np.float64)
    stream = Stream("made", tuple("abcd"), x, y, ("no", "yes"), honest_sources(N), ts)
    lines = stream.lines()
    again = [orjson.loads(line) for line in lines[3_500:4_000]]
    for event in again if new_ids else ():
        event["id"] += "-again"
    gate = Gate(CONFIG)
    state, start = gate.start(), 0
    sent = [*lines[:4_000], *map(orjson.dumps, again), *lines[4_000:]]
    verdicts = []
    for start in range(0, len(sent), BATCH):
        made, state = gate.step(state, RawBatch.of(sent[start : start + BATCH], start=start))
        verdicts += [orjson.loads(record)["verdict"] for record in made.records]
    assert verdicts[4_000:4_500].count("quarantine") > 480
    (only,) = [one for one in (*state.incidents.open, *state.incidents.closed) if not one.merged]
    assert (only.kind, only.key) == ("data_fault", "duplicates|")
    assert only.events > 480


def test_recovery_with_open_incidents_is_bit_identical() -> None:
    gate, made, states = judged()
    half = next(i for i, s in enumerate(states) if s.incidents.open) + 2
    state = gate.load(gate.dump(states[half]))
    assert state.incidents.open
    for raw, decided, after in itertools.islice(
        zip(steps(), made, states, strict=True), half + 1, half + 7
    ):
        again, state = gate.step(state, raw)
        assert list(again.records) == list(decided.records)
        assert [c.encoded() for c in again.changes] == [c.encoded() for c in decided.changes]
        assert gate.digest(state) == gate.digest(after)


def test_what_is_published_to_other_partitions_holds_no_incidents() -> None:
    gate, _, states = judged()
    assert gate.own_summary(states[-1]).incidents.open == ()
    assert gate.summary(gate.dump(states[-1])).incidents.suspects.notes == ()


def test_the_board_counts_open_ones_and_forgets_what_went_elsewhere() -> None:
    _, _, states = judged()
    board = IncidentBoard()
    board.holds(0, states[-1])
    found = board.snapshot()
    assert sum(found.count.values()) == len(found.incidents)
    assert found.count["open", "label_flip"] == len(found.matching("open", "label_flip")) > 0
    metrics = Metrics()
    metrics.watch_incidents(lambda: board.snapshot().count)
    line = b'poisoning_monitor_incidents{family="label_flip",state="open"} 1.0'
    assert line in metrics.expose()[0]
    assert found.get(found.incidents[0]["id"]) == found.incidents[0]
    assert board.snapshot().incidents is found.incidents
    board.holds(0, None)
    assert board.snapshot().incidents == ()


def asked(path: str, board: IncidentBoard | None) -> httpx.Response:
    app = create_app(
        status=Status(),
        service=Gate(),
        settings=Settings(),
        incidents=board,  # type: ignore[arg-type]
    )
    import anyio

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path)

    return anyio.run(get)


def test_over_http() -> None:
    board = IncidentBoard()
    board.holds(0, judged()[2][-1])
    page = asked("/v1/incidents", board).json()
    assert page["total"] == len(page["items"]) >= 1
    one = page["items"][0]
    assert asked(f"/v1/incidents/{one['id']}", board).json() == one
    assert asked("/v1/incidents?family=replay", board).json()["total"] == 0
    assert asked("/v1/incidents?state=closed&limit=1", board).status_code == 200
    first = asked("/v1/incidents?limit=1", board).json()
    if page["total"] > 1:
        rest = asked(f"/v1/incidents?cursor={first['cursor']}", board).json()
        assert [i["id"] for i in rest["items"]] == [i["id"] for i in page["items"][1:]]
    assert asked("/v1/incidents/i-0", board).status_code == 404
    assert asked("/v1/incidents?state=odd", board).status_code == 422
    for wrong, said in (("colour=red", "colour"), ("limit=0", "limit"), ("cursor=zzz", "cursor")):
        answer = asked(f"/v1/incidents?{wrong}", board)
        assert answer.status_code == 422 and said in answer.json()["detail"]
    assert asked("/v1/incidents", None).status_code == 503


def test_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    board = IncidentBoard()
    board.holds(0, judged()[2][-1])
    found = board.snapshot().incidents[0]
    terminal.print_incident(terminal.common.console(), found)
    terminal.common.console().print(terminal.incident_table([found], 1))
    told = capsys.readouterr().out
    assert found["id"] in told
    assert "ring-" in told
    assert execute(["incidents", "list", "--state", "odd"]) == 2


def test_a_replay_leaves_incidents_and_alerts(tmp_path: Path) -> None:
    lines = attacked().stream.lines()
    source = tmp_path / "events.jsonl"
    source.write_bytes(b"".join(line + b"\n" for line in lines))
    out = tmp_path / "out"
    assert execute(["replay", str(source), "--out", str(out), "--no-report", "--json"]) == 0
    found = [orjson.loads(r) for r in (out / "incidents.jsonl").read_bytes().splitlines()]
    alerts = [orjson.loads(r) for r in (out / "alerts.jsonl").read_bytes().splitlines()]
    records = (out / "decisions.jsonl").read_bytes().splitlines()
    assert found
    assert {a["change"] for a in alerts} <= {"opened", "updated", "closed", "merged"}
    assert {one["id"] for one in found} <= {a["id"] for a in alerts}
    named = {orjson.loads(r)["incident"] for r in records} - {None}
    parts = {part["id"] for one in found for part in one["parts"]}
    assert named <= parts | {a["id"] for a in alerts if a["merged_into"]}
