"""Risk to verdict, verdict and mode to action."""

from __future__ import annotations

import numpy as np

from monitor.config.policy import Policy
from monitor.core.types import Action, ByteArray, FloatArray, Mode, Verdict


def verdicts(tail: FloatArray, policy: Policy) -> ByteArray:
    """uint8[n]: what the policy concludes from float64[n] tail probabilities."""
    out = np.full(len(tail), Verdict.ACCEPT, dtype=np.uint8)
    out[tail <= policy.flag_at] = Verdict.FLAG
    out[tail <= policy.quarantine_at] = Verdict.QUARANTINE
    return out


def actions(verdict: ByteArray, mode: Mode) -> ByteArray:
    """uint8[n]: quarantined events are held only in enforce mode; invalid ones always go."""
    out = np.full(len(verdict), Action.PASS, dtype=np.uint8)
    if mode is Mode.ENFORCE:
        out[verdict == Verdict.QUARANTINE] = Action.HOLD
    out[verdict == Verdict.INVALID] = Action.REJECT
    return out
