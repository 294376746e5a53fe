"""Counts of what the service does, for the console, the terminal view and readiness probes."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from monitor.config.policy import Policy
from monitor.core.errors import RejectCode
from monitor.core.ports import CommitUnit
from monitor.core.types import Action, DecisionBatch, Verdict
from monitor.state.recovery import Stamp

_RING_SECONDS = 300
_WINDOWS = (10, 60, 300)
_MAX_CLASSES = 64
_MAX_CLASS_CHARS = 80
_NO_CHANNEL = 255
STANDBY_SECONDS = 30.0
"""An instance whose loop goes round for so long without a partition is one in reserve."""
OTHER = "other"


class _Labelled(msgspec.Struct, gc=False):
    label: str | int | float | bool | None = None


_label_of = msgspec.json.Decoder(_Labelled).decode


class _Rates:
    """Events a second over the last windows, in one slot a second."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._count = np.zeros(_RING_SECONDS, dtype=np.int64)
        self._second = np.full(_RING_SECONDS, -1, dtype=np.int64)

    def add(self, now: float, n: int) -> None:
        second = int(now)
        slot = second % _RING_SECONDS
        if self._second[slot] != second:
            self._second[slot], self._count[slot] = second, 0
        self._count[slot] += n

    def read(self, now: float) -> dict[str, float]:
        lived = max(now - self._began, 1.0)
        return {
            f"{window}s": float(self._count[self._second > now - window].sum() / min(window, lived))
            for window in _WINDOWS
        }


