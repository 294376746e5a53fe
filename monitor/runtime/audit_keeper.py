"""Writes the chain of what people do, and the heads of all chains, signed and anchored.

One chain a process, continued by the process after it under the same name; only one can write it
at a time (:class:`~monitor.core.ports.ChainLog`). A thread of its own writes, so that neither the
loop nor a login waits for a broker that is down; what cannot be written waits here.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from monitor.core.desk import AuditEntry
from monitor.core.errors import MonitorError, StateError, TransportError
from monitor.core.ports import ChainLog, CommitUnit
from monitor.runtime.audit_anchors import Anchor
from monitor.state.audit import Head, opened, seal
from monitor.state.audit_keys import SigningKey

MOST_WAITING = 10_000
MOST_BYTES = 256 * 1024
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
CLOSE_SECONDS = 15.0
MONITOR = "monitor"
Fields = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Writing:
    """How a chain of one's own is written.

    Attributes
    ----------
    chain, software
        Its name, and what writes it.
    key
        Signs every record; None for nobody.
    every_seconds, every_records
        When heads that have moved are written down: whichever comes first.
    anchors
        Where heads are kept besides.
    """

    chain: str
    software: str
    key: SigningKey | None = None
    every_seconds: float = 60.0
    every_records: int = 10_000
    anchors: Sequence[Anchor] = ()


@dataclass(slots=True)
class _Chain:
    """The chain as it is being written. Used by one thread."""

    log: ChainLog
    by: Writing
    head: Head | None = None
    doubtful: tuple[Head, list[bytes]] | None = None
    """Where it stands, with which lines, if a write that failed has taken place after all."""

    def write(self, found: Sequence[Fields]) -> list[bytes]:
        """Add records; their lines. After an error, again with the same ones."""
        if self.head is None:
            self.head = _head_of(self.log.open(), self.by.chain)
        if self.doubtful is not None:
            (head, lines), self.doubtful = self.doubtful, None
            if self.head == head:
                return lines
        lines, head = [], self.head
        for kind, fields in found:
            line, head = self._sealed(head, kind, fields)
            lines.append(line)
        self.doubtful, self.head = (head, lines), None
        self.log.append(lines)
        self.doubtful, self.head = None, head
        return lines

    def _sealed(self, head: Head, kind: str, fields: Mapping[str, Any]) -> tuple[bytes, Head]:
        key = self.by.key
        names = {} if key is None else {"key": key.id, "public_key": key.public}
        line, after = seal(head, self.by.chain, kind, {**fields, **names})
        return (line if key is None else key.sign(line, after.hash)), after


def _head_of(line: bytes | None, chain: str) -> Head:
    if line is None:
        return Head()
    try:
        found = opened(line)
    except StateError as error:
        raise TransportError(f"The audit chain {chain} cannot be continued: {error}") from error
    if found.record.chain != chain or not found.intact:
        raise TransportError(f"The audit chain {chain} ends in a record that was changed.")
    return Head(found.record.seq, found.hash)


@dataclass(slots=True)
class _Anchoring:
    """An anchor and the heads that it has not got yet."""

    anchor: Anchor
    waiting: list[bytes] = field(default_factory=list)
    failing: bool = False


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Records to be written, and what they take from what waits; the heads are the last."""

    found: Sequence[Fields]
    waiting: int
    lost: int
    moved: int
    headed: bool


