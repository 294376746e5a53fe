"""Several sources that all push the same label, at the same time.

One account whose labels are all alike may be odd and honest: in a large population somebody always
is, and no evidence against it grows into proof. That five such accounts with the same label turn
up within an hour, where the stream has hardly ever shown one, is no accident. So what is judged is
the group: the evidence of every source that was active lately (:mod:`monitor.sketches.label_mix`),
each bounded, summed over all but the event's own, against what active sources usually show. By
Bernstein's (1924) inequality a sum of bounded terms exceeds its mean by x with probability at most
exp(−x²/2(v + cx/3)); the exponent is the score, as far as the event's own source shows the same.

Forty accounts that share a campaign count as one here, and each of them needs to show little. That
attackers spread themselves over accounts is the premise of group shilling detection (Zhou et al.
2018) and of FoolsGold (Fung et al. 2020). The features play no part, so labels that follow from
features which the attacker controls are seen as well: on MovieLens, where the averages of the users
themselves are features, no other detector finds targeted flips.

A lone account is left to the other detectors. Counting it here was measured: where sources differ
by nature, held-back honest events rose from .2 % to 1.3 % (one MovieLens user of 943 rates 1.3 %
of the stream, nearly always the same).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, HashArray, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.keyed import KeyedTable
from monitor.sketches.label_mix import BUCKETS, RECENT, LabelMix
from monitor.sketches.shared import sources

LAST_SEEN = BUCKETS
LEAST_SEEN = 512
PRIOR_MEAN, PRIOR_SQUARE, LEAST_VARIANCE = 0.02, 0.1, 1.0
OWN_WEIGHT = 2.0
SHOWN_NATS = 1.0


class RingParams(Params):
    """Parameters of :class:`Ring`."""

    memory_events: float = Field(
        default=100.0, gt=0.0, description="Half-life of a source's labels, in its own events."
    )
    active_events: int = Field(
        default=4096, ge=1, description="A source that came within so many events is active."
    )
    bound_nats: float = Field(default=4.0, gt=0.0, description="Most that one source can say.")
    usual_sources: float = Field(
        default=15_000.0, gt=0.0, description="Half-life, in sources, of what is usual."
    )
    sources: int = Field(default=65_536, ge=16, description="Sources remembered.")


@dataclass(frozen=True, slots=True)
class RingState:
    """``table``: by source, faded counts by label bucket, and when it last came.

    ``usual``, ``square`` float64[BUCKETS], ``mass``: decayed sums over accepted sources of bounded
    evidence, of its square, and of ones. ``seen``: events.
    """

    table: KeyedTable
    mix: LabelMix
    usual: FloatArray
    square: FloatArray
    mass: float
    seen: int


@dataclass(frozen=True, slots=True)
class _Look:
    """A batch's u sources after it: ``counts``, ``own`` and ``others`` float64[u, BUCKETS].

    ``inverse`` int64[n] places events among them; ``alike`` float64[u, BUCKETS] is how many other
    active sources push each label.
    """

    keys: HashArray
    inverse: IntArray
    counts: FloatArray
    mix: LabelMix
    own: FloatArray
    others: FloatArray
    alike: FloatArray


class Ring:
    """Evidence that several sources push the event's label (see the module's text)."""

    name: ClassVar[str] = "ring"
    part: ClassVar[float] = 0.5
    family: ClassVar[Family] = Family.SYBIL
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    robust: ClassVar[bool] = True
    # Bernstein's bound gives the tail the scale 1 for sources that keep to their law.
    scale_bounds: ClassVar[tuple[float, float]] = (1.0, 4.0)

    def __init__(self, params: RingParams | None = None) -> None:
        self.params = params or RingParams()

    def empty(self, n_columns: int) -> RingState:
        """No source seen."""
        none = np.zeros(BUCKETS)
        return RingState(KeyedTable.empty(BUCKETS + 1), LabelMix.empty(), none, none, 0.0, 0)

    def score(self, view: RingState, batch: EventBatch) -> Scores:
        """Nats by which the others exceed what is usual, float64[n], at most twice the own."""
        n = len(batch)
        if view.seen < LEAST_SEEN or not n:
            return Scores.silent(n)
        look, bucket = self._look(view, batch), batch.y % BUCKETS
        own, others = look.own[look.inverse, bucket], look.others[look.inverse, bucket]
        return Scores(np.minimum(others, OWN_WEIGHT * own), np.ones(n, dtype=bool))

    def observe(self, state: RingState, batch: EventBatch, accepted: BoolArray) -> RingState:
        """Counts take every event; what is usual only sources none of whose events was held."""
        n, p = len(batch), self.params
        if not n:
            return state
        look = self._look(state, batch)
        rows = np.column_stack([look.counts, np.full(len(look.keys), state.seen + n)])
        table = state.table.put(
            look.keys, rows.astype(np.float32), capacity=p.sources, keep_by=LAST_SEEN
        )
        held = np.bincount(look.inverse, weights=~accepted, minlength=len(look.keys)) > 0
        bounded = np.minimum(look.own[~held], p.bound_nats)
        keep = 0.5 ** (len(bounded) / p.usual_sources)
        return RingState(
            table,
            look.mix.fitted(),
            keep * state.usual + bounded.sum(axis=0),
            keep * state.square + np.square(bounded).sum(axis=0),
            keep * state.mass + len(bounded),
            state.seen + n,
        )

    def merge(self, a: RingState, b: RingState) -> RingState:
        """Counts of the same source add up, and so does what is usual.

        Each side counts its own events; what was active a moment ago is so by the common clock.
        """
        union = np.union1d(a.table.items()[0], b.table.items()[0])
        first, second = a.table.get(union), b.table.get(union)
        for rows, others in ((first, b.seen), (second, a.seen)):
            rows[:, LAST_SEEN] += others * (rows[:, LAST_SEEN] > 0.0)
        rows = first + second
        rows[:, LAST_SEEN] = np.maximum(first, second)[:, LAST_SEEN]
        return RingState(
            KeyedTable.empty(BUCKETS + 1).put(
                union, rows, capacity=self.params.sources, keep_by=LAST_SEEN
            ),
            a.mix.later(b.seen).merge(b.mix.later(a.seen)),
            a.usual + b.usual,
            a.square + b.square,
            a.mass + b.mass,
            a.seen + b.seen,
        )

    def explain(self, view: RingState, batch: EventBatch, rows: IntArray) -> Sequence[Evidence]:
        """How alike the source's labels are, and how many other active sources push the same."""
        look = self._look(view, batch) if len(rows) else None
        return [] if look is None else [self._sentence(batch, look, int(row)) for row in rows]

    def _sentence(self, batch: EventBatch, look: _Look, row: int) -> Evidence:
        at, bucket = int(look.inverse[row]), int(batch.y[row]) % BUCKETS
        counts = look.counts[at]
        share, usual = float(counts[bucket] / counts.sum()), float(look.mix.share[bucket])
        alike, nats = round(float(look.alike[at, bucket])), float(look.others[at, bucket])
        label, source = batch.label_names[int(batch.y[row])], batch.sources[row]
        text = (
            f"{share:.0%} of what source {source[:64]!r} lately said is {label[:64]!r}, where "
            f"sources usually say it {usual:.0%} of the time, and {alike} other active sources "
            f"push that label like it: {nats:.1f} nats of evidence for a ring"
        )
        data = {
            "source": source,
            "label": label,
            "share": round(share, 3),
            "usual_share": round(usual, 3),
            "others_alike": alike,
            "nats": round(nats, 3),
        }
        return Evidence(text, data)

    def _look(self, view: RingState, batch: EventBatch) -> _Look:
        return batch.once(self.name, view, lambda: self._computed(view, batch))

    def _computed(self, view: RingState, batch: EventBatch) -> _Look:
        p, now = self.params, view.seen + len(batch)
        keys, inverse = sources(batch)
        came = np.bincount(inverse, minlength=len(keys))
        counts = view.table.get(keys)[:, :BUCKETS].astype(np.float64)
        counts *= 0.5 ** (came / p.memory_events)[:, None]
        flat = inverse * BUCKETS + batch.y % BUCKETS
        counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)
        mix = view.mix.put(keys, counts, float(now))
        active = mix.counts[mix.last > now - p.active_events]
        own = mix.nats(counts)
        if len(keys) <= RECENT:
            # All of the batch's sources are held then, behind the others, and weighed already.
            said = np.concatenate([mix.nats(active[: len(active) - len(keys)]), own])
        else:
            said = mix.nats(active)
        bounded = np.minimum(own, p.bound_nats)
        usual = (view.usual + PRIOR_MEAN) / (view.mass + 1.0)
        square = (view.square + PRIOR_SQUARE) / (view.mass + 1.0)
        excess = np.minimum(said, p.bound_nats).sum(axis=0) - usual * len(active) - bounded
        np.maximum(excess, 0.0, out=excess)
        spread = np.maximum(square * len(active), LEAST_VARIANCE) + excess * (p.bound_nats / 3.0)
        others = np.square(excess) / (2.0 * spread)
        alike = (said > SHOWN_NATS).sum(axis=0) - (own > SHOWN_NATS)
        return _Look(keys, inverse, counts, mix, own, others, np.maximum(alike, 0))
