"""Put the hashes of all wheels that the image may install into deploy/requirements.txt.

    python deploy/pins.py [FILE]

Asks the package index that pip is set up for, once a platform (x86-64 and 64-bit ARM, the Python
of the Dockerfile), and installs nothing. Versions stay as they are in the file.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / "deploy" / "requirements.txt"
MACHINES = ("x86_64", "aarch64")
GLIBC = (5, 12, 17, 24, 26, 27, 28, 31, 34, 35, 36)
"""Of manylinux wheels that run on the image's Debian 12 (glibc 2.36)."""


def python_of_the_image() -> str:
    """Major and minor version."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^FROM python:(\d+\.\d+)\.", text, re.MULTILINE)
    assert found is not None
    return found[1]


def hashes(plain: str, machine: str) -> dict[str, str]:
    """By ``name==version``, the SHA-256 of the wheel that pip would take. Raises when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        pins, report = Path(folder) / "pins.txt", Path(folder) / "report.json"
        pins.write_text(plain, encoding="utf-8")
        platforms = [f"manylinux_2_{n}_{machine}" for n in GLIBC] + [f"manylinux2014_{machine}"]
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"),
                *("--ignore-installed", "--only-binary", ":all:", "--implementation", "cp"),
                *("--python-version", python_of_the_image(), "--target", folder),
                *(word for name in platforms for word in ("--platform", name)),
                *("--report", str(report), "--requirement", str(pins)),
            ],
            check=True,
        )
        made = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        canonical(f"{one['metadata']['name']}=={one['metadata']['version']}"): one["download_info"][
            "archive_info"
        ]["hashes"]["sha256"]
        for one in made
    }


def canonical(pin: str) -> str:
    """The same pin however its name is written."""
    name, _, version = pin.partition("==")
    return f"{re.sub('[-_.]+', '-', name).lower()}=={version}"


def main() -> None:
    """Write the file anew."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PINS
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line for line in lines if line.startswith("#")]
    pins = [line.split()[0] for line in lines if re.match(r"\w", line)]
    found = [hashes("\n".join(pins), machine) for machine in MACHINES]
    out = head
    for pin in pins:
        every = sorted({one[canonical(pin)] for one in found})
        out += [f"{pin} \\", *(f"    --hash=sha256:{value} \\" for value in every)]
        out[-1] = out[-1].removesuffix(" \\")
    path.write_text("\n".join(out) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
