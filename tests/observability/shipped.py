"""The files that operators get, and the names in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
RULES = PROMETHEUS / "rules.yml"
RUNBOOKS = DEPLOY / "runbooks"
ALERTS = (
    "PoisoningRateHigh",
    "InvalidEventsFlood",
    "FalsePositiveShareOffPromise",
    "DetectorFailing",
    "LagGrowing",
    "ReplicaWithoutState",
    "MonitorNoData",
    "DrillRecallLow",
    "SignaturesRefused",
    "UnjudgedEvents",
)


def rules() -> list[dict[str, Any]]:
    """Every rule of the shipped file."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def metric_names(text: str) -> set[str]:
    """Our metrics' names in an expression, and those of our recording rules."""
    return set(re.findall(r"\bpoisoning_monitor[_:][a-zA-Z0-9_:]+", text))


def anchors(page: Path) -> set[str]:
    """What a heading can be linked by, as GitHub makes it from the heading's text."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}
