"""A judged batch, before anything is explained or learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitor.core.types import ByteArray, EventBatch, FloatArray
from monitor.decide.channels import Combined
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
    ``own`` are based anew; ``recent`` remembers them as they were.
    """

    events: EventBatch
    scores: Mapping[str, Scores]
    reads: Mapping[str, Read]
    own: Mapping[str, FloatArray]
    p_value: Mapping[str, FloatArray]
    combined: Combined
    verdict: ByteArray
    recent: Recent


def part_of(detector: AnyDetector) -> float:
    """The detector's part of its channel, in comparison with the others' (see ``base``)."""
    return float(getattr(detector, "part", 1.0))


def channels_of(detectors: Sequence[AnyDetector]) -> tuple[str, ...]:
    """The families of ``detectors``, each once, in order of first appearance."""
    return tuple(dict.fromkeys(detector.family.value for detector in detectors))
