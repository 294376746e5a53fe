"""Detectors, one a file. The first tuple below is the explicit list of those that run."""

from __future__ import annotations

from typing import Any

from monitor.detectors.base import Detector
from monitor.detectors.class_moments import ClassMoments
from monitor.detectors.coherence import Coherence
from monitor.detectors.gradient import Gradient
from monitor.detectors.label_conflict import LabelConflict
from monitor.detectors.novelty import Novelty
from monitor.detectors.replay import Replay
from monitor.detectors.slow_drift import SlowDrift
from monitor.detectors.source_evidence import SourceEvidence
from monitor.detectors.subject import Subject
from monitor.detectors.trigger import Trigger
from monitor.detectors.undo import Undo

DETECTORS: tuple[type[Any], ...] = (
    LabelConflict,
    ClassMoments,
    Undo,
    Novelty,
    Trigger,
    Replay,
    Coherence,
    SourceEvidence,
    Gradient,
    Subject,
)


def default_detectors() -> tuple[Detector[Any], ...]:
    """One instance of each detector with its default parameters, in scoring order."""
    return tuple(kind() for kind in DETECTORS)


OPTIONAL: tuple[type[Any], ...] = (SlowDrift,)
"""Built and tested, but not worth their part of the budget by default; each says what was measured.

``Gate(detectors=(*default_detectors(), *optional_detectors()))`` runs them too.
"""


def optional_detectors() -> tuple[Detector[Any], ...]:
    """One instance of each optional detector with its default parameters."""
    return tuple(kind() for kind in OPTIONAL)
