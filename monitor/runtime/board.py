"""What the other partitions have published of themselves, as far as it has come here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from monitor.core.errors import StateError
from monitor.state.recovery import unseal
from monitor.state.view import Exchanged

G = TypeVar("G")

MAX_PEER_BYTES = 1 << 30


@runtime_checkable
class Sharing(Protocol[G]):
    """A gate whose states can be merged. Every method is pure."""

    def summary(self, data: bytes) -> G:
        """What a stored state has learned itself. Raises StateError."""

    def own_summary(self, state: G) -> G:
        """The same, of a state that is at hand."""

    def exchange(self, state: G, number: int, peers: Mapping[int, G]) -> Exchanged[G]:
        """The state of partition ``number`` with a new view of the others'."""

    def alone(self, state: G) -> G:
        """The state without what it knows of the others."""

    def view_digest(self, state: G) -> str:
        """Digest of what the state knows of the others; empty for nothing."""


class Board:
    """The latest summary of each partition.

    Parameters
    ----------
    tell
        Receives sentences for the operator.
    max_bytes
        Largest stored state, unpacked, that is looked at.
    """

    def __init__(self, tell: Callable[[str], None], max_bytes: int = MAX_PEER_BYTES) -> None:
        self._tell, self._max_bytes = tell, max_bytes
        self._bodies: dict[int, bytes] = {}
        self._offsets: dict[int, int] = {}
        self._read: dict[int, Any] = {}
        self._mine: set[int] = set()
        self._refused: dict[int, str] = {}

    def put(self, sealed: Mapping[int, bytes]) -> None:
        """Take up snapshots as transports bring them, in order.

        One that cannot be read changes nothing, and an older one of the own partitions is nothing
        new. A lower offset of another partition is: its state has begun anew.
        """
        for partition, data in sealed.items():
            try:
                number, offset, body = unseal(data, self._max_bytes)
            except StateError as error:
                self._refuse(partition, error)
                continue
            if number != partition:
                self._refuse(partition, f"it says that it is of partition {number}")
            elif self._is_news(partition, offset):
                self._bodies[partition], self._offsets[partition] = body, offset
                self._refused.pop(partition, None)
                self._mine.discard(partition)

    def put_own(self, partition: int, offset: int, summary: Any) -> None:
        """Take up what a partition at hand has stored, as soon as it is; transports bring it later.

        Read back from its stored form it would be the same, at a fifth of what storing it costs.
        """
        self._bodies.pop(partition, None)
        self._read[partition], self._offsets[partition] = summary, offset
        self._refused.pop(partition, None)
        self._mine.add(partition)

    def _is_news(self, partition: int, offset: int) -> bool:
        held = self._offsets.get(partition, -1)
        return offset > held if partition in self._mine else offset != held

    def others(self, gate: Sharing[Any], partition: int) -> dict[int, Any]:
        """The summaries of all partitions but this one, in order."""
        for number in [n for n in self._bodies if n != partition]:
            body = self._bodies.pop(number)
            try:
                self._read[number] = gate.summary(body)
            except StateError as error:
                self._refuse(number, error)
        return {n: self._read[n] for n in sorted(self._read) if n != partition}

    def _refuse(self, partition: int, why: object) -> None:
        text = (
            f"What partition {partition} published cannot be used, and is left out until it "
            f"publishes again: {why}"
        )
        if self._refused.get(partition) != text:
            self._refused[partition] = text
            self._tell(text)
