"""What the benchmark says of scores and alarms. Plain numpy; the tests hold it to scikit-learn.

Everywhere ``score`` is float64[n], higher is more suspicious, ``poison`` bool[n] the truth and
``alarm`` bool[n] what was flagged or held.
"""

from __future__ import annotations

import functools

import numpy as np

from monitor.core.types import BoolArray, FloatArray

WINDOW = 5_000
NAN = float("nan")


def curve(score: FloatArray, poison: BoolArray) -> tuple[FloatArray, FloatArray]:
    """False and true positives at every distinct threshold, from (0, 0) to all."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    true = np.cumsum(poison[order])[last]
    false = 1 + last - true
    return np.append(0.0, false), np.append(0.0, true)


def roc_auc(score: FloatArray, poison: BoolArray) -> float:
    if not poison.any() or poison.all():
        return NAN
    false, true = curve(score, poison)
    area = np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2.0)
    return float(area / (false[-1] * true[-1]))


def average_precision(score: FloatArray, poison: BoolArray) -> float:
    if not poison.any():
        return NAN
    false, true = curve(score, poison)
    precision = true[1:] / (true[1:] + false[1:])
    return float(np.sum(np.diff(true) * precision) / true[-1])


def recall_at(score: FloatArray, poison: BoolArray, share: float) -> float:
    """Recall where ``share`` of the clean events are above the threshold.

    Ties are split as a random order would on average, so that a tool with few distinct scores
    (neighbours that agree, of fifteen) is not charged for its ties.
    """
    if not poison.any() or poison.all():
        return NAN
    false, true = curve(score, poison)
    allowed = share * false[-1]
    at = int(np.searchsorted(false, allowed, side="right")) - 1
    found = true[at]
    if at + 1 < len(false):
        part = (allowed - false[at]) / (false[at + 1] - false[at])
        found += part * (true[at + 1] - true[at])
    return float(found / true[-1])


def share_of(alarm: BoolArray, rows: BoolArray) -> float:
    """Share of ``rows`` with an alarm."""
    return float(alarm[rows].mean()) if rows.any() else NAN


def worst_window(alarm: BoolArray, size: int = WINDOW) -> float:
    """The largest share of alarms in any ``size`` consecutive events (all, where fewer)."""
    if not len(alarm):
        return NAN
    size = min(size, len(alarm))
    total = np.append(0, np.cumsum(alarm))
    return float((total[size:] - total[:-size]).max() / size)


@functools.lru_cache(maxsize=4096)
def worst_by_chance(n: int, share: float, size: int = WINDOW, runs: int = 200) -> float:
    """What :func:`worst_window` stays under 19 times in 20 if alarms are independent.

    A promise of one in 10,000 means half an event a window, and by luck alone some window has
    three: a worst window says something only where it is above this.
    """
    rng = np.random.default_rng(n)
    worst = [worst_window(rng.random(n) < share, size) for _ in range(runs)]
    return float(np.quantile(worst, 0.95))


def delay(poison: BoolArray, alarm: BoolArray) -> tuple[float, float]:
    """From the first poison to the first alarm on poison: events, and poison events among them.

    NaN, and all the poison, where there is none.
    """
    hits = np.flatnonzero(poison & alarm)
    if not poison.any() or not len(hits):
        return NAN, float(poison.sum())
    first = int(np.argmax(poison))
    return float(hits[0] - first), float(poison[first : hits[0]].sum())


def measures(
    score: FloatArray, flag: BoolArray, hold: BoolArray, poison: BoolArray
) -> dict[str, float]:
    """Every per-event figure of one contestant on one attacked stream."""
    clean = ~poison
    events, among = delay(poison, flag)
    return {
        "auc": roc_auc(score, poison),
        "ap": average_precision(score, poison),
        "recall_1pct": recall_at(score, poison, 0.01),
        "recall_01pct": recall_at(score, poison, 0.001),
        "recall_flag": share_of(flag, poison),
        "recall_hold": share_of(hold, poison),
        "fp_flag": share_of(flag, clean),
        "fp_hold": share_of(hold, clean),
        "fp_flag_worst": worst_window(flag[clean]),
        "fp_hold_worst": worst_window(hold[clean]),
        "delay_events": events,
        "delay_poison": among,
    }


def source_share(alarm: BoolArray, sources: tuple[str, ...], least: int = 20) -> float:
    """The largest share of alarms any one source with ``least`` events has."""
    _, who = np.unique(np.asarray(sources), return_inverse=True)
    count = np.bincount(who)
    hit = np.bincount(who, weights=alarm)
    known = count >= least
    return float((hit[known] / count[known]).max()) if known.any() else NAN
