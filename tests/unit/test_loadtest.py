"""The throughput script runs, measures what it says, and fails when told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_throughput_script(tmp_path: Path) -> None:
    figures, chart = tmp_path / "out.json", tmp_path / "out.html"
    small = [
        "--events",
        "700",
        "--batch",
        "512",
        "--repeats",
        "1",
        "--features",
        "4",
        "--labels",
        "3",
    ]
    done = subprocess.run(
        [
            sys.executable,
            "loadtest/throughput.py",
            *small,
            "--json",
            figures,
            "--plot",
            chart,
            "--at-least",
            "1000",
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "× as fast" in done.stderr and "the whole gate" in done.stdout
    result = json.loads(figures.read_text())
    assert set(result["contestants"]) == {"decode", "gate", "river"}
    assert result["gate_to_river"] > 0
    assert {"decode: parse", "encode decisions"} <= set(result["stages_us"])
    assert len(result["turns"]["gate"][0]["batches"]) == 2
    assert chart.read_text().rstrip().endswith("</html>")
