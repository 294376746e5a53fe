"""Subjects whose labels are moved by a campaign, and the accounts that move them: shilling.

Three pieces of evidence, all in nats, added up:

- *moved*: how much the label's share among the subject's latest events exceeds its long-run share,
  which for subjects with little history is drawn to that of all subjects. Several window lengths
  are tried, counted in the subject's own events (group rating time series, Zhou et al. 2018, with
  a likelihood ratio instead of moments), so an honest burst of ratings is no evidence as long as
  the ratings are as usual. The event itself is left out: what counts is what *others* said, and
  runs of one source on one subject count once.
- *helped*: how often the event's source has said what moves a subject, more than sources do by
  chance, in all its recent events, this batch's included. Profiles of one campaign share their
  targets, which is where group attacks agree more than honest accounts do (Mehta and Nejdl 2009);
  this also reaches the filler events that hide the targets. A newcomer by itself has none of it.
- *obscure*: how rare, among sources, it is to speak of subjects as obscure as this one's, beyond
  one source in ten (:mod:`monitor.sketches.habits`). Filler items are drawn evenly, people choose
  what others choose too (the popularity of profiles in Mehta and Nejdl 2009). An odd taste accuses
  nobody, so it counts no more than the help beside it.

Tried on MovieLens and left out: the rate of a subject's events (honest bursts look the same),
deviation from the subject's mean (RDMA, WDA) and other profile statistics of the source:
alone they find half of such profiles, together with the two above they find no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from monitor.core.types import BoolArray, EventBatch, Family, FloatArray, HashArray, IntArray
from monitor.detectors.base import Evidence, Params, Scores
from monitor.sketches.habits import Habits, Sums
from monitor.sketches.keyed import KeyedTable
from monitor.sketches.opinions import COUNT, OP_RECENT, RECENT, Memory, Opinions, Said, united

EVENTS, HELP, OBSCURE, WEIGHT, NOISE, LAST_SEEN = range(6)
WIDTH = 6
ORDINARY_NATS, LARGEST_NATS = 1.5, 8.0
HELP_WEIGHT = 3.0
REFRESH_EVENTS = 1024
USUAL_NATS = 2.3026  # 1 in 10
TINY = 1e-6
OWN_WAYS = 16.0
FEW = 4.0
SUSPECT, CLEAR = 50.0, 5.0
# A high but not impossible score, held back, would keep a subject's long run from following it.
TEACHES_MOVED, TEACHES_HELPED = 5.0, 2.0


class SubjectParams(Params):
    """Parameters of :class:`Subject`."""

    long_events: float = Field(
        default=500.0, gt=0.0, description="Half-life of the long run, in a subject's own events."
    )
    everybody_events: float = Field(
        default=50_000.0, gt=0.0, description="Half-life of the labels' overall shares, in events."
    )
    prior_events: float = Field(
        default=10.0, gt=0.0, description="Events that the overall shares are worth."
    )
    memory_events: float = Field(
        default=100.0, gt=0.0, description="Half-life of what a source did, in its own events."
    )
    suspect_at: float = Field(
        default=1.5, gt=0.0, description="Nats of help at which a source leaves the reference."
    )
    least_events: int = Field(default=1000, ge=1, description="Events before any is judged.")
    subjects: int = Field(default=65_536, ge=16, description="Subjects remembered.")
    sources: int = Field(default=65_536, ge=16, description="Sources remembered.")


@dataclass(frozen=True, slots=True)
class SubjectState:
    """What was said of subjects, and who helped to move them.

    Attributes
    ----------
    opinions
        Counts by subject and label.
    table
        By source: recent events, nats of help in them, faded sums of obscurity, when last seen.
    usual_help
        Running mean of an event's help.
    usual_share, share_spread
        Running mean and variance of −ln of a subject's share of all events.
    habits
        How sources differ in it.
    seen
        Events with a subject.
    """

    opinions: Opinions
    table: KeyedTable
    usual_help: float
    usual_share: float
    share_spread: float
    habits: Habits
    seen: int


@dataclass(frozen=True, slots=True)
class _Judged:
    """The m events with a subject: ``moved`` and ``helped`` float64[m] in nats, and their sources.

    ``help`` and ``obscure`` float64[m] are what each adds to its source, ``rare`` float64[m] is the
    third piece of evidence; ``keys`` sorted sources, ``inverse`` each
    event's place among them, ``table_rows`` theirs after the batch.
    """

    row: IntArray
    events: EventBatch
    said: Said
    moved: FloatArray
    help: FloatArray
    helped: FloatArray
    obscure: FloatArray
    rare: FloatArray
    keys: HashArray
    inverse: IntArray
    table_rows: npt.NDArray[np.float32]


class Subject:
    """How much others moved the subject's labels the same way, and the source others' (above)."""

    name: ClassVar[str] = "subject"
    family: ClassVar[Family] = Family.SHILLING
    stage: ClassVar[int] = 0
    state_version: ClassVar[int] = 1
    additive: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    robust: ClassVar[bool] = True
    # The logarithm of evidence in nats falls off exponentially on honest ratings; subjects that
    # change by nature make it wider, but not without bound.
    scale_bounds: ClassVar[tuple[float, float]] = (0.4, 0.6)

    def __init__(self, params: SubjectParams | None = None) -> None:
        self.params = p = params or SubjectParams()
        self._memory = Memory(p.long_events, p.everybody_events, p.prior_events, p.subjects)

    def empty(self, n_columns: int) -> SubjectState:
        """No subject seen."""
        return SubjectState(
            Opinions.empty(), KeyedTable.empty(WIDTH), 0.0, 0.0, 1.0, Habits.empty(), 0
        )

    def score(self, view: SubjectState, batch: EventBatch) -> Scores:
        """ln(1 + evidence in nats); silent for events without a subject."""
        n = len(batch)
        if view.seen < self.params.least_events or not batch.subject.any():
            return Scores.silent(n)
        found = self._judge(view, batch)
        value, context, ready = np.zeros(n), np.zeros(n), np.zeros(n, dtype=bool)
        value[found.row] = np.log1p(found.moved + found.helped + found.rare)
        # A dense campaign is most of the traffic while it lasts, and a session is over in one
        # batch: what speaks clearly must not become the reference.
        context[found.row] = np.where(self._clear(found), SUSPECT, 0.0)
        ready[found.row] = True
        return Scores(value, ready, context)

    def observe(self, state: SubjectState, batch: EventBatch, accepted: BoolArray) -> SubjectState:
        """All events count as recent; accepted ones make the long run, and mild ones.

        Were the long run to learn accepted events only, an honest change of opinion that was once
        flagged would be flagged for ever.
        """
        if not batch.subject.any():
            return state
        found, p = self._judge(state, batch), self.params
        taken = accepted[found.row] | self._mild(found)
        usual = state.usual_help
        share, spread = state.usual_share, state.share_spread
        if taken.any():
            count = float(taken.sum())
            gain = max(1.0 - 0.5 ** (count / p.everybody_events), count / (state.seen + count))
            usual += gain * (float(found.help[taken].mean()) - usual)
            share += gain * (float(found.obscure[taken].mean()) - share)
            spread += gain * (float(np.square(found.obscure[taken] - share).mean()) - spread)
        habits = state.habits.put(found.keys, _sums(found.table_rows))
        seen = state.seen + len(found.row)
        if seen // REFRESH_EVENTS != state.seen // REFRESH_EVENTS or seen < REFRESH_EVENTS:
            habits = habits.fitted()
        return SubjectState(
            state.opinions.learned(found.events, found.said, taken, self._memory),
            state.table.put(found.keys, found.table_rows, capacity=p.sources, keep_by=LAST_SEEN),
            usual,
            share,
            spread,
            habits,
            seen,
        )

    def merge(self, a: SubjectState, b: SubjectState) -> SubjectState:
        """Counts add up; the usual help is averaged by events."""
        seen = a.seen + b.seen
        share = a.seen / seen if seen else 0.5
        return SubjectState(
            a.opinions.merge(b.opinions, self.params.subjects),
            united(a.table, b.table, (LAST_SEEN,), self.params.sources, LAST_SEEN),
            share * a.usual_help + (1.0 - share) * b.usual_help,
            share * a.usual_share + (1.0 - share) * b.usual_share,
            share * a.share_spread + (1.0 - share) * b.share_spread,
            a.habits.merge(b.habits),
            seen,
        )

    def explain(self, view: SubjectState, batch: EventBatch, rows: IntArray) -> Sequence[Evidence]:
        """What is said of the subject lately and usually, and what the source had part in."""
        if not len(rows) or not batch.subject.any():
            return [Evidence("the event names no subject") for _ in rows]
        found = self._judge(view, batch)
        place = np.full(len(batch), -1)
        place[found.row] = np.arange(len(found.row))
        return [
            self._sentence(found, int(place[r]))
            if place[r] >= 0
            else Evidence("the event names no subject")
            for r in rows.tolist()
        ]

    def _sentence(self, found: _Judged, at: int) -> Evidence:
        said, of = found.said, found.said.of[at]
        label = found.events.label_names[int(found.events.y[at])][:64]
        source = found.events.sources[at]
        among = float(said.subject_rows[said.inverse[at], RECENT])
        lately = float(said.given_rows[of, OP_RECENT]) / max(among, 1e-9)
        usual = float(said.expected[of])
        stored = found.table_rows[found.inverse[at]]
        moved, helped = float(found.moved[at]), float(found.helped[at])
        subject = (
            f"about {max(1, round(among))} recent events on this subject, {min(lately, 1.0):.0%} "
            f"say {label!r}, where {usual:.0%} is expected from its history ({moved:.1f} nats)"
        )
        events = max(1, round(float(stored[EVENTS])))
        account = (
            f"source {source[:64]!r} said what moves subjects more often than sources do by "
            f"chance ({float(stored[HELP]):.1f} nats in {events} events, {helped:.1f} beyond "
            "the usual), as accounts of one campaign do"
        )
        text = f"{account}; of {subject}" if helped > moved else f"of {subject}"
        if helped <= moved and helped > 1.0:
            text = f"of {subject}; and {account}"
        data = {
            "source": source,
            "label": label,
            "recent_share": round(lately, 4),
            "expected_share": round(usual, 4),
            "recent_events": round(among, 1),
            "moved_nats": round(moved, 3),
            "helped_nats": round(helped, 3),
            "obscure_nats": round(float(found.rare[at]), 3),
            "source_events": events,
        }
        return Evidence(text, data)

    def _mild(self, found: _Judged) -> BoolArray:
        """What teaches the long run, whatever the verdict."""
        return (found.moved < TEACHES_MOVED) & (found.helped < TEACHES_HELPED)

    def _clear(self, found: _Judged) -> BoolArray:
        """What must not become the reference."""
        return (found.helped >= self.params.suspect_at) | (found.moved >= CLEAR)

    def _judge(self, state: SubjectState, batch: EventBatch) -> _Judged:
        """The events with a subject, computed once for a state."""
        return batch.once(self.name, state, lambda: self._computed(state, batch))

    def _computed(self, state: SubjectState, batch: EventBatch) -> _Judged:
        row = np.flatnonzero(batch.subject)
        events = batch.select(row)
        said = state.opinions.read(events, self._memory)
        moved = said.moved[said.of]
        help_ = np.clip(moved - ORDINARY_NATS, 0.0, LARGEST_NATS)
        known = said.subject_rows[said.inverse, COUNT]
        obscure = np.log(state.seen + len(row) + 1.0) - np.log(known + 1.0)
        keys, inverse = np.unique(events.source, return_inverse=True)
        came = np.bincount(inverse, minlength=len(keys))
        fade = 0.5 ** (came / self.params.memory_events)
        rows = state.table.get(keys) * fade[:, None].astype(np.float32)
        rows[:, NOISE] = rows[:, NOISE] * fade + came
        rows[:, WEIGHT] += came
        unit = (obscure - state.usual_share) / np.sqrt(max(state.share_spread, TINY))
        rows[:, OBSCURE] += np.bincount(inverse, weights=unit, minlength=len(keys))
        rows[:, EVENTS] += came
        rows[:, HELP] += np.bincount(inverse, weights=help_, minlength=len(keys))
        rows[:, LAST_SEEN] = state.seen + len(row)
        n = rows[:, EVENTS].astype(np.float64)
        # By chance it grows like √n, and by a source's own ways like n.
        spread = np.sqrt(FEW + n + n * n / OWN_WAYS)
        helped = np.maximum(rows[:, HELP] - state.usual_help * n, 0.0) / spread
        rare = np.maximum(state.habits.nats(_sums(rows)) - USUAL_NATS, 0.0)
        return _Judged(
            row,
            events,
            said,
            moved,
            help_,
            HELP_WEIGHT * helped[inverse],
            obscure,
            np.minimum(rare, HELP_WEIGHT * helped)[inverse],
            keys,
            inverse,
            rows,
        )


def _sums(rows: npt.NDArray[np.float32]) -> Sums:
    """How obscure each source's recent subjects are."""
    own = rows.astype(np.float64)
    return Sums(own[:, OBSCURE], own[:, WEIGHT], own[:, NOISE])
