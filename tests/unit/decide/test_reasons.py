"""Who speaks for a verdict: the detectors that are sure, and nobody else."""

from __future__ import annotations

import numpy as np

from loadtest.streams import load
from monitor.core.types import RawBatch, Verdict
from monitor.gate import Gate
from monitor.runtime.inject import inject


def test_every_flagged_event_has_a_reason_of_a_detector_that_is_sure() -> None:
    attacked = inject(load("segments"), "clean_label", colluders=0, pattern="spread", seed=3)
    lines = attacked.stream.lines()
    gate = Gate()
    state = gate.start()
    seen = 0
    first: list[str] = []
    for start in range(0, len(lines), 512):
        decisions, state = gate.step(state, RawBatch.of(lines[start : start + 512], start=start))
        flagged = np.flatnonzero(
            (decisions.verdict == Verdict.FLAG) | (decisions.verdict == Verdict.QUARANTINE)
        )
        for row in flagged.tolist():
            reasons = decisions.reasons[row]
            assert reasons and all(reason.text for reason in reasons)
            # The channels' combined tail is a little below the strongest p over its share.
            assert reasons[0].p_value <= reasons[0].threshold * 1.01
            seen += 1
            if attacked.poison[start + row]:
                first.append(reasons[0].detector)
    assert seen > 20
    # Points moved off their grids, by ordinary sources: novelty saw them, and says so first.
    assert first.count("novelty") > 0.6 * len(first)
