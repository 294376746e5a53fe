"""Which files are generated, and what stands in them."""

from __future__ import annotations

from pathlib import Path

from deploy.grafana.source import detectors, frame, health, incident, overview

GRAFANA = Path(__file__).resolve().parents[1]
DASHBOARDS = {
    "overview": overview.dashboard,
    "incident": incident.dashboard,
    "detectors": detectors.dashboard,
    "health": health.dashboard,
}


def generated() -> dict[Path, str]:
    """Text by path, of all generated files."""
    return {
        GRAFANA / "dashboards" / f"{name}.json": frame.as_json(make())
        for name, make in DASHBOARDS.items()
    }


def current(path: Path) -> str | None:
    """What stands in the file now; None when it is not there."""
    return path.read_text(encoding="utf-8") if path.exists() else None
