"""Attacks in the update (``gradient``) that an event carries, and honest updates to hide among."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np

from monitor.core.types import FloatArray
from monitor.runtime.inject.job import Attack, Change, Job, filled
from monitor.runtime.inject.stream import Stream

BATCH = 64
WARMUP = 500
SCALE = 10.0
WINDOW = 256
LEAST_DEVIATIONS = 1.0
"""Of little-is-enough, when the share of attackers allows less; the paper uses 1.0 to 1.5."""


def with_gradients(stream: Stream, *, noise: float = 0.1, seed: int = 0) -> Stream:
    """The stream with the gradient of an online softmax regression's loss at each event.

    The model learns the stream as it comes, in batches of 64, each event's gradient taken before
    its batch is learned; so early updates are large and later ones small, as in federated or
    client-side training. Features are standardised by the first 500 events and clipped at 5.

    Parameters
    ----------
    stream
        n events of d features and C classes.
    noise
        Standard deviation of the Gaussian noise added to each number, in root mean squares of
        the batch's gradients.
    seed
        Of the noise.

    Returns
    -------
    Stream
        With ``gradient`` float64[n, p]: p = d + 1 for two classes (logistic), else C · (d + 1),
        class by class, the intercept last. For an attacked stream, call it after the attack to
        get the updates that the poisoned events would cause.
    """
    rng = np.random.default_rng([seed, 23])
    x = filled(stream.x)
    head = x[:WARMUP]
    spread = head.std(axis=0)
    scaled = np.clip((x - head.mean(axis=0)) / np.where(spread > 0, spread, 1.0), -5.0, 5.0)
    inputs = np.hstack([scaled, np.ones((len(stream), 1))])
    classes = len(stream.labels)
    truth = np.eye(classes)[stream.y]
    weights = np.zeros((classes, inputs.shape[1]))
    first = 1 if classes == 2 else 0
    found = np.empty((len(stream), (classes - first) * inputs.shape[1]))
    for begin in range(0, len(stream), BATCH):
        rows = slice(begin, begin + BATCH)
        logits = inputs[rows] @ weights.T
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = odds / odds.sum(axis=1, keepdims=True) - truth[rows]
        each = error[:, :, None] * inputs[rows][:, None, :]
        flat = each[:, first:].reshape(len(each), -1)
        size = np.sqrt(np.mean(flat**2))
        found[rows] = flat + rng.normal(0.0, noise * size, flat.shape)
        weights -= 0.1 * each.mean(axis=0)
    return replace(stream, gradient=found)


def _updates(job: Job) -> FloatArray:
    if job.stream.gradient is None:
        raise ValueError("the stream carries no gradients; see with_gradients")
    return job.stream.gradient


def _with(job: Job, vectors: FloatArray) -> Change:
    changed = _updates(job).copy()
    changed[job.rows] = vectors
    return Change(replace(job.stream, gradient=changed))


def scaled(job: Job) -> Change:
    """The honest update, ten times as long (the boosting of Bagdasaryan et al. 2020)."""
    return _with(job, _updates(job)[job.rows] * SCALE)


def flipped(job: Job) -> Change:
    """The honest update with its sign turned, at its own length (compare Blanchard et al. 2017)."""
    return _with(job, -_updates(job)[job.rows])


def little_is_enough(job: Job) -> Change:
    """μ − z·σ in every coordinate, the same for all attackers of the moment (Baruch et al. 2019).

    μ and σ are those of the 256 events before; z is the most that still leaves a majority of
    honest updates further away, Φ⁻¹((n − m − s) / (n − m)) with s = ⌊n/2 + 1⌋ − m for m of n
    attackers, and at least 1. The sign of each coordinate is against the mean.
    """
    updates = _updates(job)
    n = WINDOW
    share = len(job.rows) / max(1, len(updates) - int(job.rows[0]))
    m = min(round(n * share), n // 2 - 1)
    s = n // 2 + 1 - m
    z = max(LEAST_DEVIATIONS, NormalDist().inv_cdf((n - m - s) / (n - m)))
    found = np.empty((len(job.rows), updates.shape[1]))
    for number, row in enumerate(job.rows.tolist()):
        # Attackers within one batch agree: they all look at the window before it.
        end = max(2, row - row % BATCH)
        window = updates[max(0, end - n) : end]
        middle = window.mean(axis=0)
        found[number] = middle - z * window.std(axis=0) * np.where(middle < 0, -1.0, 1.0)
    return _with(job, found)


def sybils(job: Job) -> Change:
    """Honest lengths, one common direction with 5 % of noise (Fung et al. 2020, FoolsGold).

    The direction is against the mean honest update of the history, bent by a random vector, so
    it neither is an honest one nor its plain opposite.
    """
    updates = _updates(job)
    history = updates[: job.end]
    middle = history.mean(axis=0)
    bend = job.rng.normal(0.0, 1.0, updates.shape[1]) * history.std(axis=0)
    direction = _unit(_unit(bend) - _unit(middle))
    lengths = np.linalg.norm(updates[job.rng.integers(0, job.end, len(job.rows))], axis=1)
    wobble = job.rng.normal(0.0, 0.05 / np.sqrt(len(direction)), (len(job.rows), len(direction)))
    return _with(job, lengths[:, None] * (direction + wobble))


def _unit(vector: FloatArray) -> FloatArray:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


ATTACKS: dict[str, Attack] = {
    "gradient_scaled": Attack(scaled, "updates ten times as long", needs="gradient"),
    "gradient_flipped": Attack(flipped, "updates with the sign turned", needs="gradient"),
    "gradient_lie": Attack(
        little_is_enough, "updates just inside the honest spread", needs="gradient"
    ),
    "gradient_sybils": Attack(sybils, "updates of usual length in one direction", needs="gradient"),
}
