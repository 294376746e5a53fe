"""Accepted events in columns: nothing is lost on the way, and odd records cost only themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.blast import NOWHERE, AcceptedBatch, Asked
from monitor.core.errors import StateError, UsageError
from monitor.lineage.asking import PATTERN, SENDERS, Index, wanted_of
from monitor.lineage.columns import unpacked
from monitor.lineage.matching import matched
from monitor.lineage.names import bloom, digest, may_hold
from monitor.lineage.reading import segment_of
from monitor.lineage.segment import Segment, stored, together
from monitor.lineage.survey import item

texts = st.text(max_size=6)
cells = st.none() | st.booleans() | st.floats(-1e6, 1e6, width=32) | st.integers(-9, 9) | texts
values = st.fixed_dictionaries(
    {
        "id": texts,
        "ts": st.integers(0, 2**31) | st.just("2026-05-01T12:00:00Z"),
        "source": texts,
        "label": texts | st.integers(-(2**62), 2**62) | st.booleans(),
        "features": st.lists(st.integers(-9, 9), max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c=d"]), cells, max_size=3),
    },
    optional={"subject": texts, "weight": st.floats(0.5, 9.0, width=32)},
)


def segment(bodies: list[bytes], start: int = 0) -> Segment:
    n = len(bodies)
    return segment_of(
        AcceptedBatch([0] * n, range(start, start + n), [5.0] * n, bodies, [NOWHERE] * n)
    )


def shown(made: Segment, row: int) -> dict[str, object]:
    one = item(made, row)
    numbers, words = made.numbers, made.categories
    features = {
        name: float(x)
        for name, x in zip(numbers.names, numbers.x[row], strict=True)
        if np.isfinite(x)
    }
    for name, column in zip(words.names, words.words, strict=True):
        text = column.texts()[row]
        if text is not None:
            features[name] = text
    return one | {"features": features}


@settings(max_examples=60, deadline=None)
@given(st.lists(values, min_size=1, max_size=12), st.integers(1, 5), st.randoms())
def test_what_goes_in_comes_out(bodies, size, rng):
    lines = [json.dumps(body).encode() for body in bodies]
    parts = [segment(lines[i : i + size], i) for i in range(0, len(lines), size)]
    whole = together([stored(len(part), part.packed()) for part in parts])
    whole = stored(len(whole), whole.packed())
    order = list(range(len(lines)))
    rng.shuffle(order)
    taken = whole.take(np.array(order))
    for row, at in enumerate(order):
        body, found = bodies[at], shown(taken, row)
        assert found["accepted"] == {"partition": 0, "offset": at}
        clean = {n: body[n].replace("\0", "\ufffd") for n in ("id", "source")}
        assert {name: found[name] for name in clean} == clean
        if not isinstance(body["label"], str):
            assert found["label"] == body["label"] and type(found["label"]) is type(body["label"])
        assert found["ts"] == (1777636800.0 if isinstance(body["ts"], str) else body["ts"])
        assert found["weight"] == body.get("weight", 1.0)
        features = body["features"]
        if isinstance(features, list):
            features = {f"f{i}": value for i, value in enumerate(features)}
        assert found["features"] == {
            name: value.replace("\0", "\ufffd") if isinstance(value, str) else float(value)
            for name, value in features.items()
            if value is not None
        }


@pytest.mark.parametrize(
    "odd",
    [b"", b"null", b"[]", b"\xff", b'{"id":7}', b'{"features":"x"}', b'{"features":[1e999]}',
     b'{"ts":"soon","id":"k"}', b'{"features":[' + b"[" * 5000, b'{"label":1e30,"id":"k"}',
     b'{"weight":1e300,"id":"k","features":[1e300]}'],
)  # fmt: skip
def test_odd_records_cost_only_themselves(odd):
    good = b'{"id":"g","ts":1,"source":"s","label":"a","features":[1,2]}'
    made = segment([good, odd, good])
    assert len(made) == 3 and made.ids[0] == made.ids[2] == "g"
    assert made.numbers.x[[0, 2]].tolist() == [[1.0, 2.0], [1.0, 2.0]]
    again = stored(3, made.packed())
    assert again.ids == made.ids and np.isfinite(again.weight).all()


def test_what_is_kept_of_an_event_has_a_bound():
    wide = {"id": "i" * 9000, "source": "s", "features": {f"x{i}": i for i in range(5000)}}
    made = segment(
        [json.dumps(wide).encode(), json.dumps(wide | {"features": {"z": "a"}}).encode()]
    )
    assert len(made.ids[0]) == 512 and len(made.numbers.names) == 256


def test_damaged_columns_are_said_to_be():
    made = segment([b'{"id":"g"}']).packed()
    with pytest.raises(StateError, match="damaged"):
        unpacked(made["ids"][:-3])
    with pytest.raises(StateError, match="damaged"):
        assert stored(1, made | {"place": made["ids"]}).places


@given(st.sets(texts, max_size=40), st.sets(texts, max_size=5))
def test_a_filter_never_denies_what_is_there(names, asked):
    made = bloom(names)
    for name in names:
        assert may_hold(made, [digest(name)])
    wrong = [name for name in asked - names if may_hold(made, [digest(name)])]
    assert len(wrong) <= 3


def incident(**more):
    return {
        "id": "i-1",
        "state": "closed",
        "first": {"ts": 10.0},
        "last": {"ts": 20.0},
        "sources": {"top": [{"source": "ring", "events": 9}, {"source": "passer-by", "events": 2}]},
        "labels": [{"label": "fraud", "events": 9}],
        "common": {"pattern": [
            {"feature": "amount", "normal_score": 1.0, "value": 50.0},
            {"feature": "hour", "normal_score": 1.0, "value": None},
            {"feature": "country=AT", "normal_score": 1.0, "value": 1.0},
            {"feature": "country=(other)", "normal_score": 1.0, "value": 1.0},
        ]},
    } | more  # fmt: skip


def ordinary(i, **more):
    body = {"id": f"e{i}", "ts": 10 + i % 10, "source": f"acct-{i % 30}", "label": "ok"}
    features = {"amount": float(i % 40), "hour": float(i % 24), "country": "DE"}
    return body | {"features": features | more.pop("features", {})} | more


def index_of(bodies):
    made = [segment([json.dumps(body).encode() for body in bodies])]
    return Index(lambda _: made, lambda: made[-1])


def test_an_incident_becomes_conditions():
    index = index_of([ordinary(i) for i in range(200)])
    wanted = wanted_of(Asked(incident="i-1"), incident(), index)
    senders, pattern = wanted.some
    assert (senders.name, senders.sources, senders.labels) == (SENDERS, ("ring",), ("fraud",))
    assert (pattern.name, pattern.labels) == (PATTERN, ("fraud",))
    ((feature, low, high),) = pattern.near
    assert feature == "amount" and 49.0 < low < 50.0 < high < 51.0
    assert pattern.equal == (("country", "AT"),)
    # What passed before anybody noticed counts too, and what comes after while it goes on.
    assert wanted.since == 0.0 and 30.0 < wanted.until < 30.1
    assert wanted_of(Asked(incident="i-1"), incident(state="open"), index).until is None
    wider = wanted_of(Asked(incident="i-1", since=3.0), incident(), index)
    assert wider.since == 3.0
    with pytest.raises(UsageError, match="neither sources nor a pattern"):
        wanted_of(Asked(incident="i-1"), incident(common={}, sources={"top": []}), index)


@pytest.mark.parametrize(("honest", "named"), [(20, ("ring", "busy")), (60, ("ring",))])
def test_who_was_mostly_honest_is_not_taken_back(honest, named):
    bodies = [ordinary(i, source="busy") for i in range(honest)]
    bodies += [ordinary(i, source="ring", label="fraud") for i in range(9)]
    top = [{"source": "ring", "events": 9}, {"source": "busy", "events": 10}]
    found = wanted_of(Asked(incident="i-1"), incident(sources={"top": top}), index_of(bodies))
    assert found.some[0].sources == named


def test_a_busy_honest_source_does_not_hide_the_ring():
    """Where one source sends nearly all that there is, false alarms about it outnumber a ring."""
    bodies = [ordinary(i, source="all-of-it") for i in range(2000)]
    bodies += [ordinary(i, source=f"ring-{i % 5}", label="fraud") for i in range(15)]
    ring = [{"source": f"ring-{i}", "events": 40 - i} for i in range(5)]
    top = [{"source": "all-of-it", "events": 422}, *ring, {"source": "passer-by", "events": 2}]
    index = index_of(bodies)
    found = wanted_of(Asked(incident="i-1"), incident(sources={"top": top}), index)
    assert found.some[0].sources == tuple(f"ring-{i}" for i in range(5))
    (segment,) = index.look(found)
    assert matched(segment, found)[0].sum() == 15


@pytest.mark.parametrize("usual", [False, True])
def test_what_the_senders_events_share_is_the_pattern(usual):
    """And not what the incident says of it; but what all events have anyway tells nothing."""
    trigger = {"amount": 7.25, "hour": 3.5}
    bodies = [ordinary(i, features=trigger if usual else {}) for i in range(200)]
    bodies += [ordinary(i, source="ring", label="fraud", features=trigger) for i in range(20)]
    bodies += [ordinary(9, source="hidden", label="fraud", features=trigger)]
    index = index_of(bodies)
    wanted = wanted_of(Asked(incident="i-1"), incident(), index)
    pattern = {name: (low, high) for name, low, high in wanted.some[1].near}
    if usual:
        assert pattern["amount"][0] > 40
        return
    assert all(pattern[name][0] < value < pattern[name][1] for name, value in trigger.items())
    (found,) = index.look(wanted)
    who = [found.source.texts()[row] for row in matched(found, wanted)[1][1].nonzero()[0]]
    assert who.count("ring") == 20 and who.count("hidden") == 1 and len(who) == 21
