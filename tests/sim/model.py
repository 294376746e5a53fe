"""An in-memory transport that obeys the port's contract, and can be made to fail anywhere."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from monitor.core.errors import TransportError
from monitor.core.ports import CommitUnit, Polled, Resume
from monitor.core.types import Action, RawBatch

STEPS = (
    "begin",
    "accepted",
    "quarantined",
    "invalid",
    "decisions",
    "state",
    "offsets",
    "end",
    "done",
)
NAMES = {Action.PASS: "accepted", Action.HOLD: "quarantined", Action.REJECT: "invalid"}


class Crash(BaseException):
    """The process dies here: nothing may catch it."""


class RebalancedError(TransportError):
    """A commit that came too late for its assignment."""

    retry = True


@dataclass
class Committed:
    """What is durable about one partition."""

    next_offset: int
    stamp: bytes | None = None
    snapshot: bytes | None = None


@dataclass
class Store:
    """The broker: survives every crash of the service."""

    records: dict[int, list[tuple[int, bytes]]]
    committed: dict[int, Committed] = field(default_factory=dict)
    outputs: dict[str, list[tuple[int, int, bytes]]] = field(
        default_factory=lambda: {n: [] for n in (*NAMES.values(), "decisions", "audit")}
    )
    batches: list[tuple[int, list[int]]] = field(default_factory=list)
    stamps: list[bytes] = field(default_factory=list)
    snapshots: int = 0
    epochs: dict[int, int] = field(default_factory=dict)
    on_its_way: list[tuple[int, int, CommitUnit]] = field(default_factory=list)
    applied: set[int] = field(default_factory=set)
    fenced: int = 0
    repeated: int = 0
    _kept: list[CommitUnit] = field(default_factory=list)

    def __post_init__(self) -> None:
        for partition in self.records:
            self.committed.setdefault(partition, Committed(0))

    def deliver(self, member: int, epoch: int, unit: CommitUnit) -> bool:
        """A commit arrives: taken once, and only from a member's latest process. Whether it was."""
        if id(unit) in self.applied:
            self.repeated += 1
            return False
        if epoch != self.epochs[member]:
            self.fenced += 1
            return False
        self.applied.add(id(unit))
        self._kept.append(unit)  # so that no other unit gets its id
        for part in unit.parts:
            raw, decisions = part.raw, part.decisions
            for action, name in NAMES.items():
                rows = decisions.rows(action).tolist()
                found = [(raw.partition, int(raw.offset[r]), raw.values[r]) for r in rows]
                self.outputs[name].extend(found)
            self.outputs["decisions"].extend(
                (raw.partition, int(at), record)
                for at, record in zip(raw.offset.tolist(), decisions.records, strict=True)
            )
            place = raw.partition, int(raw.offset[0])
            self.outputs["audit"].extend((*place, line) for line in part.audit)
            done = self.committed[raw.partition]
            done.next_offset, done.stamp = part.next_offset, part.stamp
            if part.snapshot is not None:
                done.snapshot = part.snapshot
                self.snapshots += 1
            self.batches.append((raw.partition, raw.offset.tolist()))
            self.stamps.append(part.stamp)
        return True


Fault = Callable[[str], None]


def no_fault(step: str) -> None:
    """Nothing ever fails."""


def crash_at(step: str, nth: int) -> Fault:
    """Dies when ``step`` comes for the ``nth`` time, counted from 0."""
    seen = 0

    def fault(at: str) -> None:
        nonlocal seen
        seen += at == step
        if at == step and seen == nth + 1:
            raise Crash(at)

    return fault