class Status:
    """Observer and listener of a :class:`~monitor.runtime.service.Service`. Thread-safe.

    Parameters
    ----------
    clock
        Monotonic seconds.
    wall
        Seconds since 1970, for ``started_at``.
    flagged
        How many flagged, quarantined and invalid decisions are remembered.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        flagged: int = 2000,
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = self._alive = clock()
        self._started_at = wall()
        self._events = self._batches = self._warmup = 0
        self._verdicts = np.zeros(len(Verdict), dtype=np.int64)
        self._actions = np.zeros(len(Action), dtype=np.int64)
        self._rejects = np.zeros(256, dtype=np.int64)
        self._families: Counter[str] = Counter()
        self._classes: dict[str, npt.NDArray[np.int64]] = {}
        self._flagged: deque[tuple[int, bytes]] = deque(maxlen=flagged)
        self._notices: deque[str] = deque(maxlen=20)
        self._positions: dict[int, int] = {}
        self._views: dict[int, tuple[int, int]] = {}
        self._rates = _Rates(self._began)
        self._stages: dict[str, float] = {}
        self._last_stages: dict[str, float] = {}
        self._latency: deque[float] = deque(maxlen=256)
        self._lag: int | None = None
        self._restore_last: float | None = None
        self._stopped: str | None = None
        self._first_poll: float | None = None
        self._started = False
        self._policy: tuple[int, str] | None = None

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Count a committed micro-batch; ``seconds`` by stage."""
        labels = [_labels(part.decisions.records) for part in unit.parts]
        with self._lock:
            now = self._alive = self._clock()
            for part, names in zip(unit.parts, labels, strict=True):
                self._positions[part.raw.partition] = part.next_offset
                self._count(part.decisions, names)
                self._rates.add(now, len(part.decisions))
            self._batches += 1
            self._last_stages = dict(seconds)
            for stage, spent in seconds.items():
                self._stages[stage] = self._stages.get(stage, 0.0) + spent
            self._latency.append(sum(s for stage, s in seconds.items() if stage != "poll"))

    def _count(self, decisions: DecisionBatch, labels: list[str | None]) -> None:
        verdict = decisions.verdict
        self._events += len(decisions)
        self._warmup += int(decisions.warmup.sum())
        self._verdicts += np.bincount(verdict, minlength=len(Verdict))
        self._actions += np.bincount(decisions.action, minlength=len(Action))
        rejects = decisions.reject[verdict == Verdict.INVALID]
        self._rejects += np.bincount(rejects, minlength=256)
        suspicious = (verdict == Verdict.FLAG) | (verdict == Verdict.QUARANTINE)
        channels = decisions.channel[suspicious & (decisions.channel != _NO_CHANNEL)]
        for index, n in enumerate(np.bincount(channels).tolist()):
            if n:
                self._families[decisions.channels[index]] += n
        for row in np.flatnonzero(verdict != Verdict.ACCEPT).tolist():
            if row < len(decisions.records):
                self._flagged.append((int(verdict[row]), decisions.records[row]))
        for label, what in zip(labels, verdict.tolist(), strict=False):
            if label is not None and what != Verdict.INVALID:
                self._class(label)[what] += 1
        self._policy = (decisions.policy_version, decisions.mode.value)

    def _class(self, label: str) -> npt.NDArray[np.int64]:
        if label not in self._classes and len(self._classes) >= _MAX_CLASSES:
            label = OTHER
        return self._classes.setdefault(label, np.zeros(len(Verdict), dtype=np.int64))

    def polled(self, lag_events: int | None) -> None:
        """The loop is alive."""
        with self._lock:
            now = self._alive = self._clock()
            self._lag = lag_events
            if self._first_poll is None:
                self._first_poll = now
            if now - self._first_poll >= STANDBY_SECONDS:
                self._started = True

    def moved(self) -> None:
        """A restore, which may take long, gets on."""
        with self._lock:
            self._alive = self._clock()

    def restored(self, partition: int, stamp: Stamp, seconds: float) -> None:
        """A partition's state is here."""
        with self._lock:
            self._alive = self._clock()  # many partitions may take long, one after the other
            self._positions[partition] = stamp.next_offset
            self._started = True
            self._stages["restore"] = self._stages.get("restore", 0.0) + seconds
            self._restore_last = seconds

    def revoked(self, partition: int) -> None:
        """A partition went elsewhere."""
        with self._lock:
            self._positions.pop(partition, None)
            self._views.pop(partition, None)

    def viewed(self, partition: int, others: int, apart: int) -> None:
        """A partition is judged with what ``others`` know; ``apart`` are left out."""
        with self._lock:
            self._views[partition] = (others, apart)

    def use(self, policy: Policy) -> None:
        """Another policy holds from the next micro-batch on."""
        with self._lock:
            self._policy = (policy.version, policy.mode.value)

    def notice(self, text: str) -> None:
        """Remember a sentence for the operator."""
        with self._lock:
            self._notices.append(text)

    def stopped(self, reason: str) -> None:
        """The loop has ended."""
        with self._lock:
            self._stopped = reason

    @property
    def ready(self) -> bool:
        """True while at least one partition's state is here and the loop runs."""
        return bool(self._positions) and self._stopped is None

    @property
    def started(self) -> bool:
        """True once a partition's state was restored, or none came for ``STANDBY_SECONDS``."""
        return self._started and self._stopped is None

    def idle_seconds(self) -> float:
        """Seconds since the loop last gave a sign of life; a poll counts even when empty."""
        return self._clock() - self._alive

    def flagged(self, limit: int = 50, verdict: Verdict | None = None) -> list[dict[str, Any]]:
        """The latest decisions that were not plain acceptance, newest first.

        Parameters
        ----------
        limit
            At most so many.
        verdict
            Only those with this verdict.
        """
        with self._lock:
            kept = [record for what, record in self._flagged if verdict is None or what == verdict]
        newest = kept[-limit:][::-1] if limit > 0 else []
        return [msgspec.json.decode(record) for record in newest]

    def snapshot(self) -> dict[str, Any]:
        """Everything but the flagged decisions, ready for JSON. Durations are in seconds."""
        with self._lock:
            now = self._clock()
            latency = np.array(self._latency)
            return {
                "ready": self.ready,
                "stopped": self._stopped,
                "started_at": self._started_at,
                "uptime_seconds": now - self._began,
                "idle_seconds": now - self._alive,
                "partitions": {str(p): at for p, at in sorted(self._positions.items())},
                "views": {
                    str(p): {"others": others, "apart": apart}
                    for p, (others, apart) in sorted(self._views.items())
                },
                "lag_events": self._lag,
                "events": self._events,
                "batches": self._batches,
                "warmup": self._warmup,
                "verdicts": {v.word: int(self._verdicts[v]) for v in Verdict},
                "actions": {a.word: int(self._actions[a]) for a in Action},
                "families": dict(self._families),
                "rejects": {c.word: int(self._rejects[c]) for c in RejectCode if self._rejects[c]},
                "classes": {
                    label: {v.word: int(counts[v]) for v in Verdict if v != Verdict.INVALID}
                    for label, counts in self._classes.items()
                },
                "rates": self._rates.read(now),
                "stage_seconds": dict(self._stages),
                "restore_last_seconds": self._restore_last,
                "last_batch_seconds": self._last_stages,
                "batch_seconds": {
                    f"p{q}": float(np.percentile(latency, q)) if len(latency) else 0.0
                    for q in (50, 99)
                },
                "policy_version": None if self._policy is None else self._policy[0],
                "mode": None if self._policy is None else self._policy[1],
                "notices": list(self._notices),
            }


def _labels(records: Iterable[bytes]) -> list[str | None]:
    """The label of each decision record as text; True reads ``true``, as on the wire."""
    names: list[str | None] = []
    for record in records:
        try:
            label = _label_of(record).label
        except msgspec.MsgspecError:
            label = None
        if label is None or isinstance(label, str):
            names.append(label if label is None else label[:_MAX_CLASS_CHARS])
        else:
            names.append(msgspec.json.encode(label).decode())
    return names
