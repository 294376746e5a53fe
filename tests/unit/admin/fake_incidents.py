"""Incidents of the fake desk's held events, as the board would show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from monitor.core.desk import Held, HeldFilter
from monitor.decide.incident_merge import merge
from monitor.decide.incident_timeline import Timeline
from monitor.runtime.incident_board import IncidentSnapshot
from tests.unit.admin.fake_desk import FakeDesk

FAMILIES = {"inc-1": "label_flip", "inc-2": "backdoor", "inc-9": "sybil"}
MOST = 5_000


class FakeIncidents:
    """What a board gives: the desk's incidents, an older drift, and a fault of the data."""

    def __init__(self, desk: FakeDesk) -> None:
        self._desk = desk

    def snapshot(self) -> IncidentSnapshot:
        """All of now."""
        found = [
            account(name, family, self._desk.quarantine.search(HeldFilter(incident=name), MOST))
            for name, family in FAMILIES.items()
        ]
        began = self._desk.began
        calm = [
            blank("inc-7", "drift", "drift", began - 9_000.0, 775),
            blank("inc-8", "data_fault", "frozen", began - 20_000.0, 512),
        ]
        whole = merge([*(one for one in found if one), *calm])
        whole.sort(key=lambda one: (one["state"] != "open", -one["last"]["ts"]))
        return IncidentSnapshot(tuple(whole))


def blank(name: str, kind: str, family: str, when: float, surprised: int) -> dict[str, Any]:
    """A closed one without events of its own."""
    texts = {
        "drift": "60 suspicious events of about 40 sources, and 775 more surprised in masses. "
        "They come from the sources that send most anyway, as when the world changes.",
        "data_fault": "Feature 'hour' holds one value; it changes in 97 % of events. Look at the "
        "pipeline upstream before anything else.",
    }
    return {
        "id": name, "kind": kind, "family": family, "confidence": 0.9, "state": "closed",
        "merged_into": None, "key": family, "opened": when, "partition": 0,
        "first": {"id": "evt-1", "ts": when, "offset": 1},
        "last": {"id": "evt-9", "ts": when + 700.0, "offset": 900},
        "events": 0, "quarantined": 0, "flagged": 0, "surprised": surprised,
        "sources": {"estimate": 0, "top": []}, "labels": [], "families": {}, "common": {},
        "risk": 0.0, "weight": 0.0, "influence": 0.0, "timeline": Timeline().told(),
        "evidence": [], "text": texts[kind],
    }  # fmt: skip


def account(name: str, family: str, page: Any) -> dict[str, Any] | None:
    """Of the held events of an incident, None where there are none."""
    held: Sequence[Held] = sorted(page.items, key=lambda one: one.ts)
    if not held:
        return None
    made = blank(name, "drift", family, held[0].ts, 0)
    times = np.array([int(one.ts * 1e9) for one in held])
    n = len(held)
    sources = Counter(one.source for one in held)
    labels = Counter(one.label for one in held)
    spoken = Counter(kind for one in held for kind in one.families)
    common: dict[str, Any] = {"flips": [{"from": "fraud", "to": held[0].label, "events": n // 2}]}
    if family == "backdoor":
        common = {"pattern": [
            {"feature": "amount", "normal_score": 1.94, "value": 4711.5},
            {"feature": "hour", "normal_score": -0.4, "value": None},
        ]}  # fmt: skip
    top = [{"source": text, "events": k} for text, k in sources.most_common(10)]
    return made | {
        "kind": "campaign", "state": "open", "confidence": 0.83, "events": n, "quarantined": n,
        "first": {"id": held[0].event_id, "ts": held[0].ts, "offset": held[0].offset},
        "last": {"id": held[-1].event_id, "ts": held[-1].ts, "offset": held[-1].offset},
        "sources": {"estimate": len(sources), "top": top},
        "labels": [{"label": text, "events": k} for text, k in labels.most_common()],
        "families": dict(spoken), "common": common, "influence": 3.1 * n, "weight": float(n),
        "timeline": Timeline().after(times, np.ones(n, dtype=bool)).told(),
        "evidence": [one.event_id for one in (*held[:8], *held[-8:])],
        "text": f"{n} suspicious events ({n} quarantined) of about {len(sources)} sources, mostly "
        f"from {top[0]['source']!r}. Labels contradict what such events are called elsewhere. Hold "
        "these sources back (policy deny) and review what they sent before.",
    }  # fmt: skip
