"""What the learner was given, what of it is asked for, and what people do about it. Plain records.

*Accepted* events are those that reached the learner: the ones that passed and the ones that were
released later. A *place* is the partition and offset of an event in the accepted topic; in files
the partition is 0 and the offset the number of the line, from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Place = tuple[int, int]
NOWHERE: Place = (-1, -1)
"""The input position of an event where nobody can tell it."""


@dataclass(frozen=True, slots=True)
class AcceptedBatch:
    """What one reading of the accepted events brought, in columns of n events.

    Attributes
    ----------
    part, pos
        Places, increasing within a partition.
    at
        Unix seconds: when the event was accepted, as far as the transport can tell.
    values
        The events' bytes.
    origin
        Where each stood in the input, ``NOWHERE`` where that is not known.
    places
        Where reading goes on, by part of the source. Parts below 0 are the source's own.
    begins
        Of partitions that are read from the beginning: the first offset that there still is.
    behind
        About how many events wait behind these.
    anew
        The source is not the one that was read before: what was read of it is void.
    keys
        By which key each is signed, None for none; empty where nobody tells. From a topic it is
        what the record's header says, from a run's files what was verified.
    """

    part: Sequence[int] = ()
    pos: Sequence[int] = ()
    at: Sequence[float] = ()
    values: Sequence[bytes] = ()
    origin: Sequence[Place] = ()
    places: Mapping[int, int] = field(default_factory=dict)
    begins: Mapping[int, int] = field(default_factory=dict)
    behind: int = 0
    anew: bool = False
    keys: Sequence[str | None] = ()


@dataclass(frozen=True, slots=True)
class Clause:
    """Conditions that must all hold; empty ones do not matter.

    Attributes
    ----------
    name
        What it is called where it is counted.
    sources, subjects, labels
        One of these; labels as text.
    near
        Feature, lowest and highest value: the pattern's numbers, all of them.
    equal
        Feature and category: the pattern's words, all of them.
    keys
        Signed by one of these.
    """

    name: str = "given"
    sources: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    near: tuple[tuple[str, float, float], ...] = ()
    equal: tuple[tuple[str, str], ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it has no condition at all."""
        said = (self.sources, self.subjects, self.labels, self.near, self.equal, self.keys)
        return not any(said)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which accepted events are meant: within the time, all of ``must``, and one of ``some``.

    ``since`` and ``until`` bound the events' own times, ``upto`` their places: below these
    offsets, by partition. None or empty does not matter.
    """

    must: Clause = field(default_factory=Clause)
    some: tuple[Clause, ...] = ()
    since: float | None = None
    until: float | None = None
    upto: Mapping[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for; an incident is looked up and becomes conditions."""

    sources: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    incident: str | None = None
    keys: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it names nothing that could be hostile: a time alone does not."""
        return not (self.sources or self.subjects or self.labels or self.incident or self.keys)

    def plain(self) -> dict[str, Any]:
        """What is given, for the audit trail."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value not in (None, ())
        }


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model that was stored: it has learned what lies below ``offsets``, by partition."""

    name: str
    ts: float
    offsets: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Announced:
    """A checkpoint as it holds; ``known`` when it had been announced before just so."""

    checkpoint: Checkpoint
    known: bool


@dataclass(frozen=True, slots=True)
class Retraction:
    """A record that takes an accepted event back; ``partition`` is the event's own."""

    partition: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class RetractionOutcome:
    """What a retraction did, or would do (``dry_run``).

    ``events`` were retracted by this request, ``already`` before it; ``request`` names it.
    """

    request: str
    dry_run: bool
    events: int
    already: int
    by_source: Mapping[str, int] = field(default_factory=dict)
    by_label: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retracted:
    """A request as it is remembered: who, why, when, how many events, what was asked."""

    request: str
    who: str
    why: str
    when: float
    events: int
    asked: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IndexSize:
    """The index of accepted events, for metrics: ``behind`` events are not in it yet."""

    events: int
    bytes: int
    behind: int
    retracted: int
