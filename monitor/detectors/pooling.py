"""One calibration reference for what several partitions score by the same evidence.

A partition of four meets a quarter of the events, and its own reference would stay young, and its
tail short, four times as long. What the others' ordinary events scored, by nearly the same view,
tells as much about the law of the scores; how well the law holds is told by the own events alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from monitor.core.types import FloatArray
from monitor.detectors.calibration import YOUNG_WINDOWS, Read, Reference


def admitted(
    view: Reference, own: Reference, score: FloatArray, *, discrete: bool, read: Read | None
) -> tuple[Reference, Reference]:
    """Both references with the ``score`` float64[n] of ordinary own events added.

    What may be learned is for the view's to say, which knows more: a young reference learns
    whatever it meets, and would bring poison into everybody's.
    """
    if not len(score):
        return view, own
    kept, changes = view.worth(score, discrete=discrete, read=read)
    return view.put(kept, changes, discrete=discrete), own.put(kept, {}, discrete=discrete)


def pooled(
    now: Reference, own: Reference, others: Sequence[Reference], *, discrete: bool
) -> Reference:
    """The reference of a new view.

    Parameters
    ----------
    now
        What the partition has been read against until now; its measured rates go on.
    own, others
        The scores of the partition's own events, and of the others'.
    discrete
        Whether the scores have large atoms.

    Returns
    -------
    Reference
        With the latest scores of all, each in proportion to its number, and the tail fitted anew.
    """
    window = len(now.ring)
    held = [reference for reference in (own, *others) if reference.seen]
    seen = sum(reference.seen for reference in held)
    if not seen:
        return now
    room = min(window, seen)
    parts = []
    for reference in held:
        scores = _in_order(reference)
        share = -(-room * reference.seen // seen)
        parts.append(scores[max(0, len(scores) - share) :])
    # Where each score stands among its partition's latest tells how old it is among all.
    age = np.concatenate([np.arange(len(part), 0, -1) / len(part) for part in parts])
    scores = np.concatenate(parts)[np.argsort(-age, kind="stable")][-window:]
    if len(scores) < window:
        ring, count = np.concatenate([scores, np.zeros(window - len(scores))]), len(scores)
    else:
        ring, count = np.roll(scores, seen % window), seen
    left = max(0, now.young_until - now.seen)
    first = YOUNG_WINDOWS * window
    young_until = first if now.young_until <= first else count + left
    taken = replace(now, ring=ring, seen=count, fitted_at=0, young_until=young_until)
    return taken.put(np.empty(0), {}, discrete=discrete, every=0)


def _in_order(reference: Reference) -> FloatArray:
    """The scores held, oldest first."""
    window = len(reference.ring)
    if reference.seen < window:
        return reference.ring[: reference.seen]
    return np.roll(reference.ring, -(reference.seen % window))
