"""From a judged batch to its decisions: rows of the batch instead of events, and all reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from monitor.config.policy import Policy
from monitor.core.decode import Decoded
from monitor.core.types import DecisionBatch, DetectorFailure, RawBatch, Reason, Verdict
from monitor.decide.apply import Concluded, acted, other_modes, with_rules
from monitor.decide.channels import NO_CHANNEL
from monitor.decide.guard import with_failures
from monitor.decide.incident_state import IncidentBook
from monitor.decide.incidents import Folded
from monitor.decide.judged import AnyDetector, Judged, channels_of
from monitor.decide.rules import Rules

Reasons = Mapping[int, tuple[Reason, ...]]
Families = Mapping[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Judges:
    """Who judged, by what, and which incidents came of it."""

    detectors: Sequence[AnyDetector]
    policy: Policy
    rules: Rules | None
    folded: Folded = field(default_factory=lambda: Folded(IncidentBook()))


def assembled(
    raw: RawBatch,
    decoded: Decoded,
    judged: Judged,
    why: tuple[Reasons, Families, tuple[DetectorFailure, ...]],
    by: Judges,
) -> DecisionBatch:
    """The decisions about the n records of ``raw``, without their encoded form."""
    n, row, policy, channels = len(raw), decoded.row, by.policy, channels_of(by.detectors)
    because, families, failed = why
    concluded = Concluded(judged.combined, judged.verdict, judged.ruled)
    because = with_rules(because, by.rules, concluded)
    if failed:
        because = with_failures(because, range(len(row)), failed, policy)
    verdict = np.full(n, Verdict.INVALID, dtype=np.uint8)
    verdict[row] = judged.verdict
    risk = np.zeros(n)
    risk[row] = judged.combined.risk
    channel = np.full(n, NO_CHANNEL, dtype=np.uint8)
    channel[row] = judged.combined.channel
    p_value = np.full((n, len(channels)), np.nan)
    for i, name in enumerate(channels):
        if name in judged.p_value:
            p_value[row, i] = judged.p_value[name]
    modes = other_modes(policy, judged.ruled, row)
    return DecisionBatch(
        partition=raw.partition,
        offset=raw.offset,
        risk=risk,
        channel=channel,
        verdict=verdict,
        action=acted(verdict, policy, modes),
        reject=decoded.reject,
        warmup=np.zeros(n, dtype=bool),
        p_value=p_value,
        channels=channels,
        reasons={int(row[i]): found for i, found in because.items()} | _invalid(decoded.detail),
        policy_version=policy.version,
        mode=policy.mode,
        families={int(row[i]): found for i, found in families.items()},
        failures=failed,
        modes=modes,
        scored=(judged.scored(by.detectors, row),),
        incidents={int(row[i]): name for i, name in by.folded.incidents.items()},
        changes=by.folded.changes,
    )


def _invalid(detail: Mapping[int, str]) -> dict[int, tuple[Reason, ...]]:
    return {row: (Reason("decode", 0.0, 0.0, 0.0, text),) for row, text in detail.items()}
