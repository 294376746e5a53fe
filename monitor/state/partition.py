"""Everything the gate knows about one input partition, and its stored form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import xxhash

from monitor.core.errors import StateError
from monitor.core.labels import LabelTable
from monitor.core.revive import DeadColumns
from monitor.core.schema import Schema
from monitor.decide.data_faults import Pipeline
from monitor.decide.incident_state import IncidentBook
from monitor.decide.judge import empty_reference
from monitor.decide.world import Recent
from monitor.detectors.base import Detector
from monitor.detectors.calibration import Reference
from monitor.provenance.check import Signed
from monitor.state import codec
from monitor.state.codec import Pieces

FORMAT = 5
READABLE = (1, 2, 3, 4, FORMAT)
"""Format 1 did not keep who brought a label, and how often and when it was used; format 2 not what
the last events looked like, by which a change of the world is told; neither knew of other
partitions; format 3 knew of no incidents; format 4 not whether events had come before."""
NOBODY = 1 << 30
"""The founder of a schema that was learned before founders were kept: it comes last."""


@dataclass(frozen=True, slots=True)
class View:
    """What a partition is judged by when there are others: everybody's evidence as one.

    It is made when the partition stores its state, of that state and of the latest summaries of
    the others, and learns from the partition's own events until the next time. Nobody but the
    partition itself ever sees it, so no evidence comes back as someone else's.

    Attributes
    ----------
    events
        Valid events behind it, of all partitions.
    members
        The other partitions in it, in order, and the events each had seen by then.
    digest
        32 hex digits of what was merged; they stay until the next time.
    detectors, references
        Merged detector states, and the calibration references of what they score, by name.
    """

    events: int
    members: tuple[tuple[int, int], ...]
    digest: str
    detectors: Mapping[str, Any]
    references: Mapping[str, Reference]


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
    root, founder
        Which schema this is: 32 hex digits of it as it was first learned, and the partition that
        learned it. States with the same root, whatever has come alive since, can be merged.
    view
        What is scored against instead of ``detectors`` while there are other partitions.
    incidents
        What flagged events were grouped into.
    signed
        The newest signed time of each key; of nothing unless there is a replay window.
    """

    events: int
    warm: tuple[bytes, ...]
    schema: Schema | None
    labels: LabelTable
    detectors: Mapping[str, Any]
    references: Mapping[str, Reference]
    dead: DeadColumns | None = None
    recent: Recent = field(default_factory=Recent.empty)
    root: str = ""
    founder: int = NOBODY
    view: View | None = None
    incidents: IncidentBook = field(default_factory=IncidentBook)
    signed: Signed = field(default_factory=Signed)

    @property
    def scored_against(self) -> Mapping[str, Any]:
        """Detector states by name: everybody's where there is a view, else the own ones."""
        return self.detectors if self.view is None else self.view.detectors

    @property
    def read_against(self) -> Mapping[str, Reference]:
        """Calibration references by name: everybody's where there is a view, else the own ones."""
        return self.references if self.view is None else self.view.references

    @property
    def known(self) -> int:
        """Valid events behind what is scored against."""
        return self.events if self.view is None else self.view.events


def root_of(schema: Schema) -> str:
    """32 hex digits of a schema."""
    return xxhash.xxh3_128_hexdigest(codec.seal(codec.pack(schema.to_dict())))


def dump(state: GateState, detectors: Sequence[Detector[Any]]) -> bytes:
    """The stored form: one msgpack map with a format number and each detector's version."""
    return b"".join(pieces(state, detectors))


def pieces(state: GateState, detectors: Sequence[Detector[Any]]) -> Pieces:
    """What :func:`dump` gives, in pieces, without a copy of the arrays."""
    tree = {
        "format": FORMAT,
        "events": state.events,
        "warm": list(state.warm),
        "schema": None if state.schema is None else codec.pack(state.schema.to_dict()),
        "labels": state.labels.to_list(),
        "detectors": _dumped(state.detectors, detectors),
        "dead": None if state.dead is None else _blob(state.dead),
        "recent": _blob(state.recent),
        "references": {name: _blob(ref) for name, ref in state.references.items()},
        "incidents": _blob(state.incidents),
        "root": state.root,
        "founder": state.founder,
        "view": None
        if state.view is None
        else {
            "events": state.view.events,
            "members": [list(member) for member in state.view.members],
            "digest": state.view.digest,
            "detectors": _dumped(state.view.detectors, detectors),
            "references": {n: _blob(ref) for n, ref in state.view.references.items()},
        },
    }
    if state.signed.newest:  # formats that know nothing of it leave it out
        tree["signed"] = _blob(state.signed)
    return codec.sealed(tree)


def _blob(value: Any) -> codec.Blob:
    return codec.Blob(codec.sealed(codec.pack(value)))


def _dumped(
    states: Mapping[str, Any], detectors: Sequence[Detector[Any]]
) -> dict[str, tuple[int, codec.Blob]]:
    return {d.name: (d.state_version, _blob(states[d.name])) for d in detectors if d.name in states}


