"""Attacks that add events: shilling of a recommender, and replayed duplicates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from monitor.core.types import FloatArray, IntArray
from monitor.runtime.inject.job import Attack, Change, Job, roles
from monitor.runtime.inject.stream import Role, Stream, column_of

Aim = Literal["push", "nuke"]
Profile = Literal["random", "average", "bandwagon"]
TARGET_EVERY = 20
"""An account rates one target among about this many items; longer profiles have more targets."""
COPIES = 5
"""Times that a replayed event is sent again, on average."""


@dataclass(frozen=True, slots=True)
class _Items:
    """The m items of the history: names, ratings float64[m] of several kinds, most rated first."""

    names: list[str]
    count: IntArray
    mean: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, subjects: tuple[str, ...], ratings: FloatArray) -> _Items:
        names, item = np.unique(np.array(subjects, dtype=np.str_), return_inverse=True)
        count = np.bincount(item)
        mean = np.bincount(item, ratings) / count
        square = np.bincount(item, ratings**2) / count
        spread = np.sqrt(np.maximum(square - mean**2, 0.0))
        order = np.argsort(-count, kind="stable")
        return cls([str(names[i]) for i in order], count[order], mean[order], spread[order])


def ratings_of(stream: Stream) -> FloatArray:
    """float64[C], what each label is worth: its number, or its place where labels are text."""
    places = np.arange(len(stream.labels), dtype=np.float64)
    try:
        worth = np.array([float(label) for label in stream.labels])
    except ValueError:
        return places
    return worth if np.isfinite(worth).all() else places


def shilling(job: Job, *, aim: Aim, profile: Profile) -> Change:
    """Profiles of accounts that lift or sink a few items (Mehta and Nejdl 2009).

    Each account rates its targets best (push) or worst (nuke), once each, and hides it among
    filler items: drawn evenly and rated around the global mean (random), around each item's own
    mean (average), or half of them the most rated items with the best rating (bandwagon; for nuke
    the reverse bandwagon: items nobody likes, rated worst). An account with a single event rates
    a target. Targets of a push are items liked less than the median one, of a nuke popular ones.
    """
    stream, rng = job.stream, job.rng
    assert stream.subject is not None
    worth = ratings_of(stream)
    best = int(np.argmax(worth) if aim == "push" else np.argmin(worth))
    seen = worth[job.seen_labels()]
    items = _Items.of(stream.subject[: job.end], seen)
    accounts: dict[str, list[int]] = {}
    for place, row in enumerate(job.rows.tolist()):
        accounts.setdefault(stream.source[row], []).append(place)
    longest = max(map(len, accounts.values()))
    targets = _targets(items, aim, -(-longest // TARGET_EVERY), rng)
    crowd = _crowd(items, targets, aim) if profile == "bandwagon" else np.zeros(0, dtype=np.int64)
    chosen = np.empty(len(job.rows), dtype=np.int64)
    rating = np.empty(len(job.rows))
    role = roles(len(job.rows), Role.FILLER)
    for mine in accounts.values():
        aims = min(len(targets), -(-len(mine) // TARGET_EVERY))
        order = rng.permutation(np.array(mine))
        chosen[order[:aims]] = rng.permutation(targets)[:aims]
        rating[order[:aims]] = worth[best]
        role[order[:aims]] = Role.POISON
        fill, loved = _fillers(items, targets, crowd, len(mine) - aims, rng)
        spread = np.where(items.count > 1, items.spread, seen.std())[fill]
        middle = items.mean[fill]
        if profile == "random":
            spread, middle = np.full(len(fill), seen.std()), np.full(len(fill), seen.mean())
        chosen[order[aims:]] = fill
        rating[order[aims:]] = rng.normal(middle, spread)
        rating[order[aims : aims + loved]] = worth[best]
    subject = column_of(stream.subject)
    subject[job.rows] = [items.names[i] for i in chosen.tolist()]
    y = stream.y.copy()
    y[job.rows] = np.abs(rating[:, None] - worth[None, :]).argmin(axis=1)
    after = replace(stream, y=y, subject=tuple(subject.tolist()))
    x, template = _features(job, after)
    return Change(replace(after, x=x), role, template)


def _targets(items: _Items, aim: Aim, wanted: int, rng: np.random.Generator) -> IntArray:
    """Distinct items, by index: little liked ones to push, popular ones to nuke."""
    m = len(items.names)
    if aim == "push":
        known = items.count >= min(3, int(items.count.max()))
        pool = np.flatnonzero(known & (items.mean <= np.median(items.mean[known])))
    else:
        pool = np.arange(max(1, m // 5))
    return rng.choice(pool, size=min(wanted, len(pool)), replace=False)


def _crowd(items: _Items, targets: IntArray, aim: Aim) -> IntArray:
    """Items of the bandwagon, best first: the most rated ones; of the reverse, the least liked."""
    free = np.setdiff1d(np.arange(len(items.names)), targets)
    return free if aim == "push" else free[np.argsort(items.mean[free], kind="stable")]


def _fillers(
    items: _Items, targets: IntArray, crowd: IntArray, wanted: int, rng: np.random.Generator
) -> tuple[IntArray, int]:
    """``wanted`` items beside the targets, and how many of the first ones are the crowd's.

    An item comes twice only when there are too few.
    """
    head = crowd[: wanted // 2]
    free = np.setdiff1d(np.arange(len(items.names)), np.concatenate([targets, head]))
    if not len(free):
        free = np.arange(len(items.names))
    rest = wanted - len(head)
    return np.concatenate([head, rng.choice(free, size=rest, replace=rest > len(free))]), len(head)


def _features(job: Job, after: Stream) -> tuple[FloatArray, IntArray]:
    """Features of the new rows, and the rows they are modelled on.

    Computed by the stream where it can; else those of the latest earlier event about the item.
    """
    assert after.subject is not None
    latest: dict[str, int] = {}
    template = np.empty(len(job.rows), dtype=np.int64)
    new = set(job.rows.tolist())
    place = 0
    for row, subject in enumerate(after.subject):
        if row in new:
            template[place] = latest.get(subject, row - 1 if row else 0)
            place += 1
        else:
            latest[subject] = row
    x = after.x.copy()
    if after.derive is not None:
        x[job.rows] = after.derive(after)[job.rows]
    else:
        x[job.rows] = x[template]
    return x, template


def replayed(job: Job, *, same_id: bool) -> Change:
    """Earlier events sent again, about five times each, with new ids or their own.

    Everything but the time is a copy; the source too, unless the attack has senders of its own.
    """
    stream = job.stream
    pool = job.rng.choice(
        int(job.rows[0]), size=min(int(job.rows[0]), -(-len(job.rows) // COPIES)), replace=False
    )
    donor = job.rng.choice(pool, size=len(job.rows))
    x, y = stream.x.copy(), stream.y.copy()
    x[job.rows], y[job.rows] = x[donor], y[donor]
    after = replace(stream, x=x, y=y)
    if stream.subject is not None:
        subject = column_of(stream.subject)
        subject[job.rows] = subject[donor]
        after = replace(after, subject=tuple(subject.tolist()))
    if stream.gradient is not None:
        gradient = stream.gradient.copy()
        gradient[job.rows] = gradient[donor]
        after = replace(after, gradient=gradient)
    if same_id:
        ids = column_of(tuple(stream.id_of(i) for i in range(len(stream))))
        ids[job.rows] = ids[donor]
        after = replace(after, ids=tuple(ids.tolist()))
    return Change(after, template=donor)


AIMS: tuple[Aim, ...] = ("push", "nuke")
PROFILES: dict[Profile, str] = {
    "random": "fillers rated around the global mean",
    "average": "fillers rated around each item's mean",
    "bandwagon": "fillers include what everybody likes (push) or dislikes (nuke)",
}
ATTACKS: dict[str, Attack] = {
    f"shilling_{aim}_{profile}": Attack(
        partial(shilling, aim=aim, profile=profile),
        f"profiles that {aim} items; {text}",
        inserts=True,
        needs="subject",
    )
    for aim in AIMS
    for profile, text in PROFILES.items()
} | {
    "replay": Attack(
        partial(replayed, same_id=False), "earlier events again, under new ids", inserts=True
    ),
    "replay_same_id": Attack(
        partial(replayed, same_id=True), "earlier events again, under their own ids", inserts=True
    ),
}
