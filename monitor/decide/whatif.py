"""What another policy would have made of events that were scored: the policy's part, done again.

The detectors' p-values are taken as they were. So what follows from a change only later, by what
baselines learn from other verdicts and by what detectors that listen to other channels hear, is
not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.config.policy import Policy
from monitor.core.desk import WhatIf
from monitor.core.types import (
    ByteArray,
    FloatArray,
    HashArray,
    Int32Array,
    IntArray,
    Verdict,
)
from monitor.decide.apply import channel, conclude, holding
from monitor.decide.channels import NO_CHANNEL
from monitor.decide.judged import AnyDetector
from monitor.decide.rules import Rules

MOST_FLIPS, MOST_SOURCES = 200, 50
WORDS = tuple(Verdict(code).word for code in range(3))


class Speaker(NamedTuple):
    """A detector: its name, its family, its part of the channel."""

    name: str
    family: str
    part: float


def speakers(detectors: Sequence[AnyDetector]) -> tuple[Speaker, ...]:
    """What the policy has to know of ``detectors``, in scoring order."""
    return tuple(Speaker(d.name, d.family.value, float(getattr(d, "part", 1.0))) for d in detectors)


@dataclass(frozen=True, slots=True)
class Columns:
    """n events that were scored: p-values float32[n, D] of D ``speakers``, and whose they are.

    ``p`` is NaN where a detector was silent; the other columns have n values each, see
    :class:`~monitor.core.types.Scored`.
    """

    speakers: tuple[Speaker, ...]
    p: npt.NDArray[np.float32]
    source: HashArray
    subject: HashArray
    y: Int32Array
    label_names: tuple[str, ...]
    ids: npt.NDArray[np.object_]
    sources: npt.NDArray[np.object_]
    partition: Int32Array
    offset: IntArray

    def __len__(self) -> int:
        return len(self.source)


class Again(NamedTuple):
    """Tail float64[n], verdict uint8[n] and strongest channel uint8[n] under a policy."""

    tail: FloatArray
    verdict: ByteArray
    channel: ByteArray

    @property
    def held(self) -> npt.NDArray[np.bool_]:
        """bool[n]: quarantined."""
        return np.asarray(self.verdict == Verdict.QUARANTINE)


class _Rows(NamedTuple):
    source: HashArray
    subject: HashArray
    y: Int32Array
    label_names: tuple[str, ...]


def families_of(columns: Columns) -> tuple[str, ...]:
    """The channels, in order of first appearance."""
    return tuple(dict.fromkeys(speaker.family for speaker in columns.speakers))


def judged_again(columns: Columns, policy: Policy, seed: int) -> Again:
    """What ``policy`` makes of these events; ``seed`` is that of their hashes. Pure."""
    n = len(columns)
    out = Again(np.ones(n), np.zeros(n, dtype=np.uint8), np.full(n, NO_CHANNEL, dtype=np.uint8))
    rules = Rules.of(policy, seed)
    speaking = ~np.isnan(columns.p)
    # Who speaks decides on the shares: events are taken together where the same detectors did.
    pattern = speaking @ (1 << np.arange(len(columns.speakers), dtype=np.int64))
    for one in np.unique(pattern):
        rows = np.flatnonzero(pattern == one)
        done = _together(columns, rows, int(one), (policy, rules))
        out.tail[rows], out.verdict[rows], out.channel[rows] = done
    return out


def _together(
    columns: Columns, rows: IntArray, pattern: int, by: tuple[Policy, Rules | None]
) -> Again:
    """Events for which the same detectors spoke, those with a bit in ``pattern``."""
    policy, rules = by
    own: dict[str, FloatArray] = {}
    parts: dict[str, dict[str, float]] = {}
    for i, speaker in enumerate(columns.speakers):
        how = policy.setting(speaker.name)
        if pattern >> i & 1 and how.has_say:
            own[speaker.name] = columns.p[rows, i].astype(np.float64)
            parts.setdefault(speaker.family, {})[speaker.name] = speaker.part * how.weight
    p_value = {family: channel(several, own) for family, several in parts.items()}
    held = holding(parts, own, p_value, policy)
    who = _Rows(columns.source[rows], columns.subject[rows], columns.y[rows], columns.label_names)
    done = conclude(p_value, held, families_of(columns), policy, (who, rules))
    return Again(done.combined.tail, done.verdict, done.combined.channel)


def whatif(columns: Columns, now: Policy, then: Policy, seed: int, seconds: float = 0.0) -> WhatIf:
    """What ``then`` in place of ``now`` would have made of these events. Pure.

    Held means quarantined, whatever the mode.
    """
    before, after = judged_again(columns, now, seed), judged_again(columns, then, seed)
    n, families = len(columns), families_of(columns)
    flips = np.flatnonzero(before.verdict != after.verdict)
    tail = np.minimum(before.tail, after.tail)
    shown = flips[np.argsort(tail[flips], kind="stable")[:MOST_FLIPS]]
    total = max(1, n)
    return WhatIf(
        events=n,
        before=_counted(before.verdict),
        after=_counted(after.verdict),
        by_label=_pairs(columns.y, columns.label_names, before, after),
        by_source=_by_source(columns, before, after),
        by_family=_by_family(families, before, after),
        flips=[_flip(columns, row, (before, after), families) for row in shown.tolist()],
        n_flips=len(flips),
        promised={"flag": then.flag_at, "quarantine": then.quarantine_at},
        observed={
            "flag": float((after.verdict != Verdict.ACCEPT).sum() / total),
            "quarantine": float(after.held.sum() / total),
        },
        seconds=seconds,
    )


def risk_histogram(columns: Columns, policy: Policy, seed: int, bins: int) -> dict[str, Any]:
    """``edges`` and, by verdict word, ``counts`` of these events' risk under ``policy``."""
    again = judged_again(columns, policy, seed)
    risk = -np.log10(again.tail)
    top = max(1.0, float(np.ceil(risk.max()))) if len(risk) else 1.0
    edges = np.linspace(0.0, top, bins + 1)
    counts = {
        word: np.histogram(risk[again.verdict == code], edges)[0].tolist()
        for code, word in enumerate(WORDS)
    }
    return {"edges": edges.tolist(), "counts": counts, "events": len(columns)}


