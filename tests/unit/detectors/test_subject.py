"""Shilling: profiles that push or sink subjects, and honest crowds that only look busy."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.core.types import EventBatch
from monitor.detectors.subject import Subject, SubjectParams
from tests.checks.channel import Watched, watch

MOVIELENS = Path(__file__).parents[4] / "shared" / "data" / "movielens-100k.tsv.gz"
DAY = 86_400
PREFIX = 0.3


@dataclass(frozen=True)
class Ratings:
    """Events in time order: user, item, rating 1-5, time; and 0 honest, 1 filler, 2 target."""

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    ts: np.ndarray
    role: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray) -> Ratings:
        return cls(*table[np.argsort(table[:, 3], kind="stable")].T)

    def plus(self, rows: np.ndarray) -> Ratings:
        own = np.column_stack([self.user, self.item, self.rating, self.ts, self.role])
        return Ratings.of(np.concatenate([own, rows]))

    def batches(self, size: int = 256) -> list[EventBatch]:
        n = len(self.user)
        return [self._batch(slice(i, min(i + size, n))) for i in range(0, n, size)]

    def _batch(self, part: slice) -> EventBatch:
        n = part.stop - part.start
        z = np.zeros((n, 2))
        rng = np.random.default_rng(part.start)
        return EventBatch(
            offset=np.arange(part.start, part.stop),
            x=z,
            g=z,
            z=z,
            y=(self.rating[part] - 1).astype(np.int32),
            n_classes=5,
            source=_hashed(self.user[part], 1),
            subject=_hashed(self.item[part], 2),
            id_hash=rng.integers(0, 2**63, n).astype(np.uint64),
            content=np.arange(n).astype(np.uint64),
            time_ns=self.ts[part] * 10**9,
            weight=np.ones(n),
            ids=[str(i) for i in range(part.start, part.stop)],
            sources=[f"user-{u}" for u in self.user[part]],
            labels=[int(r) for r in self.rating[part]],
            columns=("a", "b"),
            label_names=("1", "2", "3", "4", "5"),
        )


def _hashed(values: np.ndarray, salt: int) -> np.ndarray:
    mixed = (values.astype(np.uint64) + np.uint64(salt << 40)) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)


def catalogue(seed: int, users: int = 500, items: int = 400) -> Ratings:
    """Users who rate 20-150 items in one session each, items that are liked differently."""
    rng = np.random.default_rng(seed)
    liked = rng.normal(0.0, 0.6, items)
    taste, kind = rng.normal(size=(users, 3)), rng.normal(size=(items, 3))
    weight = 1.0 / np.arange(1, items + 1) ** 0.7
    rows = []
    for user in range(users):
        count = int(rng.integers(20, 150))
        chosen = rng.choice(items, count, replace=False, p=weight / weight.sum())
        worth = 3.5 + liked[chosen] + 0.4 * kind[chosen] @ taste[user] + rng.normal(0, 0.4)
        rating = np.clip(np.rint(worth + rng.normal(0, 0.7, count)), 1, 5)
        ts = rng.integers(0, 200 * DAY) + np.sort(rng.integers(0, 2000, count))
        rows.append(np.column_stack([np.full(count, user), chosen, rating, ts, 0 * ts]))
    return Ratings.of(np.concatenate(rows).astype(np.int64))


def movielens() -> Ratings:
    with gzip.open(MOVIELENS, "rt") as file:
        rows = np.array(list(csv.reader(file, delimiter="\t"))[1:], dtype=np.int64)
    return Ratings.of(np.column_stack([rows, np.zeros(len(rows), dtype=np.int64)]))


def attacked(
    honest: Ratings,
    profile: str,
    *,
    push: bool,
    accounts: int = 50,
    targets: int = 5,
    fill: int = 30,
    days: float = 7.0,
    seed: int = 0,
) -> Ratings:
    """Fake profiles, a session each within ``days``, all rating all the targets."""
    rng = np.random.default_rng(seed)
    n = len(honest.user)
    items, count = np.unique(honest.item[: int(0.35 * n)], return_counts=True)
    pool = items[(count >= 5) & (count <= np.quantile(count, 0.8))]
    aims, head = rng.choice(pool, targets, replace=False), items[np.argsort(-count)[:20]]
    first, last = honest.ts[int(0.4 * n)], honest.ts[int(0.9 * n)] - 7 * DAY
    start = int(rng.integers(first, last))
    mean = {
        i: honest.rating[: int(0.35 * n)][honest.item[: int(0.35 * n)] == i].mean() for i in items
    }
    rows = []
    for account in range(accounts):
        filler = np.setdiff1d(rng.choice(items, fill, replace=False), aims)
        middle = np.array([mean[i] for i in filler]) if profile == "average" else 3.5
        rating = np.clip(np.rint(rng.normal(middle, 1.0, len(filler))), 1, 5)
        if profile == "bandwagon":
            loved = np.isin(filler, head)
            filler = np.concatenate([filler[~loved], rng.choice(head, 5, replace=False)])
            rating = np.concatenate([rating[~loved], np.full(5, 5)])
        item = np.concatenate([filler, aims])
        rated = np.concatenate([rating, np.full(targets, 5 if push else 1)])
        role = np.repeat([1, 2], [len(filler), targets])
        ts = start + int(rng.uniform(0, days * DAY)) + np.sort(rng.integers(0, 900, len(item)))
        mixed = rng.permutation(len(item))
        user = np.full(len(item), 10**6 + account)
        rows.append(np.column_stack([user, item[mixed], rated[mixed], ts, role[mixed]]))
    return honest.plus(np.concatenate(rows).astype(np.int64))


def _watched(stream: Ratings) -> tuple[Watched, np.ndarray]:
    late = np.arange(len(stream.user)) >= PREFIX * len(stream.user)
    return watch(Subject(), stream.batches()), late & (stream.role == 0)


@pytest.mark.parametrize("push", [True, False], ids=["push", "nuke"])
@pytest.mark.parametrize("profile", ["random", "average", "bandwagon"])
def test_targets_and_fillers_of_a_campaign_stand_out(profile: str, push: bool) -> None:
    stream = attacked(catalogue(1), profile, push=push)
    watched, honest = _watched(stream)
    assert watched.recall(stream.role == 2, honest) >= 0.85
    assert watched.recall(stream.role == 1, honest) >= 0.7
    assert watched.flagged(honest) <= 0.025


CAMPAIGNS: list[tuple[str, dict[str, Any]]] = [
    ("random", {"push": True, "days": 1.0}),
    ("average", {"push": True, "targets": 10}),
    ("bandwagon", {"push": False, "fill": 25}),
    ("average", {"push": False, "accounts": 20, "fill": 50}),
    ("random", {"push": True, "accounts": 100, "fill": 20}),
]


@pytest.mark.skipif(not MOVIELENS.exists(), reason="needs the shared data")
@pytest.mark.parametrize(("profile", "campaign"), CAMPAIGNS, ids=str)
def test_movielens_campaigns_stand_out(profile: str, campaign: dict[str, Any]) -> None:
    stream = attacked(movielens(), profile, **campaign)
    watched, honest = _watched(stream)
    assert watched.recall(stream.role == 2, honest) >= 0.8
    assert watched.recall(stream.role == 1, honest) >= 0.6
    assert watched.flagged(stream.role == 2) >= 0.6
    assert watched.flagged(honest) <= 0.025


@pytest.mark.skipif(not MOVIELENS.exists(), reason="needs the shared data")
def test_movielens_as_it_is_is_flagged_as_often_as_promised() -> None:
    watched, honest = _watched(movielens())
    assert 0.005 <= watched.flagged(honest) <= 0.02
    assert watched.flagged(honest, 0.001) <= 0.003


def test_a_new_item_that_everybody_rates_is_not_a_campaign() -> None:
    stream = catalogue(2)
    rng = np.random.default_rng(9)
    start, count = int(stream.ts[int(0.6 * len(stream.ts))]), 300
    # An honest crowd: newcomers who come for one well liked film, and rate it as people do.
    rating = rng.choice([2, 3, 4, 5], count, p=[0.05, 0.2, 0.4, 0.35])
    ts = start + np.sort(rng.integers(0, DAY, count))
    crowd = np.column_stack(
        [np.arange(10**6, 10**6 + count), np.full(count, 9999), rating, ts, np.full(count, 3)]
    )
    stream = stream.plus(crowd)
    watched, honest = _watched(stream)
    assert watched.flagged(stream.role == 3) <= 0.03
    assert watched.flagged(honest) <= 0.025


def test_newcomers_as_such_are_not_suspicious() -> None:
    """Nearly every event of this stream is from a source's first session."""
    watched, honest = _watched(catalogue(3))
    assert watched.flagged(honest) <= 0.02
    assert watched.flagged(honest, 0.001) <= 0.004


