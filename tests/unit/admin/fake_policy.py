"""A live policy in memory: versions, two persons, and a what-if that really counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from monitor.config.policy_provenance import ProvenancePolicy
from monitor.core.desk import (
    Applied,
    Change,
    ConflictError,
    Difference,
    ForbiddenError,
    MissingError,
    WhatIf,
)
from monitor.core.errors import UsageError
from tests.unit.admin.fake_data import DETECTORS, FAMILIES, LABELS, Recent, recent_events

FIRST: dict[str, Any] = {
    "version": 1,
    "mode": "enforce",
    "flag_at": 0.01,
    "quarantine_at": 0.001,
    "budget": {
        "label_flip": 0.52, "backdoor": 0.15, "clean_label": 0.12, "sybil": 0.18, "replay": 0.03
    },
    "detectors": {},
    "overrides": [],
    "allow": [],
    "deny": [],
    "provenance": ProvenancePolicy().model_dump(mode="json"),
    "learning_speed": 1.0,
    "confirmed": {},
}  # fmt: skip
EDITS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("ana", "edit", "Too many alarms on Monday's import", {"flag_at": 0.005}),
    ("ben", "edit", "The ring is back; hold more while it lasts", {"quarantine_at": 0.003}),
    (
        "ben",
        "edit",
        "Look at novelty before it may hold anything",
        {"detectors": {"novelty": {"mode": "alert", "weight": 1.0}}},
    ),
    ("ana", "edit", "Refunds desk is known to us", {"allow": [{"source": "acct-007"}]}),
    ("monitor", "review", "41 confirmed events of ring-1", {"confirmed": {"ring-1-000": 41}}),
)


class FakePolicy:
    """A :class:`~monitor.admin.desk.PolicyDesk` without a ledger."""

    def __init__(self, now: float, events: int = 50_000, two_person: bool = False) -> None:
        self._lock = threading.RLock()
        self.clock: Callable[[], float] = time.time
        self.two_person = two_person
        self.recent: Recent = recent_events(events, now)
        self.listeners: list[Callable[[Change], None]] = []
        document = FIRST
        start = now - 26 * 3600.0
        self._history = [
            Change("p-1", 1, 0, "start", "applied", "monitor", "first start", start, FIRST)
        ]
        for number, (who, kind, why, edit) in enumerate(EDITS, start=2):
            document = document | edit | {"version": number}
            when = start + number * 3.9 * 3600
            change = Change(
                f"p-{number}", number, number - 1, kind, "applied", who, why, when, document
            )
            self._history.append(change)
        self._waiting: dict[str, Change] = {}
        self._proposals = len(self._history)
        self.instances = ["monitor-0", "monitor-1"]

    def current(self) -> Change:
        return self._history[-1]

    def version(self, number: int) -> Change:
        if not 1 <= number <= len(self._history):
            raise MissingError(f"there is no version {number}; the latest is {len(self._history)}")
        return self._history[number - 1]

    def history(self, limit: int = 50, before: int | None = None) -> Sequence[Change]:
        end = len(self._history) if before is None else max(0, before - 1)
        return self._history[max(0, end - limit) : end][::-1]

    def waiting(self) -> Sequence[Change]:
        return list(self._waiting.values())

    def diff(self, a: int, b: int) -> Sequence[Difference]:
        return differences(self.version(a).policy, self.version(b).policy)

    def preview(self, policy: Mapping[str, Any]) -> Sequence[Difference]:
        check(policy)
        return differences(self.current().policy, FIRST | dict(policy))

    def propose(
        self, policy: Mapping[str, Any], *, base: int, who: str, why: str, kind: str = "edit"
    ) -> Change:
        check(policy)
        with self._lock:
            now = self.current()
            if base != now.version:
                raise ConflictError(
                    f"version {base} is not the latest any more: {now.who} made version "
                    f"{now.version} of it; look at the difference and decide again"
                )
            self._proposals += 1
            document = FIRST | dict(policy) | {"version": base + 1}
            change = Change(
                f"p-{self._proposals}", base + 1, base, kind, "applied", who, why, self.clock(),
                document,
            )  # fmt: skip
            if self.two_person and "enforce" in (now.policy["mode"], document["mode"]):
                change = replace(change, state="waiting")
                self._waiting[change.proposal] = change
                return change
            return self._apply(change)

    def _apply(self, change: Change) -> Change:
        self._history.append(change)
        self._waiting.clear()
        for listener in self.listeners:
            listener(change)
        return change

    def rollback(self, to: int, *, base: int, who: str, why: str) -> Change:
        document = self.version(to).policy
        return self.propose(document, base=base, who=who, why=why, kind="rollback")

    def _proposal(self, proposal: str) -> Change:
        if proposal not in self._waiting:
            raise MissingError(f"no proposal {proposal!r} waits")
        return self._waiting[proposal]

    def approve(self, proposal: str, *, who: str) -> Change:
        with self._lock:
            change = self._proposal(proposal)
            if change.who == who:
                raise ForbiddenError(f"{who} proposed this; somebody else has to approve it")
            if change.base != self.current().version:
                raise ConflictError("the policy has changed since this was proposed")
            return self._apply(replace(change, state="applied", approved_by=who))

    def reject(self, proposal: str, *, who: str, why: str) -> Change:
        with self._lock:
            change = self._proposal(proposal)
            del self._waiting[proposal]
            return replace(change, state="rejected", approved_by=who)

    def applied(self) -> Sequence[Applied]:
        now = self.current()
        return [Applied(name, now.version, now.when + 0.3) for name in self.instances]

    def whatif(self, policy: Mapping[str, Any]) -> WhatIf:
        check(policy)
        began = time.perf_counter()
        events, before, after = self.recent, self.current().policy, FIRST | dict(policy)
        tail, was, channel = judged(events, before)
        _, will, _ = judged(events, after)
        flips = np.flatnonzero(was != will)
        shown = flips[np.argsort(tail[flips], kind="stable")][:200]
        words = np.array(["accept", "flag", "quarantine"])
        sources = by_name(events.source, events.sources, was, will)
        largest = sorted(sources.items(), key=lambda item: -max(item[1]))[:20]
        n = len(tail)
        return WhatIf(
            events=n,
            before=counted(was),
            after=counted(will),
            by_label=by_name(events.label, LABELS, was, will),
            by_source=dict(largest),
            by_family=by_name(channel, FAMILIES, was, will),
            flips=[
                {
                    "key": f"0-{row}",
                    "id": f"evt-{row}",
                    "source": events.sources[events.source[row]],
                    "label": LABELS[events.label[row]],
                    "risk": round(float(-np.log10(tail[row])), 3),
                    "before": str(words[was[row]]),
                    "after": str(words[will[row]]),
                }
                for row in shown.tolist()
            ],
            n_flips=len(flips),
            promised={"flag": after["flag_at"], "quarantine": after["quarantine_at"]},
            observed={
                "flag": float((will > 0).sum() / n),
                "quarantine": float((will == 2).sum() / n),
            },
            seconds=time.perf_counter() - began,
        )

    def risks(self, bins: int = 60) -> Mapping[str, Any]:
        tail, verdict, _ = judged(self.recent, self.current().policy)
        risk = -np.log10(tail)
        edges = np.linspace(0.0, max(1.0, float(np.ceil(risk.max()))), bins + 1)
        words = {"accept": 0, "flag": 1, "quarantine": 2}
        counts = {w: np.histogram(risk[verdict == v], edges)[0].tolist() for w, v in words.items()}
        return {"edges": edges.tolist(), "counts": counts, "events": len(risk)}


def judged(events: Recent, policy: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tail, verdict (0, 1, 2) and strongest family of each event under a policy."""
    spoken = np.full((len(events.p), len(FAMILIES)), np.inf)
    holds = np.full((len(events.p), len(FAMILIES)), np.inf)
    budget = policy["budget"]
    total = sum(budget.values())
    for column, name in enumerate(events.names):
        rule = {"mode": "enforce", "weight": 1.0} | dict(policy["detectors"].get(name, {}))
        family = FAMILIES.index(DETECTORS[name])
        part = budget.get(FAMILIES[family], 0.0) / total * rule["weight"]
        if rule["mode"] == "shadow" or part == 0:
            continue
        several = sum(f == DETECTORS[name] for f in DETECTORS.values())
        tail = events.p[:, column] * several / part
        spoken[:, family] = np.minimum(spoken[:, family], tail)
        if rule["mode"] == "enforce":
            holds[:, family] = np.minimum(holds[:, family], tail)
    channel = spoken.argmin(axis=1)
    tail, hold = np.minimum(spoken.min(axis=1), 1.0), holds.min(axis=1)
    verdict = (tail <= policy["flag_at"]).astype(np.int64)
    verdict[hold <= policy["quarantine_at"]] = 2
    for entry, what in [(e, 2) for e in policy["deny"]] + [(e, 1) for e in policy["allow"]]:
        if entry["source"] in events.sources:
            rows = events.source == events.sources.index(entry["source"])
            verdict[rows] = 2 if what == 2 else np.minimum(verdict[rows], 1)
    return tail, verdict, channel


