"""Score, calibrate, combine, decide: from valid events to verdicts, and what to learn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from monitor.config.policy import Policy
from monitor.core.types import (
    BoolArray,
    ByteArray,
    EventBatch,
    FloatArray,
    Reason,
    Verdict,
)
from monitor.decide.channels import NO_CHANNEL, Combined, combine
from monitor.decide.verdicts import verdicts
from monitor.detectors.base import Detector, Scores
from monitor.detectors.calibration import Read, Reference
from monitor.sketches.tails import SMALLEST_P

AnyDetector = Detector[Any]
MAX_REASONS = 3
SUSPICIOUS_CONTEXT = 0.02
SUSPICIOUS_SELF = 0.001


@dataclass(frozen=True, slots=True)
class Judged:
    """What the channels made of a batch of n valid events.

    ``events`` carries the stage-zero p-values; ``scores``, ``reads`` (what a fitted reference says
    of them) and ``own`` (p-values float64[n] of those that speak) are by detector name; ``p_value``
    by family, float64[n], silent channels absent.
    """

    events: EventBatch
    scores: Mapping[str, Scores]
    reads: Mapping[str, Read]
    own: Mapping[str, FloatArray]
    p_value: Mapping[str, FloatArray]
    combined: Combined
    verdict: ByteArray


def channels_of(detectors: Sequence[AnyDetector]) -> tuple[str, ...]:
    """The families of ``detectors``, each once, in order of first appearance."""
    return tuple(dict.fromkeys(detector.family.value for detector in detectors))


def judge(
    detectors: Sequence[AnyDetector],
    states: Mapping[str, Any],
    references: Mapping[str, Reference],
    events: EventBatch,
    policy: Policy,
) -> Judged:
    """Score ``events`` against ``states`` and decide under ``policy``. Pure."""
    scores: dict[str, Scores] = {}
    reads: dict[str, Read] = {}
    own: dict[str, FloatArray] = {}
    p_value: dict[str, FloatArray] = {}
    found: dict[str, list[FloatArray]] = {}
    for stage in (0, 1):
        if stage == 1:
            events = replace(events, p_value=dict(p_value))
        for detector in detectors:
            if detector.stage == stage:
                scored = detector.score(states[detector.name], events)
                scores[detector.name] = scored
                reference = references[detector.name]
                if reference.ready:
                    reads[detector.name] = reference.read(scored.value, discrete=detector.discrete)
                p = _calibrated(detector, scored, reads.get(detector.name))
                if p is not None:
                    own[detector.name] = p
                    found.setdefault(detector.family.value, []).append(p)
        for family, several in found.items():
            lowest = np.minimum.reduce(several) * len(several)
            p_value[family] = np.minimum(lowest, 1.0)
    combined = combine(p_value, channels_of(detectors), policy, len(events))
    return Judged(events, scores, reads, own, p_value, combined, verdicts(combined.tail, policy))


def _calibrated(detector: AnyDetector, scored: Scores, read: Read | None) -> FloatArray | None:
    certain = getattr(detector, "certain", None)
    if read is None and certain is None:
        return None
    p = np.ones(len(scored.value)) if read is None else read.p.copy()
    p[~scored.ready] = 1.0
    if certain is not None:
        p[scored.ready & (scored.value >= certain)] = SMALLEST_P
    return p


def empty_reference(detector: AnyDetector) -> Reference:
    """The calibration reference ``detector`` asks for, without scores."""
    return Reference.empty(
        robust=getattr(detector, "robust", False),
        scale_bounds=getattr(detector, "scale_bounds", (0.0, np.inf)),
    )


def suspicions(judged: Judged, references: Mapping[str, Reference]) -> dict[str, FloatArray]:
    """By detector that knows an event's surroundings: the p-value float64[n] of that context."""
    return {
        name: references[name].p_value(scored.context)
        for name, scored in judged.scores.items()
        if scored.context is not None and references[name].ready
    }


def ordinary(
    judged: Judged, detector: AnyDetector, contexts: Mapping[str, FloatArray]
) -> BoolArray:
    """bool[n]: rows whose score may enter the detector's reference.

    The reference must hold ordinary traffic, but dropping what scores high would truncate it.
    So an event is judged by its context: what its source had shown *before* this batch.
    ``contexts`` comes from :func:`suspicions`.
    """
    scored = judged.scores[detector.name]
    rows = scored.ready.copy()
    certain = getattr(detector, "certain", None)
    if certain is not None:
        rows &= scored.value < certain
    for name, p in contexts.items():
        rows &= p > (SUSPICIOUS_SELF if name == detector.name else SUSPICIOUS_CONTEXT)
    return rows


def reasons(
    detectors: Sequence[AnyDetector],
    states: Mapping[str, Any],
    judged: Judged,
    policy: Policy,
) -> tuple[dict[int, tuple[Reason, ...]], dict[int, tuple[str, ...]]]:
    """Evidence and families of each flagged row, strongest channel first."""
    flagged = np.flatnonzero(judged.verdict != Verdict.ACCEPT)
    by_row: dict[int, list[tuple[float, str, Reason]]] = {int(row): [] for row in flagged}
    channels = channels_of(detectors)
    for detector in detectors:
        index = channels.index(detector.family.value)
        share = float(judged.combined.share[index])
        if share <= 0.0 or not len(flagged):
            continue
        if detector.name not in judged.own:
            continue
        # A channel is as sure as the surest of its detectors, times their number; the others have
        # nothing to say unless they are sure themselves.
        several = sum(
            other.family == detector.family for other in detectors if other.name in judged.own
        )
        of_channel = judged.p_value[detector.family.value][flagged]
        p = np.minimum(several * judged.own[detector.name][flagged], 1.0)
        surest = (p <= of_channel) & (judged.combined.channel[flagged] == index)
        speaks = (p / share <= policy.flag_at) | surest
        rows = flagged[speaks]
        if not len(rows):
            continue
        score = judged.scores[detector.name].value
        evidence = detector.explain(states[detector.name], judged.events, rows)
        for row, p_row, item in zip(rows, p[speaks], evidence, strict=True):
            reason = Reason(
                detector.name,
                float(score[row]),
                float(p_row),
                share * policy.flag_at,
                item.text,
                item.data,
            )
            by_row[int(row)].append((float(p_row) / share, detector.family.value, reason))
    ranked = {row: sorted(items, key=lambda item: item[0]) for row, items in by_row.items()}
    return (
        {row: tuple(item[2] for item in items[:MAX_REASONS]) for row, items in ranked.items()},
        {row: tuple(dict.fromkeys(item[1] for item in items)) for row, items in ranked.items()},
    )


__all__ = [
    "NO_CHANNEL",
    "Judged",
    "channels_of",
    "empty_reference",
    "judge",
    "ordinary",
    "reasons",
    "suspicions",
]