def _counted(verdict: ByteArray) -> dict[str, int]:
    counts = np.bincount(verdict, minlength=len(WORDS)).tolist()
    return dict(zip(WORDS, counts, strict=False))


def _pairs(
    codes: npt.NDArray[Any], names: Sequence[str], before: Again, after: Again
) -> dict[str, tuple[int, int]]:
    """(held before, held after) by name; names without any are left out."""
    was = np.bincount(codes[before.held], minlength=len(names)).tolist()
    will = np.bincount(codes[after.held], minlength=len(names)).tolist()
    return {name: (a, b) for name, a, b in zip(names, was, will, strict=True) if a or b}


def _by_family(
    families: Sequence[str], before: Again, after: Again
) -> Mapping[str, tuple[int, int]]:
    was, will = (np.bincount(a.channel[a.held], minlength=NO_CHANNEL + 1) for a in (before, after))
    pairs = {name: (int(was[i]), int(will[i])) for i, name in enumerate(families)}
    return {name: pair for name, pair in pairs.items() if any(pair)}


def _by_source(columns: Columns, before: Again, after: Again) -> Mapping[str, tuple[int, int]]:
    rows = np.flatnonzero(before.held | after.held)
    _, first, codes = np.unique(columns.source[rows], return_index=True, return_inverse=True)
    was = np.bincount(codes, weights=before.held[rows], minlength=len(first)).astype(int)
    will = np.bincount(codes, weights=after.held[rows], minlength=len(first)).astype(int)
    largest = np.argsort(-np.maximum(was, will), kind="stable")[:MOST_SOURCES]
    return {
        str(columns.sources[rows[first[i]]]): (int(was[i]), int(will[i])) for i in largest.tolist()
    }


def _flip(
    columns: Columns, row: int, both: tuple[Again, Again], families: Sequence[str]
) -> dict[str, Any]:
    before, after = both
    strongest = int(after.channel[row])
    return {
        "key": f"{int(columns.partition[row])}-{int(columns.offset[row])}",
        "id": str(columns.ids[row]),
        "source": str(columns.sources[row]),
        "label": columns.label_names[int(columns.y[row])],
        "family": None if strongest == NO_CHANNEL else families[strongest],
        "risk": round(float(-np.log10(after.tail[row])), 6),
        "before": WORDS[int(before.verdict[row])],
        "after": WORDS[int(after.verdict[row])],
    }
