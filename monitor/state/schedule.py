"""When a partition's state is stored, and with it what it knows of the others taken anew."""

from __future__ import annotations

import math
from dataclasses import dataclass

from monitor.state.recovery import Stamp

EXCHANGE_SHARE = 16
GOLDEN = 0.6180339887


@dataclass(frozen=True, slots=True)
class SnapshotRule:
    """How much input a recovery may have to judge again: the smaller of both bounds.

    Where there are other partitions, a snapshot is also what they learn of this one, and when it
    learns of them, so a young state is stored more often: after a sixteenth of the events it has
    seen, at least ``exchange_events``; 0 where there are none. So the number of snapshots grows
    with the logarithm of the events until it is one in ``every_events``. Partitions take turns,
    as far as their batches allow it: what all store at the same moment nobody learns before the
    next time.
    """

    every_batches: int = 128
    every_events: int = 65_536
    exchange_events: int = 0

    def exchange_due(self, partition: int, before: int, now: int) -> bool:
        """Whether an exchange falls between the events ``before`` and ``now``."""
        if not self.exchange_events:
            return False
        phase = partition * GOLDEN % 1.0
        return math.floor(self._turns(now) + phase) > math.floor(self._turns(before) + phase)

    def _turns(self, events: int) -> float:
        """How often an exchange is due in so many events."""
        young = EXCHANGE_SHARE * self.exchange_events
        old = max(young, EXCHANGE_SHARE * self.every_events)
        turns = min(events, young) / self.exchange_events
        turns += EXCHANGE_SHARE * math.log(min(max(events, young), old) / young)
        return turns + max(0, events - old) / self.every_events


def due(stamp: Stamp, count: int, policy_version: int, rule: SnapshotRule) -> bool:
    """Whether the commit that adds a batch of ``count`` records must carry a snapshot.

    A change of policy makes one due, so that no replay ever needs two policies.
    """
    if stamp.policy_version != policy_version:
        return True
    batches = len(stamp.boundaries) + 1
    before = stamp.replay_from - stamp.start_offset
    now = stamp.next_offset - stamp.start_offset + count
    return (
        batches >= rule.every_batches
        or sum(stamp.counts) + count >= rule.every_events
        or rule.exchange_due(stamp.partition, before, now)
    )
