"""What a partition makes of the others' summaries."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pytest

from monitor.core.errors import StateError
from monitor.core.types import RawBatch
from monitor.decide.incident_state import IncidentBook
from monitor.gate import Gate, GateConfig
from monitor.state import codec
from monitor.state.partition import FORMAT, GateState
from monitor.state.view import GROWN_EVENTS, LITTLE

WARM = 64


def gate() -> Gate:
    return Gate(GateConfig(warmup_events=WARM, several=True))


def lines(seed: int, n: int, labels: tuple[str, ...] = ("buy", "skip"), **more: Any) -> list[bytes]:
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        label = labels[int(rng.integers(len(labels)))]
        a = rng.normal() + (1.0 if label == labels[0] else -1.0)
        features = {"a": a, "b": rng.normal(), "late": 0.0} | more
        event = {"id": f"{seed}-{i}", "ts": 1.7e9 + i, "source": f"s{rng.integers(20)}"}
        found.append(orjson.dumps(event | {"label": label, "features": features}))
    return found


def run(state: GateState, values: list[bytes], partition: int, start: int = 0) -> GateState:
    for first in range(0, len(values), 128):
        raw = RawBatch.of(values[first : first + 128], start=start + first, partition=partition)
        state = gate().step(state, raw)[1]
    return state


@lru_cache
def alone(partition: int, n: int = 512, labels: tuple[str, ...] = ("buy", "skip")) -> GateState:
    return run(gate().start(), lines(partition, n, labels), partition)


def published(state: GateState) -> GateState:
    return gate().summary(gate().dump(state))


def own(state: GateState) -> str:
    return gate().digest(replace(state, view=None, warm=()))


def test_a_young_partition_takes_the_schema_of_the_lowest_and_learns_again() -> None:
    first, second = alone(0), alone(1)
    assert (first.root != second.root, first.founder, second.founder) == (True, 0, 1)
    found = gate().exchange(second, 1, {0: published(first)})
    state = found.state
    assert (state.root, state.founder, state.events) == (first.root, 0, 512)
    assert state.schema is not None
    assert first.schema is not None
    np.testing.assert_array_equal(state.schema.scales.knots, first.schema.scales.knots)
    # It has learned its own warm-up events again, and is judged with what the other knows.
    assert state.detectors["label_conflict"].seen == WARM
    assert state.view is not None
    assert state.view.members == ((0, 512),)
    assert state.view.detectors["label_conflict"].seen > first.detectors["label_conflict"].seen
    assert state.known == 1024
    assert not found.notices
    # The lowest one waits for it, and says nothing.
    waits = gate().exchange(first, 0, {1: published(second)})
    assert (waits.apart, waits.notices, waits.state.view) == ((1,), (), None)
    met = gate().exchange(first, 0, {1: published(state)})
    assert (met.apart, met.state.root) == ((), first.root)


def test_grown_states_with_different_schemas_stay_apart_and_say_so() -> None:
    old = replace(alone(1), events=GROWN_EVENTS)
    found = gate().exchange(old, 1, {0: published(replace(alone(0), events=GROWN_EVENTS))})
    assert found.apart == (0,)
    assert "different features" in found.notices[0]
    assert (found.state.view, found.state.root, found.state.warm) == (None, old.root, ())


def test_a_newcomer_takes_a_grown_schema_whatever_its_number() -> None:
    grown = replace(alone(3), events=GROWN_EVENTS)
    assert gate().exchange(alone(0), 0, {3: published(grown)}).state.root == grown.root
    assert gate().exchange(grown, 3, {0: published(alone(0))}).state.root == grown.root


def met(a: GateState, b: GateState) -> tuple[GateState, GateState]:
    """Partitions 0 and 1 after the second has taken the first one's schema."""
    second = gate().exchange(b, 1, {0: published(a)}).state
    return gate().exchange(a, 0, {1: published(second)}).state, second


def test_what_is_published_holds_nothing_that_was_heard() -> None:
    first, second = met(alone(0), alone(1))
    # Again and again, without a new event: nothing may grow.
    for _ in range(3):
        first = gate().exchange(first, 0, {1: published(second)}).state
        second = gate().exchange(second, 1, {0: published(first)}).state
    assert own(first) == own(alone(0))
    assert first.view is not None
    total = first.detectors["label_conflict"].seen + second.detectors["label_conflict"].seen
    assert first.view.detectors["label_conflict"].seen == total
    assert published(first).view is None
    assert published(first).warm == ()


def test_what_a_state_at_hand_has_learned_itself_is_what_it_publishes() -> None:
    for state in (met(alone(0), alone(1))[0], alone(2), gate().start()):
        assert gate().dump(gate().own_summary(state)) == gate().dump(published(state))


def test_the_view_is_stored_and_goes_on_to_the_bit() -> None:
    state = met(alone(0), alone(1))[0]
    stored = gate().load(gate().dump(state))
    assert gate().digest(stored) == gate().digest(state)
    more = lines(7, 200)
    after, again = run(state, more, 0, 512), run(stored, more, 0, 512)
    assert gate().digest(after) == gate().digest(again)
    assert after.view is not None
    assert state.view is not None
    assert after.view.digest == state.view.digest == gate().view_digest(state)
    assert after.view.events == state.view.events + 200


