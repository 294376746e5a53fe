"""The detection benchmark measures what it says, skips what is done, and shows it."""

from __future__ import annotations

import csv
import dataclasses
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest import detection, detection_cells, detection_damage, detection_peers
from loadtest.detection_cells import GATE, Cell, attacked, honest, judge_by_gate
from loadtest.detection_channels import channels_rows
from loadtest.detection_clean import calibration_rows, drifting
from loadtest.detection_metrics import (
    average_precision,
    delay,
    recall_at,
    roc_auc,
    source_share,
    worst_by_chance,
    worst_window,
)
from loadtest.detection_protection import poisoned_prefix, protection_report, protection_rows
from loadtest.detection_reports import channels_report, damage_report, drift_report
from loadtest.detection_store import Store, read, work_through
from loadtest.detection_view import best_peers, by_cell, interval, shown

ROOT = Path(__file__).parents[2]
SMALL = Cell("phishing", "targeted", "burst", seed=0, rate=0.1)


@pytest.mark.parametrize("levels", [3, 100_000])
def test_ranking_figures_are_those_of_scikit_learn(levels: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(levels)
    poison = rng.random(800) < 0.1
    score = rng.integers(0, levels, 800) + 0.5 * levels * poison * rng.random(800)
    score = np.floor(score)
    assert roc_auc(score, poison) == pytest.approx(sklearn.roc_auc_score(poison, score))
    expected = sklearn.average_precision_score(poison, score)
    assert average_precision(score, poison) == pytest.approx(expected)
    false, true, _ = sklearn.roc_curve(poison, score, drop_intermediate=False)
    for share in (0.01, 0.05, 0.5):
        # Where the curve rises at the very share, all of the rise counts.
        at = np.flatnonzero(false <= share)[-1]
        low, high = true[at], true[min(at + 1, len(true) - 1)]
        assert low - 1e-12 <= recall_at(score, poison, share) <= high + 1e-12


def test_recall_counts_what_is_above_the_share() -> None:
    poison = np.array([True, False, True, False, False, True])
    score = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert recall_at(score, poison, 0.0) == pytest.approx(1 / 3)
    assert recall_at(score, poison, 1 / 3) == pytest.approx(2 / 3)
    assert recall_at(score, poison, 1.0) == 1.0
    # Equal scores say nothing: a tenth of the clean is a tenth of the poison.
    assert recall_at(np.zeros(6), poison, 0.1) == pytest.approx(0.1)
    assert np.isnan(recall_at(score, np.zeros(6, dtype=bool), 0.1))


def test_windows_delay_and_sources() -> None:
    alarm = np.zeros(100, dtype=bool)
    alarm[[10, 12, 19, 80]] = True
    assert worst_window(alarm, 10) == pytest.approx(0.3)
    assert worst_window(alarm, 1_000) == pytest.approx(0.04)
    poison = np.zeros(100, dtype=bool)
    poison[[8, 11, 12, 30]] = True
    assert delay(poison, alarm) == (4.0, 2.0)
    nothing = delay(poison, np.zeros(100, dtype=bool))
    assert np.isnan(nothing[0]) and nothing[1] == 4.0
    sources = ("a",) * 50 + ("b",) * 45 + ("c",) * 5
    assert source_share(alarm, sources) == pytest.approx(3 / 50)
    assert worst_by_chance(20_000, 0.01) < 0.0175 < 2 * worst_by_chance(20_000, 0.01)


def test_intervals_hold_the_mean_and_grow_with_disagreement() -> None:
    mean, low, high = interval([[0.5, 0.6], [0.7], [0.2, 0.4, 0.3]])
    assert mean == pytest.approx((0.55 + 0.7 + 0.3) / 3)
    assert low < mean < high
    same = interval([[0.5, 0.5]] * 4)
    assert same == pytest.approx((0.5, 0.5, 0.5))
    assert [shown(value, 2) for value in (0.5, 1.0, -0.25, float("nan"))] == [
        ".50",
        "1.00",
        "-.25",
        "–",
    ]


def test_a_store_goes_on_behind_a_line_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    store = Store(path, ("key",))
    store.add([{"key": "a", "value": 1.5, "none": float("nan")}])
    store.add([{"key": "b", "value": 2.0, "none": 3}])
    with path.open("a", encoding="utf-8") as file:
        file.write("c,9")
    again = Store(path, ("key",))
    assert again.done == {("a",), ("b",)}
    again.add([{"key": "c", "value": 4.0, "none": 1, "more": 7}])
    assert [row["key"] for row in read(path)] == ["a", "b", "c"]
    assert read(path)[2]["more"] == "7" and read(path)[0]["none"] == ""
    assert again.forget(lambda row: row["key"] == "b") == 1
    assert Store(path, ("key",)).done == {("a",), ("c",)}


def _square(i: int) -> list[dict[str, Any]]:
    return [{"key": i, "square": i * i}]


def test_work_is_shared_among_processes(tmp_path: Path) -> None:
    store = Store(tmp_path / "rows.csv", ("key",))
    tasks = [(str(i), functools.partial(_square, i)) for i in range(4)]
    assert work_through(tasks, store, jobs=2, title="squares") == 4
    assert {row["square"] for row in read(store.path)} == {"0", "1", "4", "9"}


@pytest.mark.parametrize("name", list(detection_peers.PEERS))
def test_each_peer_ranks_gross_flips_first(name: str) -> None:
    peer = detection_peers.PEERS[name]
    if peer.missing:
        pytest.skip(f"needs {peer.missing}")
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, 3_000)
    x = rng.normal(size=(3_000, 3)) + 5.0 * np.eye(3)[y]
    poison = (rng.random(3_000) < 0.05) & (np.arange(3_000) >= 1_500)
    said = np.where(poison, (y + 1) % 3, y)
    score = peer.score(x, said, 3)
    assert score.shape == (3_000,) and np.isfinite(score).all()
    assert roc_auc(score[1_500:], poison[1_500:]) > 0.8


