"""Why an event is flagged: which detectors speak against it, and what the surest of them say.

Sentences take longer to make than scores, so only those that a decision has room for are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from monitor.config.policy import Policy
from monitor.core.types import EventBatch, FloatArray, IntArray, Reason, Verdict
from monitor.decide.guard import EXPLAIN, BadValueError, Failures
from monitor.decide.judged import AnyDetector, Judged, channels_of, part_of
from monitor.detectors.base import Evidence

MAX_REASONS = 3


def reasons(
    detectors: Sequence[AnyDetector],
    states: Mapping[str, Any],
    judged: Judged,
    policy: Policy,
    failures: Failures,
) -> tuple[dict[int, tuple[Reason, ...]], dict[int, tuple[str, ...]]]:
    """Evidence and families of each flagged row, strongest channel first.

    A detector that cannot explain is noted in ``failures``; its scores stay as reasons.
    """
    flagged = np.flatnonzero(judged.verdict != Verdict.ACCEPT)
    speakers = _speakers(detectors, judged, policy, flagged)
    # By row (p-value over share, speaker, place among the speaker's rows), the surest first.
    by_row: dict[int, list[tuple[float, int, int]]] = {row: [] for row in flagged.tolist()}
    for number, speaker in enumerate(speakers):
        ranks = (speaker.p / speaker.share).tolist()
        for place, (row, rank) in enumerate(zip(speaker.rows.tolist(), ranks, strict=True)):
            by_row[row].append((rank, number, place))
    told: list[list[int]] = [[] for _ in speakers]
    for found in by_row.values():
        found.sort(key=_rank)
        for _, number, place in found[:MAX_REASONS]:
            told[number].append(place)
    said = [
        _reasons_of(speaker, states, judged, (np.array(places), policy.flag_at), failures)
        for speaker, places in zip(speakers, told, strict=True)
    ]
    family = [speaker.detector.family.value for speaker in speakers]
    return (
        {
            row: tuple(said[number][place] for _, number, place in found[:MAX_REASONS])
            for row, found in by_row.items()
        },
        {
            row: tuple(dict.fromkeys(family[n] for _, n, _ in found))
            for row, found in by_row.items()
        },
    )


class _Speaker(NamedTuple):
    """A detector that speaks against some ``rows`` int64[m], with p-values ``p`` float64[m]."""

    detector: AnyDetector
    share: float
    rows: IntArray
    p: FloatArray


def _rank(found: tuple[float, int, int]) -> float:
    return found[0]


def _speakers(
    detectors: Sequence[AnyDetector], judged: Judged, policy: Policy, flagged: IntArray
) -> list[_Speaker]:
    """Who speaks against which of the rows ``flagged`` int64[f]."""
    channels = channels_of(detectors)
    strongest = judged.combined.channel[flagged]
    parts: dict[str, float] = {}
    for detector in detectors:
        if detector.name in judged.own:
            family = detector.family.value
            parts[family] = parts.get(family, 0) + part_of(detector)
    found = []
    for detector in detectors:
        family = detector.family.value
        index = channels.index(family)
        share = float(judged.combined.share[index])
        if share <= 0.0 or not len(flagged) or detector.name not in judged.own:
            continue
        # A channel is as sure as the surest of its detectors, over its part of the channel; the
        # others have nothing to say unless they are sure themselves.
        own, part = judged.own[detector.name][flagged], parts[family] / part_of(detector)
        p = np.minimum(own * part, 1.0)
        surest = (p <= judged.p_value[family][flagged]) & (strongest == index)
        speaks = np.flatnonzero((p / share <= policy.flag_at) | surest)
        if len(speaks):
            found.append(_Speaker(detector, share, flagged[speaks], p[speaks]))
    return found


def _reasons_of(
    speaker: _Speaker,
    states: Mapping[str, Any],
    judged: Judged,
    wanted: tuple[IntArray, float],
    failures: Failures,
) -> dict[int, Reason]:
    """What a speaker says of its rows in some places int64[k]; beside these, the flag threshold."""
    (places, flag_at), name = wanted, speaker.detector.name
    if not len(places):
        return {}
    rows = speaker.rows[places]
    evidence = _explained(speaker.detector, states[name], judged.events, rows, failures)
    score, p = judged.scores[name].value[rows].tolist(), speaker.p[places].tolist()
    threshold = speaker.share * flag_at
    return {
        place: Reason(name, score[i], p[i], threshold, evidence[i].text, evidence[i].data)
        for i, place in enumerate(places.tolist())
    }


def _explained(
    detector: AnyDetector, state: Any, events: EventBatch, rows: IntArray, failures: Failures
) -> Sequence[Evidence]:
    def explain() -> Sequence[Evidence]:
        evidence = detector.explain(state, events, rows)
        if len(evidence) != len(rows):
            raise BadValueError(f"{len(evidence)} pieces of evidence for {len(rows)} events")
        return evidence

    nothing = [Evidence("no explanation: the detector failed while it was asked for one")]
    return failures.attempt(detector.name, EXPLAIN, explain, nothing * len(rows))
