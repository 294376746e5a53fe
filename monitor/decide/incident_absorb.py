"""Suspicious events added to an incident, and two incidents made one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import orjson

from monitor.core.hashing import hash_text
from monitor.core.types import FloatArray, HashArray, IntArray
from monitor.decide.incident_facts import FAMILIES, KEYS, NO_FAMILY, SOURCE, Suspects
from monitor.decide.incident_state import (
    MOST_CORE,
    MOST_KEYS,
    SEEN_BITS,
    Incident,
    Traffic,
    counted,
    joined,
    tallied,
)

EVIDENCE = 8
"""Ids that are kept of the first events, and as many of the last."""
_FAMILY_KEY = np.array([hash_text(f"family|{name}") for name in FAMILIES], dtype=np.uint64)
FAMILY = KEYS
"""Column of :func:`all_keys` for the strongest channel."""


def family_key(family: str) -> int:
    """What all events have in common for which ``family`` is the strongest channel."""
    return int(_FAMILY_KEY[FAMILIES.index(family)])


def all_keys(suspects: Suspects) -> HashArray:
    """uint64[m, 6]: the keys, and behind them that of the strongest channel."""
    place = np.minimum(suspects.family, len(FAMILIES) - 1)
    last = np.where(suspects.family == NO_FAMILY, np.uint64(0), _FAMILY_KEY[place])
    return np.column_stack([suspects.keys, last.astype(np.uint64)])


def absorbed(incident: Incident, suspects: Suspects, rows: IntArray, traffic: Traffic) -> Incident:
    """``incident`` with the events ``rows`` int64[r] of ``suspects`` as well, in their order."""
    notes = [orjson.loads(suspects.notes[row]) for row in rows.tolist()]
    c = len(incident.total)
    shape = suspects.shape[rows, :c].astype(np.float64)
    seen, time = suspects.seen[rows], suspects.time_ns[rows]
    first, last = int(seen.argmin()), int(seen.argmax())
    bits = incident.seen_sources.copy()
    bits[(suspects.keys[rows, SOURCE] % np.uint64(SEEN_BITS)).astype(np.int64)] = True
    mask = suspects.families[rows]
    speaks = np.array([np.count_nonzero(mask & (1 << f)) for f in range(len(FAMILIES))])
    strongest = suspects.family[rows]
    fresh = incident.events == 0
    earlier = fresh or seen[first] < incident.first_seen
    later = fresh or seen[last] >= incident.last_seen
    return replace(
        incident,
        first_ns=int(time.min()) if fresh else min(incident.first_ns, int(time.min())),
        last_ns=int(time.max()) if fresh else max(incident.last_ns, int(time.max())),
        first_seen=int(seen[first]) if earlier else incident.first_seen,
        first_offset=int(suspects.offset[rows[first]]) if earlier else incident.first_offset,
        first_event=notes[first][0] if earlier else incident.first_event,
        last_seen=int(seen[last]) if later else incident.last_seen,
        last_offset=int(suspects.offset[rows[last]]) if later else incident.last_offset,
        last_event=notes[last][0] if later else incident.last_event,
        events=incident.events + len(rows),
        held=incident.held + int(suspects.held[rows].sum()),
        weight=incident.weight + float(suspects.weight[rows].sum()),
        risk=max(incident.risk, float(suspects.risk[rows].max())),
        influence=incident.influence + float(suspects.influence[rows].sum()),
        of_core=incident.of_core + int(np.isin(suspects.keys[rows, SOURCE], incident.core).sum()),
        nats=incident.nats + suspects.nats[rows].sum(axis=0, dtype=np.float64),
        families=incident.families + speaks,
        primary=incident.primary
        + np.bincount(strongest[strongest != NO_FAMILY], minlength=len(FAMILIES)),
        sources=tallied(incident.sources, (note[1] for note in notes)),
        labels=tallied(incident.labels, (note[2] for note in notes)),
        pairs=tallied(incident.pairs, _pairs(notes)),
        subjects=tallied(incident.subjects, (note[4] for note in notes if note[4] is not None)),
        tokens=tallied(incident.tokens, (t for note in notes for t in _tokens(note))),
        seen_sources=bits,
        cells=incident.cells + counted(suspects.shape[rows, :c]),
        total=incident.total + shape.sum(axis=0),
        square=incident.square + shape.T @ shape,
        slide=incident.slide + _slid(shape, suspects.label[rows], incident.events, traffic),
        gaps=incident.gaps + _gaps(seen, None if fresh else incident.last_seen),
        timeline=incident.timeline.after(time, suspects.held[rows]),
        evidence=_evidence(incident.evidence, [note[0] for note in notes]),
    )


def _pairs(notes: Iterable[list[object]]) -> Iterable[str]:
    return (orjson.dumps([n[3], n[2]]).decode() for n in notes if n[3] is not None)


def _tokens(note: list[object]) -> Iterable[str]:
    told = note[5]
    assert isinstance(told, list)
    return (orjson.dumps(token).decode() for token in told)


def _evidence(ids: tuple[str, ...], more: list[str]) -> tuple[str, ...]:
    both = (*ids, *more)
    return both if len(both) <= 2 * EVIDENCE else (*both[:EVIDENCE], *both[-EVIDENCE:])


def _slid(shape: FloatArray, label: HashArray, start: int, traffic: Traffic) -> FloatArray:
    """float64[8]: sums over events, by number t and displacement s, of 1, t, t², s, t·s, s².

    The last two are the sum of s·s' over neighbours s', and how many there are, as events that come
    together tell less than as many that do not. ``s`` is how far an event lies from its class in
    the direction of the largest other class, in distances between the two.
    """
    known = {value: at for at, value in enumerate(traffic.labels.tolist())}
    if len(known) < 2 or not shape.shape[1]:
        return np.zeros(8)
    mean = traffic.label_sum / np.maximum(traffic.label_mass, 1.0)[:, None]
    order = np.argsort(-traffic.label_mass, kind="stable")
    own = np.array([known.get(value, -1) for value in label.tolist()])
    other = np.where(own == order[0], order[1], order[0])
    way = mean[other] - mean[own]
    length = np.sqrt((way**2).sum(axis=1))
    s = ((shape - mean[own]) * way).sum(axis=1) / np.maximum(length**2, 1e-9)
    t = start + np.arange(len(s), dtype=np.float64)
    fits = (own >= 0) & (length > 0.1)
    s, t = s[fits], t[fits]
    sums: FloatArray = np.array(
        [
            *(len(s), t.sum(), (t * t).sum(), s.sum(), (t * s).sum(), (s * s).sum()),
            *((s[1:] * s[:-1]).sum(), max(len(s) - 1, 0)),
        ]
    )
    return sums


def _gaps(seen: IntArray, before: int | None) -> FloatArray:
    """float64[3]: number, sum and sum of squares of the events between one and the next."""
    line = np.sort(seen) if before is None else np.concatenate([[before], np.sort(seen)])
    gap = np.maximum(np.diff(line), 0).astype(np.float64)
    found: FloatArray = np.array([len(gap), gap.sum(), (gap * gap).sum()])
    return found


def united(older: Incident, younger: Incident) -> Incident:
    """Both as one, under the older one's name."""
    first, last = (
        sorted((older, younger), key=lambda i: (i.first_seen, i.serial))[0],
        max((older, younger), key=lambda i: (i.last_seen, -i.serial)),
    )
    bigger = older if older.events >= younger.events else younger
    return replace(
        older,
        first_ns=min(older.first_ns, younger.first_ns),
        last_ns=max(older.last_ns, younger.last_ns),
        first_seen=first.first_seen,
        first_offset=first.first_offset,
        first_event=first.first_event,
        last_seen=last.last_seen,
        last_offset=last.last_offset,
        last_event=last.last_event,
        active_seen=max(older.active_seen, younger.active_seen),
        active_ns=max(older.active_ns, younger.active_ns),
        events=older.events + younger.events,
        held=older.held + younger.held,
        weight=older.weight + younger.weight,
        risk=max(older.risk, younger.risk),
        influence=older.influence + younger.influence,
        of_core=older.of_core + younger.of_core,
        core=both_keys(older.core, younger.core, MOST_CORE),
        keys=both_keys(older.keys, younger.keys, MOST_KEYS),
        stray=max(older.stray, younger.stray),
        nats=older.nats + younger.nats,
        families=older.families + younger.families,
        primary=older.primary + younger.primary,
        sources=joined(older.sources, younger.sources),
        labels=joined(older.labels, younger.labels),
        pairs=joined(older.pairs, younger.pairs),
        subjects=joined(older.subjects, younger.subjects),
        tokens=joined(older.tokens, younger.tokens),
        seen_sources=older.seen_sources | younger.seen_sources,
        cells=older.cells + younger.cells,
        total=older.total + younger.total,
        square=older.square + younger.square,
        slide=bigger.slide,
        gaps=bigger.gaps,
        timeline=older.timeline.joined(younger.timeline),
        evidence=_evidence(older.evidence, list(younger.evidence)),
    )


def both_keys(a: HashArray, b: HashArray, most: int) -> HashArray:
    """The distinct keys of both, the first ``most``, in order of first appearance."""
    found = list(dict.fromkeys([*a.tolist(), *b.tolist()]))[:most]
    return np.array(found, dtype=np.uint64)
