"""deploy/security.md names only tests, files and pages that exist, and a test for each row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "deploy" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_named_test_exists() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) > 50
    assert len(named) == PAGE.count("`tests/")  # none is written another way
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file()
        or (name and (not name.startswith("test_") or name not in names_in(ROOT / path)))
    ]
    assert not missing


def test_every_claim_that_holds_names_a_test() -> None:
    tables = re.findall(r"^\| \| shown by \|\n\| --- \| --- \|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(tables) == 7 and len(rows) > 30
    assert all("::test_" in row.split("|")[2] for row in rows)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE)
    assert links and all((ROOT / "deploy" / link).exists() for link in links)
