"""From one p-value a channel to one risk an event.

One channel a family, each with its own share of the false-positive budget: an event is as risky
as its strongest channel says. A single fused score would dilute the one channel that knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from monitor.config.policy import Policy
from monitor.core.types import ByteArray, FloatArray

NO_CHANNEL = 255
SMALLEST = 1e-15


@dataclass(frozen=True, slots=True)
class Combined:
    """The outcome for n events and k channels.

    ``tail`` float64[n] in (0, 1]: probability that ordinary traffic looks as suspicious in any
    channel; ``channel`` uint8[n]: the strongest one; ``share`` float64[k]: each channel's part
    of the budget, 0 for silent ones.
    """

    tail: FloatArray
    channel: ByteArray
    share: FloatArray

    @property
    def risk(self) -> FloatArray:
        """float64[n], −log10 of the tail probability."""
        return np.asarray(-np.log10(self.tail))


def combine(
    p_value: Mapping[str, FloatArray], channels: tuple[str, ...], policy: Policy, n: int
) -> Combined:
    """Weighted Šidák combination of the channels' p-values.

    With t = min over c of p_c / w_c and Σw = 1, the chance that ordinary traffic goes below t in
    any of independent channels is 1 − Π(1 − w_c·t). It equals t where t is small, so the budget's
    split is exact there, and it stays strictly increasing up to 1, so every event can be ranked.

    Parameters
    ----------
    p_value
        By family, float64[n] in (0, 1]; silent channels are absent.
    channels
        Names of the k channels, in order.
    policy
        Gives the shares.
    n
        Number of events.
    """
    among = tuple(name for name in channels if name in p_value)
    share = np.array([policy.share(name, among) if name in p_value else 0.0 for name in channels])
    speaking = [i for i in range(len(channels)) if share[i] > 0.0]
    if not speaking or n == 0:
        return Combined(np.ones(n), np.full(n, NO_CHANNEL, dtype=np.uint8), share)
    weighted = np.stack([p_value[channels[i]] / share[i] for i in speaking], axis=1)
    strongest = weighted.argmin(axis=1)
    lowest = weighted[np.arange(n), strongest]
    log_stay = np.zeros(n)
    for i in speaking:
        log_stay += np.log1p(-np.minimum(share[i] * lowest, 1.0 - SMALLEST))
    tail = np.clip(-np.expm1(log_stay), SMALLEST, 1.0)
    return Combined(tail, np.asarray(speaking, dtype=np.uint8)[strongest], share)
