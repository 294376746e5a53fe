"""Files and pipes as a transport: every input line ends in exactly one output, once.

A commit appends to the outputs and then writes one line to the journal. A process that is killed
in between leaves a torn tail that the next one cuts off before it goes on. With an ordinary file
as output nothing is lost or doubled; with standard output the last micro-batch may come twice,
because what a pipe has taken cannot be taken back.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from monitor.core.errors import UsageError
from monitor.core.ports import CommitUnit, PartitionCommit, Polled, Resume
from monitor.core.types import Action, RawBatch
from monitor.transport.local_journal import (
    Entry,
    Header,
    Journal,
    JournalStatus,
    failed,
    read_status,
)
from monitor.transport.local_live import FollowFile, PipeLines
from monitor.transport.local_output import (
    FileOutput,
    FolderLock,
    Output,
    OutputClosedError,
    PipeOutput,
    Spool,
)
from monitor.transport.local_release import ReviewsOut, Row
from monitor.transport.local_source import (
    MAX_LINE_BYTES,
    FileLines,
    LineSource,
    LiveSource,
    Recorded,
)

__all__ = [
    "MAX_LINE_BYTES",
    "FileLines",
    "FollowFile",
    "JournalStatus",
    "LineSource",
    "LiveSource",
    "LocalTransport",
    "OutputClosedError",
    "PipeLines",
    "journal_status",
]

Fsync = Literal["commit", "snapshot", "never"]
_HIDDEN = ".monitor"
_ACCEPTED, _DECISIONS, _ALERTS = "accepted", "decisions", "alerts"
_RETRACTIONS, _AUDIT, _SPOOL = "retractions", "audit", "input"
_ROUTES = {Action.PASS: _ACCEPTED, Action.HOLD: "quarantined", Action.REJECT: "invalid"}
_NAMES = (*_ROUTES.values(), _DECISIONS, _ALERTS, _RETRACTIONS, _AUDIT)
_RANGE_LINES = 1024


def journal_status(folder: Path) -> JournalStatus | None:
    """What an output folder holds, None when no run has begun in it. Changes nothing."""
    return read_status(folder / _HIDDEN)


class LocalTransport:
    """Lines in; accepted, quarantined and invalid lines and decision records out.

    Parameters
    ----------
    source
        Recorded lines, or a file or pipe that is still being written.
    folder
        Gets ``accepted.jsonl``, ``quarantined.jsonl``, ``invalid.jsonl``, ``decisions.jsonl``,
        ``alerts.jsonl``, ``retractions.jsonl``, ``audit.jsonl``, and ``.monitor`` with journal,
        snapshots and lock.
    accepted
        Another file for accepted events, or a descriptor (1 for standard output).
    identity
        Text of the settings that decide results. A run that is resumed must have the same.
    overwrite
        Delete an earlier run in ``folder`` instead of resuming it or refusing.
    fsync
        When outputs are forced to disk: with every commit, with every snapshot, or never. A
        killed process loses nothing either way; this is about power failures.
    finishes
        True when the end of the input ends the work for good, so that the folder takes nothing
        more. By default so for recorded lines; what a pipe brings goes on after the pipe before.
    max_batch_bytes
        A batch ends early with the line that brings it to this size.
    """

    def __init__(
        self,
        source: LineSource | LiveSource,
        folder: Path,
        *,
        accepted: Path | int | None = None,
        identity: str = "",
        overwrite: bool = False,
        fsync: Fsync = "snapshot",
        finishes: bool | None = None,
        max_batch_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self._source: LiveSource = source if isinstance(source, LiveSource) else Recorded(source)
        recorded = isinstance(self._source, Recorded)
        self._finishes = recorded if finishes is None else finishes
        self._inputs: Sequence[Path] = getattr(source, "paths", ())
        self.folder = folder
        self._hidden = folder / _HIDDEN
        self._accepted = folder / f"{_ACCEPTED}.jsonl" if accepted is None else accepted
        self.accepted_path = self._accepted if isinstance(self._accepted, Path) else None
        self._identity = identity
        self._overwrite = overwrite
        self._fsync = fsync
        self._max_batch_bytes = max_batch_bytes
        self._outputs: dict[str, Output] = {}
        self._spool: Spool | None = None
        self._lock: FolderLock | None = None
        self._journal: Journal | None = None
        self._polled: list[bytes] = []
        self._again: list[bytes] = []
        self._reviews = ReviewsOut(self._hidden)
        self._spooled = 0
        self._announced = False

    def open(self) -> None:
        """Take the lock, cut torn tails, and find where to go on.

        Raises
        ------
        UsageError
            When another process has the folder, when it holds a finished run or files of another
            run, or when the input or ``identity`` is not that of the run to resume.
        TransportError
            When the disk fails.
        """
        try:
            self._hidden.mkdir(parents=True, exist_ok=True)
            if self.accepted_path is not None:
                self.accepted_path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise failed("make", Path(error.filename or self.folder), error) from error
        try:
            self._lock = FolderLock(self._hidden / "lock")
            if self._overwrite:
                self._wipe()
            journal = Journal(self._hidden)
            self._check(journal)
            self._open_outputs(journal)
            self._source.start(journal.last.next_offset)
            self._take_up(journal.last)
            self._reviews.settle(journal)
            journal.begin(
                Header(
                    source=self._source.describe(),
                    fingerprint=self._source.fingerprint(),
                    identity=self._identity,
                )
            )
            self._journal = journal
        except BaseException:
            self._release()
            raise

    def _wipe(self) -> None:
        for path in (*self._hidden.iterdir(), self.folder / "audit-desk.jsonl"):
            if path.name != "lock":
                path.unlink(missing_ok=True)

    def _check(self, journal: Journal) -> None:
        written = [self.folder / f"{name}.jsonl" for name in _NAMES]
        written += [self.accepted_path] if self.accepted_path is not None else []
        for path in self._inputs:
            if path.resolve() in {output.resolve() for output in written}:
                raise UsageError(f"{path} is both input and output: give another output.")
        header = journal.header
        if header is None:
            return
        if journal.last.finished:
            raise UsageError(
                f"{self.folder} already holds a finished run over {header.source}: give another "
                "folder, or overwrite it with --overwrite."
            )
        if self._finishes and not self._source.rereadable:
            raise UsageError(
                f"{self.folder} holds a run over {header.source} that was not finished, and a "
                "pipe cannot be read again to go on with it: start over with --overwrite."
            )
        if not self._source.same(header.fingerprint):
            raise UsageError(
                f"{self.folder} holds a run over {header.source} that was not finished, and "
                f"{self._source.describe()} is not the same input (or no longer). Give the same "
                "input to go on with it, another folder, or --overwrite to start over."
            )
        if header.identity != self._identity:
            raise UsageError(
                f"{self.folder} holds a run that was begun with other settings. Use the same "
                "settings to go on with it, another folder, or --overwrite to start over."
            )

    def _open_outputs(self, journal: Journal) -> None:
        for name in _NAMES:
            place = self._accepted if name == _ACCEPTED else self.folder / f"{name}.jsonl"
            self._outputs[name] = (
                FileOutput(place) if isinstance(place, Path) else PipeOutput(place)
            )
        if not self._source.rereadable:
            self._spool = Spool(self._hidden)
        if journal.header is None and not self._overwrite:
            for output in self._outputs.values():
                if isinstance(output, FileOutput) and output.size:
                    raise UsageError(
                        f"{output.path} exists already and is not from a run that can be resumed: "
                        "give another name or folder, or replace it with --overwrite."
                    )
        if not journal.choose(self._holds):
            raise UsageError(
                f"The outputs in {self.folder} are shorter than its journal says: something else "
                "changed them. Put them back, give another folder, or --overwrite to start over."
            )
        self._cut(journal.last)

    def _take_up(self, entry: Entry) -> None:
        """Begin with the lines that were read but not committed; keep all that are read."""
        if self._spool is not None:
            self._spooled = entry.lengths.get(_SPOOL, 0)
            if isinstance(self._source, PipeLines):
                self._source.resume(self._spool.pending(self._spooled), self._spool.append)

    def _holds(self, entry: Entry) -> bool:
        return all(
            output.holds(entry.lengths.get(name, 0)) for name, output in self._outputs.items()
        ) and (
            self._spool is None
            or self._spool.holds(max(entry.snapshot_offset, 0), entry.lengths.get(_SPOOL, 0))
        )

    def _cut(self, entry: Entry) -> None:
        for name, output in self._outputs.items():
            output.cut(entry.lengths.get(name, 0))
        if self._spool is not None:
            self._spool.use(max(entry.snapshot_offset, 0))

    def _opened(self) -> Journal:
        if self._journal is None:
            raise RuntimeError("open() comes first")
        return self._journal

    def poll(self, max_events: int, timeout_seconds: float) -> Polled:
        """The next lines as one batch of partition 0.

        Recorded input comes in full batches; live input as it comes, waiting at most
        ``timeout_seconds`` for a full batch.
        """
        journal = self._opened()
        last = journal.last
        if not self._announced:
            self._announced = True
            resume = Resume(0, last.next_offset, last.stamp, journal.load_snapshot())
            return Polled(assigned=(resume,))
        start = last.next_offset + len(self._polled)
        if self._again:
            lines, self._again = self._again[:max_events], self._again[max_events:]
        else:
            lines = self._source.take(max_events, self._max_batch_bytes, timeout_seconds)
        self._polled += lines
        return Polled(
            batches=(RawBatch.of(lines, start=start),) if lines else (),
            finished=self._source.exhausted and not self._again,
        )

    def drain(self) -> None:
        """Before a graceful stop: ``poll`` gives out what a pipe handed over, then finishes."""
        self._source.drain()

    def read_range(self, partition: int, start: int, stop: int) -> Iterator[RawBatch]:
        """Input lines ``start`` up to, not including, ``stop``, once more."""
        self._opened()
        again = self._spool if self._spool is not None else self._source
        lines = itertools.islice(again.lines(start), stop - start)
        while values := list(itertools.islice(lines, _RANGE_LINES)):
            yield RawBatch.of(values, start=start, partition=partition)
            start += len(values)

    def commit(self, unit: CommitUnit) -> None:
        """Append to the outputs, then to the journal.

        Raises
        ------
        TransportError
            When the disk fails; ``abort`` then restores what was there before.
        OutputClosedError
            When standard output has no reader any more.
        """
        journal = self._opened()
        self._reviews.usable()
        (part,) = unit.parts
        last = journal.last
        if int(part.raw.offset[0]) != last.next_offset or len(part.raw) > len(self._polled):
            raise ValueError("a commit must take up where the one before it ended")
        sync = self._fsync == "commit" or (self._fsync == "snapshot" and part.snapshot is not None)
        if part.snapshot is not None:
            journal.save_snapshot(part.next_offset, part.snapshot, sync=sync)
        self._write(part)
        lengths = {name: output.size for name, output in self._outputs.items()}
        if self._spool is not None:
            lengths[_SPOOL] = self._spooled + sum(len(value) + 1 for value in part.raw.values)
            if part.snapshot is not None:
                self._spool.prepare(part.next_offset, lengths[_SPOOL])
                lengths[_SPOOL] = 0
        if sync:
            self._sync()
        entry = Entry(
            next_offset=part.next_offset,
            lengths=lengths,
            stamp=part.stamp,
            snapshot_offset=last.snapshot_offset if part.snapshot is None else part.next_offset,
            reviews=last.reviews,
        )
        journal.append(entry, sync=sync)
        del self._polled[: len(part.raw)]
        self._spooled = lengths.get(_SPOOL, 0)
        if self._spool is not None and part.snapshot is not None:
            self._spool.turn(part.next_offset)
            with contextlib.suppress(OSError):
                self._spool.forget({part.next_offset, max(last.snapshot_offset, 0)})

    def release(
        self, lines: Sequence[bytes], rows: Sequence[Row], retracted: Sequence[bytes] = ()
    ) -> None:
        """Add lines to the accepted ones and the retractions, ``rows`` to the reviews, as one.

        Only between micro-batches, in the loop's thread. Standard output cannot take part: what
        it was given comes again when the process dies at this very moment.

        Raises
        ------
        TransportError
            When the disk fails; then nothing was released, or the next start completes it.
        """
        what = {_ACCEPTED: lines, _RETRACTIONS: retracted}
        self._reviews.release(self._opened(), self._outputs, what, rows)

    def _write(self, part: PartitionCommit) -> None:
        values = part.raw.values
        for action, name in _ROUTES.items():
            rows = part.decisions.rows(action)
            if len(rows) == len(values):
                self._outputs[name].append(values)
            elif len(rows):
                self._outputs[name].append([values[row] for row in rows.tolist()])
        self._outputs[_DECISIONS].append(part.decisions.records)
        self._outputs[_ALERTS].append([c.encoded() for c in part.decisions.changes])
        self._outputs[_AUDIT].append(part.audit)

    def _sync(self) -> None:
        for output in self._outputs.values():
            output.sync()
        if self._spool is not None:
            self._spool.sync()

    def abort(self) -> None:
        """Cut what an unfinished commit wrote; ``poll`` brings the same lines again."""
        journal = self._opened()
        self._again = self._polled + self._again
        self._polled = []
        journal.undo()
        self._cut(journal.last)

    def close(self) -> None:
        """Release everything. A recorded input that was read to its end is marked as finished."""
        journal = self._journal
        try:
            if journal is not None and self._lock is not None:
                journal.undo()
                self._cut(journal.last)
                if self._fsync != "never":
                    self._sync()
                over = self._source.ended and not self._polled and not self._again
                if over and self._finishes:
                    entry = msgspec.structs.replace(journal.last, finished=True)
                    journal.append(entry, sync=self._fsync != "never")
        finally:
            self._release()

    def _release(self) -> None:
        self._source.close()
        for output in self._outputs.values():
            output.close()
        self._outputs = {}
        self._reviews.close()
        for held in (self._spool, self._journal):
            if held is not None:
                held.close()
        self._journal = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
