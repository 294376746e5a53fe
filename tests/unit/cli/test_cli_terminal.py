"""What a terminal of 80 columns shows of hostile streams: all identifiers, no escapes."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from monitor.cli import incidents

ID = "i-31f4e4244fe04b64"
EVIL = "acct\x1b[2J\u202e[red]"


def incident(family: str = "boiling_frog") -> dict[str, Any]:
    end = {"ts": 1.7e9}
    return {
        "id": ID,
        "kind": "campaign",
        "family": family,
        "confidence": 0.93,
        "state": "closed",
        "events": 12_345,
        "quarantined": 12_000,
        "flagged": 345,
        "influence": 3.0,
        "text": f"Events of {EVIL}.",
        "first": end,
        "last": end,
        "sources": {"estimate": 1_234, "top": [{"source": EVIL, "events": 3}]},
        "labels": [{"label": EVIL, "events": 3}],
        "common": {"pattern": [{"feature": EVIL, "value": 1.0}]},
        "evidence": [EVIL],
    }


def shown(thing: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(thing)
    return out.getvalue()


def test_a_narrow_list_of_incidents_cuts_nothing() -> None:
    told = shown(incidents.incident_table([incident()], 1))
    for word in (ID, "closed", "campaign:", "boiling_frog", "12,345", "1,234", "2023-11-14"):
        assert word in told
    assert "…" not in told
    assert max(map(len, told.splitlines())) <= 80
