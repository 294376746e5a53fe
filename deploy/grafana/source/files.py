"""Which files are generated, and what stands in them."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.source import detectors, frame, health, incident, overview, rules

GRAFANA = Path(__file__).resolve().parents[1]
DASHBOARDS = {
    "overview": overview.dashboard,
    "incident": incident.dashboard,
    "detectors": detectors.dashboard,
    "health": health.dashboard,
}
INVALID = "Invalid records and refused signatures, by cause"
SHOWN = {
    "PoisoningRateHigh": (overview.UID, "Suspicious events by family"),
    "InvalidEventsFlood": (overview.UID, INVALID),
    "SignaturesRefused": (overview.UID, INVALID),
    "FalsePositiveShareOffPromise": (overview.UID, "False positives: observed and promised"),
    "UnjudgedEvents": (overview.UID, "Unjudged"),
    "DetectorFailing": (detectors.UID, "Failed micro-batches by detector"),
    "DrillRecallLow": (detectors.UID, "Drills: recall by family"),
    "LagGrowing": (health.UID, "Waiting events"),
    "ReplicaWithoutState": (health.UID, "Ready"),
    "MonitorNoData": (health.UID, "Scraped"),
}
"""By alert, the panel that shows what it is about."""


def generated() -> dict[Path, str]:
    """Text by path, of all generated files."""
    found = {
        GRAFANA / "dashboards" / f"{name}.json": frame.as_json(make())
        for name, make in DASHBOARDS.items()
    }
    found[GRAFANA / "alerting" / "rules.yaml"] = rules.provisioning(
        frame.RUNBOOKS, _panels(list(found.values()))
    )
    return found


def _panels(boards: list[str]) -> dict[str, tuple[str, int]]:
    """Where to look, by alert. Raises KeyError for a panel that is not there any more."""
    there = {
        (board["uid"], panel["title"]): panel["id"]
        for board in map(json.loads, boards)
        for panel in board["panels"]
    }
    return {alert: (uid, there[uid, title]) for alert, (uid, title) in SHOWN.items()}


def current(path: Path) -> str | None:
    """What stands in the file now; None when it is not there."""
    return path.read_text(encoding="utf-8") if path.exists() else None
