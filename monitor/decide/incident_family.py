"""What an incident is, told from all of its events together.

Single events of a ring are mostly flagged for who sent them, which says little about what they
would do. Their sum says more: the mean of −ln p of each family's channel over the incident's events
is 1 by chance, and Fisher's sum grows with every event, however weak each is. Beside it stand three
properties that no single event has: columns that hold one value in most of the events though the
traffic's do not (a trigger); events that lie on one line through the feature space (confident
points placed by hand); and a displacement towards another class that grows from event to event (a
boiling frog). What nobody in particular sends, and comes in clumps as honest surprise does, is a
drift. The constants were set on electricity, SEA, Agrawal and Bananas; ``loadtest/incidents.py``
reports others too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from monitor.core.incident import IncidentKind
from monitor.core.types import Family, FloatArray, IntArray
from monitor.decide.incident_facts import FAMILIES
from monitor.decide.incident_state import CELL, Incident, Traffic

RING = 0.5
"""Share of the events that sources of its own sent, from which on it is theirs."""
LEAST_EVENTS = 8
COLLAPSED, RARE, FREE = 0.6, 0.4, 0.5
ALONE, RARE_ALONE = 0.9, 0.15
"""For a single column, which honest groups may share as well."""
ALL_COLUMNS, LINE = 0.8, 0.2
PURE = 0.9
"""Share of the commonest label: a trigger has one, points placed on both sides have two."""
VECTORS, COPIES, TRIGGER, MOSTLY = 4.0, 2.0, 6.0, 0.5
CONFLICT, MOVED, WEIGHED = 2.6, 8.0, 0.8
SLIDES, SLID, CLUMPED = 3.0, 0.4, 10.0
NOTHING = 2.0


class Diagnosis(NamedTuple):
    """Kind and family, and how sure that is, 0 to 1."""

    kind: str
    family: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Signs:
    """What the diagnosis goes by.

    Attributes
    ----------
    nats
        float64[F], mean −ln p by family.
    ring
        Share of the events that came from sources of its own.
    columns, centres, free
        int64[t], columns in which most events hold one value though the traffic's do not;
        float64[t], that value's normal score; how many columns could show it.
    pure
        Share of the events that have the commonest label.
    line
        Share of the traffic's variance that is left beside the longest axis.
    slide, slid
        t-value of the trend of the displacement, and how far it went, in distances between classes.
    clumps
        Squared coefficient of variation of the gaps: 1 when events come singly, at random.
    copied
        Share of the events that replay speaks against: a few certain ones make a high mean.
    """

    nats: FloatArray
    ring: float
    columns: IntArray
    centres: FloatArray
    free: int
    pure: float
    line: float
    slide: float
    slid: float
    clumps: float
    copied: float

    def of(self, family: Family) -> float:
        """Mean −ln p of a family's channel."""
        return float(self.nats[FAMILIES.index(family.value)])


def signs(incident: Incident, traffic: Traffic) -> Signs:
    """The signs of an incident against ordinary ``traffic``. Pure."""
    n = max(incident.events, 1)
    columns, centres, free = _collapsed(incident, traffic)
    return Signs(
        incident.nats / n,
        incident.of_core / n,
        *(columns, centres, free),
        max(incident.labels.values(), default=0.0) / max(sum(incident.labels.values()), 1.0),
        _line(incident, traffic),
        *_slide(incident.slide),
        _clumps(incident.gaps),
        incident.copied,
    )


def diagnose(incident: Incident, traffic: Traffic) -> Diagnosis:
    """What the incident is taken for. Pure."""
    if incident.kind == IncidentKind.DRIFT:
        return Diagnosis(IncidentKind.DRIFT.value, Family.DRIFT.value, 0.9)
    if incident.kind == IncidentKind.DATA_FAULT:
        return Diagnosis(IncidentKind.DATA_FAULT.value, incident.key.split("|")[0], 0.9)
    found = signs(incident, traffic)
    family, sure = _family(found, incident.events)
    kind = IncidentKind.DRIFT if family is Family.DRIFT else IncidentKind.CAMPAIGN
    weight = incident.events / (incident.events + LEAST_EVENTS)
    return Diagnosis(kind.value, family.value, weight * sure)


def _family(s: Signs, events: int) -> tuple[Family, float]:
    return _by_form(s, events) or _by_channel(s)


