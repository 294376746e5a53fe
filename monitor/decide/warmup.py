"""Decisions without a judgement: the first events of a stream, and those let by in an overload.

Until the schema is learned nothing can be scored, so the setting ``warmup`` decides about every
event that can be read at all. Two checks are made as soon as they can be:

- With an explicit schema, what does not fit is invalid from the first event on.
- The events of the step in which the schema is learned are held against it: what does not fit is
  invalid, as it would be one event later, and a value beyond belief is quarantined. Those of
  earlier steps have been decided about already; what of them does not fit, or has such values, is
  left out of what is learned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from monitor.config.policy import Policy
from monitor.core.decode import Decoded
from monitor.core.events import Parsed
from monitor.core.schema import SchemaSpec
from monitor.core.transform import is_plausible
from monitor.core.types import (
    ByteArray,
    DecisionBatch,
    Family,
    FloatArray,
    RawBatch,
    Reason,
    Verdict,
)
from monitor.decide.channels import NO_CHANNEL
from monitor.decide.verdicts import actions

LEAST_KEPT = 16
OVERLOAD = "not judged: overload; let through because the setting overload.mode is fail_open"


def keep(kept: tuple[bytes, ...], more: Sequence[bytes], max_bytes: int) -> tuple[bytes, ...]:
    """The sample with ``more`` events added, in order, within ``max_bytes`` altogether.

    Of a sample that would be larger the longest events are left out, the latest of several: a few
    huge ones can then neither fill the memory nor end the warm-up early. The shortest 16 are
    kept whatever their size, or there might be nothing to learn from. How the events come in
    batches makes no difference.

    Examples
    --------
    >>> keep((b"a" * 9,), [b"b", b"c" * 5], 15) == (b"a" * 9, b"b", b"c" * 5)
    True
    >>> [len(value) for value in keep((b"x",) * 16, [b"y" * 90, b"z" * 5, b"z" * 6], 25)]
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 5]
    """
    sample = [*kept, *more]
    total = sum(map(len, sample))
    if total <= max_bytes:
        return tuple(sample)
    longest_first = sorted(range(len(sample)), key=lambda i: (-len(sample[i]), -i))
    out = set()
    for i in longest_first[: max(0, len(sample) - LEAST_KEPT)]:
        if total <= max_bytes:
            break
        out.add(i)
        total -= len(sample[i])
    return tuple(value for i, value in enumerate(sample) if i not in out)


@dataclass(frozen=True, slots=True)
class Look:
    """What can be said of n records without scores.

    ``reject`` uint8[n] and ``detail`` as in ``Decoded``; ``absurd``: for events that fit but hold
    a value beyond belief, a sentence by row.
    """

    reject: ByteArray
    detail: Mapping[int, str]
    absurd: Mapping[int, str] = field(default_factory=dict)


def first_look(parsed: Parsed, spec: SchemaSpec | None) -> Look:
    """Before any schema is learned: only an explicit one can be held against the events."""
    bad = {} if spec is None else spec.refuse(parsed.features())
    if not bad:
        return Look(parsed.reject, parsed.detail)
    reject, detail = parsed.reject.copy(), dict(parsed.detail)
    for event, (code, text) in bad.items():
        row = int(parsed.row[event])
        reject[row], detail[row] = code, text
    return Look(reject, detail)


def second_look(decoded: Decoded, low: FloatArray, high: FloatArray) -> Look:
    """With the schema and the range of values, float64[d] each, that were just learned."""
    events, absurd = decoded.events, {}
    for i in np.flatnonzero(~is_plausible(events.x, low, high)).tolist():
        x = events.x[i]
        at = int(np.flatnonzero((x < low) | (x > high))[0])
        absurd[int(decoded.row[i])] = (
            f"features.{events.columns[at][:64]} is {x[at]:g}; the events from which the schema "
            f"was learned make only values from {low[at]:.3g} to {high[at]:.3g} believable"
        )
    return Look(decoded.reject, decoded.detail, absurd)


def unjudged(
    raw: RawBatch, look: Look, policy: Policy, channels: tuple[str, ...], *, hold: bool
) -> DecisionBatch:
    """Decisions, without records, about the n records of a warm-up."""
    n = len(raw)
    verdict = np.full(n, Verdict.QUARANTINE if hold else Verdict.ACCEPT, dtype=np.uint8)
    verdict[look.reject != 0] = Verdict.INVALID
    warmup, risk = look.reject == 0, np.zeros(n)
    reasons = {row: (Reason("decode", 0.0, 0.0, 0.0, text),) for row, text in look.detail.items()}
    edge = -math.log10(policy.quarantine_at)
    for row, text in look.absurd.items():
        verdict[row], warmup[row], risk[row] = Verdict.QUARANTINE, False, edge
        at = policy.quarantine_at
        reasons[row] = (Reason("warmup", edge, at, at, text),)
    return DecisionBatch(
        partition=raw.partition,
        offset=raw.offset,
        risk=risk,
        channel=np.full(n, NO_CHANNEL, dtype=np.uint8),
        verdict=verdict,
        action=actions(verdict, policy.mode),
        reject=look.reject,
        warmup=warmup,
        p_value=np.full((n, len(channels)), np.nan),
        channels=channels,
        reasons=reasons,
        policy_version=policy.version,
        mode=policy.mode,
        families=dict.fromkeys(look.absurd, (Family.CLEAN_LABEL.value,)),
    )


def let_by(raw: RawBatch, look: Look, policy: Policy, channels: tuple[str, ...]) -> DecisionBatch:
    """Decisions, without records, about n records that pass because of an overload.

    Every valid one is flagged and passes, whatever the mode.
    """
    decisions = unjudged(raw, look, policy, channels, hold=False)
    rows = np.flatnonzero(decisions.verdict == Verdict.ACCEPT)
    verdict = decisions.verdict.copy()
    verdict[rows] = Verdict.FLAG
    why = (Reason("overload", 0.0, 1.0, policy.flag_at, OVERLOAD),)
    return replace(
        decisions,
        verdict=verdict,
        warmup=np.zeros(len(raw), dtype=bool),
        reasons=dict(decisions.reasons) | dict.fromkeys(rows.tolist(), why),
        unjudged=True,
    )
