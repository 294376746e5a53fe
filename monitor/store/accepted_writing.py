"""What changes the index of accepted events: adding, erasing, forgetting. In a transaction each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from sqlalchemy import Connection, delete, func, select, update

from monitor.core.blast import Place
from monitor.lineage.columns import Words
from monitor.lineage.names import bloom, digest, may_hold
from monitor.lineage.segment import Segment, stored, together
from monitor.store import accepted_tables as t
from monitor.store.ledger_rows import RETRACT, Facts
from monitor.store.rows import DAY_SECONDS
from monitor.store.tables import insert_new, upsert
from monitor.store.writing import at_places


@dataclass(frozen=True, slots=True)
class Kept:
    """How much is kept: days since acceptance, and bytes of segments; events a segment."""

    days: float
    bytes: int
    segment_events: int = 4096


def places(connection: Connection) -> dict[int, int]:
    """Where reading goes on."""
    return {row.part: row.next for row in connection.execute(select(t.place))}


def add(
    connection: Connection,
    new: Segment | None,
    reached: Mapping[int, int],
    begins: Mapping[int, int],
    size: int,
) -> None:
    """Store events and where reading goes on after them, ``size`` of them a segment.

    They fill the last segment up first, which is written anew.
    """
    if new is not None:
        new = _without_erased(connection, new)
        last = connection.execute(
            select(t.segment.c.id, t.segment.c.rows).order_by(t.segment.c.id.desc()).limit(1)
        ).first()
        number, parts = 0, [new]
        if last is not None:
            number = last.id + 1
            if last.rows < size:
                parts.insert(0, segment(connection, last.id, last.rows))
                remove(connection, [last.id])
                number = last.id
        every = together(parts)
        for i in range(0, len(every), size):
            rows = np.arange(i, min(i + size, len(every)))
            put(connection, number, every if len(rows) == len(every) else every.take(rows))
            number += 1
    known = {row.part: row for row in connection.execute(select(t.place))}
    upsert(
        connection,
        t.place,
        [
            {
                "part": part,
                "next": at,
                "first": known[part].first if part in known else begins.get(part, 0),
            }
            for part, at in reached.items()
        ],
    )


def put(
    connection: Connection, number: int, made: Segment, spans: Mapping[str, Any] | None = None
) -> None:
    """Store a segment; ``spans`` where they are not those of its events."""
    columns = made.packed()
    sources, subjects = bloom(made.source.names), bloom(made.subject.names)
    ts, at = made.times
    size = sum(map(len, columns.values())) + len(sources) + len(subjects)
    row = {
        "id": number,
        "rows": len(made),
        "size": size,
        "first_ts": float(ts.min()),
        "last_ts": float(ts.max()),
        "last_at": float(at.max()),
        "spans": orjson.dumps(
            made.spans() if spans is None else spans, option=orjson.OPT_NON_STR_KEYS
        ).decode(),
        "sources": sources,
        "subjects": subjects,
    }
    insert_new(connection, t.segment, [row])
    insert_new(
        connection,
        t.column,
        [{"segment": number, "name": name, "data": data} for name, data in columns.items()],
    )


def segment(connection: Connection, number: int, rows: int) -> Segment:
    """A segment with all its columns."""
    found = connection.execute(
        select(t.column.c.name, t.column.c.data).where(t.column.c.segment == number)
    )
    return stored(rows, {row.name: bytes(row.data) for row in found})


def remove(connection: Connection, numbers: Sequence[int]) -> None:
    """Take segments away."""
    connection.execute(delete(t.column).where(t.column.c.segment.in_(numbers)))
    connection.execute(delete(t.segment).where(t.segment.c.id.in_(numbers)))


def clear(connection: Connection) -> None:
    """Forget all events; what the ledger says of places stays, as it would after a restart."""
    for table in (t.column, t.segment, t.place):
        connection.execute(delete(table))


def forget(connection: Connection, kept: Kept, now: float) -> int:
    """Remove the oldest segments that go over the bounds; how many. The last one stays."""
    c = t.segment.c
    of = select(c.id, c.size, c.last_at, c.spans).order_by(c.id)
    rows = connection.execute(of).all()
    excess = sum(row.size for row in rows) - kept.bytes
    gone = []
    for row in rows[:-1]:
        if excess <= 0 and row.last_at >= now - kept.days * DAY_SECONDS:
            break
        excess -= row.size
        gone.append(row)
    for row in gone:
        for part, (_, last) in orjson.loads(row.spans).items():
            connection.execute(
                update(t.place)
                .where(t.place.c.part == int(part), t.place.c.first <= last)
                .values(first=last + 1)
            )
    if gone:
        remove(connection, [row.id for row in gone])
    return len(gone)


def apply(connection: Connection, facts: Facts) -> None:
    """Store what the ledger says; again changes nothing, the first retraction counts."""
    insert_new(
        connection,
        t.retracted,
        facts.retractions,
    )
    insert_new(
        connection,
        t.request,
        [
            {name: row[name] for name in ("id", "at", "who", "why", "details")}
            for row in facts.operations
            if row["what"] == RETRACT
        ],
    )
    for source, upto in facts.erased_accepted:
        if upto:
            _erase(connection, source, upto)


def retracted(connection: Connection, wanted: Sequence[Place]) -> dict[Place, str]:
    """Which of these places were retracted, and by which request."""
    return {
        (row.part, row.pos): row.op
        for where in at_places(t.retracted, wanted)
        for row in connection.execute(select(t.retracted).where(where))
    }


def _erase(connection: Connection, source: str, upto: Mapping[int, int]) -> None:
    known = select(t.erased).where(t.erased.c.source_sha256 == source)
    before = {row.part: row.upto for row in connection.execute(known)}
    reached = {part: max(pos, before.get(part, -1)) for part, pos in upto.items()}
    if all(before.get(part) == pos for part, pos in reached.items()):
        return  # heard of before
    rows = [{"source_sha256": source, "part": p, "upto": pos} for p, pos in reached.items()]
    upsert(connection, t.erased, rows)
    c = t.segment.c
    key = bytes.fromhex(source)
    for row in connection.execute(select(c.id, c.rows, c.spans, c.sources)).all():
        if not may_hold(bytes(row.sources), [key]):
            continue
        found = segment(connection, row.id, row.rows)
        stays = _stays(found, {source: reached})
        if stays.all():
            continue
        remove(connection, [row.id])
        if stays.any():
            rest = found.take(np.flatnonzero(stays))
            put(connection, row.id, rest, orjson.loads(row.spans))


def _without_erased(connection: Connection, new: Segment) -> Segment:
    """What nobody had erased before it came (again)."""
    upto: dict[str, dict[int, int]] = {}
    for row in connection.execute(select(t.erased)):
        upto.setdefault(row.source_sha256, {})[row.part] = row.upto
    if not upto:
        return new
    stays = _stays(new, upto)
    return new if stays.all() else new.take(np.flatnonzero(stays))


def _stays(found: Segment, upto: Mapping[str, Mapping[int, int]]) -> Any:
    """bool[n]: which events are not of an erased source, or stand behind what was erased."""
    source: Words = found.source
    places_ = found.places
    stays = np.ones(len(found), dtype=bool)
    for code, name in enumerate(source.names):
        reached = upto.get(digest(name).hex())
        for part, pos in (reached or {}).items():
            mine = (source.codes == code) & (places_.part == part)
            stays &= ~(mine & (places_.pos <= pos))
    return stays


def count(connection: Connection) -> tuple[int, int]:
    """Events and bytes of all segments."""
    c = t.segment.c
    n, size = connection.execute(
        select(func.coalesce(func.sum(c.rows), 0), func.coalesce(func.sum(c.size), 0))
    ).one()
    return int(n), int(size)
