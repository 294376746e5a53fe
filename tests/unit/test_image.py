"""The container image, as far as it can be read without an engine."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def pins() -> dict[str, str]:
    lines = (ROOT / "deploy" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in kept)
    return {canonicalize_name(name): version for name, version in (k.split("==") for k in kept)}


def test_every_dependency_is_pinned_to_a_version_that_is_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["kafka-fast"], *extras["console"]]
    pinned = pins()
    for text in wanted:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"deploy/requirements.txt lacks {name}"
        assert requirement.specifier.contains(pinned[name]), name


def test_stages_are_pinned_and_the_last_is_not_root() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(images) == 2 and all(re.search(r":\d+\.\d+\.\d+", image) for image in images)
    last = DOCKERFILE.rpartition("FROM ")[2]
    user = re.search(r"^USER (\d+)$", last, re.MULTILINE)
    assert user is not None and int(user[1]) > 0
    assert "apt-get" not in last and 'ENTRYPOINT ["poisoning-monitor"]' in last


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    for path in " ".join(copied).split():
        assert (ROOT / path).exists() and f"!{path}" in let_in, path


def test_the_classifier_typed_is_true() -> None:
    assert (ROOT / "monitor" / "py.typed").exists()
