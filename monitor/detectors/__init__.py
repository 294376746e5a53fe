"""Detectors, one a file. The tuple below is the explicit list of those that run."""

from __future__ import annotations

from typing import Any

from monitor.detectors.base import Detector
from monitor.detectors.class_moments import ClassMoments
from monitor.detectors.coherence import Coherence
from monitor.detectors.collision import Collision
from monitor.detectors.continuity import Continuity
from monitor.detectors.gradient import Gradient
from monitor.detectors.half_space import HalfSpace
from monitor.detectors.label_conflict import LabelConflict
from monitor.detectors.novelty import Novelty
from monitor.detectors.replay import Replay
from monitor.detectors.source_evidence import SourceEvidence
from monitor.detectors.structure import Structure
from monitor.detectors.subject import Subject
from monitor.detectors.trigger import Trigger
from monitor.detectors.undo import Undo

DETECTORS: tuple[type[Any], ...] = (
    LabelConflict,
    ClassMoments,
    Undo,
    Novelty,
    Continuity,
    Structure,
    Trigger,
    Replay,
    Coherence,
    SourceEvidence,
    Gradient,
    Subject,
)

OPTIONAL: tuple[type[Any], ...] = (HalfSpace, Collision)


def default_detectors() -> tuple[Detector[Any], ...]:
    """One instance of each detector with its default parameters, in scoring order."""
    return tuple(kind() for kind in DETECTORS)


def optional_detectors() -> tuple[Detector[Any], ...]:
    """One instance of each detector that is built and tested, but not in the default set."""
    return tuple(kind() for kind in OPTIONAL)
