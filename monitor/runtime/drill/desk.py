"""Runs drills beside the loop: a copy of a partition's state judges real events and canaries.

The canaries never enter the loop's own batches. A drill begins with the state as it stands and has
the same gate judge every later batch of that partition again, with canaries among its events. So
detectors that need several batches see the campaign grow, as they would, and nothing that is
committed, learned or stored can hold a canary. It costs one more judgement of that partition's
events, in a thread of its own; where that cannot keep up, the copy skips events and says so.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monitor.config.policy_provenance import ProvenancePolicy
from monitor.core.desk import AuditEntry, ConflictError, MissingError
from monitor.core.drill import Drill, DrillPlan, DrillState
from monitor.core.errors import MonitorError
from monitor.core.limits import Limits
from monitor.core.ports import CommitUnit
from monitor.core.types import RawBatch
from monitor.runtime.drill import canaries
from monitor.runtime.drill.recent import Templates
from monitor.runtime.drill.tally import added
from monitor.runtime.parties import Fork
from monitor.runtime.service import Service

log = logging.getLogger(__name__)

_KEPT = 50
_WAITING = 16
_TICK_SECONDS = 0.25
# So that canaries stay a minority of what the copy sees, however slow the traffic is.
_MOST_SHARE = 1 / 3
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Drills that start by themselves, one after the other; ``every_seconds`` 0 for none."""

    every_seconds: float = 0.0
    plans: tuple[DrillPlan, ...] = ()


@dataclass(slots=True)
class _Run:
    """The drill at work. Its thread alone changes it, but for ``stop`` and ``skipped``."""

    drill: Drill
    fork: Fork[Any]
    canaries: Sequence[canaries.Canary]
    began: float
    offset: int
    first: float | None = None
    seen: int = 0
    skipped: int = 0
    stop: str = ""


