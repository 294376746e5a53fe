"""What changes the store: held records, reviews, erasures, forgetting. A transaction each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select, update

from monitor.core.desk import ReviewStatus
from monitor.core.held import HeldBatch
from monitor.store import tables as t
from monitor.store.ledger_rows import Facts
from monitor.store.rows import DAY_SECONDS, source_digest, table_rows

CHUNK = 400
"""Events a statement; databases bound its parameters."""

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept: days, events, and bytes of events with their decisions."""

    days: float
    events: int
    bytes: int


def at_places(table: Any, places: Iterable[Place]) -> Iterator[ColumnElement[bool]]:
    """Conditions that together choose the rows of these events, a few hundred each."""
    by_part: dict[int, list[int]] = defaultdict(list)
    for part, pos in places:
        by_part[part].append(pos)
    for part, positions in sorted(by_part.items()):
        for i in range(0, len(positions), CHUNK):
            some = positions[i : i + CHUNK]
            yield and_(table.c.part == part, table.c.pos.in_(some))


def add(connection: Connection, batch: HeldBatch, now: float) -> int:
    """Store held records and where reading goes on; how many were new."""
    made = [table_rows(record, now) for record in batch.records]
    fresh = {(row["part"], row["pos"]): (row, body, tags) for row, body, tags in made}
    for where in at_places(t.held, list(fresh)):
        for known in connection.execute(select(t.held.c.part, t.held.c.pos).where(where)):
            del fresh[known.part, known.pos]
    for gone in _erased(connection, [row for row, _, _ in fresh.values()]):
        del fresh[gone]
    for where in at_places(t.review, list(fresh)):
        for row in connection.execute(select(t.review).where(where)):
            fresh[row.part, row.pos][0]["status"] = row.status
    t.insert_new(connection, t.held, [row for row, _, _ in fresh.values()])
    t.insert_new(connection, t.body, [body for _, body, _ in fresh.values()])
    t.insert_new(connection, t.tag, [tag for _, _, tags in fresh.values() for tag in tags])
    began = connection.scalar(select(func.min(t.judged.c.began))) or 0.0
    count(connection, "held", sum(row["held_at"] >= began for row, _, _ in fresh.values()))
    count(connection, "judged", batch.judged)
    rows = [{"part": part, "next": at} for part, at in batch.places.items()]
    t.upsert(connection, t.place, rows)
    return len(fresh)


def _erased(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Place]:
    """Which of these events somebody had erased before they came (again)."""
    digests = {row["source"]: source_digest(row["source"]) for row in rows}
    upto: dict[tuple[str, int], int] = {}
    every = sorted(set(digests.values()))
    for i in range(0, len(every), CHUNK):
        found = select(t.erased).where(t.erased.c.source_sha256.in_(every[i : i + CHUNK]))
        upto |= {(r.source_sha256, r.part): r.upto for r in connection.execute(found)}
    return [
        (row["part"], row["pos"])
        for row in rows
        if row["pos"] <= upto.get((digests[row["source"]], row["part"]), -1)
    ]


def count(connection: Connection, name: str, n: int) -> None:
    """Add to a counter."""
    if n:
        t.insert_new(connection, t.counter, [{"name": name, "n": 0}])
        to = update(t.counter).where(t.counter.c.name == name)
        connection.execute(to.values(n=t.counter.c.n + n))


def apply(connection: Connection, facts: Facts) -> None:
    """Store what the ledger says; again changes nothing, and of two reviews the first counts."""
    first: dict[Place, dict[str, Any]] = {}
    for row in facts.reviews:
        first.setdefault((row["part"], row["pos"]), row)
    for where in at_places(t.review, list(first)):
        for known in connection.execute(select(t.review.c.part, t.review.c.pos).where(where)):
            del first[known.part, known.pos]
    t.insert_new(connection, t.review, list(first.values()))
    for status in ReviewStatus:
        chosen = [place for place, row in first.items() if row["status"] == status]
        for where in at_places(t.held, chosen):
            connection.execute(update(t.held).where(where).values(status=status.value))
    t.insert_new(connection, t.audit, facts.operations)
    t.upsert(connection, t.judged, facts.judged)
    for digest, upto in facts.erasures:
        _erase(connection, digest, upto)


def _erase(connection: Connection, digest: str, upto: Mapping[int, int]) -> None:
    known = select(t.erased).where(t.erased.c.source_sha256 == digest)
    before = {row.part: row.upto for row in connection.execute(known)}
    reached = {part: max(pos, before.get(part, -1)) for part, pos in upto.items()}
    if all(before.get(part) == pos for part, pos in reached.items()):
        return  # heard of before
    rows = [{"source_sha256": digest, "part": p, "upto": pos} for p, pos in reached.items()]
    t.upsert(connection, t.erased, rows)
    names = connection.scalars(select(t.held.c.source).distinct())
    for name in [name for name in names if source_digest(name) == digest]:
        for part, pos in reached.items():
            of = select(t.held.c.part, t.held.c.pos).where(
                t.held.c.source == name, t.held.c.part == part, t.held.c.pos <= pos
            )
            remove(connection, [(row.part, row.pos) for row in connection.execute(of)])


def remove(connection: Connection, places: Sequence[Place]) -> None:
    """Forget events."""
    for table in (t.tag, t.body, t.held):
        for where in at_places(table, places):
            connection.execute(delete(table).where(where))


def forget(connection: Connection, bounds: Bounds, now: float, at_most: int) -> int:
    """Remove the oldest events that go over the bounds, at most so many; how many it removed."""
    oldest = select(t.held.c.part, t.held.c.pos).order_by(
        t.held.c.held_at, t.held.c.part, t.held.c.pos
    )
    late = oldest.where(t.held.c.held_at < now - bounds.days * DAY_SECONDS).limit(at_most)
    gone = [(row.part, row.pos) for row in connection.execute(late)]
    n, size = connection.execute(
        select(func.count(), func.coalesce(func.sum(t.held.c.size), 0)).select_from(t.held)
    ).one()
    over = min(max(0, int(n) - bounds.events), at_most)
    if over > len(gone):
        gone = [(row.part, row.pos) for row in connection.execute(oldest.limit(over))]
    excess = int(size) - bounds.bytes
    if excess > 0:
        sized = oldest.add_columns(t.held.c.size).limit(at_most)
        for i, row in enumerate(connection.execute(sized)):
            if excess <= 0:
                break
            excess -= row.size
            if i >= len(gone):
                gone.append((row.part, row.pos))
    remove(connection, gone)
    return len(gone)


def forget_audit(connection: Connection, keep: int) -> None:
    """Keep the latest entries of the audit trail."""
    latest = select(t.audit.c.at).order_by(t.audit.c.at.desc()).offset(keep).limit(1)
    bound = connection.scalar(latest)
    if bound is not None:
        connection.execute(delete(t.audit).where(t.audit.c.at <= bound))
