"""Static checks, as tests, so that one closing line tells all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORT_RULES = "from importlinter.cli import lint_imports_command as c; c()"
CHECKS = {
    "ruff check": ["-m", "ruff", "check", "."],
    "ruff format": ["-m", "ruff", "format", "--check", "."],
    "mypy": ["-m", "mypy"],
    "import-linter": ["-c", IMPORT_RULES, "--no-cache"],
}


@pytest.mark.timeout(900)  # mypy took 250 s on a machine that did much else
@pytest.mark.parametrize("name", CHECKS)
def test_static(name):
    ran = subprocess.run(
        [sys.executable, *CHECKS[name]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"{name} complains:\n{ran.stdout}{ran.stderr}"
