"""The only loop: poll, judge, commit, and only then believe it.

States are immutable. A micro-batch is judged against the last committed ones, and the states that
come out of it are adopted after the commit; when the commit fails they are simply forgotten.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, TypeVar

from monitor.core.errors import MonitorError, StateError, TransportError
from monitor.core.ports import (
    CommitUnit,
    Observer,
    PartitionCommit,
    Polled,
    Publishing,
    Resume,
    Transport,
)
from monitor.core.types import DecisionBatch, RawBatch
from monitor.runtime.board import Board, Sharing
from monitor.runtime.jobs import Jobs
from monitor.runtime.overload import Overload
from monitor.runtime.parties import (
    UNTRACED,
    Fork,
    GateLike,
    InPieces,
    Listener,
    Observers,
    Policies,
    Tracing,
    lively,
)
from monitor.runtime.process import settled
from monitor.state.recovery import Stamp, advance, recover, seal
from monitor.state.schedule import SnapshotRule, due
from monitor.transport.local_output import OutputClosedError

G = TypeVar("G")
T = TypeVar("T")

_COMMIT_RETRIES = 5
_BACKOFF_SECONDS = 0.2


class StopReason(StrEnum):
    """Why a run ended without an error."""

    FINISHED = "finished"
    STOPPED = "stopped"
    OUTPUT_CLOSED = "output closed"


@dataclass(frozen=True, slots=True)
class _Held(Generic[G]):
    state: G
    stamp: Stamp


class Service(Generic[G]):
    """Runs a gate on a transport.

    Parameters
    ----------
    gate
        May be replaced between micro-batches, by setting ``gate`` within :meth:`submit`.
    transport
        Opened and closed by :meth:`run`.
    observers
        Told of every commit after it.
    on_status
        Told what happens to the loop itself.
    batch_events
        Records in a micro-batch, at most.
    linger_seconds
        How long a poll may wait for a micro-batch to fill.
    snapshot_every_batches, snapshot_every_events
        A partition's state is stored at whichever comes first.
    overload
        Says when events are let by unjudged; None for never.
    exchange_events
        Fewest events after which a partition's state is stored where there are others, which is
        when it learns what they know (:mod:`monitor.state.view`); 0 keeps them apart.
    digests
        Put a digest of the state into every commit; costs about as much as a snapshot.
    policies
        Where the policy comes from while the service runs; None leaves the gate's own in force.
    tracing
        Told how each micro-batch goes along.
    """

    def __init__(
        self,
        gate: GateLike[G],
        transport: Transport,
        *,
        observers: Sequence[Observer] = (),
        on_status: Listener | None = None,
        batch_events: int = 512,
        linger_seconds: float = 0.1,
        snapshot_every_batches: int = 128,
        snapshot_every_events: int = 65_536,
        overload: Overload | None = None,
        exchange_events: int = 512,
        digests: bool = False,
        policies: Policies[G] | None = None,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._gate = gate
        self._transport = transport
        self._observers = Observers(observers, self._tell)
        self._listener = on_status
        self._batch_events = batch_events
        self._linger_seconds = linger_seconds
        self._rule = SnapshotRule(snapshot_every_batches, snapshot_every_events)
        self._exchange_events = exchange_events
        self._board = Board(self._tell)
        self._told: dict[int, tuple[str, ...]] = {}
        self._digests = digests
        self._policies = policies
        self._tracing = tracing
        self._overload = overload
        self._held: Mapping[int, _Held[G]] = {}
        self._jobs = Jobs()

    @property
    def gate(self) -> GateLike[G]:
        """The gate that judges. Set it only from a function given to :meth:`submit`."""
        return self._gate

    @gate.setter
    def gate(self, gate: GateLike[G]) -> None:
        self._gate = gate

    @property
    def partitions(self) -> tuple[int, ...]:
        """Partitions whose state is here, in order."""
        return tuple(sorted(self._held))

    def run(self, stop: threading.Event) -> StopReason:
        """Judge until the input ends, the output's reader goes, or ``stop`` is set.

        A set ``stop`` ends the run after the micro-batch at hand; what a pipe handed over
        already is judged too.

        Raises
        ------
        MonitorError
            When the transport or the stored state fails. Nothing of the micro-batch at hand has
            become visible then, and a new run goes on at the last commit.
        """
        reason: StopReason | None = None
        try:
            self._transport.open()
            try:
                if self._policies is not None:
                    self._policies.begin(self)
                with settled():
                    reason = self._loop(stop)
            except BaseException:
                with contextlib.suppress(MonitorError):
                    self._transport.close()
                raise
            self._transport.close()
        finally:
            self._finish(reason)
        return reason

    def submit(self, job: Callable[[Service[G]], T]) -> Future[T]:
        """Have ``job`` run in the loop's thread between micro-batches. From any thread."""
        return self._jobs.put(lambda: job(self))

    def peek(self, values: Sequence[bytes], partition: int | None = None) -> DecisionBatch:
        """What the gate would decide about ``values`` now. Learns nothing. From any thread.

        Parameters
        ----------
        values
            Records as on the wire.
        partition
            Whose state to judge by; by default that which has seen the most input.

        Raises
        ------
        StateError
            When there is no such state here (yet).
        """
        gate = self._gate
        fork = self.fork(partition)
        raw = RawBatch.of(values, start=fork.next_offset, partition=fork.partition)
        return gate.step(fork.state, raw)[0]

    def fork(self, partition: int | None = None) -> Fork[G]:
        """A partition's state as of the last commit; states never change. From any thread.

        By default of the partition that has seen the most input.

        Raises
        ------
        StateError
            When there is no such state here (yet).
        """
        held = self._held
        if partition is None and held:
            partition = max(held, key=lambda p: (held[p].stamp.next_offset, -p))
        if partition is None or partition not in held:
            raise StateError("No partition's state is here yet: try again in a moment.")
        chosen = held[partition]
        return Fork(partition, chosen.state, chosen.stamp.next_offset)

    def _loop(self, stop: threading.Event) -> StopReason:
        failures, draining = 0, False
        while True:
            if stop.is_set() and not draining:
                draining = True
                drain = getattr(self._transport, "drain", None)
                if drain is None:
                    return StopReason.STOPPED
                drain()
            began = time.perf_counter()
            polled = self._transport.poll(self._batch_events, self._linger_seconds)
            waited = time.perf_counter() - began
            self._reassign(polled)
            if self._overload is not None:
                self._overload.update(polled.lag_events, self._tell)
            try:
                self._listen()
                with self._tracing.batch(polled.batches, began, began + waited):
                    self._judge(polled.batches, {"poll": waited})
                failures = 0
            except OutputClosedError:
                self._transport.abort()
                return StopReason.OUTPUT_CLOSED
            except TransportError as error:
                failures += 1
                self._transport.abort()
                if not getattr(error, "retry", False) or failures >= _COMMIT_RETRIES:
                    raise
                self._tell(f"A commit failed and is tried again: {error}")
                stop.wait(_BACKOFF_SECONDS * failures)
                continue
            self._jobs.run()
            if polled.finished:
                return StopReason.STOPPED if draining else StopReason.FINISHED

    def _reassign(self, polled: Polled) -> None:
        held = dict(self._held)
        for partition in polled.revoked:
            held.pop(partition, None)
            self._observers.holds(partition, None)
            if self._listener is not None:
                self._listener.revoked(partition)
        self._held = held
        for resume in polled.assigned:
            self._held = {**self._held, resume.partition: self._restore(resume)}
            self._observers.holds(resume.partition, self._held[resume.partition].state)
        if self._listener is not None:
            self._listener.polled(polled.lag_events)

    def _listen(self) -> None:
        """Hear what other partitions published; with one partition there is nothing to hear."""
        source = self._transport
        several = isinstance(source, Publishing) and source.n_partitions > 1
        least = self._exchange_events if several else 0
        if least and isinstance(source, Publishing):
            try:
                self._board.put(source.published())
            except TransportError as error:
                # What the others know helps; it is no reason to hold up the stream.
                self._tell(f"Going on without news of the other partitions: {error}")
        if least != self._rule.exchange_events:
            self._rule = replace(self._rule, exchange_events=least)

    def _restore(self, resume: Resume) -> _Held[G]:
        began = time.perf_counter()
        gate = self._gate
        state, stamp = recover(
            resume,
            start=gate.start,
            load=gate.load,
            step=lively(gate.relive, self._listener),
            read_range=self._transport.read_range,
            digest=gate.digest,
            view=gate.view_digest if isinstance(gate, Sharing) else None,
            policy_version=getattr(getattr(gate, "policy", None), "version", None),
            under=self._relive_under,
            notice=self._tell,
        )
        if self._listener is not None:
            self._listener.restored(resume.partition, stamp, time.perf_counter() - began)
        return _Held(state, stamp)

    def _relive_under(self, version: int) -> Callable[[G, RawBatch], G] | None:
        gate = None if self._policies is None else self._policies.gate_of(version)
        return None if gate is None else lively(gate.relive, self._listener)

    def _judge(self, batches: Sequence[RawBatch], seconds: dict[str, float]) -> None:
        """One micro-batch: all of it becomes visible, or none."""
        seconds |= {"gate": 0.0, "snapshot": 0.0, "commit": 0.0}
        parts: list[PartitionCommit] = []
        after: dict[int, _Held[G]] = {}
        for raw in batches:
            if len(raw):
                part, after[raw.partition] = self._judge_one(raw, seconds)
                parts.append(part)
        if not parts:
            return
        unit = CommitUnit(tuple(parts))
        began = time.perf_counter()
        self._transport.commit(unit)
        self._stage(seconds, "commit", began)
        self._held = {**self._held, **after}
        if self._rule.exchange_events and isinstance(self._gate, Sharing):
            for part in parts:
                if part.snapshot is not None:
                    p = part.raw.partition
                    summary = self._gate.own_summary(after[p].state)
                    self._board.put_own(p, part.next_offset, summary)
        self._observers.committed(unit, seconds, {p: held.state for p, held in after.items()})

    def _judge_one(
        self, raw: RawBatch, seconds: dict[str, float]
    ) -> tuple[PartitionCommit, _Held[G]]:
        held = self._held.get(raw.partition)
        if held is None or int(raw.offset[0]) < held.stamp.next_offset:
            raise StateError(
                f"Records of partition {raw.partition} from offset {int(raw.offset[0])} on came "
                "before its state was restored to that place: start the service again."
            )
        began = time.perf_counter()
        is_judged = self._overload is None or not self._overload.lets_by
        if is_judged:
            decisions, state = self._gate.step(held.state, raw)
        else:
            decisions, state = self._gate.let_by(held.state, raw), held.state
        judged = self._stage(seconds, "gate", began, raw.partition)
        policy = decisions.policy_version
        store = due(held.stamp, len(raw), policy, self._rule)
        if store:
            state = self._exchanged(raw.partition, state)
        stamp = advance(
            held.stamp,
            raw.next_offset,
            len(raw),
            policy_version=policy,
            snapshot=store,
            digest=self._gate.digest(state) if self._digests else "",
            judged=is_judged,
            view=self._gate.view_digest(state) if isinstance(self._gate, Sharing) else "",
        )
        snapshot = None
        if store:
            gate = self._gate
            body = gate.pieces(state) if isinstance(gate, InPieces) else gate.dump(state)
            snapshot = seal(raw.partition, raw.next_offset, body)
        self._stage(seconds, "snapshot", judged, raw.partition)
        part = PartitionCommit(raw, decisions, raw.next_offset, stamp.encode(), snapshot)
        return part, _Held(state, stamp)

    def _stage(
        self, seconds: dict[str, float], name: str, began: float, partition: int | None = None
    ) -> float:
        """Add the time since ``began`` to a stage's, and tell of it; gives the time now."""
        ended = time.perf_counter()
        seconds[name] += ended - began
        self._tracing.stage(name, began, ended, partition)
        return ended

    def _exchanged(self, partition: int, state: G) -> G:
        """The state with a new view of the others, which is stored with it; or with none."""
        gate = self._gate
        if not isinstance(gate, Sharing):
            return state
        if not self._rule.exchange_events:
            apart: G = gate.alone(state)
            return apart
        others = self._board.others(gate, partition)
        found = gate.exchange(state, partition, others)
        if found.notices != self._told.get(partition, ()):
            self._told[partition] = found.notices
            for text in found.notices:
                self._tell(text)
        if self._listener is not None:
            self._listener.viewed(partition, len(others) - len(found.apart), len(found.apart))
        after: G = found.state
        return after

    def _finish(self, reason: StopReason | None) -> None:
        self._jobs.close()
        if self._listener is not None:
            self._listener.stopped("failed" if reason is None else reason.value)

    def _tell(self, text: str) -> None:
        if self._listener is not None:
            self._listener.notice(text)
