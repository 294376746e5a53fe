"""Held records by hand, for the tests of the store."""

from __future__ import annotations

import json

from monitor.core.held import HeldBatch, HeldRecord, Original

START = 1_700_000_000.0


def record(offset, *, partition=0, source="acct-1", label="spam", risk=3.0, **more) -> HeldRecord:
    """One held event. ``more``: families, detectors, subject, incident, held_at, text, event_id."""
    event_id = more.get("event_id", f"e{partition}-{offset}")
    event = {"id": event_id, "ts": START + offset, "source": source, "label": label}
    event["features"] = [1, 2]
    if "subject" in more:
        event["subject"] = more["subject"]
    detectors = more.get("detectors", ("label_conflict",))
    decision = {
        **{k: event[k] for k in ("id", "ts", "source", "label")},
        "partition": partition,
        "offset": offset,
        "verdict": "quarantine",
        "action": "hold",
        "mode": "enforce",
        "risk": risk,
        "families": list(more.get("families", ("label_flip",))),
        "reasons": [
            {"detector": d, "score": 1.0, "text": more.get("text", "odd"), "evidence": {"k": 1}}
            for d in detectors
        ],
        "policy_version": 4,
        "incident": more.get("incident"),
    }
    return HeldRecord(
        Original(
            partition,
            offset,
            json.dumps(event).encode(),
            key=b"key",
            headers=(("signature", b"\xff\x00"), ("nothing", None), (b"caf\xe9", b"x")),
            timestamp=1_700_000_000_123,
        ),
        json.dumps(decision).encode(),
        held_at=more.get("held_at", START + offset),
    )


def batch(*records, places=None, judged=0) -> HeldBatch:
    return HeldBatch(records, places or {0: max(r.original.offset for r in records) + 1}, judged)
