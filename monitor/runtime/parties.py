"""Who the loop deals with: the gate it asks, and the listener it tells; and what it hands out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from monitor.core.ports import CommitUnit, Observer
from monitor.core.types import DecisionBatch, RawBatch
from monitor.state.codec import Pieces
from monitor.state.recovery import Stamp

G = TypeVar("G")


@dataclass(frozen=True, slots=True)
class Fork(Generic[G]):
    """A partition's state at an offset, to go on with apart from the service."""

    partition: int
    state: G
    next_offset: int


class GateLike(Protocol[G]):
    """What the loop needs of a gate. Every method is pure and may run in any thread."""

    def start(self) -> G:
        """The state before any event."""

    def step(self, state: G, raw: RawBatch) -> tuple[DecisionBatch, G]:
        """Judge a batch: what was decided, and the state after it."""

    def let_by(self, state: G, raw: RawBatch) -> DecisionBatch:
        """Let a batch pass unjudged. Learns nothing."""

    def relive(self, state: G, raw: RawBatch) -> G:
        """The state after a batch that was judged and committed before."""

    def dump(self, state: G) -> bytes:
        """The state as bytes."""

    def load(self, data: bytes) -> G:
        """The state from those bytes. Raises StateError."""

    def digest(self, state: G) -> str:
        """Hexadecimal digest, equal for equal states only."""


@runtime_checkable
class InPieces(Protocol):
    """A gate that can hand out a state to be stored without copying it."""

    def pieces(self, state: Any) -> Pieces:
        """What ``dump`` gives, cut up."""


@runtime_checkable
class Looking(Protocol):
    """An observer that looks into states, which never change. Must be quick and must not raise."""

    def holds(self, partition: int, state: Any) -> None:
        """The committed state of ``partition`` is ``state`` now; None when it went elsewhere."""


class Observers:
    """All observers of a service as one.

    Parameters
    ----------
    observers
        In the order in which they are told.
    tell
        Given a sentence when one of them fails.
    """

    def __init__(self, observers: Sequence[Observer], tell: Callable[[str], None]) -> None:
        self._all = tuple(observers)
        self._looking = tuple(one for one in self._all if isinstance(one, Looking))
        self._tell = tell

    def holds(self, partition: int, state: Any) -> None:
        """See :class:`Looking`."""
        for looking in self._looking:
            looking.holds(partition, state)

    def committed(
        self, unit: CommitUnit, seconds: Mapping[str, float], states: Mapping[int, Any]
    ) -> None:
        """``unit`` is committed, which took its stages ``seconds``; ``states`` hold from now on."""
        for partition, state in states.items():
            self.holds(partition, state)
        for observer in self._all:
            try:
                observer.committed(unit, seconds)
            except Exception as error:  # the events are committed: go on, but say so
                self._tell(f"{type(observer).__name__} failed after a commit: {error!r}")


class Policies(Protocol[G]):
    """Where the policy comes from, and by which gate an earlier version judged."""

    def begin(self, service: Any) -> None:
        """The transport is open and nothing is restored yet: set the gate by the stored policy."""

    def gate_of(self, version: int) -> GateLike[G] | None:
        """The gate under that version of the policy, or None where it is not known.

        What was judged under it is judged again under it when a state is restored.
        """


class Listener(Protocol):
    """Told what happens to the loop itself, in its thread. Must be quick and must not raise."""

    def polled(self, lag_events: int | None) -> None:
        """A poll returned, perhaps with nothing: the loop is alive."""

    def moved(self) -> None:
        """A stored stretch of the input was judged again: a restore gets on."""

    def restored(self, partition: int, stamp: Stamp, seconds: float) -> None:
        """A partition's state is back, or begins empty."""

    def revoked(self, partition: int) -> None:
        """A partition went to another replica."""

    def viewed(self, partition: int, others: int, apart: int) -> None:
        """A partition is judged with what ``others`` know from now on, ``apart`` are left out."""

    def notice(self, text: str) -> None:
        """A sentence for the operator."""

    def stopped(self, reason: str) -> None:
        """The loop has ended."""


def lively(
    step: Callable[[G, RawBatch], G], listener: Listener | None
) -> Callable[[G, RawBatch], G]:
    """The same step, which tells ``listener`` each time that the loop gets on.

    A long restore is work: whoever watches the loop must not take it for one that hangs.
    """

    def told(state: G, raw: RawBatch) -> G:
        after = step(state, raw)
        if listener is not None:
            listener.moved()
        return after

    return told


class Tracing(Protocol):
    """Told how a micro-batch goes along, in the loop's thread. Must be quick and must not raise.

    Times are those of ``time.perf_counter``.
    """

    def batch(
        self, batches: Sequence[RawBatch], began: float, polled: float
    ) -> AbstractContextManager[Mapping[str, str]]:
        """Around all that is done with what a poll brought, which began and ended then.

        Gives names under which others may know the batch. An error passes through: nothing of the
        batch has become visible then, unless the transport says otherwise.
        """

    def stage(self, name: str, began: float, ended: float, partition: int | None = None) -> None:
        """A part of it is over: ``gate`` and ``snapshot`` by partition, ``commit`` for all."""


class Untraced:
    """Tracing that does nothing."""

    def batch(
        self, batches: Sequence[RawBatch], began: float, polled: float
    ) -> AbstractContextManager[Mapping[str, str]]:
        """See :class:`Tracing`."""
        return contextlib.nullcontext({})

    def stage(self, name: str, began: float, ended: float, partition: int | None = None) -> None:
        """See :class:`Tracing`."""


UNTRACED = Untraced()