def test_what_an_idle_partition_counted_lately_is_told_once() -> None:
    mine, other = met(alone(0), alone(1))
    held = other.detectors["replay"]
    surge = replace(held.recent, counted=held.recent.counted + 60.0)
    replay = replace(held, recent=surge, surging=True)
    peers = {1: replace(published(other), detectors={**other.detectors, "replay": replay})}
    first = gate().exchange(replace(mine, view=None), 0, peers).state
    again = gate().exchange(first, 0, peers).state
    assert first.view is not None
    assert again.view is not None
    told = first.view.detectors["replay"]
    assert told.surging
    assert told.recent.counted >= 60.0
    told = again.view.detectors["replay"]
    assert not told.surging
    assert told.recent.counted == mine.detectors["replay"].recent.counted
    assert told.seen == first.view.detectors["replay"].seen


def test_without_others_nothing_changes() -> None:
    state = alone(0)
    assert gate().digest(gate().exchange(state, 0, {}).state) == gate().digest(state)
    cold = gate().start()
    assert gate().exchange(cold, 0, {1: published(alone(1))}).state is cold


def test_labels_get_the_lowest_partitions_numbers() -> None:
    first, second = met(alone(0), alone(1))
    new = lines(11, 3, ("x",))
    first = run(first, new, 0, 512)
    second = run(second, lines(12, 3, ("y",)), 1, 512)
    assert (first.labels.values[2], second.labels.values[2]) == ("x", "y")
    joined = gate().exchange(second, 1, {0: published(first)})
    assert joined.state.labels.values[2:] == ("x", "y")
    assert not joined.apart
    # Hardly used: what was learned of it under the other number may stay.
    assert joined.state.detectors["label_conflict"].seen > 0
    back = gate().exchange(first, 0, {1: published(joined.state)}).state
    assert back.labels.values == joined.state.labels.values


def test_a_much_used_label_that_loses_its_number_costs_the_own_evidence_only() -> None:
    first, second = met(alone(0), alone(1))
    first = run(first, lines(11, 3, ("x",)), 0, 512)
    second = run(second, lines(12, 3, ("y",)), 1, 512)
    used = (*second.labels.used[:2], 50)
    assert used[2] > LITTLE * sum(used)
    second = replace(second, labels=replace(second.labels, used=used))
    # The lowest one leaves the other out until that has renumbered, and says so.
    waits = gate().exchange(first, 0, {1: published(second)})
    assert waits.apart == (1,)
    assert "numbers its labels" in waits.notices[0]
    joined = gate().exchange(second, 1, {0: published(first)}).state
    assert joined.labels.values[2:] == ("x", "y")
    assert joined.detectors["label_conflict"].seen == 0
    assert joined.view is not None
    seen = first.detectors["label_conflict"].seen
    assert joined.view.detectors["label_conflict"].seen == seen
    assert gate().exchange(first, 0, {1: published(joined)}).apart == ()


def test_a_column_that_came_alive_elsewhere_gets_its_scale_here() -> None:
    first, second = met(alone(0), alone(1))
    values = []
    for i, line in enumerate(lines(13, 600)):
        event = orjson.loads(line)
        event["features"]["late"] = float(i % 50)
        values.append(orjson.dumps(event))
    second = run(second, values, 1, 512)
    assert second.schema is not None
    assert first.schema is not None
    assert len(second.schema.scales.dead) < len(first.schema.scales.dead)
    after = gate().exchange(first, 0, {1: published(second)}).state
    assert after.schema is not None
    np.testing.assert_array_equal(after.schema.scales.knots, second.schema.scales.knots)
    assert after.dead is not None
    assert not len(after.dead.columns)
    assert after.view is not None
    # And both can be merged and judged by.
    assert run(after, values[:100], 0, 512).events == after.events + 100


@pytest.mark.parametrize("grow", [1, 3], ids=str)
def test_a_summary_of_another_shape_is_left_out(grow: int) -> None:
    first, second = met(alone(0), alone(1))
    good = published(second)
    held = good.detectors["class_moments"]
    moments = held.moments
    odd = replace(moments, total=np.zeros((2, moments.total.shape[1] + grow)))
    bad = replace(good, detectors={**good.detectors, "class_moments": replace(held, moments=odd)})
    found = gate().exchange(first, 0, {1: bad})
    assert found.apart == (1,)
    assert "does not fit" in found.notices[0]
    assert found.state.view is None


def test_older_formats_load() -> None:
    state = replace(alone(0), warm=(), incidents=IncidentBook())
    tree = codec.unseal(gate().dump(state))
    for name in ("root", "founder", "view", "incidents"):
        del tree[name]
    for version in (1, 2):
        tree["format"] = version
        loaded = gate().load(codec.seal(tree))
        assert loaded.root == state.root
        assert loaded.view is None
        assert gate().digest(replace(loaded, founder=0)) == gate().digest(state)
    tree["format"] = FORMAT + 1
    with pytest.raises(StateError, match=f"format {FORMAT + 1}"):
        gate().load(codec.seal(tree))
