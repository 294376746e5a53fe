"""The bill of materials: what is pinned, no more, the same every time; and what an audit says."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_image import hashed

ROOT = Path(__file__).parents[3]


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_names_every_pin_with_its_hashes_and_is_the_same_again(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        out = tmp_path / name
        command = [sys.executable, "deploy/sbom.py", "--no-audit", "--out", str(out)]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
        made.append(out.read_bytes())
    assert made[0] == made[1]
    found = json.loads(made[0])
    assert found["bomFormat"] == "CycloneDX"
    assert found["metadata"]["component"]["name"] == "poisoning-monitor"
    said = {
        one["purl"]: sorted(
            mark["content"] for link in one["externalReferences"] for mark in link["hashes"]
        )
        for one in found["components"]
    }
    assert said == {f"pkg:pypi/{n}@{v}": sorted(some) for n, (v, some) in hashed().items()}


def audit(code: str) -> Any:
    return script("sbom").audited([sys.executable, "-c", code])


def test_a_known_vulnerability_fails_and_silence_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The commands stand in for pip-audit, which needs its database."""
    sbom = script("sbom")
    hole = {"id": "X-1", "fix_versions": ["2"]}
    bad = {"dependencies": [{"name": "a", "version": "1", "vulns": [hole]}]}
    good = {"dependencies": [{"name": "a", "version": "1", "vulns": []}]}
    for found, code in ((bad, 1), (good, 0)):
        assert (
            sbom.told(audit(f"print({json.dumps(json.dumps(found))}); raise SystemExit(1)")) == code
        )
    assert "a 1: X-1, fixed in 2" in capsys.readouterr().out
    # A mirror that knows nobody has not found anybody harmless.
    unknown = {"name": "b", "skip_reason": "not found"}
    assert sbom.told({"dependencies": [unknown]}) == 0
    assert "NOT AUDITED" in (out := capsys.readouterr().out) and "known vuln" not in out
    assert sbom.told({"dependencies": [unknown, *good["dependencies"]]}) == 0
    out = capsys.readouterr().out
    assert "NOT AUDITED, unknown to the database: b" in out and "1 packages audited" in out
    assert sbom.told(audit("raise SystemExit('no such host')")) == 0
    said = capsys.readouterr()
    assert "NOT AUDITED" in said.out and "no such host" in said.err


def test_hashes_are_of_both_machines_and_versions_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = script("pins")
    asked = []

    def hashes(plain: str, machine: str) -> dict[str, str]:
        asked.append((plain, machine))
        return {"a-b==1.0": "f" * 64, "c==2": ("0" if machine == "x86_64" else "1") * 64}

    path = tmp_path / "pins.txt"
    path.write_text("# kept\nA_b==1.0 \\\n    --hash=sha256:" + "e" * 64 + "\nc==2\n")
    monkeypatch.setattr(pins, "hashes", hashes)
    monkeypatch.setattr(sys, "argv", ["pins.py", str(path)])
    pins.main()
    assert asked == [("A_b==1.0\nc==2", machine) for machine in pins.MACHINES]
    assert path.read_text().splitlines() == [
        "# kept",
        "A_b==1.0 \\",
        f"    --hash=sha256:{'f' * 64}",
        "c==2 \\",
        f"    --hash=sha256:{'0' * 64} \\",
        f"    --hash=sha256:{'1' * 64}",
    ]
