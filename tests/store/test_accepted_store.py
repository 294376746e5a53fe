"""The index of accepted events: bounded, never a double or a gap, and it finds what there is."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.blast import Asked, Checkpoint, Clause, Wanted
from monitor.core.desk import ConflictError
from monitor.core.errors import TransportError, UsageError
from monitor.lineage.checkpoints import checkpoint_row, judged
from monitor.lineage.survey import chosen_of, places_of
from monitor.runtime.blast.desk import Around
from monitor.store import accepted_writing
from monitor.store.accepted_writing import Kept
from monitor.store.ledger_rows import Operation, erase_row
from monitor.store.rows import source_digest
from tests.store.accepted_making import START, Lineage, contents, event

WHO = {"who": "ann", "why": "the account was taken over"}
NUMBER = itertools.count()


@pytest.fixture
def lineage(tmp_path):
    made = Lineage(f"sqlite:///{tmp_path}/accepted.db", partitions=2)
    yield made
    made.close()


def wanted_contents(topic):
    return Counter((p, o, json.loads(v)["id"]) for p, o, v in topic.records)


class Died(BaseException):
    """The process is gone."""


def die_at(patch, nth):
    """At the n-th statement that changes the index."""
    left = [nth]

    def dies_in(real):
        def dying(*given):
            left[0] -= 1
            if not left[0]:
                raise Died
            return real(*given)

        return dying

    for name in ("insert_new", "upsert", "remove"):
        patch.setattr(accepted_writing, name, dies_in(getattr(accepted_writing, name)))


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["event", "read", "flush", "die"]), max_size=60),
    deaths=st.lists(st.integers(1, 4), max_size=30),
    gaps=st.integers(0, 2),
)
def test_whatever_dies_when_nothing_is_doubled_or_missing(tmp_path_factory, steps, deaths, gaps):
    folder = tmp_path_factory.mktemp("index")
    lineage = Lineage(f"sqlite:///{folder}/{next(NUMBER)}.db", partitions=2)
    number = 0

    def begun():
        made = lineage.follower(most=5)
        made._begin()
        return made

    follower = begun()
    for step in [*steps, "read"]:
        if step == "event":
            for _ in range(11):
                lineage.topic.add(event(number), number % 2, gaps)
                number += 1
        elif step == "read":
            follower._read(0.0)
        elif step == "flush":
            with follower._lock:
                follower._flush()
        else:  # in the middle of a transaction, at one of its statements
            with pytest.MonkeyPatch.context() as patch:
                die_at(patch, deaths.pop() if deaths else 1)
                with contextlib.suppress(Died):
                    follower._read(0.0)
                    with follower._lock:
                        follower._flush()
            follower._store.close()
            follower = begun()
    follower.sync()
    found = contents(follower._store)
    assert Counter(found) == wanted_contents(lineage.topic)
    for part in (0, 1):
        offsets = [offset for p, offset, _ in found if p == part]
        assert offsets == sorted(offsets)
    follower._store.close()


def test_two_instances_share_an_index(database_url):
    lineage = Lineage(database_url, partitions=2)
    a, b = lineage.follower(most=3), lineage.follower(most=4)
    for one in (a, b):
        one._begin()
    for i in range(90):
        lineage.topic.add(event(i), i % 2)
        (a, b, a)[i % 3]._read(0.0)
        if i % 5 == 0:
            one = (b, a)[i % 2]
            with one._lock:
                one._flush()
    for one in (a, b):
        one.sync()
    assert Counter(contents(a._store)) == wanted_contents(lineage.topic)
    assert a._store.places() == b._store.places() == {0: 45, 1: 45}
    for one in (a, b):
        one._store.close()


def test_the_oldest_go_first_and_the_answer_says_so(lineage, tmp_path):
    desk = lineage.desk()
    for i in range(160):
        lineage.topic.add(event(i, source=f"s{i % 4}"), 0)
    desk._sync()
    store = desk._store
    events, size = store.size()
    assert events == 160
    whole = desk.blast(Asked(sources=("s1",)))
    assert whole["checkpoints"]["certain"] and whole["index"]["complete_from"] == {"0": 0, "1": 0}
    store._kept = Kept(1e6, size // 2, 16)
    assert store.forget(START + 10) > 0
    events, after = store.size()
    assert 0 < events < 160 and after <= size // 2
    assert [offset for _, offset, _ in contents(store)] == list(range(160 - events, 160))
    part = desk.blast(Asked(sources=("s1",)))
    assert part["index"]["complete_from"] == {"0": 160 - events, "1": 0}
    assert not part["checkpoints"]["certain"]
    assert part["events"] == len([i for i in range(160 - events, 160) if i % 4 == 1])
    # By age, but for the last segment: it is not full yet.
    store._kept = Kept(1.0, 1 << 40, 16)
    store.forget(START + 2 * 86_400)
    assert 0 < store.size()[0] <= 16
    # What was forgotten is not read again.
    desk._sync()
    assert store.size()[0] <= 16


def test_an_erased_source_is_gone_and_does_not_come_back(lineage):
    desk = lineage.desk()
    for i in range(50):
        lineage.topic.add(event(i, source=f"s{i % 5}"), i % 2)
    events, upto = desk.accepted_of("s3")
    assert (events, upto) == (10, {0: 24, 1: 21})
    operation = Operation("1", "erase", "ann", "request 4711", START)
    row = erase_row(operation, source_digest("s3"), {}, upto)
    lineage.log.open().append([row])
    for _ in range(2):
        desk._sync()
        assert desk.blast(Asked(sources=("s3",)))["events"] == 0
        assert desk.blast(Asked(sources=("s1",)))["events"] == 10
        assert desk._store.size()[0] == 40
        # The topic is read anew; it still has them.
        lineage.topic.anew = True
        lineage.log.open().append([row])
    # What comes later is another matter.
    lineage.topic.add(event(99, source="s3"), 0)
    desk._sync()
    assert desk.blast(Asked(sources=("s3",)))["events"] == 1


names = st.lists(st.sampled_from(["x", "y", "z", "nobody"]), max_size=2, unique=True).map(tuple)
clauses = st.builds(
    Clause,
    st.just("c"),
    names,
    names,
    st.lists(st.sampled_from(["a", "1", "true"]), max_size=2, unique=True).map(tuple),
    st.lists(
        st.tuples(st.sampled_from(["f", "g", "w"]), st.integers(-1, 2), st.integers(0, 3)),
        max_size=1,
    ).map(tuple),
    st.lists(
        st.tuples(st.sampled_from(["w", "f"]), st.sampled_from(["on", "off"])), max_size=1
    ).map(tuple),
)
events = st.fixed_dictionaries(
    {
        "source": st.sampled_from("xyz"),
        "label": st.sampled_from(["a", 1, "1", True]),
        "ts": st.integers(0, 20),
        "features": st.fixed_dictionaries(
            {},
            optional={
                "f": st.integers(-2, 3) | st.booleans(),
                "g": st.integers(-2, 3) | st.none(),
                "w": st.sampled_from(["on", "off", 1]),
            },
        ),
    },
    optional={"subject": st.sampled_from("xyz")},
)


def fits(body, clause):
    shown = str(body["label"]).lower() if isinstance(body["label"], bool) else str(body["label"])
    features = body["features"]

    def number(name):
        value = features.get(name)
        return None if value is None or isinstance(value, str) else float(value)

    return (
        (not clause.sources or body["source"] in clause.sources)
        and (not clause.subjects or body.get("subject") in clause.subjects)
        and (not clause.labels or shown in clause.labels)
        and all((v := number(n)) is not None and low <= v <= high for n, low, high in clause.near)
        and all(features.get(name) == text for name, text in clause.equal)
    )


def is_meant(place, body, wanted):
    part, offset = place
    return (
        fits(body, wanted.must)
        and (not wanted.some or any(fits(body, clause) for clause in wanted.some))
        and (wanted.since is None or body["ts"] >= wanted.since)
        and (wanted.until is None or body["ts"] < wanted.until)
        and (wanted.upto is None or offset < wanted.upto.get(part, 0))
    )


@settings(max_examples=60, deadline=None)
@given(
    bodies=st.lists(events, max_size=45),
    wanted=st.builds(
        Wanted,
        clauses,
        st.lists(clauses, max_size=2).map(tuple),
        st.none() | st.integers(0, 20),
        st.none() | st.integers(0, 20),
        st.none() | st.fixed_dictionaries({0: st.integers(0, 30)}, optional={1: st.integers(0, 9)}),
    ),
)
def test_it_finds_what_a_plain_look_finds(tmp_path_factory, bodies, wanted):
    folder = tmp_path_factory.mktemp("index")
    lineage = Lineage(f"sqlite:///{folder}/{next(NUMBER)}.db", partitions=2)
    for i, body in enumerate(bodies):
        lineage.topic.add(json.dumps({"id": f"e{i}", **body}).encode(), i % 2)
    follower = lineage.follower()
    follower._begin()
    follower.sync()
    found = [
        place
        for segment in chosen_of(follower._store.segments(wanted), wanted)
        for place in places_of(segment)
    ]
    assert sorted(found) == sorted(
        place[:2]
        for place in lineage.topic.records
        if is_meant(place[:2], json.loads(place[2]), wanted)
    )
    follower._store.close()


@pytest.mark.parametrize("seed", range(8))
def test_each_event_is_retracted_once_whatever_dies_when(lineage, monkeypatch, seed):
    rng = random.Random(seed)
    words = ["fine", "before", "after", "dies before", "dies after"]
    plan = rng.choices(words, [3, 1, 1, 1, 1], k=rng.randint(1, 12))
    monkeypatch.setattr("monitor.runtime.blast.desk._SLICE", 3)
    monkeypatch.setattr("monitor.runtime.reviewing._PAUSE_SECONDS", 0.0)
    for i in range(40):
        lineage.topic.add(event(i, source=f"s{i % 4}"), i % 2)
    desk, asked, done = lineage.desk(), Asked(sources=("s1", "s2")), None
    lineage.reviewer.failures = list(plan)
    for attempt in range(len(plan) + 1):
        with contextlib.suppress(TransportError):
            done = desk.retract(asked, key="the-one-key", **WHO)
            break
        if not attempt:  # somebody else asks for a part of it meanwhile
            failures, lineage.reviewer.failures = lineage.reviewer.failures, []
            desk.retract(Asked(sources=("s1",), until=START + rng.randint(0, 30)), **WHO)
            lineage.reviewer.failures = failures
    lineage.reviewer.failures = []
    assert done is not None
    lineage.topic.add(event(99, source="s1"), 0)
    # The same request does not take what came after it.
    assert desk.retract(asked, key="the-one-key", **WHO) == done
    with pytest.raises(ConflictError):
        desk.retract(Asked(sources=("s3",)), key="the-one-key", **WHO)
    sent = Counter(record["id"] for record in lineage.reviewer.sent)
    assert sent == {f"e{i}": 1 for i in range(40) if i % 4 in (1, 2)}
    assert done.events + done.already == 20
    mine = [r for r in lineage.reviewer.sent if r["retraction"] == done.request]
    kept = {one.request: one.events for one in desk.retractions()}
    assert len(mine) == done.events == kept.get(done.request, 0)
    # Somebody else's key of the same name is another request.
    other = desk.retract(asked, key="the-one-key", who="ben", why="too")
    assert (other.events, other.already) == (1, 20)


def test_a_stolen_keys_events_are_found_and_taken_back_by_its_id(lineage):
    """Whatever sources it spoke for; across segments, and after the index was opened anew."""
    for i in range(60):
        key = ("stolen", "other", None)[i % 3]
        lineage.topic.add(event(i, source=f"s{i % 4}"), i % 2, key=key)
    lineage.desk().stop()
    desk = lineage.desk()
    asked = Asked(keys=("stolen",))
    found = desk.blast(asked, shown=100)
    assert found["events"] == 20 and found["keys"] == {"distinct": 1, "top": {"stolen": 20}}
    assert found["sources"]["distinct"] == 4 and found["index"]["keys"] == "claimed"
    assert {one["id"] for one in found["items"]} == {f"e{i}" for i in range(0, 60, 3)}
    assert {one["key_id"] for one in found["items"]} == {"stolen"}
    assert desk.blast(Asked(keys=("nobody's",)))["events"] == 0
    assert desk.blast(Asked(keys=("stolen", "other"), sources=("s1",)))["events"] == 10
    done = desk.retract(asked, **WHO)
    assert (done.events, done.already) == (20, 0)
    assert {r["id"] for r in lineage.reviewer.sent} == {f"e{i}" for i in range(0, 60, 3)}
    assert desk.blast(asked)["retracted"] == 20
    assert desk.retractions()[0].asked["asked"] == {"keys": ["stolen"]}


def test_records_say_what_is_taken_back_and_the_rest_is_refused(lineage):
    desk = lineage.desk(most=10)
    for i in range(30):
        lineage.topic.add(event(i, source=f"s{i % 3}", label=[True, 7, "a"][i % 3]), i % 2)
    asked = Asked(sources=("s1",), since=START + 3, until=START + 9)
    dry = desk.retract(asked, who="ann", why="dry run", dry_run=True)
    assert (dry.events, dry.by_label, lineage.reviewer.sent) == (2, {"7": 2}, [])
    chained = []
    desk.around = Around(chain=chained.append)
    done = desk.retract(asked, **WHO)
    (told,) = chained
    assert (told.what, told.who, told.why) == ("retract", "ann", WHO["why"])
    assert (told.details["events"], told.details["ids"]) == (2, ["e4", "e7"])
    assert [r["accepted"] for r in lineage.reviewer.sent] == [
        {"topic": "accepted", "partition": 0, "offset": 2},
        {"topic": "accepted", "partition": 1, "offset": 3},
    ]
    first = lineage.reviewer.sent[0]
    assert {k: first[k] for k in ("version", "id", "source", "label", "ts", "reason", "by")} == {
        "version": 1, "id": "e4", "source": "s1", "label": 7, "ts": START + 4,
        "reason": WHO["why"], "by": "ann",
    }  # fmt: skip
    found = desk.blast(Asked(sources=("s1",)))
    assert (found["events"], found["retracted"]) == (10, 2)
    (kept,) = desk.retractions()
    assert (kept.request, kept.events, kept.who) == (done.request, 2, "ann")
    for bad, said in (
        (Asked(), "needed"),
        (Asked(sources=("s1", "s2")), "max_retract_events"),
        (Asked(sources=("s1",), since=5.0, until=5.0), "later"),
    ):
        with pytest.raises(UsageError, match=said):
            desk.retract(bad, **WHO)
    with pytest.raises(UsageError, match="why"):
        desk.retract(asked, who="ann", why=" ")
    assert len(lineage.reviewer.sent) == 2


def test_checkpoints_are_bounded_and_bad_ones_cost_only_themselves(lineage, caplog):
    desk = lineage.desk()
    for i in range(20):
        lineage.topic.add(event(i, source=f"s{i // 10}"), 0)
    bad = [b"", b"[]", b'{"version":1}', b'{"version":2,"name":"x","ts":1,"offsets":{"0":1}}',
           b'{"version":1,"name":"x","ts":1,"offsets":{"-1":1}}',
           b'{"version":1,"name":"x","ts":1e999,"offsets":{"0":1}}',
           b'{"version":1,"name":"x","ts":1,"offsets":{"0":true}}', b"\xff",
           b'{"version":1,"name":"x","ts":-1,"offsets":{"0":1}}',
           b'{"version":1,"name":"x","ts":3093527980800,"offsets":{"0":1}}',
           b'{"version":1,"name":"x","ts":true,"offsets":{"0":1}}',
           b'{"version":1,"name":"x","ts":1,"offsets":{"0":-1}}',
           b'{"version":1,"name":"  ","ts":1,"offsets":{"0":1}}']  # fmt: skip
    lineage.models.open().append([(b"x", value) for value in bad])
    for i in range(9):
        desk.announce(Checkpoint(f"m{i}", float(i), {0: 11 + i}), who="ann")
    names = [one.name for one in desk.checkpoints()]
    assert names == ["m8", "m7", "m6", "m5", "m4"]
    assert f"{len(bad)} records of checkpoints cannot be used" in caplog.text
    deadline = time.monotonic() + 30
    while not desk._follower.partitions():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(UsageError, match="accepted has no partition 7; it has 0 to 1"):
        desk.announce(Checkpoint("elsewhere", 99.0, {0: 1, 7: 1}), who="ann")
    assert len(desk.checkpoints()) == 5
    found = desk.blast(Asked(sources=("s1",)))["checkpoints"]
    assert found["last_clean"] is None and len(found["tainted"]) == 5
    desk.announce(Checkpoint("m9", 9.0, {0: 10}), who="ann")
    found = desk.blast(Asked(sources=("s1",)))["checkpoints"]
    assert found["last_clean"]["name"] == "m9"


def test_a_checkpoint_keeps_its_name_and_lies_within_what_there_is(lineage, caplog):
    notes = []
    desk = lineage.desk(around=Around(note=notes.append))
    for i in range(20):
        lineage.topic.add(event(i), 0)
    made = desk.announce(Checkpoint("cp1", 5.0, {0: 12}), who="ann")
    assert not made.known and notes[0].details == {"name": "cp1", "ts": 5.0, "offsets": {"0": 12}}
    assert desk.announce(Checkpoint("cp1", 5.0, {0: 12}), who="ben").known
    later = desk.announce(Checkpoint("cp1", 6.0, {0: 12}), who="ben", dated=False)
    assert later.known and later.checkpoint.ts == 5.0
    other = lineage.desk()  # another replica has read the same
    for changed in (Checkpoint("cp1", 5.0, {0: 1}), Checkpoint("cp1", 6.0, {0: 12})):
        for one in (desk, other):
            with pytest.raises(ConflictError, match=r"offsets 0-12 and .* 5\..*another name"):
                one.announce(changed, who="ben")
    with pytest.raises(UsageError, match="0-21 is beyond the end: partition 0 of accepted ends at"):
        desk.announce(Checkpoint("cp2", 7.0, {0: 21}), who="ann")
    desk.announce(Checkpoint("cp2", 7.0, {0: 20}), who="ann")
    assert len(notes) == 2
    assert [(one.name, one.offsets) for one in desk.checkpoints()] == [
        ("cp2", {0: 20}),
        ("cp1", {0: 12}),
    ]
    assert "announced again" not in caplog.text
    # Whoever writes to the topic goes past the desk; a compacted one has the latest only.
    lineage.models.open().append([checkpoint_row(Checkpoint("cp1", 5.0, {0: 1}))])
    assert desk.checkpoints()[1].offsets == {0: 1}
    assert "1 checkpoints were announced again" in caplog.text and "'cp1'" in caplog.text


@given(
    models=st.lists(st.dictionaries(st.integers(0, 2), st.integers(0, 9), min_size=1), max_size=6),
    firsts=st.dictionaries(st.integers(0, 2), st.integers(0, 9)),
)
def test_a_clean_checkpoint_has_read_none_of_the_events(models, firsts):
    made = [Checkpoint(f"m{i}", float(i), offsets) for i, offsets in enumerate(models)]
    found = judged(made, firsts, {0: 0})
    learned = {m.name for m in made if any(m.offsets.get(p, 0) > at for p, at in firsts.items())}
    assert {one["name"] for one in found["tainted"]} == learned
    clean = [m.name for m in made if m.name not in learned and set(firsts) <= set(m.offsets)]
    assert (found["last_clean"] or {}).get("name") == (clean[-1] if clean else None)
    assert len(found["unclear"]) + len(learned) + len(clean) == len(made)


def test_the_gate_comes_first(lineage):
    follower = lineage.follower()
    pauses = []
    follower._stop.wait = pauses.append
    follower.busy = lambda: len(pauses) < 3 or bool(follower._stop.set())
    for i in range(300):
        lineage.topic.add(event(i), 0)
    follower._begin()
    follower._follow()
    follower.sync(60.0)  # its own last look is a short one
    assert len(pauses) == 3 and all(seconds > 0 for seconds in pauses)
    assert len(contents(follower._store)) == 300
    follower._store.close()
