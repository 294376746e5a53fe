"""What a partition knows of the others: their summaries, merged with its own state to score by.

A partition takes a new view only when it stores its own state, and the view is part of what it
stores. So a recovery, which is that state and the input since, needs no record of who published
what when. What it publishes is what it learned itself, never what it was told.

States can be merged only under one schema and one numbering of labels:

- *Schema.* Each partition learns one in its warm-up, so there are several at first. The one of the
  lowest-numbered partition, or one that a grown state has already, is taken by the young others:
  they learn their kept warm-up events again under it, and are judged meanwhile as before. Two
  grown states with different schemas stay apart.
- *Columns that came alive* take the scale of the lowest-numbered partition in which they did.
- *Labels* take the numbers of the lowest-numbered partition, and behind them whatever the others
  have more, in order. A partition whose own numbers differ renumbers its table. What it had learned
  of labels that lose their number stays under it where that is little; otherwise its own evidence
  starts anew, and the others' stands in for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from monitor.core.labels import LabelTable
from monitor.core.types import IntArray
from monitor.decide.guard import OBSERVE, Failures, said, still_finite
from monitor.detectors.base import Detector, Lasting, Rescaling
from monitor.detectors.calibration import Reference
from monitor.detectors.pooling import pooled
from monitor.sketches.shared import alike
from monitor.state.partition import GateState, View, named

GROWN_EVENTS = 8192
LITTLE = 0.01
"""Share of a state's labelled events that may change their label's number unnoticed."""

G = TypeVar("G")
Relearn = Callable[[GateState, GateState], GateState]


@dataclass(frozen=True, slots=True)
class Exchanged(Generic[G]):
    """The state with its new view; what an operator should know; which partitions were left out."""

    state: G
    notices: tuple[str, ...] = ()
    apart: tuple[int, ...] = ()


def rescaled(
    state: GateState,
    detectors: Sequence[Detector[Any]],
    columns: IntArray,
    failures: Failures | None = None,
) -> GateState:
    """With every detector told that ``columns`` int64[k] have got a scale.

    One that fails is noted in ``failures`` and stays as it was; without them its error is raised.
    """

    def told(states: Mapping[str, Any]) -> dict[str, Any]:
        after = dict(states)
        for d in detectors:
            if isinstance(d, Rescaling):
                held = states[d.name]
                tell = partial(d.rescaled, held, columns)
                after[d.name] = (
                    tell() if failures is None else failures.attempt(d.name, OBSERVE, tell, held)
                )
        return after

    view = state.view
    if view is not None:
        view = replace(
            view, detectors=told(view.detectors), references=_rejuvenated(view.references)
        )
    return replace(
        state,
        detectors=told(state.detectors),
        references=_rejuvenated(state.references),
        view=view,
    )


def _rejuvenated(references: Mapping[str, Reference]) -> dict[str, Reference]:
    return {name: held.rejuvenated() for name, held in references.items()}


def exchange(
    state: GateState,
    partition: int,
    peers: Mapping[int, GateState],
    detectors: Sequence[Detector[Any]],
    *,
    relearn: Relearn,
    label_limit: int,
) -> Exchanged[GateState]:
    """Take a new view of the others. Pure.

    Parameters
    ----------
    state
        Of ``partition``, after a batch.
    partition
        Its number.
    peers
        By partition, the latest state each has published, without its view.
    detectors
        Those that run.
    relearn
        ``(state, model)`` to the state that its kept warm-up events give under the schema and the
        labels of ``model``.
    label_limit
        Most labels in a table.
    """
    if state.schema is None:
        return Exchanged(state)
    others = {q: s for q, s in sorted(peers.items()) if q != partition and s.schema is not None}
    model = _model(state, partition, others)
    if model is not None:
        state = relearn(state, model)
    elif state.events >= GROWN_EVENTS:
        state = replace(state, warm=())
    found = _Found(partition)
    others = found.fitting(state, others)
    failures = Failures()
    state, others = _one_scale(state, partition, others, (detectors, failures))
    found.notices.extend(f"Partition {partition}: {said(f)}." for f in failures.all())
    everybody = dict(sorted({**others, partition: state}.items()))
    labels = _one_table([held.labels for held in everybody.values()], label_limit)
    others = found.numbered_alike(labels, others)
    state = _renumbered(state, labels, detectors)
    merged, members = found.merged(state, others, detectors)
    view = None
    if members:
        events = state.events + sum(events for _, events in members)
        references = {
            d.name: pooled(
                state.read_against[d.name],
                state.references[d.name],
                [others[q].references[d.name] for q, _ in members],
                discrete=d.discrete,
            )
            for d in detectors
        }
        view = named(View(events, members, "", merged, references), detectors)
    return Exchanged(replace(state, view=view), tuple(found.notices), tuple(sorted(found.apart)))


class _Found:
    """Collects who is left out of a view, and why; lives for one call only."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.notices: list[str] = []
        self.apart: list[int] = []

    def _leave(self, q: int, why: str) -> None:
        self.apart.append(q)
        if why:
            self.notices.append(
                f"Partition {self.partition} is judged without what partition {q} knows: {why}."
            )

    def fitting(self, state: GateState, others: Mapping[int, GateState]) -> dict[int, GateState]:
        """Those with the same schema."""
        kept = {}
        mine = _gradient_dim(state)
        for q, other in others.items():
            theirs = _gradient_dim(other)
            if other.root != state.root:
                grown = min(state.events, other.events) >= GROWN_EVENTS
                self._leave(q, "they learned different features before they met" if grown else "")
            elif mine is not None and theirs is not None and mine != theirs:
                self._leave(q, f"its gradients have {theirs} numbers instead of {mine}")
            else:
                kept[q] = other
        return kept

    def numbered_alike(
        self, labels: LabelTable, others: Mapping[int, GateState]
    ) -> dict[int, GateState]:
        """Those whose labels have, but for hardly used ones, the numbers of ``labels``."""
        kept = {}
        for q, other in others.items():
            if _moved(other.labels, labels) <= LITTLE:
                kept[q] = other
            else:
                self._leave(q, "it numbers its labels in another way, until it has seen this one's")
        return kept

    def merged(
        self,
        state: GateState,
        others: Mapping[int, GateState],
        detectors: Sequence[Detector[Any]],
    ) -> tuple[dict[str, Any], tuple[tuple[int, int], ...]]:
        """Everybody's detector states as one, the own first, and who is in it."""
        merged, members = dict(state.detectors), []
        before = {} if state.view is None else dict(state.view.members)
        for q, other in others.items():
            try:
                theirs = _since(other, before.get(q), detectors)
                both = {d.name: d.merge(merged[d.name], theirs[d.name]) for d in detectors}
                for name, state_of in both.items():
                    still_finite(merged[name], state_of)
            except MemoryError:
                raise
            except Exception as error:
                # It came from outside, and may be of any shape.
                self._leave(q, f"it does not fit ({type(error).__name__}: {error})")
            else:
                merged = both
                members.append((q, other.events))
        return alike(merged), tuple(members)


