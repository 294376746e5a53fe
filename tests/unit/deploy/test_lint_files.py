"""The image's recipe and all YAML that people edit, held against their linters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
YAML_FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.yaml", "*.yml")
    for path in (ROOT / "deploy").rglob(pattern)
    # Templates become YAML only when they are rendered; what is rendered is parsed elsewhere.
    if "templates" not in path.parts
)


def run(*command: str) -> tuple[int, str]:
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def test_hadolint_has_nothing_against_the_image() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    code, said = run(str(hadolint), "--failure-threshold", "style", "Dockerfile")
    assert code == 0, said
    bad = subprocess.run(
        [hadolint, "-"], input="FROM python\nRUN cd /tmp\n", capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert bad.returncode != 0 and "DL3006" in bad.stdout


def test_yamllint_has_nothing_against_our_files() -> None:
    assert len(YAML_FILES) > 8
    code, said = run(sys.executable, "-m", "yamllint", "--strict", *YAML_FILES)
    assert code == 0, said


def test_yamllint_is_told_to_look_for_what_hurts(tmp_path: Path) -> None:
    twice = tmp_path / "twice.yaml"
    twice.write_text("a: 1\na: 2\n")
    code, said = run(
        sys.executable, "-m", "yamllint", "-c", str(ROOT / ".yamllint"), "--strict", str(twice)
    )
    assert code != 0 and "duplication" in said


def test_image_leaves_the_filesystem_alone() -> None:
    text = (ROOT / "Dockerfile").read_text()
    last = text.rpartition("FROM ")[2]
    assert "--gid 10001" in last and "--uid 10001" in last and "HOME=/data" in last
    defaults = yaml.safe_load((ROOT / "deploy/helm/poisoning-monitor/values.yaml").read_text())
    context = defaults["podSecurityContext"]
    assert {context["runAsUser"], context["runAsGroup"], context["fsGroup"]} == {10001}


@pytest.mark.parametrize("word", ["apt-get", "curl", "wget", "ADD http"])
def test_image_fetches_nothing_but_packages(word: str) -> None:
    assert word not in (ROOT / "Dockerfile").read_text()
