"""Detectors, one a file: an explicit list of those that run, and of those that can be added."""

from __future__ import annotations

from typing import Any

from monitor.detectors.base import Detector
from monitor.detectors.class_moments import ClassMoments
from monitor.detectors.coherence import Coherence
from monitor.detectors.gradient import Gradient
from monitor.detectors.influence import Influence
from monitor.detectors.label_conflict import LabelConflict
from monitor.detectors.novelty import Novelty
from monitor.detectors.replay import Replay
from monitor.detectors.source_evidence import SourceEvidence
from monitor.detectors.spectral import Spectral
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

OPTIONAL: tuple[type[Any], ...] = (Spectral, Influence)
"""Not worth their cost on the benchmark's streams as a whole; each says what was measured."""


def default_detectors() -> tuple[Detector[Any], ...]:
    """One instance of each detector with its default parameters, in scoring order."""
    return tuple(kind() for kind in DETECTORS)


def optional_detectors() -> tuple[Detector[Any], ...]:
    """One instance of each detector that is not in the default set, with default parameters."""
    return tuple(kind() for kind in OPTIONAL)
