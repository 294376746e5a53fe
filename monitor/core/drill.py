"""Drills: attacks of marked events that are judged like the rest and go nowhere. Plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from monitor.core.errors import UsageError
from monitor.core.types import Family

MARK = "drill-"
"""How the id of every canary begins; behind it the drill's id and a number."""

ATTACK_OF: Mapping[Family, str] = {
    Family.LABEL_FLIP: "targeted",
    Family.BACKDOOR: "backdoor",
    Family.CLEAN_LABEL: "clean_label",
    Family.GRADIENT: "gradient",
    Family.BOILING_FROG: "frog",
    Family.SYBIL: "flip",
    Family.SHILLING: "shilling_push_average",
    Family.REPLAY: "replay",
}
"""The attack that stands for a family where none is named."""

_BACKDOORS = ("", "_typical", "_atypical", "_jitter", "_additive", "_additive_jitter")
_SHILLINGS = tuple(f"{a}_{b}" for a in ("push", "nuke") for b in ("random", "average", "bandwagon"))
FAMILIES_OF: Mapping[str, tuple[Family, ...]] = {
    "flip": (Family.LABEL_FLIP, Family.SYBIL),
    "targeted": (Family.LABEL_FLIP, Family.SYBIL),
    "clean_label": (Family.CLEAN_LABEL,),
    "clean_label_collide": (Family.CLEAN_LABEL,),
    "gradient": (Family.GRADIENT, Family.LABEL_FLIP),
    "frog": (Family.BOILING_FROG,),
    "accumulative": (Family.GRADIENT, Family.BOILING_FROG),
    **{f"backdoor{kind}": (Family.BACKDOOR,) for kind in _BACKDOORS},
    "gradient_scaled": (Family.GRADIENT,),
    "gradient_flipped": (Family.GRADIENT,),
    "gradient_lie": (Family.GRADIENT,),
    "gradient_sybils": (Family.GRADIENT, Family.SYBIL),
    **{f"shilling_{kind}": (Family.SHILLING,) for kind in _SHILLINGS},
    "replay": (Family.REPLAY,),
    "replay_same_id": (Family.REPLAY,),
}
"""What each of inject's attacks is one of: random flips that a ring sends are both a flip and a
sybil attack, and confident points with the opposite label are flips that pull hard. The result is
shown under the family, so it has to be one of these."""

MAX_RATE_PER_SECOND = 1_000.0
MAX_SECONDS = 86_400.0
MAX_CANARIES = 100_000


class DrillState(StrEnum):
    """How far a drill is."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """What to try.

    Attributes
    ----------
    family
        What the attack is one of; the metrics carry it.
    attack
        Name of the attack, one of :data:`monitor.runtime.inject.ATTACKS`; empty for the family's
        usual one. It has to be one of the family (:data:`FAMILIES_OF`).
    rate_per_second
        Canaries a second.
    seconds
        For how long.
    sources
        Who sends them: a number of made-up accounts, ``ordinary``, ``fresh``, ``hijacked``.
    seed
        Same seed and same recent events, same canaries.

    Raises
    ------
    UsageError
        For an unknown family, an attack of another one, or a number out of its range.

    Examples
    --------
    >>> DrillPlan("backdoor", rate_per_second=0.5, seconds=300).canaries
    150
    >>> DrillPlan("backdoors")
    Traceback (most recent call last):
    ...
    monitor.core.errors.UsageError: unknown family 'backdoors' for a drill; choose one of \
label_flip, backdoor, clean_label, gradient, boiling_frog, sybil, shilling, replay
    """

    family: str
    attack: str = ""
    rate_per_second: float = 1.0
    seconds: float = 60.0
    sources: str = "5"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.family not in {family.value for family in ATTACK_OF}:
            known = ", ".join(family.value for family in ATTACK_OF)
            raise UsageError(f"unknown family {self.family!r} for a drill; choose one of {known}")
        of = FAMILIES_OF.get(self.attack)  # of an unknown one, inject says what there is
        if of is not None and self.family not in of:
            raise UsageError(
                f"the attack {self.attack!r} is not one of {self.family}, under which its result "
                f"would stand; its family is {' or '.join(of)}, and {self.family} has "
                f"{', '.join(n for n, families in FAMILIES_OF.items() if self.family in families)}"
            )
        for name, value, most in (
            ("rate", self.rate_per_second, MAX_RATE_PER_SECOND),
            ("length", self.seconds, MAX_SECONDS),
        ):
            if not 0.0 < value <= most:
                raise UsageError(f"a drill's {name} must be above 0 and at most {most:g}")
        if not 1 <= self.canaries <= MAX_CANARIES:
            raise UsageError(
                f"{self.rate_per_second:g} a second for {self.seconds:g} s are {self.canaries:,} "
                f"canaries; a drill has between 1 and {MAX_CANARIES:,}"
            )

    @property
    def canaries(self) -> int:
        """How many canaries these are."""
        return round(self.rate_per_second * self.seconds)

    @property
    def kind(self) -> str:
        """Name of the attack."""
        return self.attack or ATTACK_OF[Family(self.family)]


@dataclass(frozen=True, slots=True)
class Drill:
    """A drill and what came of it so far.

    Attributes
    ----------
    wanted, sent
        Canaries planned, and judged so far.
    held, flagged, passed, invalid
        The canaries judged, by verdict: quarantine, flag, accept, invalid.
    events
        Real events that were judged beside them.
    delay_canaries, delay_events, delay_seconds
        Until the first one was held: canaries before it, all events before it, seconds since the
        first one was judged. None while none was.
    detectors
        By detector, how many canaries it gave evidence on.
    skipped_events
        Real events the drill's copy of the state has not seen because it could not keep up.
    partition, policy_version
        Whose state they were judged by, and under which policy at last.
    note
        What went wrong, or was different from the plan. A drill that has judged no canary says
        here why; its recall is None, never 0 or 1.
    """

    id: str
    plan: DrillPlan
    state: DrillState
    who: str
    why: str
    started_at: float
    ended_at: float | None = None
    wanted: int = 0
    sent: int = 0
    held: int = 0
    flagged: int = 0
    passed: int = 0
    invalid: int = 0
    events: int = 0
    delay_canaries: int | None = None
    delay_events: int | None = None
    delay_seconds: float | None = None
    detectors: Mapping[str, int] = field(default_factory=dict)
    skipped_events: int = 0
    partition: int = 0
    policy_version: int = 0
    note: str = ""

    @property
    def recall(self) -> float | None:
        """Share of the judged canaries whose verdict was quarantine; None before the first."""
        return self.held / self.sent if self.sent else None

    @property
    def noticed(self) -> float | None:
        """Share that was at least flagged."""
        return (self.held + self.flagged) / self.sent if self.sent else None
