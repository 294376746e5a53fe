"""Accepted events in memory, for the interface, the console and the terminal."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from monitor.core.blast import (
    NOWHERE,
    AcceptedBatch,
    Announced,
    Asked,
    Checkpoint,
    Retracted,
    RetractionOutcome,
)
from monitor.core.desk import ConflictError, MissingError
from monitor.core.errors import UsageError
from monitor.lineage.asking import Index, wanted_of
from monitor.lineage.checkpoints import refuse_changed
from monitor.lineage.reading import label_shown, segment_of
from monitor.lineage.survey import Survey, chosen_of, places_of

NO_INDEX = Index(lambda _: (), lambda: None)


class FakeBlast:
    """A :class:`~monitor.admin.desk.BlastDesk` of ``events`` events before ``now``."""

    def __init__(self, noted: Callable[..., None], events: int = 400, now: float = 1.8e9) -> None:
        rng = np.random.default_rng(5)
        values = [
            {
                "id": f"e{i}",
                "ts": now - 10.0 * (events - i),
                "source": f"acct-{rng.integers(20):03}" if rng.random() < 0.9 else "ring-1-000",
                "subject": f"item-{rng.integers(9)}",
                "label": ("legit", "fraud")[int(rng.random() < 0.2)],
                "features": {"amount": float(rng.normal()), "country": "AT"},
            }
            for i in range(events)
        ]
        self._noted, self._now = noted, now
        self._segments = [
            segment_of(
                AcceptedBatch(
                    [0] * events,
                    range(events),
                    [value["ts"] for value in values],
                    [json.dumps(value).encode() for value in values],
                    [NOWHERE] * events,
                    keys=[
                        "k-ring" if value["source"] == "ring-1-000" else None for value in values
                    ],
                )
            )
        ]
        self._gone: dict[tuple[int, int], str] = {}
        self._requests: dict[str, Retracted] = {}
        self._models = {
            name: Checkpoint(name, now - back, {0: at})
            for name, back, at in (("m-1", 3000.0, 0), ("m-2", 500.0, events - 10))
        }

    def _survey(self, asked: Asked, shown: int = 0) -> Survey:
        if asked.incident is not None:
            raise MissingError(f"No incident {asked.incident!r} is known here (any more).")
        found = Survey(
            wanted_of(asked, None, NO_INDEX),
            shown,
            lambda places: {place: "" for place in places if place in self._gone},
        )
        for segment in self._segments:
            found.add(segment)
        return found

    def blast(self, asked: Asked, shown: int = 20) -> Mapping[str, Any]:
        found = self._survey(asked, shown).result(list(self._models.values()), {0: 0})
        n = len(self._segments[0])
        found["index"] = {
            "topic": "feedback.accepted",
            "events": n,
            "complete_from": {"0": 0},
            "read_up_to": {"0": n},
            "behind": 0,
            "keys": "claimed",
        }
        return found | {"asked": asked.plain()}

    def retract(
        self, asked: Asked, *, who: str, why: str, key: str | None = None, dry_run: bool = False
    ) -> RetractionOutcome:
        self._survey(asked)
        name = key or f"r{len(self._requests)}"
        before = self._requests.get(name)
        if before is not None and before.asked != asked.plain():
            raise ConflictError("This idempotency key was used for another request.")
        if not dry_run and not why.strip():
            raise UsageError("Say why: the audit trail keeps it.")
        done: Counter[str] = Counter()
        labels: Counter[str] = Counter()
        already = 0
        for found in chosen_of(self._segments, wanted_of(asked, None, NO_INDEX)):
            rows = zip(places_of(found), found.source.texts(), found.label.texts(), strict=True)
            for place, source, label in rows:
                if not dry_run:
                    self._gone.setdefault(place, name)
                if self._gone.get(place, name) == name:
                    done[str(source)] += 1
                    labels[label_shown(str(label))] += 1
                else:
                    already += 1
        n = done.total()
        if not dry_run and n and before is None:
            self._requests[name] = Retracted(name, who, why, time.time(), n, asked.plain())
            self._noted(who, "retract", why, {"meant": n + already})
        return RetractionOutcome(name, dry_run, n, already, dict(done), dict(labels))

    def retractions(self, limit: int = 50, before: float | None = None) -> Sequence[Retracted]:
        found = sorted(self._requests.values(), key=lambda one: -one.when)
        return [one for one in found if before is None or one.when < before][:limit]

    def announce(self, checkpoint: Checkpoint, *, who: str, dated: bool = True) -> Announced:
        known = self._models.get(checkpoint.name)
        if known is not None:
            refuse_changed(known, checkpoint, dated=dated)
            return Announced(known, known=True)
        self._models[checkpoint.name] = checkpoint
        self._noted(who, "checkpoint", checkpoint.name, {"name": checkpoint.name})
        return Announced(checkpoint, known=False)

    def checkpoints(self) -> Sequence[Checkpoint]:
        return sorted(self._models.values(), key=lambda one: -one.ts)
