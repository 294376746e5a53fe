"""What became of a drill's canaries, added up. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from monitor.core.drill import Drill
from monitor.core.types import BoolArray, DecisionBatch, Verdict


def added(drill: Drill, decisions: DecisionBatch, canary: BoolArray, seconds: float) -> Drill:
    """``drill`` after a batch of n decisions of which ``canary``, bool[n], are canaries'.

    ``seconds`` is the time since the first canary was judged.
    """
    rows = np.flatnonzero(canary)
    verdict = decisions.verdict[rows]
    count = np.bincount(verdict, minlength=len(Verdict))
    found = replace(
        drill,
        sent=drill.sent + len(rows),
        held=drill.held + int(count[Verdict.QUARANTINE]),
        flagged=drill.flagged + int(count[Verdict.FLAG]),
        passed=drill.passed + int(count[Verdict.ACCEPT]),
        invalid=drill.invalid + int(count[Verdict.INVALID]),
        events=drill.events + len(canary) - len(rows),
        detectors=_evidence(drill.detectors, decisions, rows.tolist()),
        policy_version=decisions.policy_version,
    )
    held = np.flatnonzero(verdict == Verdict.QUARANTINE)
    if drill.delay_canaries is None and len(held):
        first = int(rows[held[0]])
        found = replace(
            found,
            delay_canaries=drill.sent + int(held[0]),
            delay_events=_events_before(drill, canary, first),
            delay_seconds=seconds,
        )
    return found


def _events_before(drill: Drill, canary: BoolArray, row: int) -> int:
    """Events between the first canary and ``row``, both kinds, not counting the two."""
    if drill.sent:
        return drill.sent + drill.events + row - 1
    return max(0, row - int(np.flatnonzero(canary)[0]) - 1)


def _evidence(
    before: Mapping[str, int], decisions: DecisionBatch, rows: list[int]
) -> dict[str, int]:
    found = Counter(before)
    for row in rows:
        found.update({reason.detector for reason in decisions.reasons.get(row, ())})
    return dict(found)
