"""Score, calibrate, combine, decide: from valid events to verdicts, and what to learn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from monitor.config.policy import Policy
from monitor.core.types import BoolArray, EventBatch, FloatArray, IntArray
from monitor.decide.apply import channel, conclude, holding
from monitor.decide.channels import NO_CHANNEL
from monitor.decide.guard import OBSERVE, SCORE, Failures, finite, still_finite
from monitor.decide.judged import AnyDetector, Judged, channels_of, part_of
from monitor.decide.reasons import reasons
from monitor.decide.rules import Rules
from monitor.decide.world import Recent, based_anew
from monitor.detectors.base import Scores
from monitor.detectors.calibration import Read, Reference
from monitor.detectors.pooling import admitted
from monitor.sketches.tails import SMALLEST_P

SUSPICIOUS_CONTEXT = 0.02
SUSPICIOUS_SELF = 0.001


def judge(
    detectors: Sequence[AnyDetector],
    states: Mapping[str, Any],
    references: Mapping[str, Reference],
    events: EventBatch,
    policy: Policy,
    *,
    recent: Recent | None = None,
    failures: Failures | None = None,
    rules: Rules | None = None,
) -> Judged:
    """Score ``events`` against ``states`` and decide under ``policy``. Pure.

    ``recent`` is what the batch before left (:attr:`Judged.recent`). A detector that fails is noted
    in ``failures`` and silent; without them its error is raised. ``rules`` are the policy's.
    """
    recent = Recent.empty() if recent is None else recent
    claimed: dict[str, FloatArray] = {}
    scores: dict[str, Scores] = {}
    reads: dict[str, Read] = {}
    own: dict[str, FloatArray] = {}
    aside: dict[str, FloatArray] = {}
    p_value: dict[str, FloatArray] = {}
    found: dict[str, dict[str, float]] = {}
    changed = 0
    for stage in (0, 1):
        if stage == 1:
            events = replace(events, p_value=dict(p_value))
        for detector in detectors:
            if detector.stage != stage:
                continue
            name = detector.name
            scored, read, p = _spoken(
                detector, states[name], references[name], events, failures=failures
            )
            scores[name] = scored
            if p is not None:
                if read is not None and _mass_tells(detector):
                    claimed[name] = p
                    rows = recent.changed(name, events.source, p)
                    if len(rows):
                        p, read = based_anew(p, rows), _read_anew(read, rows)
                        changed = max(changed, len(rows))
                if policy.setting(name).has_say:
                    own[name] = p
                    found.setdefault(detector.family.value, {})[name] = part_of(detector, policy)
                else:
                    aside[name] = p
            if read is not None:
                reads[name] = read
        for family, several in found.items():
            p_value[family] = channel(several, own)
    held = holding(found, own, p_value, policy)
    done = conclude(p_value, held, channels_of(detectors), policy, (events, rules))
    after = recent.put(events.source, claimed)
    verdict = (done.combined, done.verdict)
    made = Judged(*(events, scores, reads, own, p_value), *verdict, after, aside, done.ruled)
    return replace(made, changed=changed) if changed else made


def _mass_tells(detector: AnyDetector) -> bool:
    """Whether surprise in masses says that the detector's calibration does not hold.

    Not of robust tails, which follow the world by themselves and belong to detectors that tell a
    drift from an attack by what they count, and not where evidence may be a fact.
    """
    return not (getattr(detector, "robust", False) or hasattr(detector, "certain"))


def _read_anew(read: Read, rows: IntArray) -> Read:
    """What the reference says, so that nothing is measured while the world changes."""
    return Read(*(based_anew(p, rows) for p in (read.fitted, read.moved, read.p)))


Spoken = tuple[Scores, Read | None, FloatArray | None]


def _spoken(
    detector: AnyDetector,
    state: Any,
    reference: Reference,
    events: EventBatch,
    *,
    failures: Failures | None,
) -> Spoken:
    """Scores, what a fitted reference says of them, and p-values if the detector speaks."""
    n = len(events)

    def speak() -> Spoken:
        scored = detector.score(state, events)
        finite("its score", scored.value, n)
        if scored.context is not None:
            finite("its context", scored.context, n)
        ready = reference.ready
        read = reference.read(scored.value, discrete=detector.discrete) if ready else None
        p = _calibrated(detector, scored, read)
        if p is not None:
            finite("its p-value", p, n)
        return scored, read, p

    if failures is None:
        return speak()
    silent: Spoken = (Scores.silent(n), None, None)
    return failures.attempt(detector.name, SCORE, speak, silent)


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
    """By detector that knows an event's surroundings: the p-value float64[n] of that context.

    It is 1 where the context lies in the body of the reference, which is never suspicious.
    """
    out: dict[str, FloatArray] = {}
    for name, scored in judged.scores.items():
        if scored.context is not None and references[name].ready:
            high = np.flatnonzero(scored.context > references[name].threshold)
            p = out[name] = np.ones(len(scored.context))
            p[high] = references[name].p_value(scored.context[high])
    return out


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
    if judged.learns is not None:
        rows &= judged.learns
    return rows


class Known(NamedTuple):
    """Detector states and their calibration references, by name."""

    detectors: Mapping[str, Any]
    references: Mapping[str, Reference]


def learned(
    detectors: Sequence[AnyDetector],
    own: Known,
    view: Known | None,
    judged: Judged,
    failures: Failures,
) -> tuple[Known, Known | None]:
    """``own`` and ``view`` after a batch. Of a detector that fails, or has failed, the old ones.

    ``judged.verdict`` says what was accepted; ``view`` is what was scored against, where that is
    not ``own``.
    """
    accepted = judged.accepted
    contexts = suspicions(judged, (view or own).references)
    # First the view, while the batch remembers what was worked out for its scores.
    held = [own] if view is None else [view, own]
    states = [_taught(detectors, known, judged.events, accepted, failures) for known in held]
    fitted: list[dict[str, Reference]] = [dict(known.references) for known in held]
    for detector in detectors:
        name = detector.name
        if name in failures:
            continue
        before: Sequence[Reference] = [known.references[name] for known in held]
        admit = partial(_admitted, detector, before, judged, contexts)
        for table, reference in zip(
            fitted, failures.attempt(name, OBSERVE, admit, before), strict=True
        ):
            table[name] = reference
    failed = [d.name for d in detectors if d.name in failures]
    done = [
        Known(
            after | {name: known.detectors[name] for name in failed},
            table | {name: known.references[name] for name in failed},
        )
        for known, after, table in zip(held, states, fitted, strict=True)
    ]
    return done[-1], None if view is None else done[0]


def _taught(
    detectors: Sequence[AnyDetector],
    known: Known,
    events: EventBatch,
    accepted: BoolArray,
    failures: Failures,
) -> dict[str, Any]:
    """Detector states after ``events``."""

    def observe(detector: AnyDetector) -> Any:
        before = known.detectors[detector.name]
        state = detector.observe(before, events, accepted)
        still_finite(before, state)
        return state

    after = dict(known.detectors)
    for detector in detectors:
        name = detector.name
        if name not in failures:
            after[name] = failures.attempt(name, OBSERVE, partial(observe, detector), after[name])
    return after


def _admitted(
    detector: AnyDetector,
    held: Sequence[Reference],
    judged: Judged,
    contexts: Mapping[str, FloatArray],
) -> Sequence[Reference]:
    """The references after what is ordinary of a batch: the view's and the own, or the own."""
    name = detector.name
    rows, read = ordinary(judged, detector, contexts), judged.reads.get(name)
    score = judged.scores[name].value
    if not rows.all():
        picked = np.flatnonzero(rows)
        score, read = score[picked], None if read is None else read.rows(picked)
    if len(held) == 1:
        return (held[0].admit(score, discrete=detector.discrete, read=read),)
    return admitted(held[0], held[1], score, discrete=detector.discrete, read=read)


__all__ = [
    "NO_CHANNEL",
    "AnyDetector",
    "Judged",
    "Known",
    "channels_of",
    "empty_reference",
    "judge",
    "learned",
    "ordinary",
    "reasons",
    "suspicions",
]
