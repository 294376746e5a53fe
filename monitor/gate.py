"""The pure pipeline, and the library's face: bytes in, decisions out.

``Gate.step`` is a function of its arguments only: no clock, no I/O, no hidden randomness. The
runtime keeps the returned state only after the decisions are committed; on an abort it simply
goes on with the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from monitor.config.policy import Policy
from monitor.core.decode import Decoder
from monitor.core.encode import encode_decisions
from monitor.core.events import Parsed
from monitor.core.labels import LabelTable
from monitor.core.ports import Meter
from monitor.core.revive import DeadColumns
from monitor.core.schema import Schema
from monitor.core.transform import is_plausible, plausible
from monitor.core.types import (
    DecisionBatch,
    FloatArray,
    RawBatch,
    Verdict,
)
from monitor.decide.apply import hold_denied, learned_from
from monitor.decide.assemble import Judges, assembled
from monitor.decide.gate_config import GateConfig, given
from monitor.decide.grouping import grouped
from monitor.decide.guard import (
    Failures,
    escalated,
    failed_warmup,
    stop_on,
)
from monitor.decide.incident_state import IncidentBook
from monitor.decide.judge import (
    Known,
    empty_reference,
    judge,
    learned,
    reasons,
)
from monitor.decide.judged import AnyDetector, Judged, channels_of
from monitor.decide.rules import Rules
from monitor.decide.warmup import Look, first_look, keep, let_by, second_look, unjudged
from monitor.detectors import default_detectors
from monitor.detectors.base import Sampling
from monitor.provenance.check import Origins, Signed, check
from monitor.provenance.registry import Registry
from monitor.state import partition
from monitor.state.codec import Pieces
from monitor.state.partition import GateState, root_of
from monitor.state.view import GROWN_EVENTS, Exchanged, exchange, rescaled

__all__ = ["Gate", "GateConfig"]

# A young state learns more from every event than a batch may wait for: it is judged in parts.
YOUNG_PART, YOUNG_SHARE = 64, 8
# Some detectors need a dozen numbers for each event and class at a time: 1,000 classes and 2,048
# events took 200 MB, and a part of a second before anything was decided.
MOST_CELLS = 1 << 19
Range = tuple[FloatArray, FloatArray]


class Gate:
    """Judges batches of raw events before an online model sees them.

    Examples
    --------
    >>> gate = Gate()
    >>> event = {"id": "a", "ts": 1.7e9, "source": "acct-1", "label": "ok", "features": [1.0, 2.0]}
    >>> decided = gate.check([event, b"not json"])
    >>> [Verdict(v).word for v in decided.verdict]
    ['accept', 'invalid']
    >>> bool(decided.warmup[0])
    True
    """

    def __init__(
        self,
        config: GateConfig | None = None,
        policy: Policy | None = None,
        detectors: Sequence[AnyDetector] | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._meter = meter
        self.config = config or GateConfig()
        self.policy = policy or Policy()
        self.detectors: tuple[AnyDetector, ...] = tuple(
            default_detectors() if detectors is None else detectors
        )
        self.channels = channels_of(self.detectors)
        self._by_share: dict[int, tuple[AnyDetector, ...]] = {1: self.detectors}
        self._decoder = Decoder(self.config.limits, self.config.hash_seed)
        self._rules = Rules.of(self.policy, self.config.hash_seed)
        self._registry = Registry.of(self.policy.provenance, self.config.secrets)
        self.state = self.start()
        self._next = 0

    def with_policy(self, policy: Policy) -> Gate:
        """The same gate under another policy, from the next batch on. State is shared."""
        other = Gate(self.config, policy, self.detectors, self._meter)
        other.state, other._next = self.state, self._next
        return other

    def start(self) -> GateState:
        """The state before any event."""
        return GateState(0, (), None, LabelTable(), {}, {})

    def dump(self, state: GateState) -> bytes:
        """The stored form of ``state``."""
        return partition.dump(state, self.detectors)

    def pieces(self, state: GateState) -> Pieces:
        """What :meth:`dump` gives, in pieces; of large arrays their own memory."""
        return partition.pieces(state, self.detectors)

    def load(self, data: bytes) -> GateState:
        """What :meth:`dump` stored. Raises StateError."""
        return partition.load(data, self.detectors)

    def digest(self, state: GateState) -> str:
        """32 hex digits that identify ``state``."""
        return partition.digest(state, self.detectors)

    def summary(self, data: bytes) -> GateState:
        """What another partition has learned itself, of what it stored. Raises StateError."""
        return partition.load(data, self.detectors, only_own=True)

    def own_summary(self, state: GateState) -> GateState:
        """What :meth:`summary` gives for the stored ``state``. Pure."""
        return replace(state, view=None, warm=(), incidents=IncidentBook(), signed=Signed())

    def exchange(
        self, state: GateState, number: int, peers: Mapping[int, GateState]
    ) -> Exchanged[GateState]:
        """The state of partition ``number`` with a new view of the others' summaries. Pure."""
        return exchange(
            *(state, number, peers, self.detectors),
            relearn=self._relearned,
            label_limit=self.config.limits.max_labels,
        )

    def alone(self, state: GateState) -> GateState:
        """The state without its view of other partitions, where there is no exchange any more."""
        return state if state.view is None else replace(state, view=None)

    def view_digest(self, state: GateState) -> str:
        """32 hex digits of what ``state`` knows of the other partitions; empty for nothing."""
        return "" if state.view is None else state.view.digest

    def check(self, batch: RawBatch | Sequence[bytes | str | Mapping[str, Any]]) -> DecisionBatch:
        """Judge a batch and remember it.

        Parameters
        ----------
        batch
            Raw records, or a sequence of events as JSON bytes, JSON text or mappings.

        Returns
        -------
        DecisionBatch
            One decision a record, in order; ``rows(Action.PASS)`` are the ones to learn from.
        """
        raw = batch if isinstance(batch, RawBatch) else RawBatch.of(given(batch), start=self._next)
        decisions, self.state = self.step(self.state, raw)
        self._next = max(self._next, raw.next_offset)
        return decisions

    def step(self, state: GateState, raw: RawBatch) -> tuple[DecisionBatch, GateState]:
        """Decide about ``raw`` given ``state``; the state after it. Pure."""
        parts: list[DecisionBatch] = []
        start = 0
        while start < len(raw) or not parts:
            end = start + self._pace(state, raw, start)
            whole = start == 0 and end >= len(raw)
            decisions, state = self._judged(state, raw if whole else raw.part(start, end))
            parts.append(decisions)
            start = end
        return DecisionBatch.joined(parts), state

    def let_by(self, state: GateState, raw: RawBatch) -> DecisionBatch:
        """Let ``raw`` pass, flagged as not judged; only invalid records are refused. Pure."""
        origins = self._parsed(state, raw)
        look = first_look(origins.parsed, self.config.schema)
        if state.schema is not None:
            decoded = self._decoder.columns(origins.parsed, state.schema, state.labels)
            look = Look(decoded.reject, decoded.detail)
        return self._unjudged(raw, origins, let_by(raw, look, self.policy, self.channels))

    def relive(self, state: GateState, raw: RawBatch) -> GateState:
        """The state after a batch that was committed before: a detector's failure stops nothing."""
        gate = self
        if self.config.on_detector_error == "stop":
            config = replace(self.config, on_detector_error="flag")
            gate = Gate(config, self.policy, self.detectors, self._meter)
        return gate.step(state, raw)[1]

    def _pace(self, state: GateState, raw: RawBatch, start: int) -> int:
        """How many records to judge at once from ``start`` on.

        Few while the state is young, and where there are very many classes.
        """
        if state.schema is None:
            return max(1, self._until_warm(state, raw, start) - start)
        roomy = MOST_CELLS // max(1, len(state.labels))
        return max(YOUNG_PART, min(state.known // YOUNG_SHARE, roomy))

    def _until_warm(self, state: GateState, raw: RawBatch, start: int) -> int:
        """The end of ``raw``, or the place after the record that completes the warm-up."""
        missing = self.config.warmup_events - state.events
        while missing > 0 and start < len(raw):
            parsed = self._decoder.parse(raw.part(start, start + missing))
            start += len(parsed.reject)
            missing -= int((first_look(parsed, self.config.schema).reject == 0).sum())
        return start

    def _judged(self, state: GateState, raw: RawBatch) -> tuple[DecisionBatch, GateState]:
        """Decide about records that are judged together."""
        origins = self._parsed(state, raw)
        state, parsed = replace(state, signed=origins.signed), origins.parsed
        if state.schema is None:
            return self._warm_up(state, raw, origins)
        decoded = self._decoder.columns(parsed, state.schema, state.labels)
        parsed.forget_features()
        failures = Failures(self._meter)
        judged = judge(
            *(self._sampling(state), state.scored_against, state.read_against),
            *(decoded.events, self.policy),
            recent=state.recent,
            failures=failures,
            rules=self._rules,
        )
        learns = learned_from(self.policy, raw.partition, decoded.events.offset)
        judged = replace(judged, learns=learns)
        why = reasons(*(self._sampling(state), state.scored_against, judged, self.policy), failures)
        by = Judges(self.detectors, self.policy, self._rules)
        known = (by, state.scored_against)
        folded = grouped(state.incidents, judged, why, (parsed, decoded), known)
        seen = replace(state, labels=decoded.labels, schema=decoded.schema, incidents=folded.book)
        judged, after = self._settled(seen, judged, failures)
        stop_on(failures, self.config.on_detector_error, raw)
        by = replace(by, folded=folded)
        decisions = assembled(raw, decoded, judged, (*why, failures.all()), by)
        return self._encoded(raw, origins, decisions), after

    def _parsed(self, state: GateState, raw: RawBatch) -> Origins:
        """The records, with what their signatures came to."""
        layout = None if state.schema is None else state.schema.layout
        return check(self._registry, raw, self._decoder.parse(raw, layout), state.signed)

    def _settled(
        self, state: GateState, judged: Judged, failures: Failures
    ) -> tuple[Judged, GateState]:
        """What comes out, with regard to what failed, and the state after learning.

        The detectors that work learn by the verdicts they gave themselves, whatever the setting:
        else one that fails for good would freeze the others' baselines. So the setting may also
        change over a restart.
        """
        after = self._learn(state, judged, failures)
        if failures:
            verdict = escalated(judged.verdict, self.config.on_detector_error)
            judged = replace(judged, verdict=verdict)
        return judged, after

    def _sampling(self, state: GateState) -> tuple[AnyDetector, ...]:
        """The detectors, for a state that meets a part of the stream."""
        share = 1 if state.view is None else 1 + len(state.view.members)
        if share not in self._by_share:
            self._by_share[share] = tuple(
                d.one_in(share) if isinstance(d, Sampling) else d for d in self.detectors
            )
        return self._by_share[share]

    def _unjudged(self, raw: RawBatch, origins: Origins, decisions: DecisionBatch) -> DecisionBatch:
        by = (self._rules, self.policy, self.config.hash_seed)
        return self._encoded(raw, origins, hold_denied(decisions, origins.parsed, *by))

    def _encoded(self, raw: RawBatch, origins: Origins, decisions: DecisionBatch) -> DecisionBatch:
        decisions = origins.on(decisions, self.policy)
        records = encode_decisions(raw, origins.parsed, decisions, local=self.config.local)
        return replace(decisions, records=records)

    def _learn(self, state: GateState, judged: Judged, failures: Failures) -> GateState:
        events = judged.events
        accepted, view = judged.accepted, state.view
        own, everybody = learned(
            self._sampling(state),
            Known(state.detectors, state.references),
            None if view is None else Known(view.detectors, view.references),
            judged,
            failures,
        )
        if view is not None and everybody is not None:
            view = replace(view, events=view.events + len(events), **everybody._asdict())
        after = replace(
            state,
            events=state.events + len(events),
            labels=state.labels.counted(events.y[accepted], events.source[accepted]),
            # Kept for learning them again under another schema, which grown states no more do.
            warm=state.warm if state.events < GROWN_EVENTS else (),
            recent=judged.recent,
            view=view,
            **own._asdict(),
        )
        return self._revive(after, events.x[accepted], failures)

    def _revive(self, state: GateState, x: FloatArray, failures: Failures) -> GateState:
        """Give columns that have come alive a scale, and tell the detectors."""
        if state.dead is None or state.schema is None or not len(state.dead.columns):
            return state
        dead = state.dead.add(x)
        alive = dead.alive(state.schema) if dead.due(state.dead) else dead.columns[:0]
        if not len(alive):
            return replace(state, dead=dead)
        schema, dead = dead.revive(state.schema, alive)
        after = replace(state, schema=schema, dead=dead)
        return rescaled(after, self.detectors, alive, failures)

    def _warm_up(
        self, state: GateState, raw: RawBatch, origins: Origins
    ) -> tuple[DecisionBatch, GateState]:
        config, failures, parsed = self.config, Failures(self._meter), origins.parsed
        look = first_look(parsed, config.schema)
        valid = np.flatnonzero(look.reject == 0).tolist()
        warm = keep(state.warm, [raw.values[i] for i in valid], config.warmup_max_bytes)
        grown = replace(state, warm=warm, events=state.events + len(valid))
        if grown.events >= config.warmup_events:
            grown, schema, (low, high) = self._bootstrap(grown, raw.partition, failures)
            look = second_look(self._decoder.columns(parsed, schema, grown.labels), low, high)
            stop_on(failures, config.on_detector_error, raw)
        hold = config.warmup == "hold"
        decisions = unjudged(raw, look, self.policy, self.channels, hold=hold)
        if failures:
            decisions = failed_warmup(decisions, failures, config.on_detector_error, self.policy)
        return self._unjudged(raw, origins, decisions), grown

    def _bootstrap(
        self, state: GateState, founder: int, failures: Failures
    ) -> tuple[GateState, Schema, Range]:
        """Learn the schema from the warm-up events, then live through them in small batches.

        Events that do not fit it, or hold values beyond belief, are left out. Also returns what
        is believable.
        """
        parsed = self._decoder.parse(RawBatch.of(state.warm))
        schema = Schema.learn(parsed, self.config.limits, spec=self.config.schema)
        model = replace(state, schema=schema, root=root_of(schema), founder=founder)
        fresh, believable = self._lived(state, parsed, model, failures)
        return replace(fresh, warm=state.warm if self.config.several else ()), schema, believable

    def _lived(
        self, state: GateState, parsed: Parsed, model: GateState, failures: Failures
    ) -> tuple[GateState, Range]:
        """What the warm-up events teach under the schema and labels of ``model``."""
        schema = model.schema
        assert schema is not None
        decoded = self._decoder.columns(parsed, schema, model.labels)
        believable = plausible(decoded.events.x)
        events = decoded.events.select(is_plausible(decoded.events.x, *believable))
        fresh = replace(
            state,
            events=0,
            schema=schema,
            labels=decoded.labels,
            detectors={d.name: d.empty(schema.n_columns) for d in self.detectors},
            references={d.name: empty_reference(d) for d in self.detectors},
            dead=DeadColumns.watch(schema),
            root=model.root,
            founder=model.founder,
            view=None,
        )
        for first in range(0, len(events), YOUNG_PART):
            chunk = events.select(np.arange(first, min(first + YOUNG_PART, len(events))))
            # A detector that fails on one part of the sample may well learn from the next.
            found = Failures(self._meter)
            judged = judge(
                *(self.detectors, fresh.detectors, fresh.references, chunk, self.policy),
                failures=found,
            )
            everything = np.full(len(chunk), Verdict.ACCEPT, dtype=np.uint8)
            fresh = self._learn(fresh, replace(judged, verdict=everything), found)
            failures.add(found)
        return fresh, believable

    def _relearned(self, state: GateState, model: GateState) -> GateState:
        """The young ``state`` under another partition's schema and labels.

        Its references stay: it goes on being judged, by thresholds that follow what they meet.
        """
        parsed = self._decoder.parse(RawBatch.of(state.warm))
        fresh, _ = self._lived(state, parsed, model, Failures())
        return replace(fresh, events=state.events, references=state.references)
