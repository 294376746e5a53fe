"""Streams without poison: are promises kept, and is drift left alone?"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
from river.datasets import synth
from scipy.special import expit

from loadtest.detection_cells import Judgement, Row, honest, judge_by_gate
from loadtest.detection_metrics import (
    NAN,
    WINDOW,
    source_share,
    worst_by_chance,
    worst_window,
)
from loadtest.streams import START
from monitor.config.policy import Policy
from monitor.core.types import BoolArray
from monitor.runtime.inject import Stream, honest_sources

PROMISES = (0.01, 0.001, 0.0001)
# Smaller than any tail the gate reports: nothing is flagged, so everything is learned.
NEVER = 1e-16
SYNTH_EVENTS = 40_000
SHIFTING_SOURCES = 0.02
DECLARED = 5


def calibration_rows(stream: str, seed: int, events: int, gated: bool, batch: int) -> list[Row]:
    """Promised against achieved share of clean events, all channels together and each alone."""
    policy = None if gated else Policy(flag_at=NEVER, quarantine_at=NEVER)
    made = judge_by_gate(drifting(stream, events, seed)[0], policy, batch)
    return _promises(made, {"stream": stream, "seed": seed, "events": events, "gated": gated})


def _promises(made: Judgement, name: Row) -> list[Row]:
    live = ~made.warmup
    tails = {"all": 10.0 ** -made.score[live]}
    for i, channel in enumerate(made.channels):
        tails[channel] = made.p_value[live, i]
    rows = []
    for channel, tail in tails.items():
        speaking = tail[~np.isnan(tail)]
        for promised in PROMISES:
            # A risk is a rounded logarithm; a tail of exactly the promise counts.
            alarm = speaking <= promised * (1.0 + 1e-9)
            known = len(alarm) > 0
            rows.append(
                name
                | {"channel": channel, "promised": promised, "n": len(alarm)}
                | {"achieved": float(alarm.mean()) if known else NAN}
                | {"worst": worst_window(alarm) if known else NAN}
                | {"worst_by_chance": worst_by_chance(len(alarm), promised) if known else NAN}
            )
    return rows


def _synthetic(name: str, generator: Any, n: int, seed: int) -> Stream:
    """``n`` events of a generator of river.datasets.synth, from honest sources."""
    pairs = list(generator.take(n))
    table = np.array([[float(value) for value in x.values()] for x, _ in pairs])
    labels, y = np.unique([int(label) for _, label in pairs], return_inverse=True)
    return Stream(
        name,
        tuple(str(key) for key in pairs[0][0]),
        table,
        y.astype(np.int64),
        tuple(f"class-{label}" for label in labels.tolist()),
        honest_sources(n, seed=seed),
        START + np.arange(n, dtype=np.float64),
    )


def _concept(kind: str, seed: int, after: bool) -> Any:
    """One of two concepts of a generator; the labels of the second follow another rule."""
    if kind == "sea":
        return synth.SEA(variant=2 if after else 0, noise=0.05, seed=seed)
    if kind == "agrawal":
        return synth.Agrawal(classification_function=3 if after else 0, seed=seed)
    return synth.Mixed(classification_function=int(after), seed=seed, balance_classes=False)


def _all_along(kind: str, seed: int) -> Any:
    if kind == "hyperplane":
        return synth.Hyperplane(n_features=8, n_drift_features=4, mag_change=0.001, seed=seed)
    return synth.RandomRBFDrift(
        seed_model=seed,
        seed_sample=seed,
        n_classes=3,
        n_features=8,
        n_centroids=30,
        change_speed=0.001,
        n_drift_centroids=20,
    )


# Name: generator, and the width of the change in events (0: it drifts all along).
SYNTHETIC: dict[str, tuple[str, int]] = {
    "sea, abrupt": ("sea", 1),
    "sea, gradual": ("sea", 5_000),
    "agrawal, abrupt": ("agrawal", 1),
    "agrawal, gradual": ("agrawal", 5_000),
    "mixed, abrupt": ("mixed", 1),
    "hyperplane, all along": ("hyperplane", 0),
    "rbf, all along": ("rbf", 0),
}
# One of them that stays as it is: what a drift adds shows against it.
STEADY = "sea, steady"
# Beside the real streams, for the calibration.
CONTROLS = (STEADY, "sea, abrupt", "mixed, abrupt", "hyperplane, all along")
# Where a few of the sources shift, and nobody else.
PARTIAL: dict[str, str] = {f"{kind}, 2 % of the sources": kind for kind in ("sea", "mixed")}


def drift_streams(real: tuple[str, ...]) -> tuple[str, ...]:
    return (*real, STEADY, *SYNTHETIC, *PARTIAL)


@functools.lru_cache(maxsize=2)
def drifting(name: str, events: int, seed: int) -> tuple[Stream, BoolArray]:
    """A stream, and the events that only some sources' own shift produced (usually none)."""
    n = events or SYNTH_EVENTS
    if name in PARTIAL:
        return _mixed(PARTIAL[name], n, seed, 1, few=True)
    kind, width = SYNTHETIC.get(name, ("", 0))
    if name == STEADY:
        stream = _synthetic("sea", _concept("sea", seed, False), n, seed)
    elif width:
        stream, _ = _mixed(kind, n, seed, width, few=False)
    elif kind:
        stream = _synthetic(kind, _all_along(kind, seed), n, seed)
    else:
        stream = honest(name, events, seed)
    return stream, np.zeros(len(stream), dtype=bool)


