"""Writes every generated file of deploy/grafana; with ``--check`` only says what differs."""

from __future__ import annotations

import sys

from deploy.grafana.source import files


def main(arguments: list[str]) -> int:
    """Exit code 0, or 1 when ``--check`` finds a file that is not as generated."""
    stale = [path for path, text in files.generated().items() if files.current(path) != text]
    if arguments == ["--check"]:
        for path in stale:
            print(f"{path.name} is not as generated: python -m deploy.grafana.source")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files.generated()[path], encoding="utf-8")
        print(f"wrote {path}")
    return 0


sys.exit(main(sys.argv[1:]))
