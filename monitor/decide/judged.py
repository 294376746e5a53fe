"""A judged batch, before anything is explained or learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monitor.config.policy import Policy
from monitor.core.types import (
    BoolArray,
    ByteArray,
    EventBatch,
    FloatArray,
    IntArray,
    Scored,
    Verdict,
)
from monitor.decide.channels import Combined
from monitor.decide.rules import Ruled
from monitor.decide.world import Recent
from monitor.detectors.base import Detector, Scores
from monitor.detectors.calibration import Read

AnyDetector = Detector[Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the channels made of a batch of n valid events.

    ``events`` carries the stage-zero p-values; ``scores``, ``reads`` (what a fitted reference says
    of them) and ``own`` (p-values float64[n] of those that speak) are by detector name; ``p_value``
    by family, float64[n], silent channels absent. Where the world has changed, ``reads`` and
    ``own`` are based anew; ``recent`` remembers them as they were. ``aside`` are the p-values of
    detectors to which the policy gives no say; ``ruled`` is what its rules did, and ``learns``
    bool[n] which events may be learned from, None for all. ``changed`` counts the events in masses
    that surprise because the world has changed.
    """

    events: EventBatch
    scores: Mapping[str, Scores]
    reads: Mapping[str, Read]
    own: Mapping[str, FloatArray]
    p_value: Mapping[str, FloatArray]
    combined: Combined
    verdict: ByteArray
    recent: Recent
    aside: Mapping[str, FloatArray] = field(default_factory=dict)
    ruled: Ruled | None = None
    learns: BoolArray | None = None
    changed: int = 0

    @property
    def accused(self) -> IntArray:
        """Rows against which detectors speak."""
        against = self.verdict != Verdict.ACCEPT
        return np.flatnonzero(against if self.ruled is None else against & ~self.ruled.only)

    @property
    def accepted(self) -> BoolArray:
        """bool[n]: what baselines learn from."""
        accepted = self.verdict == Verdict.ACCEPT
        return np.asarray(accepted if self.learns is None else accepted & self.learns)

    def scored(self, detectors: Sequence[AnyDetector], row: IntArray) -> Scored:
        """The detectors' p-values, for what-if; ``row`` int64[n] are the events' in the batch."""
        events = self.events
        p = np.full((len(events), len(detectors)), np.nan, dtype=np.float32)
        for column, detector in enumerate(detectors):
            said = self.own.get(detector.name, self.aside.get(detector.name))
            if said is not None:
                p[:, column] = said
        names = tuple(detector.name for detector in detectors)
        who = (events.source, events.subject, events.y, events.label_names)
        return Scored(row, names, p, *who, events.ids, events.sources)


def part_of(detector: AnyDetector, policy: Policy) -> float:
    """The detector's part of its channel, in comparison with the others' (see ``base``)."""
    return float(getattr(detector, "part", 1.0)) * policy.setting(detector.name).weight


def channels_of(detectors: Sequence[AnyDetector]) -> tuple[str, ...]:
    """The families of ``detectors``, each once, in order of first appearance."""
    return tuple(dict.fromkeys(detector.family.value for detector in detectors))
