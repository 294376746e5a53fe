"""Nobody can use up the room for labels, and honest ones find theirs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.label_room import FREE_LABELS, admit
from monitor.core.labels import LabelTable
from monitor.core.types import Label
from monitor.state import codec

LIMIT = 1024
BATCH = 256
Said = tuple[Label, int]


def live(table: LabelTable, said: list[Said], limit: int = LIMIT) -> tuple[LabelTable, int]:
    """The table after ``said`` (label, source), all accepted, and how many were refused."""
    refused = 0
    for first in range(0, len(said), BATCH):
        part = said[first : first + BATCH]
        source = np.array([who for _, who in part], dtype=np.uint64)
        table, y = admit(table, [label for label, _ in part], source, limit)
        table = table.counted(y[y >= 0], source[y >= 0])
        refused += int((y < 0).sum())
    return table, refused


def ordinary(n: int = 2000) -> list[Said]:
    return [("yn"[i % 2], i % 40) for i in range(n)]


def honest(n: int, labels: int, sources: int, seed: int = 1) -> list[Said]:
    """Each label once, then by a heavy-tailed popularity, as catalogues are."""
    rng = np.random.default_rng(seed)
    weight = 1.0 / np.arange(1, labels + 1)
    more = rng.choice(labels, size=n - labels, p=weight / weight.sum()).tolist()
    which = [*rng.permutation(labels).tolist(), *more]
    who = rng.integers(0, sources, n).tolist()
    return [(f"item-{label}", source) for label, source in zip(which, who, strict=True)]


def attack(sources: int, labels: int, times: int = 1) -> list[Said]:
    return [(f"junk-{i}", 10**6 + i % sources) for _ in range(times) for i in range(labels)]


@pytest.mark.parametrize("sources", [1, 20, 300])
def test_a_thousand_honest_labels_are_all_taken(sources: int) -> None:
    table, refused = live(LabelTable(), honest(20_000, 1000, sources))
    assert (len(table), refused) == (1000, 0)
    again, refused = live(table, honest(2000, 1000, sources, seed=2))
    assert (again.values, refused) == (table.values, 0)


def test_one_source_gets_its_part_and_no_more() -> None:
    table, _ = live(LabelTable(), ordinary(20_000))
    table, refused = live(table, attack(1, 1024))
    assert len(table) - 2 <= 64 and refused >= 960
    table, refused = live(table, honest(20_000, 950, 300))
    assert refused == 0 and (table.find([f"item-{i}" for i in range(950)]) >= 0).all()


@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize("attackers", [1, 50, 1024])
def test_honest_labels_find_room_after_an_attack(attackers: int, times: int) -> None:
    table, _ = live(LabelTable(), ordinary(20_000))
    table, _ = live(table, attack(attackers, 1024, times))
    table, refused = live(table, honest(30_000, 1000, 300))
    assert refused == 0 and table.find(["y", "n"]).tolist() == [0, 1]
    known = (table.find([f"item-{i}" for i in range(1000)]) >= 0).sum()
    assert known >= 960 and len(table) <= LIMIT
    assert live(table, honest(2000, 1000, 300, seed=3))[1] == 0


@pytest.mark.parametrize(("attackers", "times"), [(1, 1), (1, 12), (50, 1), (50, 12), (1024, 12)])
def test_honest_labels_find_room_during_an_attack(attackers: int, times: int) -> None:
    """Half of the traffic is junk: each label ``times`` times, by the source that brought it."""
    table, _ = live(LabelTable(), ordinary(20_000))
    good = honest(20_000, 950, 300)
    bad = [(f"junk-{i // times}", 10**6 + i // times % attackers) for i in range(20_000)]
    mixed = [event for pair in zip(good, bad, strict=True) for event in pair]
    for first in range(0, len(mixed), BATCH):
        part = mixed[first : first + BATCH]
        source = np.array([who for _, who in part], dtype=np.uint64)
        table, y = admit(table, [label for label, _ in part], source, LIMIT)
        table = table.counted(y[y >= 0], source[y >= 0])
        assert (y[::2] >= 0).all()
    known = (table.find([f"item-{i}" for i in range(950)]) >= 0).mean()
    assert known > (0.99 if attackers == 1 else 0.6)


def test_a_flood_in_the_same_batch_does_not_come_first() -> None:
    said = [*attack(50, 1500), *[(f"item-{i}", i) for i in range(100)]]
    source = np.array([who for _, who in said], dtype=np.uint64)
    _, y = admit(LabelTable(), [label for label, _ in said], source, LIMIT)
    assert (y[1500:] >= 0).all() and (y[:1500] < 0).sum() >= 500


def test_a_number_means_one_label_within_a_batch() -> None:
    table, _ = live(LabelTable(), attack(50, 1024))
    said = [*attack(50, 1024)[:200], *[(f"item-{i}", i) for i in range(500)]]
    source = np.array([who for _, who in said], dtype=np.uint64)
    after, y = admit(table, [label for label, _ in said], source, LIMIT)
    assert y[:200].tolist() == table.find([label for label, _ in said[:200]]).tolist()
    for (label, _), number in zip(said, y.tolist(), strict=True):
        assert number < 0 or after.values[number] == label


def test_a_small_limit_is_a_list() -> None:
    table, refused = live(LabelTable(), [("fraud", 1), ("legit", 1), ("x", 2)], limit=2)
    assert table.values == ("fraud", "legit") and refused == 1
    table, _ = live(LabelTable(), ordinary())
    assert len(live(table, attack(1, 60), limit=63)[0]) == 2 + FREE_LABELS


LABELS = st.sampled_from([True, False, 0, 1, "0", "1", *[f"l{i}" for i in range(150)]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(LABELS, st.integers(0, 5)), max_size=300), st.sampled_from([3, 64, 80]))
def test_table_laws(said: list[Said], limit: int) -> None:
    table, _ = live(LabelTable(), said, limit)
    assert len(table) <= limit and len(set(table.names)) == len(table)
    assert table.find(table.values).tolist() == list(range(len(table)))
    assert table == live(LabelTable(), said, limit)[0]
    assert len(table.owner) == len(table.used) == len(table)
    stored = codec.unseal(codec.seal(table.to_list()))
    again = LabelTable.from_list(stored)
    assert again == table and live(again, said, limit) == live(table, said, limit)


def test_counting_keeps_what_was_worked_out() -> None:
    table, _ = live(LabelTable(), ordinary(10))
    assert table.names == ("y", "n") and table.used == (5, 5)
    assert table.others == (4, 4)
    more = table.counted(np.array([0, 0, 1], dtype=np.int32), np.array([0, 9, 9], np.uint64))
    assert (
        more.used == (7, 6)
        and more.others == (5, 5)
        and more.names is table.names
        and table.used == (5, 5)
    )


def test_labels_stored_before_owners_were_known_can_be_read() -> None:
    table = LabelTable.from_list([["str", "y"], ["bool", True]])
    assert table.values == ("y", True) and min(table.used) > 0
    for wrong in ([["str", 1, 0, 0, 0, 0]], [["str", "y", 1]], [["bool", 1]]):
        with pytest.raises(ValueError, match="types stored"):
            LabelTable.from_list(wrong)
