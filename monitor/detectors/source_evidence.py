"""What each source's events have shown so far.

One event is weak evidence; the events of one account add up. Every calibrated p-value is turned
into a bet against "this source is ordinary" by the calibrator κ·p^(κ−1), whose mean under ordinary
traffic is at most one (Vovk and Wang 2021, section 2), and the logarithms are summed per source as
a CUSUM (Page 1954), which is the e-detector of Shin, Ramdas and Rinaldo (2023) with a restart: an
account that turns hostile after years is seen as fast as a new one, and one that was hijacked and
recovered is forgiven. By Ville's inequality a fixed ordinary source exceeds a level s with
probability about exp(−s), so the tail that the channel calibrates is close to exponential.

That is evidence that it is not chance. It may be nature: real sources differ in how surprising
their labels are, and a harmless but odd one collects evidence without end. So the score is the
smaller of this and of how rare such a source is among sources (:mod:`monitor.sketches.habits`).

It listens to the label-conflict channel alone. Betting on the others as well was measured: their
tails are calibrated less well, which made the evidence against honest sources grow, and cost a
fifth of the recall on flips (electricity) and gained nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.habits import Habits, Sums
from monitor.sketches.keyed import KeyedTable
from monitor.sketches.refresh import OFTEN_EVENTS, due
from monitor.sketches.shared import sources

LISTENS_TO = Family.LABEL_FLIP.value
NATS, EVENTS, SURPRISING, BETS, WEIGHT, NOISE, LAST_SEEN = range(7)
WIDTH = 7
SURPRISE = 0.1
TINY = 1e-6
OFTEN, LEAST_SOURCES, LEAST_SURGE, USUAL_EVENTS = 4, 16, 1.5, 8_000.0
RARE_NATS = 6.9078  # 1 in 1,000


class SourceEvidenceParams(Params):
    """Parameters of :class:`SourceEvidence`."""

    exponent: float = Field(default=0.4, gt=0.0, lt=1.0, description="κ of the p-to-e calibrator.")
    smallest_p: float = Field(default=1e-4, gt=0.0, lt=1.0, description="Bound on one event's bet.")
    cap_nats: float = Field(default=30.0, gt=0.0, description="Largest evidence a source can hold.")
    capacity: int = Field(default=131_072, ge=16, description="Sources remembered.")
    full_weight_share: float = Field(
        default=0.02, gt=0.0, le=1.0, description="Share of traffic above which bets weigh less."
    )
    memory_events: float = Field(
        default=60.0, gt=0.0, description="Half-life of a source's mean bet, in its own events."
    )
    drift_events: float = Field(
        default=400.0, gt=0.0, description="Half-life, in ordinary events, of what a bet pays."
    )


@dataclass(frozen=True, slots=True)
class SourceEvidenceState:
    """``table``: by source hash, evidence in nats, events, surprising ones, faded bets, last seen.

    ``drift`` is what a bet pays on ordinary traffic at present, a running mean that is one where
    the channel keeps its promise; ``usual`` what the middle source's bets usually pay in a batch.
    ``mean`` and ``spread`` are the running mean and variance of a bet's logarithm; ``habits``: how
    sources differ in it by nature.
    """

    table: KeyedTable
    drift: float
    usual: float
    mean: float
    spread: float
    habits: Habits
    seen: int


class SourceEvidence:
    """Accumulated evidence against the source of each event (see the module's text)."""

    name: ClassVar[str] = "source_evidence"
    family: ClassVar[Family] = Family.SYBIL
    stage: ClassVar[int] = 1
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    robust: ClassVar[bool] = True
    # Ville's inequality gives the tail the scale 1 for sources that are alike, the sources' own
    # law for those that are not; a tenth is for what that law misses.
    scale_bounds: ClassVar[tuple[float, float]] = (1.0, 1.1)

    def __init__(self, params: SourceEvidenceParams | None = None) -> None:
        self.params = params or SourceEvidenceParams()

    def empty(self, n_columns: int) -> SourceEvidenceState:
        """No source seen."""
        return SourceEvidenceState(KeyedTable.empty(WIDTH), 1.0, 0.0, 0.0, 1.0, Habits.empty(), 0)

    def score(self, view: SourceEvidenceState, batch: EventBatch) -> Scores:
        """Evidence in nats against each event's source, this batch's events included."""
        if LISTENS_TO not in batch.p_value or not len(batch):
            return Scores.silent(len(batch))
        keys, inverse, rows = self._after(view, batch)
        value = self._nats(view, rows)[inverse]
        before = self._nats(view, view.table.get(keys))[inverse]
        # What the sources' own law finds this rare must not become the reference, even where so
        # much of it is there that the reference would take it for ordinary.
        context = np.where(before >= RARE_NATS, self.params.cap_nats, before)
        return Scores(value, np.ones(len(batch), dtype=bool), context)

    def observe(
        self, state: SourceEvidenceState, batch: EventBatch, accepted: BoolArray
    ) -> SourceEvidenceState:
        """Evidence counts every event; the drift baseline learns from accepted ones only."""
        if LISTENS_TO not in batch.p_value or not len(batch):
            return state
        keys, inverse, rows = self._after(state, batch)
        table = state.table.put(keys, rows, capacity=self.params.capacity, keep_by=LAST_SEEN)
        drift, mean, spread = state.drift, state.mean, state.spread
        if accepted.any():
            count, bets = float(accepted.sum()), self._bets(batch)[accepted]
            rate = 1.0 - 0.5 ** (count / self.params.drift_events)
            drift = drift + rate * (float(np.exp(bets).mean()) - drift)
            rate = max(rate, count / (state.seen + count))
            mean = mean + rate * (float(bets.mean()) - mean)
            spread = spread + rate * (float(np.square(bets - mean).mean()) - spread)
        habits = state.habits.put(keys, _sums(rows))
        seen = state.seen + len(batch)
        if due(state.seen, seen) or seen < OFTEN_EVENTS:
            habits = habits.fitted()
        came = np.bincount(inverse, minlength=len(keys))
        usual = state.usual
        now = _middle_pay(np.exp(self._bets(batch)), inverse, came)
        if now > 0.0:
            slow = 1.0 - 0.5 ** (len(batch) / USUAL_EVENTS)
            usual = usual + slow * (now - usual) if usual > 0.0 else now
        return SourceEvidenceState(table, drift, usual, mean, spread, habits, seen)

    def merge(self, a: SourceEvidenceState, b: SourceEvidenceState) -> SourceEvidenceState:
        """Evidence of the same source adds up to the cap; baselines are averaged by events."""
        union = np.union1d(a.table.items()[0], b.table.items()[0])
        added = a.table.get(union) + b.table.get(union)
        both = a.table.get(union)[:, EVENTS] * b.table.get(union)[:, EVENTS] > 0
        added[both, NATS] -= np.log1p(added[both, NATS])
        added[:, NATS] = np.minimum(added[:, NATS], self.params.cap_nats)
        added[:, LAST_SEEN] = np.maximum(a.table.get(union), b.table.get(union))[:, LAST_SEEN]
        seen = a.seen + b.seen
        share = a.seen / seen if seen else 0.5
        table = KeyedTable.empty(WIDTH).put(
            union, added, capacity=self.params.capacity, keep_by=LAST_SEEN
        )
        return SourceEvidenceState(
            table,
            share * a.drift + (1.0 - share) * b.drift,
            share * a.usual + (1.0 - share) * b.usual,
            share * a.mean + (1.0 - share) * b.mean,
            share * a.spread + (1.0 - share) * b.spread,
            a.habits.merge(b.habits),
            seen,
        )

    def explain(
        self, view: SourceEvidenceState, batch: EventBatch, rows: IntArray
    ) -> Sequence[Evidence]:
        """How many events the source sent, and how many of them were surprising."""
        if LISTENS_TO not in batch.p_value or not len(rows):
            return [Evidence("the source has shown nothing yet") for _ in rows]
        _, inverse, after = self._after(view, batch)
        nats = self._nats(view, after)
        return [
            self._sentence(batch.sources[int(r)], after[inverse[r]], float(nats[inverse[r]]))
            for r in rows
        ]

    def _sentence(self, source: str, row: npt.NDArray[np.float32], nats: float) -> Evidence:
        events, surprising = int(row[EVENTS]), int(row[SURPRISING])
        text = (
            f"source {source[:64]!r} has sent {events} events, {surprising} of them with labels "
            f"among the {SURPRISE:.0%} most surprising; together they are {nats:.1f} nats of "
            "evidence that it does not label as others do (an ordinary source passes 7 about "
            "once in 1,000)"
        )
        data = {
            "source": source,
            "events": events,
            "surprising": surprising,
            "nats": round(nats, 3),
            "speaks_for": LISTENS_TO,
        }
        return Evidence(text, data)

    @staticmethod
    def _nats(state: SourceEvidenceState, rows: npt.NDArray[np.float32]) -> FloatArray:
        """float64[u]: evidence that it is not chance, as far as it is not nature either."""
        return np.minimum(rows[:, NATS].astype(np.float64), state.habits.nats(_sums(rows)))

    def _bets(self, batch: EventBatch) -> FloatArray:
        """float64[n]: log of the calibrator κ·p^(κ−1), bounded."""
        kappa = self.params.exponent
        p = np.maximum(batch.p_value[LISTENS_TO], self.params.smallest_p)
        return np.asarray(np.log(kappa) + (kappa - 1.0) * np.log(p))

    def _after(
        self, state: SourceEvidenceState, batch: EventBatch
    ) -> tuple[npt.NDArray[np.uint64], IntArray, npt.NDArray[np.float32]]:
        """The batch's sources (sorted, unique), each event's index into them, and their rows."""
        return batch.once(self.name, state, lambda: self._computed(state, batch))

    def _computed(
        self, state: SourceEvidenceState, batch: EventBatch
    ) -> tuple[npt.NDArray[np.uint64], IntArray, npt.NDArray[np.float32]]:
        keys, inverse = sources(batch)
        rows = state.table.get(keys)
        # A drift makes everybody surprising. Dividing the bets by what they pay on ordinary
        # traffic at present keeps their mean at one, so it convicts nobody.
        raw = self._bets(batch)
        came = np.bincount(inverse, minlength=len(keys))
        now = _middle_pay(np.exp(raw), inverse, came)
        surge = now / state.usual if state.usual > 0.0 else 1.0
        # A change from one batch to the next comes before the mean can follow: what the middle
        # source's bets pay within this batch tells it, which few hostile ones do not set.
        pays = max(1.0, state.drift, surge if surge > LEAST_SURGE else 1.0)
        bets = raw - np.log(pays)
        rows[:, EVENTS] += came
        # A source that is much of the traffic meets much of any drift before the mean can follow.
        # A bet to a power below one is still a bet.
        share = rows[:, EVENTS] / (state.seen + len(batch))
        bets *= np.minimum(1.0, self.params.full_weight_share / share)[inverse]
        order = np.argsort(inverse, kind="stable")
        group = inverse[order]
        rows[:, NATS] = _cusum(rows[:, NATS], bets[order], group, self.params.cap_nats)
        fade = 0.5 ** (came / self.params.memory_events)
        rows[:, WEIGHT] = rows[:, WEIGHT] * fade + came
        rows[:, NOISE] = rows[:, NOISE] * fade * fade + came
        unit = (raw - state.mean) / np.sqrt(max(state.spread, TINY))
        rows[:, BETS] *= fade
        rows[:, BETS] += np.bincount(inverse, weights=unit, minlength=len(keys))
        surprising = batch.p_value[LISTENS_TO] < SURPRISE
        rows[:, SURPRISING] += np.bincount(inverse, weights=surprising, minlength=len(keys))
        rows[:, LAST_SEEN] = state.seen + len(batch)
        return keys, inverse, rows


def _middle_pay(pay: FloatArray, inverse: IntArray, came: IntArray) -> float:
    """What bets float64[n] pay the middle one of the sources that came often; 0 for too few."""
    often = came >= OFTEN
    if np.count_nonzero(often) < LEAST_SOURCES:
        return 0.0
    each = np.bincount(inverse, weights=pay, minlength=len(came))[often] / came[often]
    return float(np.median(each))


def _sums(rows: npt.NDArray[np.float32]) -> Sums:
    """Each source's recent bets, over what bets were at the time."""
    own = rows.astype(np.float64)
    return Sums(own[:, BETS], own[:, WEIGHT], own[:, NOISE])


def _cusum(
    start: npt.NDArray[np.float32], bets: FloatArray, group: IntArray, cap: float
) -> FloatArray:
    """Each group's reflected random walk after its bets; ``group`` is sorted and dense.

    S_t = max(S_0 + C_t, C_t − min over j ≤ t of C_j), with C the running sum inside the group.
    """
    total = np.cumsum(bets)
    last = np.flatnonzero(np.append(group[1:] != group[:-1], True))
    before = np.concatenate([[0.0], total[last[:-1]]])
    inside = total - before[group]
    lift = float(np.abs(bets).sum()) + 1.0
    lowest = np.minimum.accumulate(inside - group * lift) + group * lift
    end = inside[last]
    reflected = np.maximum(start + end, end - np.minimum(lowest[last], 0.0))
    return np.asarray(np.clip(reflected, 0.0, cap), dtype=np.float64)
