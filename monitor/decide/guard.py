"""Detectors that fail: what is noted of it, and what becomes of the batch they failed on.

A detector that raises, or whose scores or state are no longer finite, has not judged the batch.
Nothing is lost by that: the other detectors go on, the failed one keeps the state it had, and the
setting ``on_detector_error`` says what the batch's events are told. Purely a function of the
batch and the states, so a replay fails in the same places.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, TypeVar

import numpy as np

from monitor.config.policy import Policy
from monitor.core.errors import DetectorError
from monitor.core.ports import Meter
from monitor.core.types import (
    ByteArray,
    DecisionBatch,
    DetectorFailure,
    FloatArray,
    RawBatch,
    Reason,
    Verdict,
)
from monitor.decide.verdicts import actions

T = TypeVar("T")
OnError = Literal["quarantine", "flag", "stop"]
MAX_TEXT = 200
SCORE, OBSERVE, EXPLAIN = "score", "observe", "explain"
_MEANS = {
    SCORE: "this batch was judged without it",
    OBSERVE: "it has learned nothing from this batch",
    EXPLAIN: "it cannot say why it suspects events of this batch",
}
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class BadValueError(ValueError):
    """A detector gave something that is no answer: not finite, or of the wrong size."""


class Failures:
    """What failed while one batch was judged and learned: one entry a detector, the first.

    ``meter`` measures what detectors are asked to do.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        self._meter = meter
        self._found: dict[str, DetectorFailure] = {}

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, detector: object) -> bool:
        return detector in self._found

    def all(self) -> tuple[DetectorFailure, ...]:
        """Every failure, in the order they happened."""
        return tuple(self._found.values())

    def add(self, more: Failures) -> None:
        """Take over what ``more`` found, where there is nothing yet."""
        for name, failure in more._found.items():
            self._found.setdefault(name, failure)

    def attempt(self, detector: str, step: str, call: Callable[[], T], otherwise: T) -> T:
        """``call()``, or ``otherwise`` when that fails.

        Running out of memory is nobody's fault and would not happen again in a replay, so it is
        passed on.
        """
        try:
            return call() if self._meter is None else self._meter(detector, call)
        except MemoryError:
            raise
        except Exception as error:  # whatever a detector may do wrong
            self._found.setdefault(detector, DetectorFailure(detector, step, described(error)))
            return otherwise


def described(error: Exception) -> str:
    """An error in one short line that is the same in every process.

    Examples
    --------
    >>> described(ValueError("no  good\\n<object at 0x7f00>"))
    'ValueError: no good <object>'
    """
    text = " ".join(_ADDRESS.sub("", str(error)).split())
    name = type(error).__name__
    return (f"{name}: {text}" if text else name)[:MAX_TEXT]


def finite(what: str, values: Any, n: int) -> None:
    """Raise BadValueError unless ``values`` is float64[n] without NaN or infinity."""
    array = np.asarray(values)
    if array.shape != (n,):
        raise BadValueError(f"{what} has shape {array.shape} for {n} events")
    if array.dtype.kind == "f" and math.isfinite(_square(array)):
        return
    bad = n - int(np.isfinite(array).sum())
    if bad:
        raise BadValueError(f"{what} is NaN or infinite for {bad} of {n} events")


def still_finite(before: Any, after: Any, name: str = "state") -> None:
    """Raise BadValueError where an array was finite in the state before and is not any more.

    Arrays that are untouched are recognised by identity and cost nothing.
    """
    with np.errstate(over="ignore"):  # of a square of what is finite
        _compare(before, after, name)


def _compare(before: Any, after: Any, name: str) -> None:
    if after is before:
        return
    if isinstance(after, np.ndarray):
        if after.dtype.kind == "f" and not math.isfinite(_square(after)) and _unsound(after):
            grew = not isinstance(before, np.ndarray) or np.isfinite(before).all()
            if grew or np.isnan(after).any():
                raise BadValueError(f"{name} holds NaN or infinity")
    elif isinstance(after, float):  # a single infinity may be a bound that does not bind
        if np.isnan(after):
            raise BadValueError(f"{name} is NaN")
    elif dataclasses.is_dataclass(after):
        kind: type = type(after)
        for field in _names(kind):
            old = getattr(before, field, None)
            _compare(old, getattr(after, field), f"{name}.{field}")
    elif isinstance(after, tuple | list):
        olds = before if isinstance(before, tuple | list) else ()
        for i, (old, new) in enumerate(itertools.zip_longest(olds, after)):
            _compare(old, new, f"{name}[{i}]")
    elif isinstance(after, Mapping):
        for key, new in after.items():
            old = before.get(key) if isinstance(before, Mapping) else None
            _compare(old, new, f"{name}[{key}]")


@lru_cache(maxsize=256)
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _square(values: FloatArray) -> float:
    """A number that needs no second array, is never finite where a value is not, and mostly else.

    The squared length is two to three times as fast as a sum.
    """
    return float(np.vdot(values, values))


def _unsound(values: FloatArray) -> bool:
    return not bool(np.isfinite(values).all())


def escalated(verdict: ByteArray, setting: OnError) -> ByteArray:
    """uint8[n]: the verdicts of a batch that a detector failed on; none becomes milder."""
    least = Verdict.QUARANTINE if setting == "quarantine" else Verdict.FLAG
    return np.maximum(verdict, np.uint8(least))


def stop_on(failures: Failures, setting: OnError, raw: RawBatch) -> None:
    """Raise DetectorError when something failed and the setting is ``stop``."""
    if setting == "stop" and failures:
        first = failures.all()[0]
        place = f"partition {raw.partition}, {len(raw)} records up to offset {raw.next_offset - 1}"
        raise DetectorError(
            f"{place}: {said(first)}; nothing of this batch was let through. "
            "gate.on_detector_error is stop: set it to flag or quarantine to go on without this "
            "detector, or run a version in which it works."
        )


def said(failure: DetectorFailure) -> str:
    """The failure as part of a sentence."""
    return f"detector {failure.detector} failed in {failure.step} ({failure.error})"


def with_failures(
    reasons: Mapping[int, tuple[Reason, ...]],
    rows: Sequence[int],
    failures: Sequence[DetectorFailure],
    policy: Policy,
) -> dict[int, tuple[Reason, ...]]:
    """``reasons`` with one more for each failure on every one of ``rows``, behind the others."""
    more = tuple(
        Reason(
            f.detector,
            0.0,
            1.0,
            policy.flag_at,
            f"{said(f)}: {_MEANS.get(f.step, _MEANS[SCORE])}",
            {"step": f.step, "error": f.error},
        )
        for f in failures
    )
    return dict(reasons) | {row: (*reasons.get(row, ()), *more) for row in rows}


def failed_warmup(
    decisions: DecisionBatch, failures: Failures, setting: OnError, policy: Policy
) -> DecisionBatch:
    """Decisions of a warm-up whose events a detector failed to learn from."""
    rows = np.flatnonzero(decisions.verdict != Verdict.INVALID)
    verdict, warmup = decisions.verdict.copy(), decisions.warmup.copy()
    verdict[rows], warmup[rows] = escalated(verdict[rows], setting), False
    found = failures.all()
    return replace(
        decisions,
        warmup=warmup,
        verdict=verdict,
        action=actions(verdict, policy.mode),
        reasons=with_failures(decisions.reasons, rows.tolist(), found, policy),
        failures=found,
    )


__all__ = [
    "BadValueError",
    "Failures",
    "OnError",
    "escalated",
    "failed_warmup",
    "finite",
    "said",
    "still_finite",
    "stop_on",
    "with_failures",
]
