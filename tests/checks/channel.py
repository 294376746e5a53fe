"""One detector as a channel of its own: scored, calibrated and taught as the gate does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitor.core.types import BoolArray, EventBatch, FloatArray
from monitor.decide.judge import SUSPICIOUS_SELF, empty_reference
from monitor.detectors.base import Detector

FLAG_AT = 0.01


@dataclass(frozen=True)
class Watched:
    """Raw scores, p-values (1 while silent) and readiness of every event, and the last state."""

    score: FloatArray
    p: FloatArray
    ready: BoolArray
    state: Any

    def recall(self, poison: BoolArray, honest: BoolArray, share: float = 0.01) -> float:
        """Share of ``poison`` above the threshold that ``share`` of ``honest`` exceed."""
        return float((self.score[poison] > np.quantile(self.score[honest], 1.0 - share)).mean())

    def flagged(self, rows: BoolArray, share: float = FLAG_AT) -> float:
        """Share of ``rows`` whose p-value is at most ``share``."""
        return float((self.p[rows] <= share).mean())


def watch(detector: Detector[Any], batches: Sequence[EventBatch]) -> Watched:
    """Run the channel over ``batches``; what it flags is not learned."""
    state = detector.empty(batches[0].z.shape[1])
    reference = empty_reference(detector)
    scores, ps, readies = [], [], []
    for batch in batches:
        scored = detector.score(state, batch)
        p, rows = np.ones(len(batch)), scored.ready.copy()
        if reference.ready:
            p[rows] = reference.p_value(scored.value, discrete=detector.discrete)[rows]
            if scored.context is not None:
                rows &= reference.p_value(scored.context) > SUSPICIOUS_SELF
        state = detector.observe(state, batch, p > FLAG_AT)
        reference = reference.admit(scored.value[rows], discrete=detector.discrete)
        scores.append(scored.value)
        ps.append(p)
        readies.append(scored.ready)
    return Watched(np.concatenate(scores), np.concatenate(ps), np.concatenate(readies), state)