def _mixed(kind: str, n: int, seed: int, width: int, few: bool) -> tuple[Stream, BoolArray]:
    """The second concept from half-way on, within ``width`` events; of all sources or of a few.

    Like river's ConceptDriftStream, whose exponential overflows where the change is abrupt.
    """
    before = _synthetic(kind, _concept(kind, seed, False), n, seed)
    after = _synthetic(kind, _concept(kind, seed + 1, True), n, seed)
    rng = np.random.default_rng([seed, 5])
    shifted = rng.random(n) < expit(4.0 * (np.arange(n) - n // 2) / width)
    if few:
        # Of the busier half, so that the shift has events enough to be found by.
        names, count = np.unique(np.asarray(before.source), return_counts=True)
        busy = names[np.argsort(-count, kind="stable")[: len(names) // 2]]
        chosen = rng.choice(busy, max(1, round(SHIFTING_SOURCES * len(names))), replace=False)
        shifted &= np.isin(np.asarray(before.source), chosen)
    x, y = before.x.copy(), before.y.copy()
    x[shifted], y[shifted] = after.x[shifted], after.y[shifted]
    return replace(before, x=x, y=y), shifted


def campaigns(made: Judgement) -> int:
    """Incidents named in the decision records that are not drifts."""
    named: dict[str, bool] = {}
    for record in made.records:
        if b'"incident":null' in record:
            continue
        found = orjson.loads(record)
        if found.get("incident"):
            drift = list(found.get("families", [])) == ["drift"]
            named[str(found["incident"])] = named.get(str(found["incident"]), True) and drift
    return sum(not drift for drift in named.values())


def drift_rows(name: str, seed: int, events: int, batch: int) -> list[Row]:
    """Held and flagged shares of honest drift; for a shift of few sources, when it is found."""
    stream, shifted = drifting(name, events, seed)
    made = judge_by_gate(stream, None, batch, keep_records=True)
    live = ~made.warmup & ~shifted
    hits = np.flatnonzero(made.flag & shifted)
    declared = NAN
    if len(hits) >= DECLARED:
        declared = float(shifted[: hits[DECLARED - 1]].sum())
    n = int(live.sum())
    return [
        {"stream": name, "seed": seed, "events": events, "n": n}
        | {"flagged": float(made.flag[live].mean()), "held": float(made.hold[live].mean())}
        | {"held_worst": worst_window(made.hold[live], WINDOW)}
        | {
            "held_worst_source": source_share(
                made.hold[live], tuple(np.asarray(stream.source)[live].tolist())
            )
        }
        | {"campaigns_per_10k": 1e4 * campaigns(made) / max(n, 1)}
        | {"shifted": int(shifted.sum())}
        | {"shifted_flagged": float(made.flag[shifted].mean()) if shifted.any() else NAN}
        | {"declared_after": declared}
    ]
