"""What the reviews ledger says: one JSON row a fact, with a key of its own. Pure.

::

    release/KEY, confirm/KEY    who reviewed the held event KEY, when, why, in which operation
    op/ID                       an operation as a whole, for the audit trail
    retract/PLACE               who retracted the accepted event at this place, when, why, where
    erase/ID                    a source whose events are erased, known by its digest
    judged/INSTANCE             how many events an instance has judged, replaced now and then
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from monitor.core.desk import ReviewStatus
from monitor.core.errors import UsageError
from monitor.core.held import held_key, parse_key

log = logging.getLogger(__name__)

Row = tuple[bytes, bytes | None]

VERSION = 1
RETRACT = "retract"
STATUS = {"release": ReviewStatus.RELEASED, "confirm": ReviewStatus.CONFIRMED}


@dataclass(frozen=True, slots=True)
class Operation:
    """Who does what, why and when; ``id`` names it in all its rows."""

    id: str
    verb: str
    who: str
    why: str
    when: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What some rows say, as rows of the tables, in the ledger's order."""

    reviews: list[dict[str, Any]] = field(default_factory=list)
    operations: list[dict[str, Any]] = field(default_factory=list)
    erasures: list[tuple[str, Mapping[int, int]]] = field(default_factory=list)
    erased_accepted: list[tuple[str, Mapping[int, int]]] = field(default_factory=list)
    retractions: list[dict[str, Any]] = field(default_factory=list)
    judged: list[dict[str, Any]] = field(default_factory=list)


def _row(key: str, **values: Any) -> Row:
    return key.encode(), orjson.dumps({"v": VERSION, **values})


def review_row(operation: Operation, partition: int, offset: int) -> Row:
    """One event's review."""
    key = f"{operation.verb}/{held_key(partition, offset)}"
    o = operation
    return _row(key, who=o.who, why=o.why, when=o.when, op=o.id)


def operation_row(operation: Operation, details: Mapping[str, Any]) -> Row:
    """The operation as a whole."""
    o = operation
    return _row(f"op/{o.id}", verb=o.verb, who=o.who, why=o.why, when=o.when, details=details)


def retract_row(operation: Operation, partition: int, offset: int) -> Row:
    """One accepted event's retraction; the key is its place in the accepted topic."""
    o = operation
    key = f"{RETRACT}/{held_key(partition, offset)}"
    return _row(key, who=o.who, why=o.why, when=o.when, op=o.id)


def erase_row(
    operation: Operation,
    digest: str,
    upto: Mapping[int, int],
    accepted: Mapping[int, int] | None = None,
) -> Row:
    """A source's events are erased: held ones up to ``upto``, accepted ones up to ``accepted``.

    Both by partition, the first of the input and the second of the accepted topic.
    """
    places = {str(part): pos for part, pos in upto.items()}
    more = {str(part): pos for part, pos in (accepted or {}).items()}
    return _row(
        f"erase/{operation.id}",
        source_sha256=digest,
        upto=places,
        **({"accepted": more} if more else {}),
    )


def judged_row(instance: str, began: float, events: int) -> Row:
    """How many events ``instance`` has judged since ``began``."""
    return _row(f"judged/{instance}", began=began, events=events)


def read_rows(rows: Iterable[Row]) -> Facts:
    """What rows say; what cannot be read, or is of a later version, is reported and left out.

    Examples
    --------
    >>> operation = Operation("7", "release", "ann", "fine", 5.0)
    >>> read_rows([review_row(operation, 0, 9)]).reviews[0]["status"]
    'released'
    """
    facts = Facts()
    for key, value in rows:
        if value is None:
            continue
        try:
            said = orjson.loads(value)
            if said["v"] > VERSION:
                raise ValueError("a later version wrote it")
            kind, _, name = key.decode().partition("/")
            _read(facts, kind, name, said)
        except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            log.warning("a row of the reviews ledger is left out, %r: %s", key[:80], error)
    return facts


def _read(facts: Facts, kind: str, name: str, said: Mapping[str, Any]) -> None:
    if kind in STATUS:
        part, pos = parse_key(name)
        row = {"part": part, "pos": pos, "status": STATUS[kind].value, "op": str(said["op"])}
        facts.reviews.append(row | _who(said))
    elif kind == "op":
        details = orjson.dumps(dict(said["details"])).decode()
        row = {"id": name, "what": str(said["verb"]), "details": details}
        facts.operations.append(row | _who(said))
    elif kind == "erase":
        digest = str(said["source_sha256"])
        facts.erasures.append((digest, _places(said["upto"])))
        facts.erased_accepted.append((digest, _places(said.get("accepted") or {})))
    elif kind == RETRACT:
        part, pos = parse_key(name)
        facts.retractions.append({"part": part, "pos": pos, "op": str(said["op"])})
    elif kind == "judged":
        began, events = float(said["began"]), int(said["events"])
        facts.judged.append({"instance": name, "began": began, "events": events})
    else:
        raise ValueError("this version knows no such row")


def _places(said: Mapping[str, Any]) -> dict[int, int]:
    return {int(part): int(pos) for part, pos in said.items()}


def _who(said: Mapping[str, Any]) -> dict[str, Any]:
    who, why = (str(said[name]).replace("\0", "\ufffd") for name in ("who", "why"))
    return {"who": who, "why": why, "at": float(said["when"])}
