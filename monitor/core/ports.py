"""What the runtime loop needs from the outside, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from monitor.core.blast import AcceptedBatch
from monitor.core.held import HeldBatch, Reviews
from monitor.core.types import DecisionBatch, RawBatch, Verdict

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a partition goes on, as the transport has stored it.

    ``next_offset`` is the committed input position. ``stamp`` and ``snapshot`` are the opaque
    bytes of the last committed batch and of the latest snapshot, or None on a first start.
    """

    partition: int
    next_offset: int
    stamp: bytes | None
    snapshot: bytes | None


@dataclass(frozen=True, slots=True)
class PartitionCommit:
    """One judged batch of one partition: everything that must become visible together.

    ``audit`` are the records that it adds to the chain ``chain``, which is empty where there is
    none.
    """

    raw: RawBatch
    decisions: DecisionBatch
    next_offset: int
    stamp: bytes
    snapshot: bytes | None = None
    audit: tuple[bytes, ...] = ()
    chain: str = ""


@dataclass(frozen=True, slots=True)
class CommitUnit:
    """One micro-batch: one transaction."""

    parts: tuple[PartitionCommit, ...]

    def verdicts(self) -> dict[str, int]:
        """Number of records by the verdict's word."""
        none = np.zeros(len(Verdict), dtype=np.int64)
        counts = sum(
            (np.bincount(p.decisions.verdict, minlength=len(Verdict)) for p in self.parts), none
        )
        return {verdict.word: int(counts[verdict]) for verdict in Verdict}


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought. ``assigned`` partitions must be resumed before their batches."""

    batches: Sequence[RawBatch] = ()
    assigned: Sequence[Resume] = ()
    revoked: Sequence[int] = ()
    finished: bool = False
    lag_events: int | None = None


class Transport(Protocol):
    """Reads records, and makes a judged micro-batch visible all at once or not at all."""

    def open(self) -> None:
        """Connect, take the lock, recover an unfinished commit."""

    def poll(self, max_events: int, timeout_seconds: float) -> Polled:
        """At most ``max_events`` records, at most one batch a partition."""

    def read_range(self, partition: int, start: int, stop: int) -> Iterator[RawBatch]:
        """The input from offset ``start`` up to, not including, ``stop``, for recovery."""

    def commit(self, unit: CommitUnit) -> None:
        """Write outputs, state and input position as one. Raises TransportError."""

    def abort(self) -> None:
        """Drop what was polled since the last commit and rewind to it."""

    def close(self) -> None:
        """Release everything; nothing uncommitted becomes visible."""


@runtime_checkable
class Publishing(Protocol):
    """A transport of which several partitions may be read, perhaps by several processes."""

    @property
    def n_partitions(self) -> int:
        """Partitions of the input, wherever they are read."""

    def published(self) -> Mapping[int, bytes]:
        """Snapshots, by partition, that became visible since the last call; the latest of each.

        Comes from outside and may be damaged. Between :meth:`Transport.open` and ``close``; the
        first call brings all there are. Raises TransportError.
        """


class Observer(Protocol):
    """Told of every commit, after it, in the loop's thread. Must be quick and must not raise."""

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """``seconds`` is the time spent by stage on this micro-batch."""


class Meter(Protocol):
    """Measures how long detectors take, from outside: the gate itself has no clock."""

    def __call__(self, detector: str, call: Callable[[], T]) -> T:
        """``call()``, whatever it returns or raises."""


class Ledger(Protocol):
    """An append-only log of keyed rows, shared by all instances in one order; survives restarts.

    Of rows with the same key the latest may be all that is kept, so what must stay needs a key of
    its own; a value of None takes the key back. Not for use from several threads: each has its
    own. All methods raise TransportError.
    """

    def append(self, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Add rows, all or none; durable, and visible to everybody, when it returns.

        After a TransportError they may be there all the same: append them again, then the later
        ones count.
        """

    def read(self, timeout_seconds: float) -> Sequence[tuple[bytes, bytes | None]]:
        """Rows since the last call, one's own too, in the shared order; waits for the first."""

    def catch_up(self) -> Sequence[tuple[bytes, bytes | None]]:
        """Rows since the last call up to the present end; from the beginning the first time."""

    def close(self) -> None:
        """Let go of it."""


class ChainLog(Protocol):
    """Where a process writes a chain of its own, and nobody else while it does."""

    def open(self) -> bytes | None:
        """Take the chain over from whoever wrote it before: its last record.

        None for a chain that was not begun. Raises TransportError.
        """

    def append(self, lines: Sequence[bytes]) -> None:
        """Add records, all or none; durable when it returns.

        After a TransportError they may be there all the same: :meth:`open` tells.
        """

    def close(self) -> None:
        """Let go of it."""


class HeldSource(Protocol):
    """Brings what was held back, committed records only, from where reading stood."""

    def start(self, places: Mapping[int, int]) -> None:
        """Go on at ``places``, at the beginning where they are silent. Raises TransportError."""

    def read(self, timeout_seconds: float) -> HeldBatch:
        """The next records; waits for the first. Raises TransportError."""

    def close(self) -> None:
        """Let go of it; ``start`` may follow."""


class AcceptedSource(Protocol):
    """Brings what the learner was given, committed records only, from where reading stood."""

    def start(self, places: Mapping[int, int]) -> None:
        """Go on at ``places``, at the beginning where they are silent. Raises TransportError."""

    def read(self, timeout_seconds: float) -> AcceptedBatch:
        """The next events; waits for the first. Raises TransportError."""

    def ends(self) -> Mapping[int, int]:
        """Where the parts end now that can be told, none before ``start``. Raises TransportError.

        Nobody can have read further. It may lie behind what ``read`` has brought.
        """

    def close(self) -> None:
        """Let go of it; ``start`` may follow."""


class Reviewer(Protocol):
    """The one who reviews at a time, among all threads and instances."""

    def exclusively(self, job: Callable[[], Reviews | None]) -> None:
        """Keep all others from reviewing, run ``job``, and make what it returns visible as one.

        When this raises it may have become visible all the same; whoever asks again finds it in
        the ledger. Raises TransportError, with ``retry`` set when another one came in between.
        """