class ModelTransport:
    """One process's view of a :class:`Store`.

    Parameters
    ----------
    fault
        Called with the name of every step; what it raises happens there.
    cut
        Gives the size of the next batch, at most what was asked for.
    churn
        Chance that a poll takes a partition away and gives it back.
    stale
        Chance that a poll brings records that were read before once more.
    delay
        Chance that a commit is still on its way when its process dies. It may arrive before the
        next process begins, after it, twice, or never.
    member
        Which of several processes at a time; each fences its own predecessors.
    """

    def __init__(
        self,
        store: Store,
        fault: Fault = no_fault,
        *,
        cut: Callable[[int], int] = lambda n: n,
        churn: float = 0.0,
        stale: float = 0.0,
        delay: float = 0.0,
        seed: int = 0,
        member: int = 0,
    ) -> None:
        self.store, self.fault, self.cut, self.churn = store, fault, cut, churn
        self.stale, self.delay, self.member, self.epoch = stale, delay, member, -1
        self._rng = random.Random(seed)
        self._position: dict[int, int] = {}
        self._heard: dict[int, bytes | None] = {}

    @property
    def n_partitions(self) -> int:
        return len(self.store.records)

    def published(self) -> dict[int, bytes]:
        self.fault("published")
        now = {p: done.snapshot for p, done in self.store.committed.items()}
        new = {p: s for p, s in now.items() if s is not None and self._heard.get(p) is not s}
        self._heard |= new
        return new

    def open(self) -> None:
        self.fault("open")
        late = self.store.on_its_way
        for _ in range(self._rng.randint(0, 2) if late else 0):
            self.store.deliver(*late[-1])
        self.epoch = self.store.epochs.get(self.member, 0) + 1
        self.store.epochs[self.member] = self.epoch
        for _ in range(self._rng.randint(0, 2) if late else 0):
            self.store.deliver(*late[-1])
        late.clear()

    def poll(self, max_events: int, timeout_seconds: float) -> Polled:
        self.fault("poll")
        if not self._position:
            return Polled(assigned=[self._resume(p) for p in sorted(self.store.records)])
        if self._rng.random() < self.churn:
            moved = self._rng.choice(sorted(self._position))
            return Polled(revoked=[moved], assigned=[self._resume(moved)])
        batches = []
        if self._rng.random() < self.stale:
            for partition, done in self.store.committed.items():
                self._position[partition] = max(0, done.next_offset - self._rng.randint(1, 20))
        for partition in sorted(self._position):
            found = self._after(partition)[: max(1, self.cut(max_events))]
            if found:
                batches.append(_batch(partition, found))
                self._position[partition] = found[-1][0] + 1
        over = not any(self._after(p) for p in self._position)
        return Polled(batches=batches, finished=over, lag_events=0 if over else None)

    def _resume(self, partition: int) -> Resume:
        done = self.store.committed[partition]
        self._position[partition] = done.next_offset
        return Resume(partition, done.next_offset, done.stamp, done.snapshot)

    def _after(self, partition: int) -> list[tuple[int, bytes]]:
        at = self._position[partition]
        return [record for record in self.store.records[partition] if record[0] >= at]

    def read_range(self, partition: int, start: int, stop: int) -> Iterator[RawBatch]:
        self.fault("read_range")
        found = [r for r in self.store.records[partition] if start <= r[0] < stop]
        while found:
            n = self._rng.randint(1, 40)
            yield _batch(partition, found[:n])
            found = found[n:]

    def commit(self, unit: CommitUnit) -> None:
        for step in STEPS[:-1]:
            self.fault(step)
        if self._rng.random() < self.delay:
            self.store.on_its_way.append((self.member, self.epoch, unit))
            raise Crash("delayed")
        if not self.store.deliver(self.member, self.epoch, unit):
            raise TransportError("fenced")
        self.fault(STEPS[-1])

    def abort(self) -> None:
        self.fault("abort")
        for partition in self._position:
            self._position[partition] = self.store.committed[partition].next_offset

    def close(self) -> None:
        self._position = {}


def _batch(partition: int, found: list[tuple[int, bytes]]) -> RawBatch:
    offsets = np.array([at for at, _ in found], dtype=np.int64)
    return RawBatch(partition, offsets, [value for _, value in found])
