"""Tells the keeper of heads where the chains of partitions stand that come, and that others go."""

from __future__ import annotations

from monitor.runtime.audit_keeper import AuditKeeper
from monitor.runtime.parties import Listener
from monitor.state.audit import Chaining
from monitor.state.recovery import Stamp


class Standing:
    """A listener that passes on to another what it is told.

    Heads name all partitions of the process in this way, also those in which nothing has happened
    since it took them over; and none that somebody else goes on with.

    Parameters
    ----------
    inner
        The other.
    keeper, by
        Who writes heads down, and how chains are called.
    """

    def __init__(self, inner: Listener, keeper: AuditKeeper, by: Chaining) -> None:
        self._inner, self._keeper, self._by = inner, keeper, by

    def polled(self, lag_events: int | None) -> None:
        """Pass it on."""
        self._inner.polled(lag_events)

    def moved(self) -> None:
        """Pass it on."""
        self._inner.moved()

    def restored(self, partition: int, stamp: Stamp, seconds: float) -> None:
        """A partition's state is back, and with it where its chain stands."""
        self._inner.restored(partition, stamp, seconds)
        self._keeper.stands(self._by.name(partition), stamp.audit)

    def revoked(self, partition: int) -> None:
        """A partition went to another replica, which writes its heads now."""
        self._inner.revoked(partition)
        self._keeper.stands(self._by.name(partition), None)

    def viewed(self, partition: int, others: int, apart: int) -> None:
        """Pass it on."""
        self._inner.viewed(partition, others, apart)

    def notice(self, text: str) -> None:
        """Pass it on."""
        self._inner.notice(text)

    def stopped(self, reason: str) -> None:
        """Pass it on."""
        self._inner.stopped(reason)
