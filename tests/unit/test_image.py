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
    return {name: version for name, (version, _) in hashed().items()}


def hashed() -> dict[str, tuple[str, list[str]]]:
    """Version and SHA-256 of each package; nothing else may stand there, no address either."""
    text = (ROOT / "deploy" / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.replace(" \\\n", " ").splitlines() if line[:1] != "#"]
    form = re.compile(r"([\w.-]+)==([\w.]+)((?: +--hash=sha256:[0-9a-f]{64})+)")
    found = [form.fullmatch(line) for line in lines]
    assert lines and all(found), [line for line, one in zip(lines, found, strict=True) if not one]
    return {
        canonicalize_name(one[1]): (one[2], re.findall(r"sha256:(\w+)", one[3]))
        for one in found
        if one is not None
    }


def test_every_dependency_is_pinned_to_a_version_that_is_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    chosen = ("kafka-fast", "postgres", "console")
    wanted = [*project["dependencies"], *(text for name in chosen for text in extras[name])]
    pinned = pins()
    for text in wanted:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"deploy/requirements.txt lacks {name}"
        assert requirement.specifier.contains(pinned[name]), name


def test_nothing_is_installed_but_wheels_of_known_hashes() -> None:
    """One for both machines, or one each; pip refuses what has another."""
    assert all(len(set(some)) == len(some) <= 2 for _, some in hashed().values())
    every = [value for _, some in hashed().values() for value in some]
    assert len(every) == len(set(every))
    (ran,) = re.findall(r"pip install (.*requirements\.txt)", DOCKERFILE)
    assert {"--require-hashes", "--only-binary"} <= set(ran.split())


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
