"""Incidents: few, bounded, named alike everywhere, and none for what false alarms explain."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import orjson
import pytest

from monitor.core.incident import Changed, IncidentKind
from monitor.decide.incident_account import account
from monitor.decide.incident_causes import explains
from monitor.decide.incident_facts import FAMILIES
from monitor.decide.incident_merge import merge
from monitor.decide.incident_names import identifier
from monitor.decide.incident_split import other_ring
from monitor.decide.incident_state import (
    MOST_CLOSED,
    MOST_OPEN,
    RECENT,
    Incident,
    IncidentBook,
)
from monitor.decide.incident_timeline import BINS, Timeline
from monitor.decide.incidents import fold
from monitor.state import codec
from tests.unit.decide.incident_making import Made, folded


def alive(book: IncidentBook) -> list:
    return [i for i in (*book.closed, *book.open) if not i.merged]


def told_of(book: IncidentBook) -> list:
    return [account(i, book.columns, book.traffic) for i in alive(book)]


def changes(steps: list, what: Changed) -> list:
    return [c.incident for step in steps for c in step.changes if c.change is what]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_stray_false_alarms_open_nothing(seed: int) -> None:
    made = Made(20_000, seed)
    made.stray()
    assert alive(folded(made)[-1].book) == []


def test_a_ring_is_one_incident_that_opens_closes_and_comes_back() -> None:
    made = Made(40_000)
    made.stray()
    first = made.ring(6_000, 10_000)
    again = made.ring(20_000, 22_000)
    steps = folded(made)
    (only,) = alive(steps[-1].book)
    opened = changes(steps, Changed.OPENED)
    assert {found["id"] for found in opened} == {only.id}
    assert len(opened) == 2
    assert len(changes(steps, Changed.CLOSED)) == 2
    assert len(only.core) == 5
    ring = len(first) + len(again)
    assert ring * 0.95 <= only.events <= ring * 1.2
    inside = sum(only.id in step.incidents.values() for step in steps)
    assert inside > 10
    told = account(only, steps[-1].book.columns, steps[-1].book.traffic)
    assert {s["source"] for s in told["sources"]["top"][:5]} == {f"ring-{i}" for i in range(5)}
    assert told["state"] == "closed"
    assert "ring-" in told["text"]
    orjson.dumps(told)


@pytest.mark.parametrize("size", [64, 512])
def test_two_rings_that_push_two_labels_at_the_same_time_are_two_incidents(size: int) -> None:
    made = Made(24_000)
    made.stray()
    one = made.ring(6_000, 12_000, label="yes")
    two = made.ring(6_500, 12_000, label="no")
    one = np.setdiff1d(one, two)
    steps = folded(made, size)
    book = steps[-1].book
    told = sorted(told_of(book), key=lambda found: found["labels"][0]["label"])
    assert [found["labels"][0]["label"] for found in told] == ["no", "yes"]
    assert len({found["id"] for found in told}) == 2
    for found, rows, name in zip(told, (two, one), ("no", "yes"), strict=True):
        top = {s["source"] for s in found["sources"]["top"][:5]}
        assert top == {f"ring-{name}{i}" for i in range(5)}
        assert 0.9 * len(rows) <= found["events"] <= 1.15 * len(rows)


def test_two_rings_against_which_two_families_speak_are_two_incidents() -> None:
    made = Made(16_000)
    made.stray()
    made.ring(6_000, 12_000, family="backdoor")
    rows = made.ring(6_000, 12_000, family="clean_label", name="other-")
    told = told_of(folded(made)[-1].book)
    assert len(told) == 2
    (other,) = [f for f in told if f["sources"]["top"][0]["source"].startswith("other-")]
    assert other["family"] == "clean_label"
    assert 0.9 * len(rows) <= other["events"] <= 1.15 * len(rows)


@pytest.mark.parametrize("sources", [6, 40])
def test_sources_of_one_mixture_are_one_ring(sources: int) -> None:
    rng = np.random.default_rng(0)
    for events in (24, 60, 200, 500):
        for share in (0.5, 0.8, 0.95):
            source = rng.integers(0, sources, events).astype(np.uint64)
            label = (rng.random(events) < share).astype(np.uint64)
            assert other_ring(source, [label]) is None


def test_sources_with_a_mixture_each_are_hardly_ever_two_rings_and_two_rings_are() -> None:
    rng, found = np.random.default_rng(0), [0, 0]
    for _ in range(60):
        source = rng.integers(0, 20, 300)
        for case, mixture in enumerate((rng.beta(0.7, 0.7, 20), np.arange(20) % 2 * 0.9 + 0.05)):
            label = (rng.random(300) < mixture[source]).astype(np.uint64)
            found[case] += other_ring(source.astype(np.uint64), [label]) is not None
    assert found[0] <= 3
    assert found[1] == 60


def test_a_third_ring_of_the_same_hour_is_a_third_incident() -> None:
    made = Made(24_000)
    made.time = made.time[0] + (made.time - made.time[0]) // 20
    made.stray()
    made.ring(6_000, 9_000, label="yes")
    made.ring(6_000, 9_000, label="no")
    third = made.ring(7_500, 9_500, family="backdoor", name="third-")
    steps = folded(made)
    for then, step in itertools.pairwise(steps):
        keys = {i.id: i.key for i in then.book.open}
        assert all(keys.get(i.id, i.key) == i.key for i in step.book.open)
    found = [*steps[-1].book.open, *steps[-1].book.closed]
    assert len({i.id for i in found}) == len({i.key for i in found}) == len(found) == 3
    (other,) = [i for i in found if any(name.startswith("third") for name in i.sources)]
    assert len(third) - 5 <= other.events <= len(third) + 5


@pytest.mark.parametrize("seed", range(3))
def test_an_event_counts_in_one_incident_and_what_is_parted_is_told(seed: int) -> None:
    made = Made(14_000, seed)
    made.stray()
    made.ring(6_000, 8_000, label="yes", family="clean_label")
    made.ring(6_000, 8_000, label="no", family="clean_label")
    told: dict[str, int] = {}
    suspicious, most = np.cumsum(made.family >= 0), 0
    for n, step in enumerate(folded(made, 16)):
        told |= {c.incident["id"]: c.incident["events"] for c in step.changes}
        every = [*step.book.open, *step.book.closed]
        assert sum(i.events for i in every) <= suspicious[min(16 * (n + 1), made.n) - 1]
        assert all(told[i.id] <= i.events for i in every)
        most = max(most, len(step.book.open))
    assert most == 2


def test_a_cause_that_took_over_a_ring_is_not_parted() -> None:
    made = Made(14_000)
    made.time = made.time[0] + (made.time - made.time[0]) // 20
    made.stray()
    made.ring(6_000, 8_000, label="yes", family="clean_label")
    made.ring(6_000, 8_000, label="no", family="clean_label")
    book = IncidentBook()
    for facts in made.batches(16):
        book = fold(book, facts).book
        if len(book.open) == 1:
            drift = replace(book.open[0], kind="drift", key="world", surprised=7)
            book = replace(book, open=(drift,))
    whole = [i for i in (*book.open, *book.closed) if i.key == "world"]
    assert [i.surprised for i in whole] == [7]


def test_one_of_two_rings_comes_back_as_itself() -> None:
    made = Made(40_000)
    made.stray()
    made.ring(6_000, 9_000, label="yes")
    made.ring(6_500, 9_000, label="no")
    made.ring(16_000, 19_000, label="no")
    told = told_of(folded(made)[-1].book)
    assert len(told) == 2
    (back,) = [found for found in told if found["last"]["offset"] > 16_000]
    assert back["labels"][0]["label"] == "no"


def test_two_rings_over_two_partitions_are_two() -> None:
    pieces = []
    for partition, first in enumerate(("yes", "no")):
        made = Made(16_000, partition)
        second = "no" if first == "yes" else "yes"
        made.ring(6_000, 12_000, 0.06, label=first)
        made.ring(6_000, 12_000, 0.04, label=second)
        book = folded(made)[-1].book
        pieces += [
            {**account(i, book.columns, book.traffic), "partition": partition} for i in alive(book)
        ]
    assert len(pieces) == 4
    whole = merge(pieces)
    assert sorted(found["labels"][0]["label"] for found in whole) == ["no", "yes"]
    assert all(len(found["parts"]) == 2 for found in whole)


@pytest.mark.parametrize("seed", range(6))
def test_a_ring_that_mixes_labels_stays_one_incident(seed: int) -> None:
    made = Made(16_000, seed)
    made.stray()
    made.ring(6_000, 12_000)
    assert len(alive(folded(made, 128)[-1].book)) == 1


def test_how_batches_are_cut_hardly_matters() -> None:
    made = Made(14_000)
    made.stray()
    made.ring(6_000, 12_000)
    found = [alive(folded(made, size)[-1].book) for size in (64, 256, 1000)]
    assert [len(one) for one in found] == [1, 1, 1]
    assert len({one[0].id for one in found}) == 1
    events = [one[0].events for one in found]
    assert max(events) <= 1.05 * min(events)


def test_the_stored_book_goes_on_as_the_one_in_memory() -> None:
    made = Made(12_000)
    made.stray()
    made.ring(4_000, 11_000)
    steps = folded(made)
    half = len(steps) // 2
    book = codec.load(IncidentBook, codec.dump(steps[half].book))
    assert book.open
    rest = list(made.batches(256))[half + 1 :]
    for facts in rest:
        book = fold(book, facts).book
    assert codec.dump(book) == codec.dump(steps[-1].book)


def test_whatever_comes_the_book_stays_small() -> None:
    made = Made(30_000)
    rows = np.flatnonzero(made.rng.random(made.n) < 0.5)
    made.names[rows] = [f"evil-{i}" for i in made.rng.integers(0, 5_000, len(rows))]
    chosen = made.rng.integers(0, 8, len(rows))
    for number, family in enumerate(("label_flip", "backdoor", "sybil", "clean_label", "replay")):
        made.suspect(rows[chosen == number], family, 20.0)
    made.suspect(rows[chosen >= 5], "shilling")
    for step in folded(made, 1024):
        book = step.book
        assert len(book.open) <= MOST_OPEN
        assert len(book.closed) <= MOST_CLOSED
        assert len(book.suspects) <= RECENT
        assert all(len(i.sources) <= 24 and len(i.evidence) <= 16 for i in book.open)
    assert len(codec.dump(book)) < 4_000_000


def test_a_trigger_is_told_from_the_values_the_events_share() -> None:
    made = Made(12_000)
    made.stray()
    rows = made.ring(5_000, 12_000)
    made.shape[rows, 1], made.shape[rows, 3] = 1.5, -2.0
    made.labels[rows] = 1
    book = folded(made)[-1].book
    (only,) = alive(book)
    told = account(only, book.columns, book.traffic)
    assert told["family"] == "backdoor"
    assert [p["feature"] for p in told["common"]["pattern"]] == ["b", "d"]
    assert "b" in told["text"]


def test_what_everybody_sends_in_clumps_is_a_drift() -> None:
    made = Made(12_000)
    made.stray()
    clump = np.concatenate([np.arange(at, at + 30) for at in (6_000, 7_000, 8_500, 10_000)])
    made.suspect(clump, "label_flip")
    found = folded(made)
    told = [
        account(i, found[-1].book.columns, found[-1].book.traffic) for i in alive(found[-1].book)
    ]
    assert told
    assert {one["kind"] for one in told} == {"drift"}


def test_what_comes_singly_from_everybody_is_a_campaign() -> None:
    made = Made(12_000)
    made.stray(0.005)
    made.suspect(
        np.flatnonzero(made.rng.random(12_000) < 0.04 * (np.arange(12_000) > 5_000)), "label_flip"
    )
    book = folded(made)[-1].book
    told = max(
        (account(i, book.columns, book.traffic) for i in alive(book)), key=lambda a: a["events"]
    )
    assert (told["kind"], told["family"]) == ("campaign", "label_flip")


def test_a_timeline_loses_no_event_and_stays_small() -> None:
    rng = np.random.default_rng(0)
    made, n = Timeline(), 0
    for span in (10, 100, 5_000, 400_000):
        time = 1_700_000_000_000_000_000 + rng.integers(0, span * 10**9, 50)
        made, n = made.after(time, np.arange(50) % 2 == 0), n + 50
        assert made.count.sum(axis=1).tolist() == [n, n // 2]
    assert BINS / 4 < len(made.told()["events"]) <= BINS
    assert Timeline.read(made.told()).told() == made.told()
    late = Timeline().after(np.array([1_700_100_000_000_000_000]), np.array([True]))
    for both in (late.joined(made), made.joined(late)):
        assert both.count.sum(axis=1).tolist() == [n + 1, n // 2 + 1]
        assert both.start_ns == made.start_ns
    assert made.joined(Timeline()) is made


def test_identifiers_tell_kind_key_and_hour_apart() -> None:
    names = {identifier(k, key, t) for k in "ab" for key in "xy" for t in (0, 3_600_000_000_000)}
    assert len(names) == 8
    assert identifier("a", "x", 5) == identifier("a", "x", 3_599_999_999_999)


def test_pieces_of_several_partitions_become_one() -> None:
    made = [Made(12_000, seed) for seed in (0, 1)]
    pieces = []
    for partition, one in enumerate(made):
        one.ring(5_000, 12_000)
        book = folded(one)[-1].book
        pieces += [
            {**account(i, book.columns, book.traffic), "partition": partition} for i in alive(book)
        ]
    assert len(pieces) == 2
    (whole,) = merge(pieces)
    assert whole["events"] == sum(piece["events"] for piece in pieces)
    assert [part["partition"] for part in whole["parts"]] == [0, 1]
    later = {
        **pieces[1],
        "first": {**pieces[1]["first"], "ts": 2e9},
        "last": {**pieces[1]["last"], "ts": 2e9},
    }
    assert len(merge([pieces[0], later])) == 2
    assert len(merge([pieces[0], {**pieces[1], "key": "another"}])) == 2


def incident(kind: IncidentKind, key: str, **what: object) -> Incident:
    return replace(Incident.begun(1, ("i-1", kind, key), (0, 0), 2), events=20, **what)


@pytest.mark.parametrize(
    ("key", "sent_again", "of_core", "copies", "explained"),
    [
        ("world", False, 0, 0, True),  # nobody's in particular
        ("world", False, 15, 0, False),  # a ring is no drift
        ("world", False, 0, 15, False),  # nor do copies come of one
        ("duplicates|", False, 0, 15, True),
        ("duplicates|", False, 15, 15, False),  # a ring repeats itself
        ("duplicates|", True, 15, 15, True),  # its very events came twice
        ("duplicates|", True, 15, 0, False),
        ("gap|", False, 0, 0, False),
    ],
)
def test_what_a_drift_or_a_fault_is_behind(
    key: str, sent_again: bool, of_core: int, copies: int, explained: bool
) -> None:
    cause = incident(IncidentKind.DATA_FAULT, key)
    families = np.zeros(len(FAMILIES), dtype=np.int64)
    families[FAMILIES.index("replay")] = copies
    other = incident(IncidentKind.CAMPAIGN, "sources", of_core=of_core, families=families)
    assert explains(cause, other, sent_again=sent_again) is explained
