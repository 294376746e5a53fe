"""When the monitor itself cannot keep up: noticed by the lag, and left with hysteresis.

Which batches were let by is not derived from the lag again in a recovery, which could not see it:
each commit's stamp says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Overload:
    """Watches the lag of the partitions that are here.

    Parameters
    ----------
    fail_open
        True: events are let by unjudged during an overload. False: they wait, and only a
        sentence tells of it.
    lag_events
        An overload begins when more events wait than this, and ends below half of it.
    after_seconds
        How long the lag must stay above the bound before an overload begins.
    clock
        Monotonic seconds.

    Examples
    --------
    >>> watch = Overload(fail_open=True, lag_events=100, after_seconds=0.0)
    >>> [watch.update(lag) or watch.lets_by for lag in (90, 101, 60, None, 49)]
    [False, True, True, True, False]
    """

    def __init__(
        self,
        *,
        fail_open: bool = False,
        lag_events: int = 500_000,
        after_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fail_open = fail_open
        self._bound, self._after, self._clock = lag_events, after_seconds, clock
        self._since: float | None = None
        self.active = False

    @property
    def lets_by(self) -> bool:
        """Whether the next batch passes unjudged."""
        return self.active and self._fail_open

    def update(self, lag_events: int | None, tell: Callable[[str], None] | None = None) -> None:
        """Take in the lag after a poll; None, when it is not known, changes nothing.

        ``tell`` receives one sentence when an overload begins and one when it is over.
        """
        if lag_events is None:
            return
        was = self.active
        if self.active:
            self.active = 2 * lag_events >= self._bound
        elif lag_events <= self._bound:
            self._since = None
        else:
            now = self._clock()
            self._since = now if self._since is None else self._since
            self.active = now - self._since >= self._after
        if self.active != was:
            self._since = None
            if tell is not None:
                tell(self._sentence(lag_events))

    def _sentence(self, lag: int) -> str:
        if not self.active:
            return f"The overload is over: {lag:,} events wait. Every event is judged again."
        does = (
            "valid events pass unjudged until fewer than half of that wait (overload.mode is "
            "fail_open)"
            if self._fail_open
            else "they wait until they are judged (overload.mode is fail_closed); more instances "
            "would help if there are more partitions"
        )
        return (
            f"Overload: {lag:,} events wait, more than {self._bound:,} for {self._after:g} s: "
            f"{does}."
        )
