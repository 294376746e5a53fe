"""What a running service tells of its audit chains, and of the life of an event."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from monitor.core.desk import Held, HeldFilter, ReviewStatus
from monitor.runtime.audit_keeper import AuditKeeper
from monitor.state.audit_lineage import described

if TYPE_CHECKING:
    from monitor.runtime.quarantine import Quarantine

Found = list[dict[str, Any]]
LATEST = 1000


class Chains:
    """Heads of the chains, and events looked up by id, one after the other.

    Parameters
    ----------
    keeper
        Knows the heads; None where there are no chains.
    look
        Finds every decision about an event.
    """

    def __init__(self, keeper: AuditKeeper | None, look: Callable[[str], Found]) -> None:
        self._keeper, self._look = keeper, look
        self._lock = threading.Lock()

    def heads(self) -> Mapping[str, Any]:
        """Number and hash of each chain's last record, of those that this process writes."""
        if self._keeper is None:
            return {"enabled": False, "heads": {}}
        heads = self._keeper.heads
        return {
            "enabled": True,
            "heads": {name: {"seq": head.seq, "hash": head.hash} for name, head in heads.items()},
        }

    def lineage(self, event_id: str) -> Found:
        """All that is known of events with this id."""
        with self._lock:
            return self._look(event_id)


def remembered(
    stream: str,
    event_id: str,
    quarantine: Quarantine | None,
    latest: Callable[[int], Sequence[dict[str, Any]]],
) -> Found:
    """What the quarantine store, and the latest events that were not plainly accepted, know."""
    found: dict[tuple[Any, Any], dict[str, Any]] = {}
    for decision in latest(LATEST):
        if decision.get("id") == event_id:
            place = decision.get("partition"), decision.get("offset")
            found[place] = described(decision, stream, "offset")
    if quarantine is not None:
        for held in quarantine.search(HeldFilter(text=event_id), LATEST).items:
            if held.event_id == event_id:
                life = described(quarantine.get(held.key).decision, stream, "offset")
                life["reviews"] = _reviews(held)
                found[held.partition, held.offset] = life
    return list(found.values())


def _reviews(held: Held) -> Found:
    if held.status is ReviewStatus.OPEN:
        return []
    said = {"who": held.reviewed_by, "why": held.review_reason, "at": held.reviewed_at}
    return [{"key": held.key, "status": held.status.value, **said}]
