"""A thread that follows the control ledger, and what it adds up to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

from monitor.core.errors import MonitorError
from monitor.core.ports import Ledger
from monitor.state.control import ControlState, Row, fold

POLL_SECONDS = 0.2
PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0


class LedgerFollower:
    """Folds a ledger's records as they come. :meth:`append` and :meth:`wait` from any thread.

    Parameters
    ----------
    open_ledger
        Makes a ledger object; one is for reading, in the thread, one for appending.
    changed
        Called in the thread after every poll, whether or not something came.
    notice
        Receives sentences for the operator.
    """

    def __init__(
        self,
        open_ledger: Callable[[], Ledger],
        changed: Callable[[ControlState], None],
        notice: Callable[[str], None],
    ) -> None:
        self._open, self._changed, self._notice = open_ledger, changed, notice
        self._state = ControlState()
        self._news = threading.Condition()
        self._writing = threading.Lock()
        self._writer: Ledger | None = None
        self._reader: Ledger | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> ControlState:
        """What the records so far add up to."""
        return self._state

    def catch_up(self) -> ControlState:
        """Read all there is, before :meth:`start`. Raises MonitorError."""
        if self._reader is None:
            self._reader = self._open()
        self._take(self._reader.catch_up())
        return self._state

    def start(self) -> None:
        """Follow from now on."""
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)
        self._thread.start()

    def append(self, rows: Sequence[Row]) -> None:
        """Write records. Raises MonitorError; a later call tries with a new ledger object."""
        with self._writing:
            try:
                if self._writer is None:
                    self._writer = self._open()
                self._writer.append(rows)
            except Exception:
                self._drop_writer()
                raise

    def wait(self, until: Callable[[ControlState], bool], seconds: float) -> bool:
        """Wait until ``until`` holds of the state; whether it does."""
        with self._news:
            return self._news.wait_for(lambda: until(self._state), seconds)

    def close(self) -> None:
        """End the thread and close the ledgers."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10.0)
        with self._writing:
            self._drop_writer()
        self._drop_reader()

    def _run(self) -> None:
        pause = PAUSE_SECONDS
        while not self._stop.is_set():
            try:
                if self._reader is None:
                    reader = self._open()
                    self._reader, found = reader, reader.catch_up()
                    self._take(found, anew=True)
                else:
                    self._take(self._reader.read(POLL_SECONDS))
                self._changed(self._state)
                pause = PAUSE_SECONDS
            except Exception as error:  # whatever it is, the policy that holds goes on holding
                text = str(error) if isinstance(error, MonitorError) else repr(error)
                self._notice(
                    f"The policy's ledger cannot be followed; changes made elsewhere are not "
                    f"heard until it can be: {text}"
                )
                self._drop_reader()
                self._stop.wait(pause)
                pause = min(2.0 * pause, LONGEST_PAUSE_SECONDS)

    def _take(self, rows: Sequence[Row], *, anew: bool = False) -> None:
        if not rows and not anew:
            return
        before = ControlState() if anew else self._state
        state = fold(before, rows)
        with self._news:
            self._state = state
            self._news.notify_all()
        if not anew:  # else they have been said
            for text in state.notices:
                self._notice(text)

    def _drop_writer(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(Exception):
                self._writer.close()
            self._writer = None

    def _drop_reader(self) -> None:
        if self._reader is not None:
            with contextlib.suppress(Exception):
                self._reader.close()
            self._reader = None