def _since(
    other: GateState, before: int | None, detectors: Sequence[Detector[Any]]
) -> Mapping[str, Any]:
    """Detector states of a partition that had seen ``before`` events when it was last met.

    What it counted lately was told then, and has become old since by the clocks of the others. Of
    a partition to which nothing comes it would stay new for ever.
    """
    if before is None:
        return other.detectors
    came, held = max(other.events - before, 0), other.detectors
    return {
        d.name: d.since(held[d.name], came) if isinstance(d, Lasting) else held[d.name]
        for d in detectors
    }


def _gradient_dim(state: GateState) -> int | None:
    return None if state.schema is None else state.schema.gradient_dim


def _model(state: GateState, partition: int, others: Mapping[int, GateState]) -> GateState | None:
    """Whose schema to take instead of the own one; None to keep that."""
    if state.events >= GROWN_EVENTS:
        return None
    ranked = [(s.events < GROWN_EVENTS, s.founder, s.root, q) for q, s in others.items()]
    best = min([*ranked, (True, state.founder, state.root, partition)])
    return None if best[2] == state.root else others[best[3]]


def _one_scale(
    state: GateState,
    partition: int,
    others: Mapping[int, GateState],
    told: tuple[Sequence[Detector[Any]], Failures],
) -> tuple[GateState, dict[int, GateState]]:
    """Everybody with the scale of each column that the first has in whom it is alive."""
    everybody = dict(sorted({**others, partition: state}.items()))
    schemas = [held.schema for held in everybody.values() if held.schema is not None]
    dead = np.stack([schema.scales.count == 1 for schema in schemas])
    scales = schemas[0].scales
    for at, schema in enumerate(schemas[1:], 1):
        columns = np.flatnonzero(dead[:at].all(axis=0) & ~dead[at])
        if len(columns):
            scales = scales.taking(columns, schema.scales, columns)
    size = next((s.gradient_dim for s in schemas if s.gradient_dim is not None), None)
    schema = replace(schemas[0], scales=scales, gradient_dim=size)
    done = {}
    for (q, held), was_dead in zip(everybody.items(), dead, strict=True):
        gained = np.flatnonzero(was_dead & (scales.count > 1))
        watched = None if held.dead is None else held.dead.without(gained)
        moved = replace(held, schema=schema, dead=watched)
        done[q] = rescaled(moved, told[0], gained, told[1]) if len(gained) else moved
    state = done.pop(partition)
    return state, done


def _one_table(tables: Sequence[LabelTable], limit: int) -> LabelTable:
    """The first table, and behind it what the others have more, in order, as far as it fits."""
    rows = tables[0].to_list()
    known = {(row[0], row[1]) for row in rows}
    for table in tables[1:]:
        for row in table.to_list():
            if (row[0], row[1]) not in known and len(rows) < limit:
                known.add((row[0], row[1]))
                rows.append(row)
    return LabelTable.from_list(rows)


def _moved(table: LabelTable, to: LabelTable) -> float:
    """Share of the events counted in ``table`` whose label has another number in ``to``."""
    total = sum(table.used)
    place = to.find(table.values).tolist()
    moved = sum(
        n for at, (n, there) in enumerate(zip(table.used, place, strict=True)) if at != there
    )
    return moved / total if total else 0.0


def _renumbered(
    state: GateState, labels: LabelTable, detectors: Sequence[Detector[Any]]
) -> GateState:
    """With the numbers of ``labels``, and its own use of those it knows."""
    share = _moved(state.labels, labels)
    own = {(row[0], row[1]): row for row in state.labels.to_list()}
    rows = [own.get((row[0], row[1]), row) for row in labels.to_list()]
    state = replace(state, labels=LabelTable.from_list(rows))
    if share <= LITTLE or state.schema is None:
        return state
    width = state.schema.n_columns
    return replace(state, detectors={d.name: d.empty(width) for d in detectors})
