"""When estimates that follow a stream slowly are to be made anew."""

from __future__ import annotations

OFTEN_EVENTS, SELDOM_EVENTS, SETTLED_EVENTS = 2048, 8192, 16_384


def due(before: int, now: int) -> bool:
    """Whether a stream that had ``before`` events and has ``now`` has completed another stretch.

    Stretches are longer once the stream is settled: what is learned halves its weight in about as
    many events, and a fit costs as much as judging a batch.

    Examples
    --------
    >>> due(2000, 2100), due(2100, 4000), due(30_000, 32_700), due(30_000, 32_800)
    (True, False, False, True)
    """
    stretch = SELDOM_EVENTS if now > SETTLED_EVENTS else OFTEN_EVENTS
    return now // stretch != before // stretch