def test_a_cell_is_the_same_every_time() -> None:
    first, second = attacked(SMALL), attacked(SMALL)
    assert first.stream.lines() == second.stream.lines()
    assert len(honest("phishing", 300, 0)) == 300
    assert attacked(Cell("phishing", "frog+snap", "stealth", 1)).poison.any()


def test_the_gate_judges_every_event_once() -> None:
    made = judge_by_gate(attacked(SMALL).stream, batch=100, keep_records=True)
    assert len(made.score) == len(made.flag) == len(made.records) == 1_250
    assert made.warmup.sum() >= 512 and not made.flag[made.warmup].any()
    assert not (made.hold & ~made.flag).any() and made.passed[made.warmup].all()


def test_promises_channels_and_damage_have_their_figures() -> None:
    rows = calibration_rows("phishing", 0, 0, True, 256)
    assert {row["promised"] for row in rows} == {0.01, 0.001, 0.0001}
    assert {"all", "label_flip"} <= {row["channel"] for row in rows}
    dilution = channels_rows(SMALL, 256)
    assert "What a channel costs" in channels_report(dilution)
    cell = Cell("phishing", "backdoor", "burst", seed=0, rate=0.15)
    damage = detection_damage.damage_rows(cell, (GATE, "mahalanobis"), 256)
    accuracy = {(r["learner"], r["training"]): r["accuracy"] for r in damage}
    learner = "river LogisticRegression"
    assert accuracy[learner, "oracle"] > 0.6
    oracle = next(r for r in damage if r["training"] == "oracle")
    assert oracle["poison_passed"] == 0.0 and 0.0 <= oracle["success"] <= 1.0
    assert "Success of a planted backdoor" in damage_report(damage)
    rest = detection_damage.damage_rows(cell, ("mahalanobis",), 256, {"clean", "poisoned"})
    assert {row["training"] for row in rest} == {"oracle", "mahalanobis"}


def test_the_trigger_is_read_off_the_poison() -> None:
    cell = Cell("phishing", "backdoor", "burst", seed=0)
    given = attacked(cell)
    probe = detection_damage.probe_of(honest("phishing", 0, 0), given)
    assert probe is not None and 1 <= len(probe.columns) <= 3
    x = given.stream.x[given.poison]
    assert np.array_equal(probe.stamp(x), x)
    assert set(given.stream.y[given.poison]) == {probe.target}


