"""What the image contains, as CycloneDX JSON, and whether a known vulnerability is among it.

    python deploy/sbom.py [--out sbom.cdx.json] [--no-audit]

Needs the extra ``sbom``. The bill of materials is made of deploy/requirements.txt: the same file
gives the same bytes, and it is checked against the schema of CycloneDX before it is written. Then
pip-audit asks its database about the same pins. Exit codes: 0 done, 1 vulnerabilities are known or
the bill cannot be made. Where the database cannot be reached, or is a mirror without answers, it
says NOT AUDITED, and that is no failure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / "deploy" / "requirements.txt"


def bill(out: Path) -> int:
    """Write the bill of materials; the exit code."""
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "requirements", str(PINS)),
            *("--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application"),
            *("--spec-version", "1.6", "--output-format", "JSON"),
            *("--output-reproducible", "--validate", "--output-file", str(out)),
        ],
        check=False,
    )
    return ran.returncode


def audited(command: Sequence[str]) -> dict[str, Any] | None:
    """What pip-audit found; None, with its own words on stderr, where it could not find out."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(ran.stdout)
        found["dependencies"]
    except (ValueError, KeyError, TypeError):
        sys.stderr.write(ran.stderr)
        return None
    return found


def told(found: dict[str, Any] | None) -> int:
    """Say what was found; the exit code."""
    if found is None:
        print("NOT AUDITED: pip-audit could not ask its database, see above. Run it where it can.")
        return 0
    bad = [(one, hole) for one in found["dependencies"] for hole in one.get("vulns", ())]
    for one, hole in bad:
        fixed = ", ".join(hole.get("fix_versions", ())) or "no version yet"
        print(f"{one['name']} {one['version']}: {hole['id']}, fixed in {fixed}")
    skipped = [one["name"] for one in found["dependencies"] if "skip_reason" in one]
    looked_up = len(found["dependencies"]) - len(skipped)
    if not looked_up:
        print("NOT AUDITED: the database that pip-audit asked knows none of these packages.")
        return 0
    if skipped:
        print(f"NOT AUDITED, unknown to the database: {', '.join(skipped)}")
    print(f"{looked_up} packages audited, {len(bad)} known vulnerabilities")
    return 1 if bad else 0


def main() -> int:
    """The bill, then the audit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("sbom.cdx.json"))
    parser.add_argument("--no-audit", action="store_true", help="write the bill only")
    args = parser.parse_args()
    if bill(args.out):
        return 1
    print(f"{args.out}: {len(json.loads(args.out.read_bytes())['components'])} components")
    if args.no_audit:
        return 0
    return told(
        audited(
            [
                *(sys.executable, "-m", "pip_audit", "--requirement", str(PINS)),
                *("--require-hashes", "--disable-pip", "--format", "json"),
                *("--progress-spinner", "off"),
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
