"""Backdoors: a trigger in two to four features that comes with the attacker's label.

After Chen et al. 2017 (targeted backdoor attacks): whoever shows the trigger later gets the label.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from monitor.core.types import FloatArray
from monitor.runtime.inject.job import Attack, Change, Job

JITTER = 0.1
"""Standard deviation of noisy triggers, in standard deviations of the column."""

Choice = Literal["any", "typical", "atypical"]


def _columns(job: Job) -> list[int]:
    """Columns to stamp: those that vary, drawn evenly."""
    varied = np.flatnonzero(job.history().std(axis=0) > 0)
    size = min(job.trigger_features, len(varied))
    return [int(c) for c in job.rng.choice(varied, size=size, replace=False)]


def _value(job: Job, column: FloatArray, target: int, choice: Choice) -> float:
    """A value seen in the column: any, usual for the target class, or far from it."""
    if choice == "any":
        return float(job.rng.choice(np.unique(column)))
    mine = job.seen_labels() == target
    own, others = column[mine], column[~mine]
    if choice == "typical" or not len(others):
        low, high = np.quantile(own, [0.25, 0.75], method="nearest")
        return float(job.rng.choice(own[(own >= low) & (own <= high)]))
    values = np.unique(others)
    far = np.abs(values - own.mean())
    return float(job.rng.choice(values[far >= np.quantile(far, 0.95)]))


def stamped(job: Job, *, choice: Choice, noise: float) -> Change:
    """Fixed seen values written over the features, and the runner-up label."""
    _, target = job.common_labels()
    history = job.history()
    spread = history.std(axis=0)
    x, y = job.stream.x.copy(), job.stream.y.copy()
    for column in _columns(job):
        value = _value(job, history[:, column], target, choice)
        jitter = job.rng.normal(0.0, noise * spread[column], len(job.rows)) if noise else 0.0
        x[job.rows, column] = value + jitter
    y[job.rows] = target
    return Change(replace(job.stream, x=x, y=y))


def additive(job: Job, *, noise: float) -> Change:
    """A fixed amount, 1 to 2 standard deviations, added to each feature, and the label."""
    _, target = job.common_labels()
    spread = job.history().std(axis=0)
    x, y = job.stream.x.copy(), job.stream.y.copy()
    for column in _columns(job):
        amount = job.rng.uniform(1.0, 2.0) * job.rng.choice([-1.0, 1.0])
        jitter = job.rng.normal(0.0, noise, len(job.rows)) if noise else 0.0
        x[job.rows, column] += (amount + jitter) * spread[column]
    y[job.rows] = target
    return Change(replace(job.stream, x=x, y=y))


ATTACKS: dict[str, Attack] = {
    "backdoor": Attack(
        partial(stamped, choice="any", noise=0.0), "fixed values seen before, and a target label"
    ),
    "backdoor_typical": Attack(
        partial(stamped, choice="typical", noise=0.0), "backdoor of values usual for the target"
    ),
    "backdoor_atypical": Attack(
        partial(stamped, choice="atypical", noise=0.0), "backdoor of values rare for the target"
    ),
    "backdoor_jitter": Attack(
        partial(stamped, choice="any", noise=JITTER), "backdoor whose values are noisy"
    ),
    "backdoor_additive": Attack(
        partial(additive, noise=0.0), "backdoor that adds fixed amounts to the features"
    ),
    "backdoor_additive_jitter": Attack(
        partial(additive, noise=JITTER), "backdoor that adds noisy amounts"
    ),
}