def test_a_poisoned_prefix_is_one_attack_at_two_rates() -> None:
    cell = Cell("bananas", "backdoor", "stealth", seed=0, rate=0.15)
    given, clean = poisoned_prefix(cell, 0.05), honest("bananas", 0, 0)
    start = int(len(clean) * 0.3)
    assert given.poison[:start].mean() == pytest.approx(0.05, abs=0.015)
    assert given.poison[start:].mean() == pytest.approx(0.15, abs=0.015)
    assert np.array_equal(given.stream.x[~given.poison], clean.x[~given.poison])
    assert np.array_equal(given.stream.y[~given.poison], clean.y[~given.poison])
    assert len(np.unique(given.stream.x[given.poison], axis=0)) == 1
    assert not poisoned_prefix(cell, 0.0).poison[:start].any()
    rows = protection_rows(dataclasses.replace(cell, events=1_000), 0.05, (GATE,), 256)
    assert "5% before, 15% after" in protection_report(rows)


def test_drifting_streams_and_a_shift_of_few() -> None:
    stream, shifted = drifting("mixed, 2 % of the sources", 2_000, 0)
    theirs = {stream.source[i] for i in np.flatnonzero(shifted)}
    assert 1 <= len(theirs) <= 4 and not shifted[:900].any()
    everyone, none = drifting("sea, gradual", 2_000, 0)
    assert len(everyone) == 2_000 and not none.any()
    row = {"stream": "s", "seed": 0, "flagged": 0.1, "held": 0.01, "shifted": 9}
    assert "2 % of the sources" in drift_report([row])


def run(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "loadtest/detection.py", *more, "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_grid_end_to_end_resumes_and_redoes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = ["--streams", "phishing", "--attacks", "targeted", "--patterns", "burst"]
    tiny += ["--seeds", "1", "--contestants", GATE, "mahalanobis"]
    done = run(tmp_path, "grid", *tiny)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "grid.csv").open(encoding="utf-8")))
    assert [row["contestant"] for row in rows] == [GATE, "mahalanobis"]
    assert all(0.0 <= float(row["auc"]) <= 1.0 for row in rows)
    tables = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "| this project |" in tables and "95 % bootstrap" in tables
    page = (tmp_path / "plots.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>") and "plotly" in page and 'src="http' not in page

    measured: list[tuple[str, ...]] = []
    grid_rows = detection_cells.grid_rows

    def spy(cell: Cell, names: tuple[str, ...], batch: int) -> list[dict[str, Any]]:
        measured.append(tuple(names))
        return grid_rows(cell, names, batch)

    monkeypatch.setattr(detection, "grid_rows", spy)
    again = ["grid", *tiny, "--out", str(tmp_path)]
    assert detection.main(again) == 0 and measured == []
    assert detection.main([*again, "--redo", "mahalanobis"]) == 0
    assert measured == [("mahalanobis",)]
    later = read(tmp_path / "grid.csv")
    assert [row["contestant"] for row in later] == [GATE, "mahalanobis"]
    assert later[1]["auc"] == rows[1]["auc"]
    assert by_cell(best_peers(later), "auc") == by_cell(later[1:], "auc")


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    for wrong in (["--rate", "0.9"], ["--seeds", "0"], ["--streams", "nosuch"]):
        with pytest.raises(SystemExit) as refused:
            detection.main([*wrong, "--out", str(tmp_path)])
        assert refused.value.code == 2


def test_a_missing_package_leaves_its_peer_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = detection_peers.Peer("absent", detection_peers.mahalanobis, ("no_such_package",))
    monkeypatch.setitem(detection_peers.PEERS, "iforest", absent)
    given = detection.arguments(["grid", "--out", str(tmp_path)])
    detection.say_missing(given)
    assert "iforest is left out: no_such_package" in capsys.readouterr().out
    assert "iforest" not in detection.options_of(given, "grid").contestants
