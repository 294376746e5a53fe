"""Attacks on labels and on the region around a class boundary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from monitor.core.types import BoolArray, FloatArray, IntArray
from monitor.runtime.inject.job import Attack, Change, Job, roles
from monitor.runtime.inject.stream import Role

TRIGGER_SHARE = 0.25
"""Share of an accumulative attack that is its closing batch."""


def flip(job: Job) -> Change:
    """Every label becomes another one, drawn evenly (Paudice et al. 2018 defend against it)."""
    y = job.stream.y.copy()
    classes = len(job.stream.labels)
    y[job.rows] = (y[job.rows] + job.rng.integers(1, classes, size=len(job.rows))) % classes
    return Change(replace(job.stream, y=y))


def targeted(job: Job) -> Change:
    """Events of the most frequent class arrive labelled as the runner-up: a becomes b."""
    victim, target = job.common_labels()
    pool = np.flatnonzero(job.seen_labels() == victim)
    x, y = job.stream.x.copy(), job.stream.y.copy()
    other = job.rows[y[job.rows] != victim]
    x[other] = x[job.rng.choice(pool, size=len(other))]
    y[job.rows] = target
    return Change(replace(job.stream, x=x, y=y))


def clean_label(job: Job) -> Change:
    """Right label, features moved 60 % of the way towards another class (Shafahi et al. 2018)."""
    return _moved(job, np.full((len(job.rows), 1), 0.6))


def frog(job: Job) -> Change:
    """Displacement towards another class that grows from 0 to 90 % (Rubinstein et al. 2009)."""
    return _moved(job, np.linspace(0.0, 0.9, len(job.rows))[:, None])


def _moved(job: Job, share: FloatArray) -> Change:
    means = job.class_means()
    own, towards = job.towards()
    x = job.stream.x.copy()
    x[job.rows] += share * (means[towards] - means[own])
    return Change(replace(job.stream, x=x))


def collide(job: Job) -> Change:
    """Right label, features all but equal to a victim's of another class (Shafahi et al. 2018).

    One victim for twenty poisons, 95 % of the way; the rest stays the poison's own, as in the
    feature collision of Poison Frogs.
    """
    _, towards = job.towards()
    seen = job.seen_labels()
    x = job.stream.x.copy()
    for label in np.unique(towards).tolist():
        pool = np.flatnonzero(seen == label)
        of = job.rows[towards == label]
        victims = job.rng.choice(pool, size=-(-len(of) // 20))
        x[of] += 0.95 * (x[victims[np.arange(len(of)) // 20]] - x[of])
    return Change(replace(job.stream, x=x))


def gradient(job: Job) -> Change:
    """Confident points, pushed outward along the class direction, with the opposite label."""
    x, y = _confident(job, job.rows)
    return Change(replace(job.stream, x=x, y=y))


def _confident(job: Job, rows: IntArray) -> tuple[FloatArray, IntArray]:
    means = job.class_means()
    first, second = job.common_labels()
    history = job.history()
    low, high = history.min(axis=0), history.max(axis=0)
    side: BoolArray = job.rng.random(len(rows)) < 0.5
    truth = np.where(side, first, second)
    other = np.where(side, second, first)
    x, y = job.stream.x.copy(), job.stream.y.copy()
    step = job.rng.uniform(0.5, 1.5, (len(rows), 1))
    x[rows] = np.clip(means[truth] + step * (means[truth] - means[other]), low, high)
    y[rows] = other
    return x, y


def accumulative(job: Job) -> Change:
    """A harmless phase that readies the model, then a batch that turns it (Pang et al. 2021).

    The first three quarters keep their label and move 25 % towards another class, which costs
    the model little but lays its boundary where the closing batch of confident points with the
    opposite label weighs most.
    """
    count = max(1, round(len(job.rows) * TRIGGER_SHARE))
    before, batch = job.rows[: len(job.rows) - count], job.rows[len(job.rows) - count :]
    x, y = _confident(job, batch)
    if len(before):
        means = job.class_means()
        own, towards = job.towards()
        shift = 0.25 * (means[towards] - means[own])
        x[before] += shift[: len(before)]
    role = roles(len(job.rows), Role.PREPARE)
    role[len(before) :] = Role.POISON
    return Change(replace(job.stream, x=x, y=y), role)


ATTACKS: dict[str, Attack] = {
    "flip": Attack(flip, "random label flips"),
    "targeted": Attack(targeted, "the most frequent class arrives labelled as the runner-up"),
    "clean_label": Attack(clean_label, "right label, features moved 60 % to another class"),
    "clean_label_collide": Attack(
        collide, "right label, features like a victim's of another class"
    ),
    "gradient": Attack(gradient, "confident points with the opposite label"),
    "frog": Attack(frog, "boiling frog: displacement grows from 0 to 90 % over the stream"),
    "accumulative": Attack(
        accumulative, "a harmless phase, then a batch that turns the model", closing=TRIGGER_SHARE
    ),
}