class AuditKeeper:
    """Records what people do, and where the chains stand. Thread-safe; observes commits.

    Parameters
    ----------
    log
        Where the chain is written.
    by
        How.
    notice
        Receives sentences for the operator.
    clock
        Unix seconds.
    """

    def __init__(
        self,
        log: ChainLog,
        by: Writing,
        *,
        notice: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._chain, self._by, self._log = _Chain(log, by), by, log
        self._notice, self._clock = notice, clock
        self._anchors = [_Anchoring(anchor) for anchor in by.anchors]
        self._news = threading.Condition()
        self._waiting: list[Fields] = []
        self._lost = self._written = 0
        self._heads: dict[str, Head] = {}
        self._moved = self._people = 0
        self._head_at = 0.0
        self._stop = False
        self._thread: threading.Thread | None = None
        self._failing = False
        self._attempt: _Attempt | None = None

    def start(self) -> None:
        """Begin to write, once topics and folders are there."""
        if self._thread is None:
            self._head_at = time.monotonic()
            self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
            self._thread.start()

    def record(self, entry: AuditEntry, *, wait_seconds: float = 1.0) -> None:
        """Add what somebody did. Waits a moment until it is written; later it still will be."""
        fields = {
            "what": entry.what,
            "who": entry.who,
            "why": entry.why,
            "when": entry.when,
            "details": _plain(entry.details),
            "software": self._by.software,
        }
        with self._news:
            if len(self._waiting) >= MOST_WAITING:
                self._lost += 1
                return
            self._waiting.append(("desk", fields))
            until = self._written + len(self._waiting)
            self._news.notify_all()
            if self._thread is not None and threading.current_thread() is not self._thread:
                self._news.wait_for(lambda: self._written >= until or self._stop, wait_seconds)

    def committed(self, unit: CommitUnit, seconds: Mapping[str, float]) -> None:
        """Remember where the chains of a committed micro-batch stand."""
        ends = [part for part in unit.parts if part.audit]
        with self._news:
            for part in ends:
                self._moved += len(part.audit)
                self._heads[part.chain] = _end_of(part.audit[-1])
            if self._moved >= self._by.every_records:
                self._news.notify_all()

    def stands(self, chain: str, head: Head | None) -> None:
        """A partition's chain is this process's from now on, or with None it is not any more.

        The next heads name it, and are written though nothing is decided: who had it before may
        have gone without them.
        """
        with self._news:
            if head is None:
                self._heads.pop(chain, None)
            elif head.seq:
                self._heads[chain] = head
                self._moved += 1

    @property
    def heads(self) -> Mapping[str, Head]:
        """Where the chains of this process's partitions stand."""
        with self._news:
            return dict(self._heads)

    def close(self) -> None:
        """Write what waits and the last heads, and end."""
        with self._news:
            self._stop = True
            self._news.notify_all()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        pause = PAUSE_SECONDS
        while True:
            with self._news:
                self._news.wait_for(self._due, self._left())
                stop = self._stop
            try:
                self._write(final=stop)
                pause = PAUSE_SECONDS
                self._failing = False
            except Exception as error:  # whatever it is, the service goes on
                self._tell(error)
                with self._news:
                    if not self._stop:
                        self._news.wait_for(lambda: self._stop, pause)
                    elif stop:
                        break
                pause = min(2.0 * pause, LONGEST_PAUSE_SECONDS)
                continue
            self._anchor()
            if stop:
                break
        with contextlib.suppress(Exception):
            self._log.close()

    def _due(self) -> bool:
        return self._stop or bool(self._waiting) or self._moved >= self._by.every_records

    def _left(self) -> float:
        return max(0.0, self._head_at + self._by.every_seconds - time.monotonic())

    def _write(self, *, final: bool) -> None:
        # What failed is tried again as it was, so that it is recognised if it did take place.
        attempt = self._attempt = self._attempt or self._next(final=final)
        if not attempt.found:
            self._attempt = None
            return
        lines = self._chain.write(attempt.found)
        self._attempt = None
        with self._news:
            del self._waiting[: attempt.waiting]
            self._written += attempt.waiting
            self._lost -= attempt.lost
            self._moved -= attempt.moved
            self._news.notify_all()
        self._people = 0 if attempt.headed else self._people + len(attempt.found)
        if attempt.headed:
            for anchoring in self._anchors:
                anchoring.waiting.append(lines[-1])

    def _next(self, *, final: bool) -> _Attempt:
        now, tick = self._clock(), time.monotonic()
        with self._news:
            found, lost = list(self._waiting), self._lost
            moved, heads = self._moved, dict(self._heads)
        n = len(found)
        if lost:
            text = {"what": "records lost", "who": MONITOR, "details": {"records": lost}}
            found.append(("desk", {**text, "when": now, "software": self._by.software}))
        late = tick >= self._head_at + self._by.every_seconds
        # A head that nobody signs or keeps elsewhere says nothing of the records before it.
        proves = self._by.key is not None or bool(self._anchors)
        people = self._people + len(found) if proves else 0
        due = final or late or moved + people >= self._by.every_records
        if due:
            self._head_at = tick
        else:
            moved = 0
        # What people do is covered by its own chain's next head, also where nothing is decided.
        headed = due and moved + people > 0
        if headed:
            told = {chain: (head.seq, head.hash) for chain, head in heads.items()}
            found.append(("heads", {"when": now, "heads": told, "software": self._by.software}))
        return _Attempt(found, n, lost, moved, headed)

    def _anchor(self) -> None:
        for anchoring in self._anchors:
            while anchoring.waiting:
                try:
                    anchoring.anchor.keep(anchoring.waiting[0])
                except MonitorError as error:
                    if not anchoring.failing:
                        anchoring.failing = True
                        self._notice(f"Heads of the audit chain cannot be anchored: {error}")
                    # Each head holds what those before it said.
                    del anchoring.waiting[:-MOST_WAITING]
                    break
                anchoring.failing = False
                del anchoring.waiting[0]

    def _tell(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            text = str(error) if isinstance(error, MonitorError) else repr(error)
            self._notice(f"The audit chain of people's actions cannot be written, it waits: {text}")


def _end_of(line: bytes) -> Head:
    found = opened(line)
    return Head(found.record.seq, found.hash)


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    """Details as JSON can carry them, within bounds."""
    data = msgspec.json.encode(dict(details), enc_hook=str)
    if len(data) > MOST_BYTES:
        return {"left_out_bytes": len(data)}
    found: dict[str, Any] = msgspec.json.decode(data)
    return found
