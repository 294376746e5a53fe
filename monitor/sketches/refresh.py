"""When estimates that follow a stream slowly are to be made anew."""

from __future__ import annotations

OFTEN_EVENTS, SELDOM_EVENTS, SETTLED_EVENTS = 2048, 4096, 16_384


def due(before: int, now: int, *, always_often: bool = False) -> bool:
    """Whether a stream that had ``before`` events and has ``now`` has completed another stretch.

    Stretches are longer once the stream is settled, unless it is ``always_often``: a fit costs as
    much as a tenth of judging what comes between two of them.

    Examples
    --------
    >>> due(2000, 2100), due(2100, 4000), due(30_000, 32_700), due(30_000, 32_800)
    (True, False, False, True)
    """
    settled = now > SETTLED_EVENTS and not always_often
    stretch = SELDOM_EVENTS if settled else OFTEN_EVENTS
    return now // stretch != before // stretch
