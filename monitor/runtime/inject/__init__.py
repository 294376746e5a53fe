"""Seeded attacks on a recorded stream, with ground truth, for evaluation and the demo.

Most attacks rewrite a share of the events in place (label, features, update, source), so the
stream keeps its length and order; shilling and replay add events. Nothing here is used on live
traffic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from monitor.core.errors import UsageError
from monitor.core.types import ByteArray, FloatArray, IntArray
from monitor.runtime.inject import backdoors, inserts, labels, vectors
from monitor.runtime.inject.job import Attack, Job
from monitor.runtime.inject.places import (
    PATTERNS,
    Pattern,
    closing_batch,
    positions,
    widened,
)
from monitor.runtime.inject.senders import (
    NEWCOMERS,
    Colluders,
    Names,
    Senders,
    assign,
    burst,
    newcome,
)
from monitor.runtime.inject.stream import Attacked, Role, Stream, column_of, honest_sources
from monitor.runtime.inject.vectors import with_gradients

__all__ = [
    "ATTACKS",
    "IN_PLACE",
    "LEAST_EVENTS",
    "PATTERNS",
    "Attack",
    "Attacked",
    "Colluders",
    "Pattern",
    "Role",
    "Stream",
    "check_options",
    "honest_sources",
    "inject",
    "positions",
    "with_gradients",
]

ATTACKS: dict[str, Attack] = {
    **labels.ATTACKS,
    **backdoors.ATTACKS,
    **vectors.ATTACKS,
    **inserts.ATTACKS,
}
"""Every attack by name."""

IN_PLACE = tuple(name for name, attack in ATTACKS.items() if not (attack.inserts or attack.needs))
"""Those that work on any stream and keep its length."""

LEAST_EVENTS = 100


def inject(
    stream: Stream,
    attack: str,
    *,
    rate: float = 0.03,
    pattern: Pattern = "burst",
    colluders: Colluders = 5,
    clean_prefix: float = 0.3,
    snap: bool = False,
    seed: int = 0,
    honest_bursts: int = 0,
    newcomers: float | None = None,
    trigger_features: int = 3,
) -> Attacked:
    """Write an attacked copy of ``stream``.

    Parameters
    ----------
    stream
        The honest stream, n events.
    attack
        One of :data:`ATTACKS`.
    rate
        Share of the events behind the clean prefix that are poison, above 0 and at most 0.5;
        for attacks that insert, of the events that are there afterwards.
    pattern
        ``burst`` or ``spread``, see :func:`positions`.
    colluders
        Who sends the poison: a number of accounts that send nothing else; 0 or ``"ordinary"``
        leaves it with the ordinary sources; ``"fresh"``, an account for each event, among
        honest newcomers; ``"hijacked"`` or ``"hijacked:N"``, N (5) accounts that were active and
        honest before and still send their honest events beside the poison.
    clean_prefix
        Share of the stream before the first poison, 0..0.95.
    snap
        Move changed values to the nearest value the column has shown, as a careful attacker does.
    seed
        Same seed, same attack.
    honest_bursts
        Number of honest sources that send dense runs beside the attack, together as many events
        as the attacker (at most a fifth of the honest ones).
    newcomers
        Share of the honest events, over the whole stream, whose source sends nothing else,
        0..0.5; when None, 0.05 beside ``fresh`` accounts and else 0.
    trigger_features
        Features that a backdoor stamps, 1..16 and at most those there are.

    Returns
    -------
    Attacked
        The copy, with the truth about each of its events.

    Raises
    ------
    UsageError
        For an unknown attack, a number out of its range, a stream with a single label or fewer
        than 100 events, or one without the subjects that shilling needs.
    """
    check_options(
        attack,
        rate=rate,
        pattern=pattern,
        colluders=colluders,
        clean_prefix=clean_prefix,
        honest_bursts=honest_bursts,
        newcomers=newcomers,
        trigger_features=trigger_features,
    )
    _check_stream(stream, attack)
    senders = Senders.of(colluders)
    alone = (NEWCOMERS if senders.kind == "fresh" else 0.0) if newcomers is None else newcomers
    if ATTACKS[attack].needs == "gradient" and stream.gradient is None:
        stream = with_gradients(stream, seed=seed)
    rng = np.random.default_rng([seed, *attack.encode()])
    plan = _changed(
        stream,
        attack,
        rate=rate,
        clean_prefix=clean_prefix,
        pattern=pattern,
        senders=senders,
        trigger_features=trigger_features,
        rng=rng,
    )
    after = plan.after
    if snap:
        after = replace(after, x=_snapped(plan.before.x, after.x, plan.rows))
    # Their own generator: what surrounds an attack does not change the attack.
    around = np.random.default_rng([seed, 31])
    source = column_of(after.source)
    start = int(len(stream) * clean_prefix)
    if senders.kind == "hijacked":
        mine = np.isin(source.astype(np.str_), np.unique(source[plan.rows].astype(np.str_)))
        plan.role[mine & (plan.role == Role.HONEST)] = Role.HIJACKED_HONEST
    burst(source, plan.role, start, honest_bursts, around)
    newcome(source, plan.role, alone, around, sybils=senders.kind == "fresh")
    after = replace(after, source=tuple(source.tolist()))
    inserted = np.zeros(len(after), dtype=bool)
    inserted[plan.rows] = ATTACKS[attack].inserts
    return Attacked(after, plan.role >= Role.POISON, attack, plan.role, plan.row, inserted)


def check_options(
    attack: str,
    *,
    rate: float,
    pattern: str,
    colluders: Colluders,
    clean_prefix: float,
    honest_bursts: int,
    newcomers: float | None,
    trigger_features: int,
) -> None:
    """Refuse options of :func:`inject` that no stream would do for.

    Raises
    ------
    UsageError
        Naming the first one, and what is allowed.
    """
    if attack not in ATTACKS:
        raise UsageError(f"unknown attack {attack!r}; choose one of {', '.join(ATTACKS)}")
    if pattern not in PATTERNS:
        raise UsageError(f"unknown pattern {pattern!r}; choose one of {', '.join(PATTERNS)}")
    Senders.of(colluders)
    if not 0.0 < rate <= 0.5:
        raise UsageError(f"attack rate must be above 0 and at most 0.5, not {rate:g}")
    for name, value, low, high in (
        ("clean prefix", clean_prefix, 0.0, 0.95),
        ("share of newcomers", newcomers or 0.0, 0.0, 0.5),
        ("number of trigger features", trigger_features, 1, 16),
        ("number of honest bursts", honest_bursts, 0, 10_000),
    ):
        if not low <= value <= high:
            raise UsageError(f"{name} must be at least {low:g} and at most {high:g}, not {value:g}")


def _check_stream(stream: Stream, attack: str) -> None:
    if len(stream.labels) < 2 or len(stream) < LEAST_EVENTS:
        raise UsageError(
            f"an attack needs a stream with two labels and at least {LEAST_EVENTS} events"
        )
    if ATTACKS[attack].needs == "subject" and stream.subject is None:
        raise UsageError(f"{attack} needs events with a subject (the item that is rated)")


@dataclass(frozen=True, slots=True)
class _Plan:
    """Rows of the attack; the stream before and after, of the same length; roles; origins."""

    rows: IntArray
    before: Stream
    after: Stream
    role: ByteArray
    row: IntArray


def _changed(
    stream: Stream,
    attack: str,
    *,
    rate: float,
    clean_prefix: float,
    pattern: Pattern,
    senders: Senders,
    trigger_features: int,
    rng: np.random.Generator,
) -> _Plan:
    kind = ATTACKS[attack]
    if kind.inserts:
        rows, row = widened(
            len(stream), rate=rate, clean_prefix=clean_prefix, pattern=pattern, rng=rng
        )
        before = _named(stream.take(row), rows, len(stream))
        # Profiles are made by account, so the accounts come first.
        before = _sent(before, rows, senders, rng)
        change = kind.change(Job(before, rows, rng, trigger_features))
        after = change.stream
        if (
            attack.startswith("replay")
            and senders.kind == "ordinary"
            and change.template is not None
        ):
            source = column_of(after.source)
            source[rows] = source[change.template]
            after = replace(after, source=tuple(source.tolist()))
    else:
        row = np.arange(len(stream))
        rows = positions(
            len(stream), rate=rate, clean_prefix=clean_prefix, pattern=pattern, rng=rng
        )
        if kind.closing:
            rows = closing_batch(rows, len(stream), kind.closing, rng)
        before = stream
        change = kind.change(Job(stream, rows, rng, trigger_features))
        after = _sent(change.stream, rows, senders, rng)
    if change.template is not None:
        row = row.copy()
        row[rows] = row[change.template]
    role = np.zeros(len(after), dtype=np.uint8)
    role[rows] = Role.POISON if change.role is None else change.role
    return _Plan(rows, before, after, role, row)


def _sent(stream: Stream, rows: IntArray, senders: Senders, rng: np.random.Generator) -> Stream:
    source: Names = column_of(stream.source)
    if senders.kind == "fresh":
        # One account each, renamed once it is known who else is new.
        source[rows] = [f"fresh {i}" for i in range(len(rows))]
    else:
        assign(source, rows, senders, rng)
    return replace(stream, source=tuple(source.tolist()))


def _named(stream: Stream, rows: IntArray, known: int) -> Stream:
    """Ids for the inserted rows, which go on counting where the stream's own end."""
    assert stream.ids is not None
    ids = column_of(stream.ids)
    ids[rows] = [f"{stream.name}-{known + i}" for i in range(len(rows))]
    return replace(stream, ids=tuple(ids.tolist()))


def _snapped(before: FloatArray, x: FloatArray, rows: IntArray) -> FloatArray:
    """Changed values of ``rows`` moved to the nearest one that their column showed before."""
    snapped = x.copy()
    end = max(50, int(rows[0]))
    for column in range(x.shape[1]):
        now = x[rows, column]
        changed = ~(now == before[rows, column]) & ~np.isnan(now)
        values = np.unique(before[:end, column])
        values = values[~np.isnan(values)]
        if not changed.any() or not len(values):
            continue
        right = np.clip(np.searchsorted(values, now), 1, max(1, len(values) - 1))
        left = values[right - 1]
        beyond = values[np.minimum(right, len(values) - 1)]
        nearest = np.where(np.abs(now - left) <= np.abs(beyond - now), left, beyond)
        snapped[rows, column] = np.where(changed, nearest, now)
    return snapped
