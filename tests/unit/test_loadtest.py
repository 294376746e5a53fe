"""The throughput script runs, measures what it says, and fails when told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from loadtest import throughput
from loadtest.numpy_work import OwnClassGaussian
from loadtest.throughput_bench import CONTESTANTS, Turn, most_events
from loadtest.throughput_kafka import medians
from loadtest.throughput_view import plot, show

ROOT = Path(__file__).parents[2]
SMALL = ["--events", "700", "--prime", "1100", "--batch", "512", "--repeats", "1"]


def test_throughput_script(tmp_path: Path) -> None:
    figures, chart = tmp_path / "out.json", tmp_path / "out.html"
    command = [sys.executable, "loadtest/throughput.py", *SMALL]
    command += ["--features", "4", "6", "--labels", "3", "--at-least", "1000"]
    done = subprocess.run(
        [*command, "--json", figures, "--plot", chart],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "× as fast" in done.stderr
    assert "the whole gate" in done.stdout
    result = json.loads(figures.read_text())
    assert [found["features"] for found in result["alone"]] == [4, 6]
    for found in result["alone"]:
        assert set(found["contestants"]) == set(CONTESTANTS)
        assert set(found["gate_to"]) == set(CONTESTANTS) - {"gate"}
        assert min(found["gate_to"].values()) > 0
        assert {"decode: parse", "encode decisions"} <= set(found["stages_us"])
    assert chart.read_text().rstrip().endswith("</html>")


def test_ratios_are_by_cpu_time_of_an_event() -> None:
    gate = [Turn(100, 9.0, 1.0), Turn(100, 9.0, 2.0), Turn(100, 9.0, 1.0)]
    slow = [Turn(10, 1.0, 0.3), Turn(10, 1.0, 0.4), Turn(10, 1.0, 0.5)]
    assert throughput.ratio(gate, slow) == pytest.approx(3.0)
    found = throughput.rates([Turn(100, 2.0, 1.0, [1.0, 1.0])])
    assert found["events_per_second"] == 50
    assert found["cpu_us"] == pytest.approx(10_000)


def test_slow_contestants_and_wide_events_get_fewer_events() -> None:
    assert most_events(CONTESTANTS["gate"], 20_000, 16) == 20_000
    assert most_events(CONTESTANTS["knn"], 20_000, 16) == 200
    assert most_events(CONTESTANTS["half_space"], 20_000, 64) == 1_000
    assert throughput.scaled(20_000, 16) == 20_000
    assert throughput.scaled(20_000, 256) == throughput.LEAST_EVENTS


def test_defaults_are_the_services() -> None:
    given = throughput.arguments([])
    assert given.batch == throughput.BatchSettings().max_events
    assert given.prime == 65_536
    assert throughput.arguments(["--kafka"]).events == 40_000


@pytest.mark.parametrize(
    "wrong", [["--client", "confluent"], ["--labels", "1"], ["--prime", "9"], ["--repeats", "0"]]
)
def test_wrong_arguments(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        throughput.arguments(wrong)


def test_end_to_end_figures_are_shown(tmp_path: Path) -> None:
    turns = [
        {"events_per_second": 5.0, "events_per_cpu_second": 9.0, "cpu_us": c, "broker_cpu_us": None}
        for c in (70.0, 90.0, 80.0)
    ]
    rate = medians(turns)
    assert rate["cpu_us"] == 80.0
    assert rate["broker_cpu_us"] is None
    found = {"features": 16, "kafka_client": "kafka-python", "service": rate, "client": rate}
    setup = {"labels": 2, "batch": 9, "prime": 9, "python": "", "numpy": "", "cores": 1}
    kafka = [found | {"ratio": 0.75, "ratio_wall": 1.1}]
    result = {"setup": setup | {"repeats": 3}, "alone": [], "kafka": kafka}
    assert throughput.reached(result) == 0.75
    console = Console(record=True, width=120)
    show(console, result)
    assert "0.75 × as fast" in console.export_text()
    plot(result, tmp_path / "out.html")
    assert "end to end" in (tmp_path / "out.html").read_text()


def test_the_numpy_yardstick_is_a_mahalanobis_distance() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4_000, 3)) * [1.0, 2.0, 0.5], rng.integers(0, 2, 4_000)
    model = OwnClassGaussian(2, 3)
    for rows in np.array_split(np.arange(4_000), 5):
        model.learn(x[rows], y[rows])
    own = x[y == 1]
    delta = own - own.mean(axis=0)
    inverse = np.linalg.inv(np.cov(own.T, bias=True) + 1e-3 * np.eye(3))
    assert np.allclose(model.score(x, y)[y == 1], np.einsum("ij,jk,ik->i", delta, inverse, delta))
