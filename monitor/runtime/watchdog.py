"""Ends the process when its loop has stood still for too long, so that it is started again.

Every call into Kafka's client that may hang has a deadline, except the poll itself, which must
run in the loop's own thread. By the time this acts, the brokers have given the partitions of this
instance to others anyway, and nothing that it has not committed is visible.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from monitor.core.errors import TransportError

TICK_SECONDS = 1.0


class Watchdog:
    """Counts its own ticks without a sign of life, not the clock.

    So a process that was suspended (SIGSTOP, a sleeping laptop) is not taken for one that hangs.

    Parameters
    ----------
    idle_seconds
        Seconds since the loop's last sign of life.
    bound_seconds
        How long it may stand still.
    tell
        Receives the sentence before the end.
    leave
        Ends the process with an exit code, at once: what hangs can not be cleaned up.
    """

    def __init__(
        self,
        idle_seconds: Callable[[], float],
        bound_seconds: float,
        tell: Callable[[str], None],
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self._idle, self._bound = idle_seconds, bound_seconds
        self._tell, self._leave = tell, leave
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._still = 0.0

    def tick(self) -> bool:
        """One look; True when the loop has stood still for too long."""
        if self._idle() < 2 * TICK_SECONDS:
            self._still = 0.0
        else:
            self._still += TICK_SECONDS
        return self._still >= self._bound

    def _run(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            if self.tick():
                self._tell(
                    f"The loop has stood still for {self._bound:g} s: the process ends with exit "
                    f"code {TransportError.exit_code}; start it again, nothing is lost."
                )
                sys.stderr.flush()
                self._leave(TransportError.exit_code)
                return

    def __enter__(self) -> Watchdog:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._stop.set()