def named(view: View, detectors: Sequence[Detector[Any]]) -> View:
    """``view`` with the digest of what was merged, and of whose it is."""
    tree = [
        [list(member) for member in view.members],
        _dumped(view.detectors, detectors),
        {name: _blob(ref) for name, ref in view.references.items()},
    ]
    return replace(view, digest=_hash(codec.sealed(tree)))


def load(data: bytes, detectors: Sequence[Detector[Any]], *, only_own: bool = False) -> GateState:
    """Read back what :func:`dump` wrote.

    Parameters
    ----------
    data
        The stored form.
    detectors
        Those that run.
    only_own
        Leave out what belongs to the partition alone: its view, and its kept raw events.

    Raises
    ------
    StateError
        When damaged, or written by a later version. A detector whose stored form is an older one
        starts from nothing.
    """
    tree = _opened(data)
    if tree.get("format") not in READABLE:
        raise StateError(
            f"stored state has format {tree.get('format')}, this version reads 1 to {FORMAT}; "
            "start from an empty state folder or run the version that wrote it"
        )
    try:
        schema = None if tree["schema"] is None else Schema.from_dict(codec.unpack(tree["schema"]))
        width = 0 if schema is None else schema.n_columns
        states = _loaded(tree["detectors"], detectors, width)
        references = _references(tree["references"], states)
        view = None if only_own else tree.get("view")
        if schema is not None:
            # Listed since this was stored, or keeping something else since: it starts from
            # nothing, and is silent at first.
            states = {d.name: d.empty(width) for d in detectors} | states
            references = {d.name: empty_reference(d) for d in detectors} | references
        return GateState(
            int(tree["events"]),
            () if only_own else tuple(tree["warm"]),
            schema,
            LabelTable.from_list(tree["labels"]),
            states,
            references,
            None if tree["dead"] is None else codec.load(DeadColumns, tree["dead"]),
            codec.load(Recent, tree["recent"]) if "recent" in tree else Recent.empty(),
            tree.get("root") or ("" if schema is None else root_of(schema)),
            int(tree.get("founder", NOBODY)),
            None if view is None else _view(view, detectors, width),
            IncidentBook()
            if only_own or "incidents" not in tree
            else _book(tree["incidents"], int(tree["format"])),
            Signed() if only_own or "signed" not in tree else codec.load(Signed, tree["signed"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise StateError(f"stored state cannot be read: {error}") from error


def _book(stored: bytes, number: int) -> IncidentBook:
    if number > 4:
        return codec.load(IncidentBook, stored)
    tree = codec.unseal(stored)
    tree["pipeline"] = codec.pack(Pipeline())  # it looks at the data anew
    return codec.load(IncidentBook, codec.seal(tree))


def _opened(data: bytes) -> dict[str, Any]:
    """The tree in ``data``, its detectors' states left where they lie.

    Copied out, they would take as much memory as the state at the moment when it is there twice
    anyhow. What has another form than it should is left to the reader of the tree.
    """
    body = codec.body_of(data)
    try:
        parts = msgspec.msgpack.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        tree: dict[str, Any] = codec.unseal(data)
        return tree
    return {name: _part(name, raw) for name, raw in parts.items()}


def _part(name: str, raw: msgspec.Raw) -> Any:
    try:
        if name == "detectors":
            return msgspec.msgpack.decode(raw, type=dict[str, tuple[int, memoryview]])
        if name == "view":
            view = msgspec.msgpack.decode(raw, type=dict[str, msgspec.Raw] | None)
            return view and {key: _part(key, value) for key, value in view.items()}
    except msgspec.ValidationError:
        pass
    return msgspec.msgpack.decode(raw)


def _loaded(
    stored: Mapping[str, Any], detectors: Sequence[Detector[Any]], width: int
) -> dict[str, Any]:
    """Detector states, without those that are not stored or of an older version."""
    states: dict[str, Any] = {}
    for detector in detectors:
        version, blob = stored.get(detector.name, (0, b""))
        if version > detector.state_version:
            raise StateError(
                f"stored state of {detector.name} has version {version}, "
                f"this version reads {detector.state_version}"
            )
        if version == detector.state_version:
            states[detector.name] = codec.load(type(detector.empty(width)), blob)
    return states


def _references(stored: Mapping[str, bytes], states: Mapping[str, Any]) -> dict[str, Reference]:
    return {name: codec.load(Reference, stored[name]) for name in states}


def _view(tree: Mapping[str, Any], detectors: Sequence[Detector[Any]], width: int) -> View:
    states = _loaded(tree["detectors"], detectors, width)
    return View(
        int(tree["events"]),
        tuple((int(p), int(n)) for p, n in tree["members"]),
        str(tree["digest"]),
        {d.name: d.empty(width) for d in detectors} | states,
        {d.name: empty_reference(d) for d in detectors} | _references(tree["references"], states),
    )


def digest(state: GateState, detectors: Sequence[Detector[Any]]) -> str:
    """32 hex digits that differ when anything in the state differs."""
    return _hash(pieces(state, detectors))


def _hash(parts: Pieces) -> str:
    found = xxhash.xxh3_128()
    for part in parts:
        found.update(part)
    return found.hexdigest()