def counted(verdict: np.ndarray) -> dict[str, int]:
    accept, flag, quarantine = np.bincount(verdict, minlength=3).tolist()
    return {"accept": accept, "flag": flag, "quarantine": quarantine}


def by_name(
    column: np.ndarray, names: Sequence[str], was: np.ndarray, will: np.ndarray
) -> dict[str, tuple[int, int]]:
    before = np.bincount(column[was == 2], minlength=len(names)).tolist()
    after = np.bincount(column[will == 2], minlength=len(names)).tolist()
    return {n: (b, a) for n, b, a in zip(names, before, after, strict=True) if b or a}


def check(policy: Mapping[str, Any]) -> None:
    """A few of the rules the real document has. Raises UsageError."""
    for name in policy:
        if name not in FIRST:
            raise UsageError(f"{name}: no such setting; known here: {', '.join(FIRST)}")
    document = FIRST | dict(policy)
    if document["mode"] not in ("shadow", "alert", "enforce"):
        raise UsageError("mode: must be 'shadow', 'alert' or 'enforce'")
    for name in ("flag_at", "quarantine_at"):
        share = document[name]
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise UsageError(f"{name}: must be a share above 0 and below 1, not {share!r}")
    if document["quarantine_at"] > document["flag_at"]:
        raise UsageError("quarantine_at must not be larger than flag_at")
    if not isinstance(document["detectors"], Mapping) or not isinstance(
        document["budget"], Mapping
    ):
        raise UsageError("detectors, budget: must be sections")
    for name in document["detectors"]:
        if name not in DETECTORS:
            raise UsageError(
                f"detectors.{name}: unknown detector; there are {', '.join(DETECTORS)}"
            )
    try:
        ProvenancePolicy.model_validate(document["provenance"])
    except ValidationError as error:
        raise UsageError("provenance: is not allowed so") from error
    for name in document["budget"]:
        if name not in FAMILIES:
            raise UsageError(f"budget.{name}: unknown family; there are {', '.join(FAMILIES)}")


def differences(before: Any, after: Any, path: str = "") -> list[Difference]:
    """By path; lists as a whole."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found = []
        for name in sorted({*before, *after}):
            if path == "" and name == "version":
                continue
            where = f"{path}.{name}" if path else name
            found += differences(before.get(name), after.get(name), where)
        return found
    return [] if before == after else [Difference(path, before, after)]