class Drills:
    """Observer of a service, and the desk's drills. Thread-safe.

    Parameters
    ----------
    service
        Gives the loop.
    limits
        Of its gate.
    note
        Where starts and results are written down.
    told
        Told of every drill that has ended.
    schedule
        Drills that start by themselves.
    clock, wall
        Monotonic seconds, and seconds since 1970.

    Raises
    ------
    UsageError
        For a scheduled drill that no events would do for.
    """

    def __init__(
        self,
        service: Callable[[], Service[Any]],
        limits: Limits,
        *,
        note: Callable[[AuditEntry], None] = lambda _: None,
        told: Callable[[Drill], None] = lambda _: None,
        schedule: Schedule | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._service, self._limits = service, limits
        self._note, self._told = note, told
        self._schedule = schedule or Schedule()
        for plan in self._schedule.plans:
            canaries.check(plan)
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._templates: dict[int, Templates] = {}
        self._drills: dict[str, Drill] = {}
        self._run: _Run | None = None
        self._batches: queue.Queue[RawBatch] = queue.Queue(_WAITING)
        self._closed = threading.Event()
        self._next = clock() + self._schedule.every_seconds
        self._turn = 0
        self._thread = threading.Thread(target=self._work, name="drills", daemon=True)
        self._thread.start()

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Keep what canaries are made of, and hand the batch to the drill at work."""
        with self._lock:
            run = self._run
            for part in unit.parts:
                partition = part.raw.partition
                self._templates.setdefault(partition, Templates()).add(part)
                if run is not None and run.fork.partition == partition:
                    try:
                        self._batches.put_nowait(part.raw)
                    except queue.Full:
                        run.skipped += len(part.raw)

    def start(self, plan: DrillPlan, *, who: str, why: str) -> Drill:
        """Begin a drill on the busiest partition here.

        Raises
        ------
        ConflictError
            While another one is at work.
        UsageError
            For a plan that cannot be carried out, or too few recent events.
        StateError
            When no partition's state is here yet.
        """
        canaries.check(plan)
        with self._lock:
            if self._run is not None:
                raise ConflictError(
                    f"Drill {self._run.drill.id} is at work: wait for its end, or stop it."
                )
            fork = self._service().fork()
            kept = self._templates.get(fork.partition)
            values = [] if kept is None else kept.values()
        # Some tenths of a second; the loop must not wait for it.
        drill_id = uuid.uuid4().hex[:10]
        made = canaries.make(values, plan, drill_id, self._limits)
        drill = Drill(
            drill_id,
            plan,
            DrillState.RUNNING,
            who,
            why,
            self._wall(),
            wanted=len(made),
            partition=fork.partition,
            note=""
            if len(made) == plan.canaries
            else f"Recent events allow {len(made)} of the {plan.canaries} canaries.",
        )
        with self._lock:
            if self._run is not None:
                raise ConflictError("Another drill began a moment ago: wait for its end.")
            fork = self._service().fork(fork.partition)
            self._run = _Run(drill, fork, made, self._clock(), fork.next_offset)
            self._drills[drill_id] = drill
            if len(self._drills) > _KEPT:
                del self._drills[next(iter(self._drills))]
        self._write("drill started", drill)
        return drill

    def stop(self, drill_id: str, *, who: str) -> Drill:
        """End a drill early. Raises MissingError for an unknown one."""
        drill = self.get(drill_id)
        with self._lock:
            if self._run is not None and self._run.drill.id == drill_id:
                self._run.stop = f"Stopped by {who}."
        return drill

    def get(self, drill_id: str) -> Drill:
        """A drill as it stands. Raises MissingError for an unknown one."""
        drill = self._drills.get(drill_id)
        if drill is None:
            raise MissingError(
                f"There is no drill {drill_id} (any more): the last {_KEPT} are kept."
            )
        return drill

    def list(self) -> Sequence[Drill]:
        """The latest drills, the latest first."""
        with self._lock:
            return [*self._drills.values()][::-1]

    def close(self) -> None:
        """End the thread, and the drill at work with it."""
        self._closed.set()
        self._thread.join(_PATIENCE)

    def _work(self) -> None:
        while not self._closed.is_set():
            run = self._run
            try:
                if run is None:
                    self._begin_scheduled()
                    self._closed.wait(_TICK_SECONDS)
                else:
                    self._go_on(run)
            except Exception as error:  # a drill's own trouble; the loop does not know of it
                log.exception("a drill failed")
                if run is not None:
                    self._end(run, DrillState.FAILED, f"{type(error).__name__}: {error}")
        run = self._run
        if run is not None:
            self._end(run, DrillState.STOPPED, "The service stopped.")

    def _go_on(self, run: _Run) -> None:
        with contextlib.suppress(queue.Empty):
            self._judge(run, self._batches.get(timeout=_TICK_SECONDS))
        if run.stop:
            self._end(run, DrillState.STOPPED, run.stop)
        elif run.drill.sent >= run.drill.wanted:
            self._end(run, DrillState.DONE, "")
        elif self._clock() - run.began > run.drill.plan.seconds + _PATIENCE:
            if run.drill.sent:
                self._end(run, DrillState.DONE, "The traffic was too thin for the rest.")
            else:
                self._end(run, DrillState.FAILED, "")
        elif run.fork.partition not in self._service().partitions:
            self._end(run, DrillState.STOPPED, "The partition went to another instance.")

    def _judge(self, run: _Run, raw: RawBatch) -> None:
        if not len(raw) or int(raw.offset[0]) < run.fork.next_offset:
            return  # committed before the copy was taken
        now = self._clock()
        due = int((now - run.began) * run.drill.plan.rate_per_second) - run.drill.sent
        run.seen += len(raw)
        # Of all that the copy has seen: in slow traffic a batch is a single event.
        room = int(run.seen * _MOST_SHARE / (1 - _MOST_SHARE)) - run.drill.sent
        count = max(0, min(due, room, run.drill.wanted - run.drill.sent))
        chosen = run.canaries[run.drill.sent : run.drill.sent + count]
        mixed = canaries.mix(raw, chosen, run.offset, (run.drill.plan.seed, run.offset))
        gate = _trusting(self._service().gate)
        decisions, state = gate.step(run.fork.state, mixed.raw)
        run.offset += len(mixed.raw)
        run.fork = Fork(run.fork.partition, state, raw.next_offset)
        if count and run.first is None:
            run.first = now
        since = 0.0 if run.first is None else now - run.first
        if run.first is not None:
            self._keep(run, added(run.drill, decisions, mixed.canary, since))

    def _keep(self, run: _Run, drill: Drill) -> None:
        with self._lock:
            run.drill = self._drills[drill.id] = replace(drill, skipped_events=run.skipped)

    def _end(self, run: _Run, state: DrillState, text: str) -> None:
        nothing = "" if run.drill.sent else _nothing(run, self._clock() - run.began)
        note = " ".join(part for part in (run.drill.note, text, nothing) if part)
        self._keep(run, replace(run.drill, state=state, note=note, ended_at=self._wall()))
        with self._lock:
            self._run = None
            with contextlib.suppress(queue.Empty):
                while True:
                    self._batches.get_nowait()
            self._next = self._clock() + self._schedule.every_seconds
        self._write(f"drill {state.value}", run.drill)
        self._told(run.drill)

    def _write(self, what: str, drill: Drill) -> None:
        details: dict[str, Any] = {
            "drill": drill.id,
            "family": drill.plan.family,
            "attack": drill.plan.kind,
            "canaries": drill.sent or drill.wanted,
            "recall": drill.recall,
        }
        try:
            self._note(AuditEntry(self._wall(), drill.who, what, drill.why, details))
        except MonitorError as error:
            log.warning("a drill could not be written down: %s", error)

    def _begin_scheduled(self) -> None:
        schedule = self._schedule
        if not schedule.every_seconds or not schedule.plans or self._clock() < self._next:
            return
        self._next = self._clock() + schedule.every_seconds
        plan = schedule.plans[self._turn % len(schedule.plans)]
        self._turn += 1
        try:
            # Another seed each time: canaries that are always alike would be learned by heart.
            self.start(replace(plan, seed=plan.seed + self._turn), who="schedule", why="schedule")
        except MonitorError as error:
            log.warning("the scheduled drill %s was left out: %s", plan.family, error)


def _nothing(run: _Run, seconds: float) -> str:
    """Why no canary was judged: they are judged beside real events, and a minority of them."""
    if run.skipped and not run.seen:
        came = f"the copy could not keep up with the {run.skipped:,} events that came"
    else:
        came = f"{run.seen or 'no'} event{'' if run.seen == 1 else 's'} came"
    return (
        f"Nothing was judged, so nothing is known of what would be caught: {came} to partition "
        f"{run.fork.partition} in {seconds:.0f} s, and canaries are judged beside real events. "
        "Try again while there is traffic, or for longer."
    )


def _trusting(gate: Any) -> Any:
    """The same gate without provenance: nobody signs canaries, and they ask what detectors see."""
    policy = getattr(gate, "policy", None)
    if policy is None or not policy.provenance.is_used:
        return gate
    return gate.with_policy(policy.model_copy(update={"provenance": ProvenancePolicy()}))
