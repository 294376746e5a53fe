"""When events came, and which event an exemplar names."""

from __future__ import annotations

from datetime import datetime

import msgspec
import numpy as np

from monitor.core.types import DecisionBatch, FloatArray, RawBatch, Verdict


class _Time(msgspec.Struct, gc=False):
    ts: float | str | None = None


_time_of = msgspec.json.Decoder(_Time).decode


def place(raw: RawBatch, row: int) -> dict[str, str]:
    """Labels of an exemplar: two whole numbers, far below the 128 characters there may be."""
    return {"partition": str(raw.partition), "offset": str(int(raw.offset[row]))}


def arrivals(raw: RawBatch, decisions: DecisionBatch, *, by_events: bool) -> FloatArray | None:
    """float64[n]: when records came, Unix seconds; NaN where it is not known. None for no record.

    By the transport's own time stamps; where it has none, and with ``by_events``, by the events'.
    """
    if raw.timestamps is not None:
        came = np.asarray(raw.timestamps, dtype=np.float64) / 1000.0
        came[came <= 0.0] = np.nan
        return came
    if not by_events:
        return None
    times = [seconds(record) for record in decisions.records]
    known = np.array([np.nan if t is None else t for t in times], dtype=np.float64)
    known[decisions.verdict[: len(known)] == Verdict.INVALID] = np.nan
    return known


def seconds(record: bytes) -> float | None:
    """The event's own time in a decision record, Unix seconds."""
    try:
        ts = _time_of(record).ts
        return datetime.fromisoformat(ts).timestamp() if isinstance(ts, str) else ts
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return None


def age(decisions: DecisionBatch, now: float) -> float | None:
    """Seconds since the time of the last valid event, or None; never negative."""
    valid = np.flatnonzero(decisions.verdict != Verdict.INVALID)
    if not len(valid) or int(valid[-1]) >= len(decisions.records):
        return None
    ts = seconds(decisions.records[int(valid[-1])])
    return None if ts is None else max(now - ts, 0.0)
