"""Values that pass between the stages of the pipeline.

Everything here is frozen data: no clock, no I/O, no behaviour beyond selecting
rows. Shapes use ``n`` events, ``d`` encoded feature columns, ``k`` channels and
``C`` classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from monitor.core.incident import IncidentChange

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
HashArray = npt.NDArray[np.uint64]
ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
T = TypeVar("T")
Header = tuple[str, bytes]
Label = str | int | bool


class Family(StrEnum):
    """What kind of poisoning (or harmless change) a piece of evidence speaks for."""

    LABEL_FLIP = "label_flip"
    BACKDOOR = "backdoor"
    CLEAN_LABEL = "clean_label"
    GRADIENT = "gradient"
    BOILING_FROG = "boiling_frog"
    SYBIL = "sybil"
    SHILLING = "shilling"
    REPLAY = "replay"
    INVALID = "invalid"
    DRIFT = "drift"


class Verdict(IntEnum):
    """What the policy concludes, whatever the mode."""

    ACCEPT = 0
    FLAG = 1
    QUARANTINE = 2
    INVALID = 3

    @property
    def word(self) -> str:
        """The name used on the wire."""
        return self.name.lower()


class Action(IntEnum):
    """Where an event goes. Each event goes to exactly one place."""

    PASS = 0
    HOLD = 1
    REJECT = 2

    @property
    def word(self) -> str:
        """The name used on the wire."""
        return self.name.lower()


class Mode(StrEnum):
    """How verdicts turn into actions."""

    SHADOW = "shadow"
    ALERT = "alert"
    ENFORCE = "enforce"


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Consecutive records of one input partition, as they came.

    Attributes
    ----------
    partition
        Input partition; a file or a pipe is partition 0.
    offset
        int64[n], strictly increasing. For files the line number from 0.
    values
        The original bytes of each record (a line without its newline).
    keys, headers
        As on the wire; ``None`` when the transport has none.
    timestamps
        Milliseconds since 1970 as the transport set them, below 1 where it set none; ``None`` when
        the transport has none. They measure how long events took, and bound when a key may have
        signed; nothing else is decided by them.
    """

    partition: int
    offset: IntArray
    values: Sequence[bytes]
    keys: Sequence[bytes | None] | None = None
    headers: Sequence[Sequence[Header]] | None = None
    timestamps: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def next_offset(self) -> int:
        """Offset at which reading goes on after this batch."""
        return int(self.offset[-1]) + 1 if len(self.values) else 0

    def part(self, start: int, end: int) -> RawBatch:
        """The records from ``start`` up to ``end``."""
        rows = slice(start, end)
        return RawBatch(
            self.partition,
            self.offset[rows],
            self.values[rows],
            None if self.keys is None else self.keys[rows],
            None if self.headers is None else self.headers[rows],
            None if self.timestamps is None else self.timestamps[rows],
        )

    @classmethod
    def of(cls, values: Sequence[bytes], *, start: int = 0, partition: int = 0) -> RawBatch:
        """Wrap plain byte strings, numbering them from ``start``."""
        return cls(partition, np.arange(start, start + len(values), dtype=np.int64), values)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The valid events of a batch, in columns (rejected records are not here).

    Attributes
    ----------
    offset
        int64[n], position in the input partition.
    x
        float64[n, d], encoded features, always finite (missing values are imputed).
    g
        float64[n, d], normal scores of ``x`` under the schema's quantiles (unclipped grid basis).
    z
        float64[n, d], mean of normal score and standardised value, clipped to ±8.
    y
        int32[n], index into the label table.
    n_classes
        Size of the label table after this batch; states sized for fewer classes are padded.
    source, subject, id_hash, content
        uint64[n], seeded hashes of source, subject (0 = none), id, and of the feature values alone.
    time_ns
        int64[n], the event's own time stamp, nanoseconds since 1970.
    weight
        float64[n], > 0.
    ids, sources, labels
        What the event said, for decisions and explanations.
    columns
        d names of the encoded columns, for explanations.
    label_names
        ``n_classes`` printable labels.
    p_value
        Stage-one detectors only: calibrated p-value float64[n] of each ready stage-zero
        channel, by family value. Empty while scoring stage zero.
    gradient, prediction
        Optional columns, None when no event of the batch has one.
    memo
        Where detectors keep what both their scoring and their learning need of these events; see
        :meth:`once`. No part of the batch's value.
    """

    offset: IntArray
    x: FloatArray
    g: FloatArray
    z: FloatArray
    y: Int32Array
    n_classes: int
    source: HashArray
    subject: HashArray
    id_hash: HashArray
    content: HashArray
    time_ns: IntArray
    weight: FloatArray
    ids: Sequence[str]
    sources: Sequence[str]
    labels: Sequence[Label]
    columns: tuple[str, ...]
    label_names: tuple[str, ...]
    p_value: Mapping[str, FloatArray] = field(default_factory=dict)
    gradient: FloatArray | None = None
    prediction: FloatArray | None = None
    memo: dict[str, tuple[Any, Any]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.y)

    def once(self, name: str, view: object, compute: Callable[[], T]) -> T:
        """``compute()``, a pure function of ``view`` and these events, remembered under ``name``.

        The view is held with the value and compared by identity, so another state computes anew.
        """
        held = self.memo.get(name)
        if held is None or held[0] is not view:
            held = (view, compute())
            self.memo[name] = held
        value: T = held[1]
        return value

    def select(self, rows: IntArray | BoolArray) -> EventBatch:
        """The same batch with only ``rows`` (indices or a mask), in the given order."""
        index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        picked = [int(i) for i in index]
        return replace(
            self,
            offset=self.offset[index],
            x=self.x[index],
            g=self.g[index],
            z=self.z[index],
            y=self.y[index],
            source=self.source[index],
            subject=self.subject[index],
            id_hash=self.id_hash[index],
            content=self.content[index],
            time_ns=self.time_ns[index],
            weight=self.weight[index],
            ids=[self.ids[i] for i in picked],
            sources=[self.sources[i] for i in picked],
            labels=[self.labels[i] for i in picked],
            p_value={name: p[index] for name, p in self.p_value.items()},
            gradient=None if self.gradient is None else self.gradient[index],
            prediction=None if self.prediction is None else self.prediction[index],
            memo={},
        )


@dataclass(frozen=True, slots=True)
class Reason:
    """One piece of evidence behind a verdict, in words and in figures."""

    detector: str
    score: float
    p_value: float
    threshold: float
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DetectorFailure:
    """A detector that failed on a batch: in which step, and with what error."""

    detector: str
    step: str
    error: str


@dataclass(frozen=True, slots=True)
class Scored:
    """What the detectors said of the m events of a batch that were scored, and whose these are.

    ``row`` int64[m] are their rows in the batch. ``p`` float32[m, D] are the p-values of
    ``detectors`` before any policy, NaN where one was silent. ``source``, ``subject`` uint64[m],
    ``y`` int32[m] and ``label_names`` as in :class:`EventBatch`, ``ids`` and ``sources`` as well.
    """

    row: IntArray
    detectors: tuple[str, ...]
    p: npt.NDArray[np.float32]
    source: HashArray
    subject: HashArray
    y: Int32Array
    label_names: tuple[str, ...]
    ids: Sequence[str]
    sources: Sequence[str]


@dataclass(frozen=True, slots=True)
class DecisionBatch:
    """What was decided about every record of a raw batch.

    Attributes
    ----------
    risk
        float64[n], −log10 of the budget-weighted tail probability of the strongest channel;
        0 for warm-up events without scores, and for invalid records.
    channel
        uint8[n], index into ``channels`` of the strongest channel, 255 for none.
    verdict, action
        uint8[n], values of :class:`Verdict` and :class:`Action`.
    reject
        uint8[n], values of :class:`~monitor.core.errors.RejectCode`, 0 for valid records.
    warmup
        bool[n], true where the warm-up setting decided.
    p_value, score
        float64[n, k] per channel and per detector; NaN where a channel was not ready.
    reasons
        Evidence by row; rows without any are absent.
    records
        The encoded decision record of each row, in order.
    families
        By row, the families whose channels speak against the event; rows without any are absent.
    failures
        Detectors that failed on this batch, or on a part of it; the setting ``on_detector_error``
        decided about its events then.
    unjudged
        True when the whole batch was let by in an overload.
    modes
        By row, the mode that an override set in place of ``mode``.
    scored
        What the detectors said, in parts that were judged together; for what-if.
    incidents
        By row, the identifier of the incident it belongs to.
    changes
        Incidents that were opened, updated, merged or closed by this batch.
    key_ids
        By row, the key whose signature was verified, whatever was decided; others are absent.
    provenance
        uint8[n], values of :class:`~monitor.core.provenance.Outcome`; None where the policy has
        neither keys nor rules for signatures.
    """

    partition: int
    offset: IntArray
    risk: FloatArray
    channel: ByteArray
    verdict: ByteArray
    action: ByteArray
    reject: ByteArray
    warmup: BoolArray
    p_value: FloatArray
    channels: tuple[str, ...]
    reasons: Mapping[int, tuple[Reason, ...]]
    policy_version: int
    mode: Mode
    records: Sequence[bytes] = ()
    families: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    failures: tuple[DetectorFailure, ...] = ()
    unjudged: bool = False
    modes: Mapping[int, Mode] = field(default_factory=dict)
    scored: tuple[Scored, ...] = ()
    incidents: Mapping[int, str] = field(default_factory=dict)
    changes: tuple[IncidentChange, ...] = ()
    key_ids: Mapping[int, str] = field(default_factory=dict)
    provenance: ByteArray | None = None

    def __len__(self) -> int:
        return len(self.offset)

    def rows(self, action: Action) -> IntArray:
        """Row numbers with ``action``, in input order."""
        return np.flatnonzero(self.action == action)

    @classmethod
    def joined(cls, parts: Sequence[DecisionBatch]) -> DecisionBatch:
        """Consecutive decisions of one partition, under one policy, as one batch."""
        if len(parts) == 1:
            return parts[0]
        start = np.cumsum([0, *(len(part) for part in parts)]).tolist()

        def by_row(name: str) -> dict[int, Any]:
            return {
                first + row: value
                for first, part in zip(start, parts, strict=False)
                for row, value in getattr(part, name).items()
            }

        arrays = ["offset", "risk", "channel", "verdict", "action", "reject", "warmup", "p_value"]
        if parts[0].provenance is not None:  # of one policy: then all have it
            arrays.append("provenance")
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays
        }
        return replace(
            parts[0],
            **columns,
            reasons=by_row("reasons"),
            families=by_row("families"),
            modes=by_row("modes"),
            incidents=by_row("incidents"),
            key_ids=by_row("key_ids"),
            changes=tuple(change for part in parts for change in part.changes),
            scored=tuple(
                replace(scored, row=scored.row + first)
                for first, part in zip(start, parts, strict=False)
                for scored in part.scored
            ),
            records=[record for part in parts for record in part.records],
            failures=tuple(dict.fromkeys(f for part in parts for f in part.failures)),
        )
