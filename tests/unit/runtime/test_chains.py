"""What a service on Kafka can tell of an event's life by itself."""

from __future__ import annotations

from dataclasses import replace

from monitor.core.desk import Held, HeldPage, ReviewStatus
from monitor.runtime.chains import Chains, remembered
from monitor.state.audit import Head

DECISION = {"id": "e1", "partition": 0, "offset": 7, "verdict": "quarantine", "policy_version": 3}
HELD = Held(
    *("0-7", 0, 7, 5.0, "e1", "s1", None, "x", 1.0, 2.0, ("sybil",), ("ring",), 3),
    status=ReviewStatus.RELEASED,
    reviewed_by="ana",
    reviewed_at=9.0,
    review_reason="known",
    decision=DECISION,
)


class FakeQuarantine:
    """Stands for the store: holds two events of which the text search finds both."""

    def search(self, chosen, limit=50, cursor=None):
        other = replace(HELD, key="0-8", offset=8, event_id="e10")
        return HeldPage([replace(HELD, decision={}), other], 2)

    def get(self, key):
        assert key == "0-7"
        return HELD


def test_held_and_flagged_events_are_found_once_each():
    latest = [DECISION, {"id": "e2", "partition": 1, "offset": 4, "verdict": "flag"}]
    look = remembered("feedback", "e1", FakeQuarantine(), lambda limit: latest[:limit])
    (life,) = look
    assert (life["topic"], life["offset"], life["policy_version"]) == ("feedback", 7, 3)
    assert life["reviews"] == [
        {"key": "0-7", "status": "released", "who": "ana", "why": "known", "at": 9.0}
    ]
    assert (life["key_id"], life["audit"]) == (None, None)
    (flagged,) = remembered("feedback", "e2", None, lambda limit: latest[:limit])
    assert (flagged["partition"], flagged["offset"], flagged["reviews"]) == (1, 4, [])
    assert remembered("feedback", "e3", None, lambda limit: latest) == []


def test_heads_are_those_of_the_keeper():
    class Keeper:  # stands for the one that writes
        def __init__(self):
            self.heads = {"feedback-0": Head(2, "ab")}

    told = Chains(Keeper(), lambda name: []).heads()
    assert told == {"enabled": True, "heads": {"feedback-0": {"seq": 2, "hash": "ab"}}}
    assert Chains(None, lambda name: []).heads() == {"enabled": False, "heads": {}}
