"""The examples that need no broker run as people would run them, and show what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "deploy" / "examples"


@pytest.mark.parametrize("name", ["fraud_river.py", "sklearn_partial_fit.py"])
def test_the_gate_keeps_the_accuracy_that_the_attack_would_take(name, tmp_path) -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = re.findall(r"^(.+?) +accuracy +([\d.]+) %$", ran.stdout, re.MULTILINE)
    accuracy = {what: float(percent) for what, percent in found}
    assert accuracy["attacked"] < accuracy["no attack"] - 3.0
    assert accuracy["attacked, gated"] > accuracy["no attack"] - 1.0
    told = re.search(r"(\d+) of (\d+) poisoned, (\d+) of (\d+) honest", ran.stdout)
    caught, poisoned, held, honest = map(int, told.groups())
    assert caught > 0.9 * poisoned and held < 0.01 * honest
    assert not any(tmp_path.iterdir())
