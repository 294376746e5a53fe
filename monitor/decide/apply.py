"""The policy applied: from the detectors' p-values to tail probability, verdict and action.

The gate and the what-if (:mod:`monitor.decide.whatif`) both come through here, so what is promised
of a change is what it does. Nothing loops over events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from monitor.config.policy import Policy
from monitor.core.events import Parsed
from monitor.core.hashing import hash_integers, hash_repeated
from monitor.core.types import (
    BoolArray,
    ByteArray,
    DecisionBatch,
    FloatArray,
    IntArray,
    Mode,
    Reason,
    Verdict,
)
from monitor.decide.channels import NO_CHANNEL, SMALLEST, Combined, combine
from monitor.decide.rules import MODES, Ruled, Rules, Who, rule_reasons
from monitor.decide.verdicts import actions, verdicts


@dataclass(frozen=True, slots=True)
class Concluded:
    """What came out for n events: :class:`Combined`, verdicts uint8[n], and what rules did."""

    combined: Combined
    verdict: ByteArray
    ruled: Ruled | None = None


def channel(parts: Mapping[str, float], own: Mapping[str, FloatArray]) -> FloatArray:
    """float64[n]: a channel's p-value of its detectors', each over its part of the channel.

    Parameters
    ----------
    parts
        By detector with a say that speaks here, its part in comparison with the others'.
    own
        p-values float64[n] by detector.
    """
    total = sum(parts.values())
    lowest = np.minimum.reduce([own[name] * (total / part) for name, part in parts.items()])
    return np.asarray(np.minimum(lowest, 1.0))


def holding(
    parts: Mapping[str, Mapping[str, float]],
    own: Mapping[str, FloatArray],
    p_value: Mapping[str, FloatArray],
    policy: Policy,
) -> Mapping[str, FloatArray] | None:
    """The channels' p-values as far as they may hold events back; None where that is all.

    Detectors of mode alert are left out of what holds, but keep their parts, so that putting one
    there never holds an event back that was not before. ``parts`` is by family and detector.
    """
    alert = {name for name, how in policy.detectors.items() if how.mode is Mode.ALERT}
    if not any(name in alert for several in parts.values() for name in several):
        return None
    out = dict(p_value)
    for family, several in parts.items():
        if not alert.isdisjoint(several):
            total = sum(several.values())
            held = [own[n] * (total / part) for n, part in several.items() if n not in alert]
            out[family] = np.minimum.reduce([np.ones_like(p_value[family]), *held])
    return out


def conclude(
    p_value: Mapping[str, FloatArray],
    held: Mapping[str, FloatArray] | None,
    channels: tuple[str, ...],
    policy: Policy,
    by: tuple[Who, Rules | None],
) -> Concluded:
    """From the channels' p-values to verdicts. Pure.

    Parameters
    ----------
    p_value, held
        By family, float64[n]; the second is from :func:`holding`.
    channels
        Names of the k channels, in order.
    policy
        Gives shares and thresholds.
    by
        Whose events these are, and the policy's rules.
    """
    who, rules = by
    n = len(who.source)
    combined = combine(p_value, channels, policy, n)
    tail = combined.tail if held is None else combine(held, channels, policy, n).tail
    if rules is None:
        verdict = verdicts(combined.tail, policy)
        if held is not None:
            verdict = np.minimum(verdict, np.where(tail <= policy.quarantine_at, 2, 1)).astype(
                np.uint8
            )
        return Concluded(combined, verdict)
    ruled = rules.on(who)
    tail = np.maximum(tail / ruled.factor, SMALLEST)
    verdict = np.full(n, Verdict.ACCEPT, dtype=np.uint8)
    suspicious = np.maximum(combined.tail / ruled.factor, SMALLEST)
    verdict[suspicious <= ruled.flag_at] = Verdict.FLAG
    verdict[tail <= ruled.quarantine_at] = Verdict.QUARANTINE
    denied = ruled.denied >= 0
    only = denied & (verdict == Verdict.ACCEPT)
    capped = (ruled.allowed >= 0) & ~denied & (verdict == Verdict.QUARANTINE)
    verdict[capped] = Verdict.FLAG
    verdict[denied] = Verdict.QUARANTINE
    strongest = np.where(only, NO_CHANNEL, combined.channel).astype(np.uint8)
    combined = replace(combined, tail=suspicious, channel=strongest)
    return Concluded(combined, verdict, replace(ruled, only=only, capped=capped))


def acted(verdict: ByteArray, policy: Policy, modes: Mapping[int, Mode]) -> ByteArray:
    """uint8[n]: what is done about each verdict, in the policy's mode or a row's in ``modes``."""
    out = actions(verdict, policy.mode)
    for other in set(modes.values()):
        rows = np.array([row for row, mode in modes.items() if mode is other], dtype=np.int64)
        out[rows] = actions(verdict[rows], other)
    return out


def other_modes(policy: Policy, ruled: Ruled | None, row: IntArray) -> dict[int, Mode]:
    """By row of the batch (``row`` int64[n] says which each event is): modes by overrides."""
    if ruled is None:
        return {}
    other = np.flatnonzero(ruled.mode != MODES.index(policy.mode))
    return {
        int(row[i]): MODES[code]
        for i, code in zip(other.tolist(), ruled.mode[other].tolist(), strict=True)
    }


def learned_from(policy: Policy, partition: int, offset: IntArray) -> BoolArray | None:
    """bool[n]: events that baselines may learn from; None for all.

    Which they are depends on partition and offset alone, so every replica agrees, and a recovery
    learns from the same ones.
    """
    if policy.learning_speed >= 1.0:
        return None
    drawn = hash_integers(offset, partition) / 2.0**64
    return np.asarray(drawn < policy.learning_speed)


def with_rules(
    reasons: Mapping[int, tuple[Reason, ...]], rules: Rules | None, concluded: Concluded
) -> Mapping[int, tuple[Reason, ...]]:
    """``reasons`` by row, with what the rules did to flagged events."""
    ruled = concluded.ruled
    if rules is None or ruled is None:
        return reasons
    more = rule_reasons(rules, ruled, concluded.verdict, concluded.combined.tail)
    told = {row: (*a, *reasons.get(row, ()), *b) for row, (a, b) in more.items()}
    return {**reasons, **told}


def hold_denied(
    decisions: DecisionBatch, parsed: Parsed, rules: Rules | None, policy: Policy, seed: int
) -> DecisionBatch:
    """Decisions without a judgement (warm-up, overload), where the deny list holds as well."""
    if rules is None or not policy.deny:
        return decisions
    place = rules.denied(hash_repeated([event.source for event in parsed.events], seed))
    found = np.flatnonzero((place >= 0) & (decisions.verdict[parsed.row] != Verdict.INVALID))
    if not len(found):
        return decisions
    rows = parsed.row[found]
    verdict, warmup = decisions.verdict.copy(), decisions.warmup.copy()
    verdict[rows], warmup[rows] = Verdict.QUARANTINE, False
    because = {
        row: (rules.deny_reason(at),)
        for row, at in zip(rows.tolist(), place[found].tolist(), strict=True)
    }
    return replace(
        decisions,
        verdict=verdict,
        warmup=warmup,
        action=actions(verdict, policy.mode),
        reasons={**decisions.reasons, **because},
    )
