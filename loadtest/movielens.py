"""MovieLens 100K as a recommender's feedback: users are sources, items subjects, ratings labels.

Features are what an online recommender knows when the rating comes in: they use earlier ratings
only, never the event's own. So an inserted rating gets the features it would have had, too.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np

from monitor.core.types import FloatArray
from monitor.runtime.inject import Stream

COLUMNS = (
    "user_mean",
    "user_ratings",
    "user_days",
    "user_pause",
    "item_mean",
    "item_ratings",
    "item_days",
    "hour",
)
RATINGS = (1, 2, 3, 4, 5)
PRIOR = 5.0
"""Ratings at the global mean that a user's or an item's mean starts with."""
DAY = 86_400.0


class _Side:
    """What is known of one user or item."""

    __slots__ = ("count", "first", "last", "total")

    def __init__(self, ts: float) -> None:
        self.count, self.total, self.first, self.last = 0, 0.0, ts, ts


def features(stream: Stream) -> FloatArray:
    """float64[n, 8], the columns of :data:`COLUMNS` for each rating, from earlier ones only.

    Means are shrunk to the global mean so far by five ratings; ``user_days`` and ``item_days``
    are days since the first rating, ``user_pause`` is ln(1 + seconds) since the user's last one
    (0 at the first), ``hour`` is that of the day in UTC, 0..24.
    """
    assert stream.subject is not None
    rating = np.array([float(label) for label in stream.labels])[stream.y].tolist()
    users: dict[str, _Side] = {}
    items: dict[str, _Side] = {}
    found = np.empty((len(stream), len(COLUMNS)))
    count, total = 1.0, 3.0
    for i, ts in enumerate(stream.ts.tolist()):
        user = users.setdefault(stream.source[i], _Side(ts))
        item = items.setdefault(stream.subject[i], _Side(ts))
        usual = total / count
        found[i] = (
            (user.total + PRIOR * usual) / (user.count + PRIOR),
            user.count,
            (ts - user.first) / DAY,
            np.log1p(ts - user.last),
            (item.total + PRIOR * usual) / (item.count + PRIOR),
            item.count,
            (ts - item.first) / DAY,
            ts % DAY / 3600.0,
        )
        for side in (user, item):
            side.count += 1
            side.total += rating[i]
            side.last = ts
        count, total = count + 1.0, total + rating[i]
    return found


def read(path: Path) -> Stream:
    """All ratings in the order of time."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    bare = Stream(
        name="movielens",
        columns=COLUMNS,
        x=np.zeros((len(rows), len(COLUMNS))),
        y=np.array([int(row["rating"]) - 1 for row in rows], dtype=np.int64),
        labels=RATINGS,
        source=tuple(f"user-{row['user']}" for row in rows),
        ts=np.array([float(row["timestamp"]) for row in rows]),
        subject=tuple(f"item-{row['item']}" for row in rows),
        derive=features,
    )
    return replace(bare, x=features(bare))
