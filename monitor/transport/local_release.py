"""Reviews of a local run: released lines and the record of the release, as one.

The journal decides. A release appends the lines to the accepted ones, forces them to the disk and
writes a journal entry that carries the ledger's rows along; that is the moment of commit. Then
the rows go to the ledger. An entry whose rows may not have arrived there keeps them, and so do
those after it, until they have; a row that comes twice counts once, by its key.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import msgspec

from monitor.core.errors import MonitorError, TransportError
from monitor.core.held import Reviews
from monitor.core.ports import Ledger
from monitor.transport.local_journal import Journal
from monitor.transport.local_ledger import LocalLedger
from monitor.transport.local_output import Output

Row = tuple[bytes, bytes | None]

REVIEWS = "reviews.jsonl"
_LOOP_SECONDS = 60.0


class ReviewsOut:
    """The transport's end of the reviews ledger. Used in the loop's thread only."""

    def __init__(self, folder: Path) -> None:
        self._ledger = LocalLedger(folder / REVIEWS)
        self._torn = False

    def usable(self) -> None:
        """Raise TransportError when a release could not be taken back: only a restart helps."""
        if self._torn:
            raise TransportError(
                "A release failed and what it wrote could not be taken back: start again, that "
                "mends it."
            )

    def settle(self, journal: Journal) -> None:
        """Bring rows that the journal keeps to the ledger. Raises TransportError."""
        if journal.last.reviews:
            self._ledger.append(journal.last.reviews)
            journal.last = msgspec.structs.replace(journal.last, reviews=())

    def release(
        self,
        journal: Journal,
        outputs: Mapping[str, Output],
        what: Mapping[str, Sequence[bytes]],
        rows: Sequence[Row],
    ) -> None:
        """Commit lines, by output, with their rows. Raises TransportError."""
        self.usable()
        self.settle(journal)
        written = {name: outputs[name] for name, lines in what.items() if lines}
        if not written and not rows:
            return
        last = journal.last
        before = {name: output.size for name, output in written.items()}
        try:
            for name, output in written.items():
                output.append(what[name])
                output.sync()
            lengths = {**last.lengths, **{name: out.size for name, out in written.items()}}
            entry = msgspec.structs.replace(last, lengths=lengths, reviews=tuple(rows))
            journal.append(entry, sync=True)
        except BaseException:
            self._torn = True
            journal.undo()
            for name, output in written.items():
                output.cut(before[name])
            self._torn = False
            raise
        self.settle(journal)

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()


class Releasing(Protocol):
    """A transport that takes lines between micro-batches."""

    def release(
        self, lines: Sequence[bytes], rows: Sequence[Row], retracted: Sequence[bytes] = ()
    ) -> None:
        """Make all of it visible as one."""


class LocalReviewer:
    """Reviews one after the other, through the loop where lines are released. Thread-safe.

    Parameters
    ----------
    submit
        Has a function run in the loop's thread between micro-batches.
    transport
        Where released lines go.
    ledger
        For reviews without lines; used by this object only.
    """

    def __init__(
        self,
        submit: Callable[[Callable[[Any], None]], Future[None]],
        transport: Releasing,
        ledger: Ledger,
    ) -> None:
        self._submit, self._transport, self._ledger = submit, transport, ledger
        self._lock = threading.Lock()

    def exclusively(self, job: Callable[[], Reviews | None]) -> None:
        """Run ``job`` and commit what it returns.

        Raises
        ------
        TransportError
            When the disk fails, or the loop does not come to it.
        StateError
            When the service has stopped.
        """
        with self._lock:
            # Rows that an earlier release left in the journal come first.
            self._in_loop([], [])
            reviews = job()
            if reviews is None:
                return
            if not reviews.released and not reviews.retracted:
                self._ledger.append(reviews.rows)
                return
            lines = [original.value or b"" for original in reviews.released]
            self._in_loop(lines, reviews.rows, [one.value for one in reviews.retracted])

    def _in_loop(
        self, lines: Sequence[bytes], rows: Sequence[Row], retracted: Sequence[bytes] = ()
    ) -> None:
        future = self._submit(lambda _: self._transport.release(lines, rows, retracted))
        try:
            future.result(_LOOP_SECONDS)
        except TimeoutError:
            if future.cancel():
                raise TransportError(
                    f"reviewing: the service has been busy for {_LOOP_SECONDS:g} s; try again"
                ) from None
            try:
                future.result(_LOOP_SECONDS)
            except TimeoutError:
                raise TransportError("reviewing: the disk does not answer") from None
        except MonitorError:
            raise
        except OSError as error:
            raise TransportError(f"reviewing: {error}") from error
