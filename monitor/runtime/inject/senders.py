"""Who sends what: the attacker's accounts, and honest ones that behave like them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.core.errors import UsageError
from monitor.core.types import ByteArray, IntArray
from monitor.runtime.inject.places import draw
from monitor.runtime.inject.stream import Role

Colluders = int | str
HIJACKED = 5
NEWCOMERS = 0.05
Names = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Senders:
    """Who sends the poison: ``kind`` ordinary, ring, fresh or hijacked, and how many accounts."""

    kind: str
    count: int

    @classmethod
    def of(cls, colluders: Colluders) -> Senders:
        """From 0, a number of accounts, ``fresh``, ``hijacked`` or ``hijacked:N``.

        Raises
        ------
        UsageError
            For anything else.
        """
        text = str(colluders)
        kind, _, number = text.partition(":")
        if text.isdigit():
            return cls("ring" if int(text) else "ordinary", int(text))
        if text == "ordinary":
            return cls("ordinary", 0)
        if text == "fresh":
            return cls("fresh", 0)
        if kind == "hijacked" and (not number or (number.isdigit() and int(number))):
            return cls("hijacked", int(number or HIJACKED))
        raise UsageError(
            f"sources must be a number of accounts, ordinary, fresh, hijacked or hijacked:N, "
            f"not {text!r}"
        )


def assign(source: Names, rows: IntArray, senders: Senders, rng: np.random.Generator) -> None:
    """Write the attacker's accounts into ``source`` at ``rows``; not for fresh ones.

    Raises
    ------
    UsageError
        When there are no old sources to hijack.
    """
    if senders.kind == "ring":
        drawn = rng.integers(0, senders.count, size=len(rows))
        names = _unused("ring-{:03d}", senders.count, source)
        source[rows] = [names[i] for i in drawn.tolist()]
    elif senders.kind == "hijacked":
        old = active(source[: int(rows[0])])
        if not len(old):
            raise UsageError("no source is there before the attack that could be hijacked")
        taken = rng.choice(old, size=min(senders.count, len(old)), replace=False)
        source[rows] = taken[rng.integers(0, len(taken), size=len(rows))]


def active(source: Names) -> Names:
    """The busier half of the names, sorted."""
    names, counts = np.unique(source.astype(np.str_), return_counts=True)
    if not len(names):
        return source[:0]
    return np.asarray(names[counts >= np.median(counts)].astype(object))


def burst(source: Names, role: ByteArray, start: int, count: int, rng: np.random.Generator) -> None:
    """Honest sources that send dense runs behind row ``start``, as many events as the attacker.

    ``count`` accounts, in turn an old one and a new one, take over honest events in runs like
    those of the attack; labels and features stay. At most a fifth of the honest events.
    """
    places = np.flatnonzero(role[start:] == Role.HONEST) + start
    hostile = int((role >= Role.POISON).sum())
    wanted = min(max(count, hostile), len(places) // 5)
    if not count or not wanted:
        return
    old = active(source[:start]).tolist()
    known = rng.permutation(np.array(old, dtype=object)).tolist()[: count // 2]
    who = np.array([*known, *_unused("busy-{:03d}", count - len(known), source)], dtype=object)
    rows = places[draw(0, len(places), wanted, "burst", rng)]
    source[rows] = who[rng.integers(0, len(who), size=len(rows))]
    role[rows] = Role.HONEST_BURST


def newcome(
    source: Names,
    role: ByteArray,
    share: float,
    rng: np.random.Generator,
    *,
    sybils: bool,
) -> None:
    """Give ``share`` of the honest events, and the poison if ``sybils``, sources of their own.

    All are named alike, in the order of the stream, so a name tells nothing.
    """
    honest = np.flatnonzero(role == Role.HONEST)
    drawn = np.sort(rng.choice(honest, size=round(len(honest) * share), replace=False))
    role[drawn] = Role.HONEST_NEWCOMER
    alone = role == Role.HONEST_NEWCOMER
    if sybils:
        alone |= role >= Role.POISON
    rows = np.flatnonzero(alone)
    source[rows] = _unused("new-{:06d}", len(rows), source)


def _unused(form: str, count: int, source: Names) -> list[str]:
    """``count`` names of that form that nobody has."""
    taken = set(source.tolist())
    names = [form.format(i) for i in range(count)]
    turn = 2
    while not taken.isdisjoint(names):
        names = [f"{turn}-{form.format(i)}" for i in range(count)]
        turn += 1
    return names