def test_one_source_that_repeats_itself_is_not_a_crowd() -> None:
    stream = catalogue(4)
    ts = int(stream.ts[len(stream.ts) // 2]) + np.arange(60)
    same = np.full(60, 7)
    loop = np.column_stack([same + 10**6, same, np.full(60, 1), ts, np.full(60, 3)])
    stream = stream.plus(loop.astype(np.int64))
    watched, _ = _watched(stream)
    others = attacked(catalogue(4), "random", push=False, accounts=60, targets=1, fill=1)
    crowd, _ = _watched(others)
    assert watched.score[stream.role == 3].max() < 0.5 * crowd.score[others.role == 2].max()


def test_labels_need_no_order_and_some_events_no_subject() -> None:
    stream = attacked(catalogue(5), "average", push=False)
    batches = [
        replace(
            batch,
            label_names=("awful", "bad", "so so", "good", "great"),
            subject=np.where(np.arange(len(batch)) % 9 == 0, np.uint64(0), batch.subject),
        )
        for batch in stream.batches()
    ]
    watched = watch(Subject(), batches)
    silent = np.concatenate([np.arange(len(b)) % 9 == 0 for b in batches])
    assert not watched.ready[silent].any()
    assert watched.recall((stream.role == 2) & ~silent, (stream.role == 0) & ~silent) > 0.85


def test_the_sentence_names_share_history_and_account() -> None:
    stream = attacked(catalogue(1), "random", push=False)
    detector = Subject()
    state, seen = detector.empty(2), []
    for batch, role in zip(
        stream.batches(), np.split(stream.role, range(256, len(stream.role), 256)), strict=True
    ):
        rows = np.flatnonzero(role > 0)
        seen += detector.explain(state, batch, rows) if len(rows) else []
        state = detector.observe(state, batch, np.ones(len(batch), dtype=bool))
    texts = [item.text for item in seen[len(seen) // 2 :]]
    assert any("say '1', where" in text and "expected from its history" in text for text in texts)
    assert any("as accounts of one campaign do" in text and "'user-1000" in text for text in texts)
    assert {"recent_share", "expected_share", "helped_nats"} <= set(seen[-1].data)


def test_memory_is_bounded_by_the_parameters() -> None:
    detector = Subject(SubjectParams(subjects=100, sources=100))
    watched = watch(detector, catalogue(6).batches())
    # A table's overlay may hold as much again before it is folded.
    assert len(watched.state.table) <= 200
    assert len(watched.state.opinions.subjects) <= 200
    assert len(watched.state.opinions.given) <= 400


def test_an_odd_taste_accuses_nobody() -> None:
    """Accounts that rate what hardly anybody rates, as the others rate it."""
    stream = catalogue(4)
    counts = np.bincount(stream.item)
    rare = np.flatnonzero((counts > 0) & (counts <= np.quantile(counts[counts > 0], 0.4)))
    rng = np.random.default_rng(4)
    start, end = np.quantile(stream.ts, [0.5, 1.0])
    rows = []
    for user in range(10):
        for item in rng.choice(rare, size=min(40, len(rare)), replace=False):
            said = rng.choice(stream.rating[stream.item == item])
            rows.append([10_000 + user, item, said, int(rng.uniform(start, end)), 0])
    stream = stream.plus(np.array(rows))
    watched, _ = _watched(stream)
    assert watched.flagged(stream.user >= 10_000) <= 0.03
