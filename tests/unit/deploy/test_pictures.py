"""The README's pictures: those that it names are there, and none is large."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PNG = b"\x89PNG\r\n\x1a\n"
MOST_BYTES = 300_000


def test_the_pictures_of_the_readme_are_there_and_small() -> None:
    named = set(re.findall(r"\]\((deploy/images/[^)]+)\)", (ROOT / "README.md").read_text("utf-8")))
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "deploy" / "images").iterdir()}
    assert named and named <= there, named - there
    for name in there:
        raw = (ROOT / name).read_bytes()
        assert raw.startswith(PNG) and len(raw) < MOST_BYTES, name
