"""Everything the gate knows about one input partition, and its stored form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import xxhash

from monitor.core.errors import StateError
from monitor.core.labels import LabelTable
from monitor.core.revive import DeadColumns
from monitor.core.schema import Schema
from monitor.decide.judge import empty_reference
from monitor.decide.world import Recent
from monitor.detectors.base import Detector
from monitor.detectors.calibration import Reference
from monitor.state import codec

FORMAT = 3
READABLE = (1, 2, FORMAT)
"""Format 1 did not keep who brought a label, and how often and when it was used; format 2 not what
the last events looked like, by which a change of the world is told."""


@dataclass(frozen=True, slots=True)
class GateState:
    """The state of one partition after a batch.

    Attributes
    ----------
    events
        Valid events seen; those of the warm-up that were left out count only until it ends.
    warm
        The raw warm-up events, or the shorter ones of them, until the schema is learned from them.
    schema
        None during the warm-up.
    labels
        Label table with who brought each label and its use; bounded by its limit.
    detectors, references
        Detector states and their calibration references, by detector name.
    dead
        Columns that have not varied yet; None during the warm-up.
    recent
        The last events, for telling a change of the world.
    """

    events: int
    warm: tuple[bytes, ...]
    schema: Schema | None
    labels: LabelTable
    detectors: Mapping[str, Any]
    references: Mapping[str, Reference]
    dead: DeadColumns | None = None
    recent: Recent = field(default_factory=Recent.empty)


def dump(state: GateState, detectors: Sequence[Detector[Any]]) -> bytes:
    """The stored form: one msgpack map with a format number and each detector's version."""
    tree = {
        "format": FORMAT,
        "events": state.events,
        "warm": list(state.warm),
        "schema": None if state.schema is None else codec.pack(state.schema.to_dict()),
        "labels": state.labels.to_list(),
        "detectors": {
            d.name: [d.state_version, codec.dump(state.detectors[d.name])]
            for d in detectors
            if d.name in state.detectors
        },
        "dead": None if state.dead is None else codec.dump(state.dead),
        "recent": codec.dump(state.recent),
        "references": {name: codec.dump(ref) for name, ref in state.references.items()},
    }
    return codec.seal(tree)


def load(data: bytes, detectors: Sequence[Detector[Any]]) -> GateState:
    """Read back what :func:`dump` wrote.

    Raises
    ------
    StateError
        When damaged, or written by a later version. A detector whose stored form is an older one
        starts from nothing.
    """
    tree = codec.unseal(data)
    if tree.get("format") not in READABLE:
        raise StateError(
            f"stored state has format {tree.get('format')}, this version reads 1 to {FORMAT}; "
            "start from an empty state folder or run the version that wrote it"
        )
    try:
        schema = None if tree["schema"] is None else Schema.from_dict(codec.unpack(tree["schema"]))
        states: dict[str, Any] = {}
        fresh: dict[str, Reference] = {}
        width = 0 if schema is None else len(schema.columns)
        for detector in detectors:
            version, blob = tree["detectors"].get(detector.name, (0, b""))
            if version < detector.state_version:
                # Listed since this was stored, or keeping something else since: it starts from
                # nothing, and is silent at first.
                if schema is not None:
                    states[detector.name] = detector.empty(schema.n_columns)
                    fresh[detector.name] = empty_reference(detector)
                continue
            if version > detector.state_version:
                raise StateError(
                    f"stored state of {detector.name} has version {version}, "
                    f"this version reads {detector.state_version}"
                )
            states[detector.name] = codec.load(type(detector.empty(width)), blob)
        return GateState(
            int(tree["events"]),
            tuple(tree["warm"]),
            schema,
            LabelTable.from_list(tree["labels"]),
            states,
            fresh
            | {
                name: codec.load(Reference, blob)
                for name, blob in tree["references"].items()
                if name not in fresh
            },
            None if tree["dead"] is None else codec.load(DeadColumns, tree["dead"]),
            codec.load(Recent, tree["recent"]) if "recent" in tree else Recent.empty(),
        )
    except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise StateError(f"stored state cannot be read: {error}") from error


def digest(state: GateState, detectors: Sequence[Detector[Any]]) -> str:
    """32 hex digits that differ when anything in the state differs."""
    return xxhash.xxh3_128_hexdigest(dump(state, detectors))
