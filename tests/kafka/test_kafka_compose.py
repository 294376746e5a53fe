"""The compose stack as processes: every Grafana query has data, and the learners learn.

A real broker, the generator with its attack, the monitor, both learners, and a real Prometheus with
the shipped rules. What only happens in trouble is made to happen: an attack, broken records, a
detector that fails, a change of the policy, a review.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.checks.prometheus import need
from tests.kafka.kafka_helpers import Cluster
from tests.observability import grafana_queries as queries
from tests.observability.compose_stack import Stack

SETTLE_SECONDS = 90.0
NO_DRILL = "no drill runs here; tests/kafka/test_kafka_drill.py has one"
REFUSED = 'poisoning_monitor_provenance_events_total{outcome!~"verified|unsigned|not_an_event"} > 0'
ABSENT = {
    "poisoning_monitor_drill_recall": NO_DRILL,
    "poisoning_monitor_drill_delay_events": NO_DRILL,
    "poisoning_monitor_drill_canaries_total": NO_DRILL,
    REFUSED: "nobody signs here; tests/kafka/test_kafka_provenance.py has refused signatures",
}
"""Metrics that the service does not give here, and why. One that it gives fails the test."""

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def stack(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything up, the attack seen, and what only happens in trouble under way."""
    need("prometheus")
    with Cluster(bootstrap, "confluent") as cluster:
        found = Stack(cluster, tmp_path_factory.mktemp("compose"))
        try:
            found.start_all()
            held = 'poisoning_monitor_events_total{verdict="quarantine"} > 50'
            found.until(lambda: found.prometheus.query(held), "nothing was held back")
            found.fail_a_detector()
            found.change_the_policy()
            found.until(found.anything_to_review, "nothing to review")
            # The review changes the policy once more: Prometheus has to see one after the other.
            second = "poisoning_monitor_policy_version == 2"
            found.until(lambda: found.prometheus.query(second), "version 2 is not seen")
            found.review()
            yield found
        finally:
            found.stop()


def test_every_query_has_data(stack: Stack) -> None:
    left = queries.all_queries()
    absent = {name.partition("{")[0] for name in ABSENT}
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        left = [asked for asked in left if not stack.has_data(asked)]
        unexplained = [asked for asked in left if not asked.metrics() & absent]
        if not unexplained:
            break
        if time.monotonic() > deadline:
            lines = "\n".join(f"{asked.place}: {asked.filled().expr}" for asked in unexplained)
            pytest.fail(f"no data:\n{lines}\n{stack.logs()}")
        time.sleep(1.0)
    excused = {name for asked in left for name in asked.metrics()}
    for name, why in ABSENT.items():
        there = stack.prometheus.query(name)
        assert not there and name.partition("{")[0] in excused, (
            f"{name} has data, take it off the list ({why})"
        )


def test_every_exemplar_query_has_exemplars(stack: Stack) -> None:
    wanted = [asked for asked in queries.all_queries() if asked.exemplar]
    assert len(wanted) >= 3
    for asked in wanted:
        stack.until(lambda asked=asked: stack.has_exemplars(asked), f"none for {asked.place}", 30.0)


def test_every_variable_has_values(stack: Stack) -> None:
    asked = [one for board in queries.boards().values() for one in queries.variable_queries(board)]
    span = {"start": stack.began, "end": time.time()}
    for query, label in {(query.filled().expr, label) for query, label in asked}:
        path = f"/api/v1/label/{label}/values"
        assert stack.prometheus.get(path, **{"match[]": query}, **span)["data"], (query, label)


def test_policy_changes_are_marked_with_their_versions(stack: Stack) -> None:
    (board, *_) = queries.boards().values()
    (asked,) = (a for a in queries.annotation_queries(board) if a.place.endswith("Policy changes"))

    def marked() -> set[str]:
        return {row["metric"]["version"] for row in stack.series(asked)}

    stack.until(lambda: marked() == {"2", "3"}, "versions 2 and 3 are not marked", 30.0)


def test_the_learners_learn_and_only_one_of_them_from_broken_records(stack: Stack) -> None:
    def learned(name: str) -> int:
        reports = stack.reports(name)
        return int(reports[-1]["learned"]) if reports else 0

    for name in ("learner", "learner-ungated"):
        stack.until(lambda name=name: learned(name) > 3000, f"{name} does not learn")
    gated, ungated = (stack.reports(name)[-1] for name in ("learner", "learner-ungated"))
    # A third by chance.
    assert gated["right"] > 0.5
    assert gated["no_event"] == 0 < ungated["no_event"]
    through = 'poisoning_monitor_events_total{verdict=~"flag|quarantine",action="hold"}'
    assert float(stack.prometheus.query(f"sum({through})")[0]["value"][1]) > 50