def _by_form(s: Signs, events: int) -> tuple[Family, float] | None:
    """What shows in the events themselves, whoever sent them."""
    conflict, moved = s.of(Family.LABEL_FLIP), s.of(Family.CLEAN_LABEL)
    many, pure = events >= LEAST_EVENTS, s.pure >= PURE
    every = 0 < len(s.columns) >= ALL_COLUMNS * s.free
    on_a_line = s.line <= LINE and s.free >= 2
    placed = (every or on_a_line) and max(conflict, moved) >= CONFLICT
    forms = (
        (s.of(Family.GRADIENT) >= VECTORS, Family.GRADIENT, 0.95),
        (s.of(Family.SHILLING) >= VECTORS, Family.SHILLING, 0.95),
        (many and placed and not pure, Family.GRADIENT, 0.8),
        (many and len(s.columns) > 0 and pure, Family.BACKDOOR, 0.95),
        (s.of(Family.REPLAY) >= COPIES and s.copied >= MOSTLY, Family.REPLAY, 0.9),
    )
    return next(((family, sure) for holds, family, sure in forms if holds), None)


def _by_channel(s: Signs) -> tuple[Family, float]:
    """What the channels' sums say, or that nobody in particular is behind it."""
    conflict, moved = s.of(Family.LABEL_FLIP), s.of(Family.CLEAN_LABEL)
    trigger, diffuse = s.of(Family.BACKDOOR), s.ring < RING
    flips = conflict > WEIGHED * moved if diffuse else conflict >= CONFLICT and moved < MOVED
    slides = s.slide >= SLIDES and s.slid >= SLID
    forms = (
        (diffuse and s.clumps >= CLUMPED, Family.DRIFT, 1.0 - 1.0 / max(s.clumps, 1.0)),
        (trigger >= TRIGGER and trigger > conflict, Family.BACKDOOR, 0.7),
        (flips, Family.LABEL_FLIP, 0.8 if conflict >= 2 * CONFLICT else 0.6),
        (not diffuse and max(conflict, moved) < NOTHING, Family.SYBIL, 0.6),
        (slides, Family.BOILING_FROG, 0.7),
    )
    chosen = ((family, sure) for holds, family, sure in forms if holds)
    return next(chosen, (Family.CLEAN_LABEL, 0.7))


def _collapsed(incident: Incident, traffic: Traffic) -> tuple[IntArray, FloatArray, int]:
    none = np.empty(0, dtype=np.int64)
    if incident.cells.shape != traffic.cells.shape or not incident.events or not traffic.mass:
        return none, np.empty(0), 0
    own = _windows(incident.cells) / max(float(incident.cells[:1].sum()), 1.0)
    usual = _windows(traffic.cells) / max(traffic.mass, 1.0)
    place = own.argmax(axis=1)
    each = np.arange(len(own))
    share, there = own[each, place], usual[each, place]
    free = usual.max(axis=1) < FREE
    held = (share >= COLLAPSED) & (there <= RARE * share)
    alone = (share >= ALONE) & (there <= RARE_ALONE)
    columns = np.flatnonzero(held if np.count_nonzero(held) > 1 else alone)
    return columns, (place[columns] + 0.5) * CELL - 4.0, int(free.sum())


def _windows(cells: np.ndarray[tuple[int, int], np.dtype[np.generic]]) -> FloatArray:
    """float64[c, CELLS]: events in each cell and the two on either side, for jitter."""
    total = np.cumsum(np.pad(cells.astype(np.float64), ((0, 0), (3, 2))), axis=1)
    around: FloatArray = total[:, 5:] - total[:, :-5]
    return around


def _line(incident: Incident, traffic: Traffic) -> float:
    n = float(incident.cells[:1].sum())
    if n < LEAST_EVENTS or incident.cells.shape != traffic.cells.shape or not traffic.mass:
        return 1.0
    middle = (np.arange(traffic.cells.shape[1]) + 0.5) * CELL - 4.0
    weight = traffic.cells.astype(np.float64) / max(traffic.mass, 1.0)
    mean = weight @ middle
    usual = float(np.maximum(weight @ middle**2 - mean**2, 0.0).sum())
    centre = incident.total / n
    spread = incident.square / n - np.outer(centre, centre)
    beside = float(np.linalg.eigvalsh(spread)[:-1].clip(0.0).sum())
    return beside / max(usual, 1e-9)


def _slide(sums: FloatArray) -> tuple[float, float]:
    n, t, tt, s, ts, ss, beside, pairs = sums.tolist()
    if n < 3 * LEAST_EVENTS:
        return 0.0, 0.0
    spread = max(tt - t * t / n, 1e-9)
    slope = (ts - t * s / n) / spread
    trend = slope * slope * spread
    left = max(ss - s * s / n - trend, 1e-9)
    # Neighbours that resemble each other count as fewer (Bartlett 1935).
    alike = (beside / max(pairs, 1.0) - (s / n) ** 2 - trend / n) / (left / n)
    alike = min(max(alike, 0.0), 0.9)
    error = np.sqrt(left / (n - 2.0) / spread * (1.0 + alike) / (1.0 - alike))
    return float(slope / error), float(slope * n)


def _clumps(sums: FloatArray) -> float:
    n, total, squares = sums.tolist()
    return float(squares * n / total**2 - 1.0) if n >= LEAST_EVENTS and total > 0.0 else 1.0
