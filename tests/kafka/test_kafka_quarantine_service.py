"""Two replicas of the service and their quarantine, put together as ``run`` does it."""

from __future__ import annotations

from collections import Counter

import pytest

from monitor.cli import wiring, wiring_desk
from monitor.config.settings import load_settings
from monitor.core.desk import HeldFilter, ReviewStatus
from monitor.core.errors import UsageError
from tests.checks.desk_service import running
from tests.checks.postgres import postgres
from tests.kafka.test_kafka_quarantine import NOW, event, settled, wait

__all__ = ["postgres"]
pytestmark = pytest.mark.kafka
WHO = {"who": "ann", "why": "looked at it"}
N = 80


def settings_of(cluster, name, **more):
    """Everything is held back, because the gate is still learning."""
    kafka = {
        "client": cluster.client,
        "bootstrap_servers": cluster.bootstrap,
        "group_id": f"g-{cluster.mark}",
        "transactional_id_prefix": cluster.mark,
        "instance": name,
        "partitions": 2,
        **{f"topics.{role}": topic for role, topic in cluster.topics.names().items()},
    }
    return load_settings(
        environ={},
        options={
            **{f"kafka.{key}": value for key, value in kafka.items()},
            "gate.warmup": "hold",
            "gate.warmup_events": 10_000,
            **more,
        },
    )


@pytest.mark.parametrize("shared", [True, False], ids=["one postgres", "sqlite each"])
def test_two_replicas_review_what_either_held(cluster, tmp_path, request, monkeypatch, shared):
    monkeypatch.setattr("monitor.runtime.quarantine_follower._COUNT_SECONDS", 0.2)
    url = request.getfixturevalue("postgres").fresh() if shared else ""
    both = [
        settings_of(
            cluster, name, **{"quarantine.url": url, "quarantine.dir": str(tmp_path / name)}
        )
        for name in "ab"
    ]
    cluster.transport(partitions=2, instance="creates-the-topics").close()
    with running(both[0]) as a, running(both[1]) as b:
        for desk in (a, b):  # counting begins
            wait(lambda desk=desk: len(desk._store.judged()) == 2)
        cluster.produce([(i % 2, b"%d" % i, event(i), [], NOW + i) for i in range(N)])
        for desk in (a, b):
            wait(lambda desk=desk: desk.search(HeldFilter()).total == N)
            wait(lambda desk=desk: desk.observed().judged == N)
        released = a.release(HeldFilter(source="acct-1"), **WHO)
        confirmed = b.confirm(HeldFilter(source="acct-2"), **WHO)
        refused = b.release(HeldFilter(source="acct-2"), **WHO)
        assert (len(released.done), len(confirmed.done)) == (27, 26)
        assert len(refused.refused) == len(confirmed.done)
        assert b.release(HeldFilter(source="acct-1"), **WHO).done == ()
        for desk in (a, b):
            wait(lambda desk=desk: len(desk.counts(HeldFilter())["status"]) == 3)
            seen = desk.observed()
            assert (seen.held, seen.judged, seen.promised) == (N, N, 0.001)
            assert (seen.released, seen.confirmed) == (27, 26)
            assert {e.what for e in desk.audit()} == {"release", "confirm"}
        assert a.erase("acct-0", **WHO) == 27
        wait(lambda: b.search(HeldFilter(source="acct-0")).total == 0)
        assert b.search(HeldFilter(status=ReviewStatus.OPEN)).total == 0
    values = Counter(r.value for r in settled(cluster, cluster.topics.accepted))
    assert values == {event(i): 1 for i in range(1, N, 3)}


def test_the_name_of_the_reviewers_is_taken(cluster):
    settings = settings_of(cluster, "reviews")
    with pytest.raises(UsageError, match=r"kafka\.instance"):
        wiring_desk.make_quarantine(settings, wiring.run_transport(settings), lambda: None)
