"""The protocol every detector follows, and the values it deals in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, IntArray

S = TypeVar("S")


class Params(BaseModel):
    """Base of every detector's parameters: strict, frozen, no unknown names."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw scores, higher is more suspicious.

    ``value`` is float64[n] and finite; ``ready`` is bool[n] and false where the detector has
    not seen enough to speak (its value is then ignored, and never calibrated on). ``context``,
    float64[n], is given by detectors that know something of an event's surroundings: their score
    before this batch, by which other channels decide whether an event is ordinary.
    """

    value: FloatArray
    ready: BoolArray
    context: FloatArray | None = None

    @classmethod
    def silent(cls, n: int) -> Scores:
        """A score of nothing for ``n`` events."""
        return cls(np.zeros(n), np.zeros(n, dtype=bool))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why one event scored as it did: a sentence an operator can act on, and the figures."""

    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Detector(Protocol[S]):
    """A pure scorer over immutable state.

    ``S`` is a frozen dataclass whose fields are ndarrays, numbers, or frozen dataclasses of
    those (a sketch). No method mutates an argument or returns a writable alias of one. No clock,
    no I/O, no randomness that is not derived from ``params`` or from the events.

    Attributes
    ----------
    name, family
        Identity on the wire, and the channel it belongs to.
    stage
        0: sees the events. 1: also sees ``batch.p_value``, the calibrated stage-zero channels.
    state_version
        Raised whenever the stored form of ``S`` changes.
    additive
        True when ``observe`` over split batches, and ``merge``, give the same state to rounding.
    discrete
        True when scores have large atoms, so calibration must not interpolate between them.

    Optional class attributes: ``robust`` (calibrate by the robust tail, see
    :mod:`monitor.detectors.calibration`), ``scale_bounds`` (known bounds of that tail's scale),
    ``certain`` (a score at or above which the evidence is a fact, not a statistic), ``part`` (of
    its channel, 1 by default: a channel's p-value is the smallest of its detectors', each divided
    by its part of those that speak).
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    stage: ClassVar[int]
    state_version: ClassVar[int]
    additive: ClassVar[bool]
    discrete: ClassVar[bool]
    params: Params

    def empty(self, n_columns: int) -> S:
        """The state before any event, for ``n_columns`` encoded columns."""

    def score(self, view: S, batch: EventBatch) -> Scores:
        """Score a batch against ``view``; may count the batch itself, never mutates."""

    def observe(self, state: S, batch: EventBatch, accepted: BoolArray) -> S:
        """The state after this batch. Baselines learn from ``accepted`` rows only."""

    def merge(self, a: S, b: S) -> S:
        """Both states' evidence as one."""

    def explain(self, view: S, batch: EventBatch, rows: IntArray) -> Sequence[Evidence]:
        """One piece of evidence for each of ``rows``."""


@runtime_checkable
class Rescaling(Protocol[S]):
    """A detector that wants to know when a column that never varied has got a scale."""

    def rescaled(self, state: S, columns: IntArray) -> S:
        """The state when ``columns`` int64[k], zero in ``z`` so far, have unit variance."""


@runtime_checkable
class Lasting(Protocol[S]):
    """A detector that counts what came lately, by a clock that stands still between events."""

    def since(self, state: S, events: int) -> S:
        """Another partition's state, with no more counted lately than its last ``events`` were."""


@runtime_checkable
class Sampling(Protocol[S]):
    """A detector with a window that is meant in events of the whole stream."""

    def one_in(self, partitions: int) -> Detector[S]:
        """The same for a partition to which one event in so many comes; states fit both."""
