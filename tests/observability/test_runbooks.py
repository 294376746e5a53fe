"""Runbooks: a page for each family and kind, with commands and metrics that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from monitor.cli.app import app
from monitor.config.policy import Policy
from monitor.config.policy_parts import KNOWN_DETECTORS
from monitor.core.errors import RejectCode
from monitor.core.incident import IncidentKind
from monitor.core.runbooks import INDEX, runbook
from monitor.core.types import Family
from tests.observability.shipped import ROOT, RUNBOOKS, anchors, metric_names, rules
from tests.observability.test_rules import SUFFIXES, exposed

PAGES = sorted(RUNBOOKS.glob("*.md"))
FAMILIES = [*Family, IncidentKind.DATA_FAULT]
FAULTS = ("gap", "duplicates", "frozen", "irregular", "missing", "leak")
SECTIONS = (
    "what-it-looks-like",
    "what-to-check",
    "what-to-do",
    "attack-drift-or-a-broken-pipeline",
    "what-the-monitor-misses",
)
_BLOCKS = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_INLINE = re.compile(r"`(poisoning-monitor [^`]+)`", re.DOTALL)


def commands(text: str) -> list[str]:
    """Every command line of ours in a page, in code blocks and in sentences."""
    lines = [line.strip() for block in _BLOCKS.findall(text) for line in block.splitlines()]
    found = [line for line in lines if line.startswith("poisoning-monitor ")]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return found + [" ".join(part.split()) for part in _INLINE.findall(prose)]


def parsed(line: str) -> dict[str, Any]:
    """The parameters of a command line, read as the program reads it, and not run."""
    command: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while hasattr(command, "commands"):
        assert words and words[0] in command.commands, line
        command, words = command.commands[words[0]], words[1:]
    # A sentence may name a command without what it needs.
    return dict(command.make_context(command.name, words).params) if words else {}


def test_every_family_and_kind_has_its_page() -> None:
    for family in Family:
        path = ROOT / runbook("campaign", family.value)
        assert path.is_file() and path.stem == family.value
    assert (ROOT / runbook("drift", "drift")).stem == "drift"
    for fault in FAULTS:
        assert (ROOT / runbook("data_fault", fault)).stem == "data_fault"
        assert f"| `{fault}` |" in (RUNBOOKS / "data_fault.md").read_text()
    assert runbook("campaign", "../../etc/passwd") == f"deploy/runbooks/{INDEX}"
    assert {kind.value for kind in IncidentKind} == {"campaign", "drift", "data_fault"}


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_every_page_says_what_a_person_needs(family: Family | IncidentKind) -> None:
    page = RUNBOOKS / f"{family}.md"
    assert page.read_text().startswith(f"# {family}: ")
    assert set(SECTIONS) <= anchors(page)
    assert commands(page.read_text()), "names no command"
    assert f"[{family}]({family}.md)" in (RUNBOOKS / INDEX).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_exist_with_their_options(page: Path) -> None:
    for line in commands(page.read_text()):
        parsed(line)


@pytest.mark.parametrize(
    "line",
    ["quarantine drop", "quarantine list --famly sybil", "quarantine list --limit many"],
)
def test_commands_that_do_not_exist_are_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"drop|--famly|integer"):
        parsed(f"poisoning-monitor {line}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_set_is_a_policy(page: Path) -> None:
    """``policy set`` in a runbook would be taken by the policy."""
    for line in commands(page.read_text()):
        if not line.startswith(("poisoning-monitor policy set", "poisoning-monitor policy whatif")):
            continue
        document = Policy().model_dump(mode="json")
        for change in parsed(line).get("changes") or ():
            key, _, value = change.partition("=")
            *sections, name = key.split(".")
            here = document
            for section in sections:
                here = here.setdefault(section, {})
            here[name] = yaml.safe_load(value)
        Policy.model_validate(document)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_in_a_page_exist(page: Path) -> None:
    text = page.read_text()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = recorded | exposed() | {n.removesuffix(s) for n in exposed() for s in SUFFIXES}
    assert metric_names(text) <= known, metric_names(text) - known
    for family in re.findall(r"family=~?\"([\w|]+)\"", text):
        assert set(family.split("|")) <= {f.value for f in Family} | set(FAULTS), family
    for detector in re.findall(r"--detector (\w+)|detectors\.(\w+)\.", text):
        # Refused signatures stand in reasons under the name of a detector.
        assert set(detector) & {*KNOWN_DETECTORS, "provenance"}, detector
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert (page.parent / target).exists(), target


def test_codes_named_for_invalid_records_exist() -> None:
    text = (RUNBOOKS / "invalid.md").read_text()
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", text)) - {"data_fault"}
    assert len(named) >= 5
    assert named <= {code.word for code in RejectCode}
