"""The clock that the gate itself must not have: time by detector."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


class DetectorClock:
    """A :class:`~monitor.core.ports.Meter` that adds up time by detector.

    Each thread has sums of its own, so that what a request has judged on the side is not mixed
    with what the loop does: whoever counts takes its own thread's.

    Examples
    --------
    >>> ticks = iter([1.0, 3.5])
    >>> clock = DetectorClock(lambda: next(ticks))
    >>> clock("trigger", lambda: "answer"), clock.taken(), clock.taken()
    ('answer', {'trigger': 2.5}, {})
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._local = threading.local()

    def __call__(self, detector: str, call: Callable[[], T]) -> T:
        """``call()``, its time noted also when it raises."""
        began = self._clock()
        try:
            return call()
        finally:
            spent = self._spent()
            spent[detector] = spent.get(detector, 0.0) + self._clock() - began

    def taken(self) -> Mapping[str, float]:
        """Seconds by detector that this thread spent since it last asked."""
        spent = self._spent()
        self._local.spent = {}
        return spent

    def _spent(self) -> dict[str, float]:
        found: dict[str, float] | None = getattr(self._local, "spent", None)
        if found is None:
            found = self._local.spent = {}
        return found
