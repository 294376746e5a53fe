#!/usr/bin/env python3
"""Copies rules and dashboards into the chart: Helm reads nothing outside of it.

    python3 deploy/helm/sync.py           # copy
    python3 deploy/helm/sync.py --check   # say what differs; exit code 1 when anything does

Rules are the files of deploy/prometheus that hold rule groups, dashboards all of
deploy/grafana/dashboards. A copy whose original is gone is removed.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent
FILES = DEPLOY / "helm" / "poisoning-monitor" / "files"
_GROUPS = re.compile(r"^groups:", re.MULTILINE)
_RULES = re.compile(r"^\s+(- )?(alert|record):", re.MULTILINE)


def is_rules(text: str) -> bool:
    """Whether a file of deploy/prometheus is one of rules, and neither settings nor tests."""
    return bool(_GROUPS.search(text) and _RULES.search(text))


def wanted(deploy: Path = DEPLOY) -> dict[str, bytes]:
    """What the chart should hold: content by path below ``files``."""
    found: dict[str, bytes] = {}
    for pattern in ("*.yml", "*.yaml"):
        for path in sorted((deploy / "prometheus").glob(pattern)):
            if is_rules(path.read_text(encoding="utf-8")):
                found[f"rules/{path.stem}.yml"] = path.read_bytes()
    for path in sorted((deploy / "grafana" / "dashboards").glob("*.json")):
        found[f"dashboards/{path.name}"] = path.read_bytes()
    return found


def present(files: Path = FILES) -> dict[str, bytes]:
    """What it holds."""
    paths = (path for path in files.rglob("*") if path.is_file() and path.name != "README")
    return {path.relative_to(files).as_posix(): path.read_bytes() for path in paths}


def differences(want: dict[str, bytes], have: dict[str, bytes]) -> list[str]:
    """Sentences on what is missing, left over or not the same."""
    lines = [f"{name}: missing" for name in want.keys() - have.keys()]
    lines += [f"{name}: its original is gone" for name in have.keys() - want.keys()]
    lines += [f"{n}: differs" for n in want.keys() & have.keys() if want[n] != have[n]]
    return sorted(lines)


def main() -> int:
    """Copy or check; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    want, have = wanted(), present()
    found = differences(want, have)
    for line in found:
        print(line)
    if parser.parse_args().check:
        return 1 if found else 0
    for name in have.keys() - want.keys():
        (FILES / name).unlink()
    for name, content in want.items():
        path = FILES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
