"""Several processes on one in-memory broker, in an order that a seed decides.

Each process is a thread that runs the real service, but only the one whose turn it is moves; the
turn is handed on in its polls. Partitions wander between processes, now and then before the old
owner has noticed: then it is a zombie, and its commit is refused. A process may die anywhere, and
is started again.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

from monitor.core.errors import TransportError
from monitor.core.ports import CommitUnit, Polled
from monitor.runtime.service import Service
from tests.sim.model import STEPS, Crash, ModelTransport, RebalancedError, Store

WAIT_SECONDS = 60.0


class Group:
    """The processes, and who is to have which partition.

    Parameters
    ----------
    store
        The broker.
    make
        Makes a process's service on its transport.
    members
        Number of processes.
    rng
        Decides about everything.
    faults, moves
        Chance that a step fails, and that a turn begins with a rebalance.
    """

    def __init__(
        self,
        store: Store,
        make: Callable[[Any], Service[Any]],
        *,
        members: int,
        rng: random.Random,
        faults: float = 0.0,
        moves: float = 0.0,
    ) -> None:
        self.store, self.make, self.rng = store, make, rng
        self.members, self.faults, self.moves = members, faults, moves
        self.deaths = self.refused = self.moved = 0
        self.owner: dict[int, MemberTransport] = {}
        self.wanted = {p: i % members for i, p in enumerate(sorted(store.records))}
        self._baton = threading.Condition()
        self._live = list(range(members))
        self._turn = 0
        self._failure: BaseException | None = None

    @property
    def over(self) -> bool:
        """Whether everything is committed."""
        ends = {p: found[-1][0] + 1 if found else 0 for p, found in self.store.records.items()}
        return all(self.store.committed[p].next_offset >= end for p, end in ends.items())

    def run(self) -> None:
        """Until everything is committed and every process has ended."""
        threads = [threading.Thread(target=self._process, args=(n,)) for n in range(self.members)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def turn(self, number: int) -> None:
        """Hand the turn to anybody, and wait for it to come back."""
        with self._baton:
            self._turn = self.rng.choice(self._live)
            self._baton.notify_all()
            self._await(number)
            if self.moves and not self.over and self.rng.random() < self.moves:
                self.wanted[self.rng.choice(sorted(self.wanted))] = self.rng.randrange(self.members)
                self.moved += 1

    def fault(self, step: str) -> None:
        """Fail, or not."""
        if self.deaths > 40 or self.rng.random() >= self.faults or step == "abort":
            return
        if step in STEPS[:-1]:
            raise self.rng.choice([Crash, TransportError, RebalancedError])(step)
        raise Crash(step)

    def _await(self, number: int) -> None:
        done = self._baton.wait_for(lambda: self._turn == number, WAIT_SECONDS)
        assert done or self._failure is not None

    def _process(self, number: int) -> None:
        with self._baton:
            self._await(number)
        try:
            while True:
                transport = MemberTransport(self, number)
                try:
                    self.make(transport).run(threading.Event())
                except (Crash, TransportError):
                    self.deaths += 1
                else:
                    break
        except BaseException as error:  # to the test
            self._failure = self._failure or error
        finally:
            with self._baton:
                self._live.remove(number)
                if self._live:
                    self._turn = self.rng.choice(self._live)
                    self._baton.notify_all()


class MemberTransport(ModelTransport):
    """One process's transport."""

    def __init__(self, group: Group, number: int) -> None:
        super().__init__(*(group.store, group.fault), seed=group.rng.getrandbits(30), member=number)
        self.group, self.number = group, number

    def poll(self, max_events: int, timeout_seconds: float) -> Polled:
        self.group.turn(self.number)
        self.fault("poll")
        owner = self.group.owner
        mine = {p for p, member in self.group.wanted.items() if member == self.number}
        lost = {p for p in self._position if owner.get(p) is not self}
        gone = sorted(lost | (self._position.keys() - mine))
        for p in gone:
            del self._position[p]
            if owner.get(p) is self:
                del owner[p]
        # Cooperative: it waits until the old owner lets go, or is thrown out as too slow.
        free = {p for p in mine if p not in owner or self.group.rng.random() < 0.3}
        new = sorted(free - self._position.keys())
        for p in new:
            owner[p] = self
        if gone or new:
            return Polled(revoked=gone, assigned=[self._resume(p) for p in new])
        if self.group.over:
            return Polled(finished=True)
        batches = super().poll(max_events, timeout_seconds).batches if self._position else []
        return Polled(batches=batches)

    def commit(self, unit: CommitUnit) -> None:
        self.group.turn(self.number)
        if any(self.group.owner.get(part.raw.partition) is not self for part in unit.parts):
            self.group.refused += 1
            raise RebalancedError("another process has the partition")
        super().commit(unit)
