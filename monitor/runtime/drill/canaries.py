"""Canaries: an attack on recent real events, marked, and mixed into the events of now. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from monitor.core.drill import MARK, DrillPlan
from monitor.core.errors import UsageError
from monitor.core.limits import Limits
from monitor.core.types import BoolArray, RawBatch
from monitor.runtime.inject import check_options, inject
from monitor.runtime.inject.lines import read, written

# Half of the templates become poison: the attack needs the other half as its history.
_RATE = 0.5
_HISTORY = 0.34
_TRIGGER_FEATURES = 3
_SAME_IDS = "replay_same_id"

Canary = dict[str, Any]


def check(plan: DrillPlan) -> None:
    """Refuse a plan that no events would do for.

    Raises
    ------
    UsageError
        For an unknown attack or senders, or an attack whose events cannot be marked.
    """
    check_options(
        plan.kind,
        **_options(plan),
        honest_bursts=0,
        newcomers=None,
        trigger_features=_TRIGGER_FEATURES,
    )
    if plan.kind == _SAME_IDS:
        raise UsageError(f"{_SAME_IDS} repeats ids, so its events cannot be marked; try replay")


def make(values: Sequence[bytes], plan: DrillPlan, drill: str, limits: Limits) -> list[Canary]:
    """The attack's events, as many as recent events allow, at most those of the plan.

    Parameters
    ----------
    values
        Recent accepted events, the oldest first.
    plan
        What to try.
    drill
        The drill's id, for the mark.
    limits
        Of the gate.

    Raises
    ------
    UsageError
        When the events are too few or lack what the attack needs.
    """
    check(plan)
    recording = read(values, plan.kind, lambda _: None, limits=limits)
    found = inject(
        recording.stream,
        plan.kind,
        **_options(plan),
        trigger_features=_TRIGGER_FEATURES,
        seed=plan.seed,
    )
    lines = [one.line for one in written(recording, found) if one.truth["poison"]]
    chosen = _spread(len(lines), plan.canaries)
    return [_marked(lines[i], f"{MARK}{drill}-{number}") for number, i in enumerate(chosen)]


def _options(plan: DrillPlan) -> dict[str, Any]:
    """Of :func:`~monitor.runtime.inject.inject`."""
    return {
        "rate": _RATE,
        "pattern": "spread",
        "colluders": plan.sources,
        "clean_prefix": _HISTORY,
    }


def _spread(have: int, wanted: int) -> list[int]:
    """At most ``wanted`` indices below ``have``, evenly, in order."""
    if wanted >= have:
        return list(range(have))
    return [int(i) for i in np.linspace(0, have - 1, wanted).round()]


def _marked(line: bytes, id_: str) -> Canary:
    event: Canary = json.loads(line)
    event["id"] = id_
    return event


@dataclass(frozen=True, slots=True)
class Mixed:
    """A batch of real events with canaries between them; ``canary`` bool[n] says which are."""

    raw: RawBatch
    canary: BoolArray


def mix(raw: RawBatch, canaries: Sequence[Canary], start: int, seed: Sequence[int]) -> Mixed:
    """Canaries at random places among the events of ``raw``, each at its neighbour's time.

    Parameters
    ----------
    raw
        n real events.
    canaries
        k of them.
    start
        Offset of the first one in the copy of the state that judges them.
    seed
        For the places.
    """
    n, k = len(raw), len(canaries)
    rng = np.random.default_rng(list(seed))
    is_canary = np.zeros(n + k, dtype=bool)
    is_canary[np.sort(rng.choice(n + k, size=k, replace=False))] = True
    real = iter(range(n))
    own = iter(canaries)
    values: list[bytes] = []
    ts = _time(raw.values[0]) if n else None
    for row in is_canary.tolist():
        if row:
            event = next(own)
            values.append(orjson.dumps(event if ts is None else event | {"ts": ts}))
        else:
            values.append(raw.values[next(real)])
            if k:
                ts = _time(values[-1]) or ts
    offset = np.arange(start, start + n + k, dtype=np.int64)
    return Mixed(replace(raw, offset=offset, values=values, keys=None, headers=None), is_canary)


def _time(value: bytes) -> Any:
    """The event's own time as it stands there, None when it cannot be read."""
    try:
        event = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return event.get("ts") if isinstance(event, dict) else None
