"""The store's face: plain calls, a transaction each. Thread-safe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Select, func, select

from monitor.core.desk import AuditEntry, Held, HeldFilter, HeldPage, MissingError, ReviewStatus
from monitor.core.held import HeldBatch, Original, held_key, parse_key
from monitor.store import tables as t
from monitor.store import writing
from monitor.store.database import Database
from monitor.store.filters import behind, conditions, encode_cursor
from monitor.store.ledger_rows import Row, read_rows
from monitor.store.rows import held_of, original_of, short
from monitor.store.writing import Bounds, Place, at_places

MOST_NAMES = 100
_FORGET = 2_000


@dataclass(frozen=True, slots=True)
class Mark:
    """What bulk reviews need to know of an event; ``op`` is the operation that reviewed it."""

    status: ReviewStatus
    source: str
    label: str
    op: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What was judged and held since counting began, and what reviews said of it."""

    judged: int
    held: int
    released: int
    confirmed: int


class HeldStore:
    """Held events and their reviews, in a database.

    Every method raises TransportError when the database does not work.

    Parameters
    ----------
    database
        Where.
    stream
        Names what is stored; a database of another stream is refused.
    """

    def __init__(self, database: Database, stream: str) -> None:
        self._database = database
        self._stream = stream
        self._is_open = False

    def open(self) -> None:
        """Make the tables, or check them. Raises StateError and UsageError."""
        with self._database.write() as connection:
            t.prepare(connection, self._stream)
        self._is_open = True

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A connection to read by; whoever asks before the follower began makes the tables."""
        if not self._is_open:
            self.open()
        with self._database.read() as connection:
            yield connection

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def places(self) -> dict[int, int]:
        """Where reading the quarantine goes on."""
        with self._reading() as connection:
            return {row.part: row.next for row in connection.execute(select(t.place))}

    def add(self, batch: HeldBatch, now: float) -> int:
        """Store what was read, and where reading goes on, together; how many were new."""
        with self._database.write() as connection:
            return writing.add(connection, batch, now)

    def apply(self, rows: Iterable[Row]) -> None:
        """Store what rows of the reviews ledger say; may be said again."""
        facts = read_rows(rows)
        with self._database.write() as connection:
            writing.apply(connection, facts)
        if facts.erasures:
            self._database.shrink(wholly=True)

    def forget(self, bounds: Bounds, now: float, audit: int = 100_000) -> int:
        """Remove what goes over the bounds, the oldest first; how many events that were."""
        removed, some = 0, _FORGET
        while some == _FORGET:
            with self._database.write() as connection:
                some = writing.forget(connection, bounds, now, _FORGET)
                writing.forget_audit(connection, audit)
            removed += some
        if removed:
            self._database.shrink()
        self._database.survey()
        return removed

    def search(self, chosen: HeldFilter, limit: int, cursor: str | None) -> HeldPage:
        """Held events, the latest first. Raises UsageError."""
        where = conditions(chosen)
        c = t.held.c
        ordered = _joined(*t.held.c, t.body.c.decision, *_REVIEWED).where(*where)
        ordered = ordered.order_by(c.held_at.desc(), c.part.desc(), c.pos.desc()).limit(limit + 1)
        if cursor is not None:
            ordered = ordered.where(behind(cursor))
        with self._reading() as connection:
            total = connection.scalar(select(func.count()).select_from(t.held).where(*where))
            rows = connection.execute(ordered).all()
            page = rows[:limit]
            tags = _tags(connection, [(row.part, row.pos) for row in page])
        items = [held_of(dict(row._mapping), tags.get((row.part, row.pos), ())) for row in page]
        following = encode_cursor(page[-1]) if len(rows) > limit else None
        return HeldPage(items, int(total or 0), following)

    def get(self, key: str) -> Held:
        """One event with its bytes. Raises MissingError, UsageError."""
        part, pos = parse_key(key)
        one = _joined(*t.held.c, t.body.c.decision, t.body.c.value, *_REVIEWED)
        with self._reading() as connection:
            row = connection.execute(one.where(t.held.c.part == part, t.held.c.pos == pos)).first()
            tags = _tags(connection, [(part, pos)])
        if row is None:
            raise MissingError(f"There is no held event {key} (any more).")
        return held_of(dict(row._mapping), tags.get((part, pos), ()))

    def choose(self, chosen: HeldFilter, limit: int) -> dict[str, Mark]:
        """Keys of the chosen events, oldest first, at most ``limit``."""
        c = t.held.c
        wanted = select(c.part, c.pos, c.status, c.source, c.label, t.review.c.op)
        wanted = wanted.select_from(t.held.outerjoin(t.review, _same(t.review)))
        wanted = wanted.where(*conditions(chosen)).order_by(c.held_at, c.part, c.pos).limit(limit)
        with self._reading() as connection:
            return {
                held_key(row.part, row.pos): Mark(
                    ReviewStatus(row.status), row.source, row.label, row.op
                )
                for row in connection.execute(wanted)
            }

    def originals(self, keys: Iterable[str]) -> dict[str, Original]:
        """Records as they came, by key."""
        found = {}
        with self._reading() as connection:
            for where in at_places(t.body, [parse_key(key) for key in keys]):
                for row in connection.execute(select(t.body).where(where)):
                    found[held_key(row.part, row.pos)] = original_of(dict(row._mapping))
        return found

    def counts(self, chosen: HeldFilter) -> dict[str, dict[str, int]]:
        """Numbers by family, source, label and status; of names the hundred most frequent."""
        where = conditions(chosen)
        with self._reading() as connection:
            found = {
                name: _numbers(connection, t.held.c[name], where)
                for name in ("source", "label", "status")
            }
            found["family"] = _tagged_numbers(connection, where)
        return found

    def of_source(self, name: str) -> dict[str, Any]:
        """History of a source."""
        c = t.held.c
        where = [c.source == short(name)]
        span = select(func.count(), func.min(c.held_at), func.max(c.held_at), func.max(c.risk))
        with self._reading() as connection:
            n, first, last, risk = connection.execute(span.where(*where)).one()
            return {
                "source": name,
                "held": int(n),
                "first_seen": first,
                "last_seen": last,
                "highest_risk": risk,
                "by_status": _numbers(connection, c.status, where),
                "by_label": _numbers(connection, c.label, where),
                "by_family": _tagged_numbers(connection, where),
                "by_day": _days(connection, where),
            }

    def erasable(self, source: str) -> tuple[int, int, dict[int, int]]:
        """Events and bytes stored of a source, and its last offset by partition."""
        c = t.held.c
        mine = c.source == short(source)
        of = select(c.part, func.count(), func.sum(c.size), func.max(c.pos))
        with self._reading() as connection:
            rows = connection.execute(of.where(mine).group_by(c.part)).all()
        upto = {int(part): int(pos) for part, _, _, pos in rows}
        return sum(row[1] for row in rows), sum(int(row[2]) for row in rows), upto

    def totals(self) -> Totals:
        """What was judged, held and reviewed."""
        with self._reading() as connection:
            told = {row.name: row.n for row in connection.execute(select(t.counter))}
            judged = connection.scalar(select(func.sum(t.judged.c.events))) or 0
            by_status = select(t.review.c.status, func.count()).group_by(t.review.c.status)
            reviewed = {status: int(n) for status, n in connection.execute(by_status)}
        return Totals(
            judged=int(judged) + told.get("judged", 0),
            held=told.get("held", 0),
            released=reviewed.get(ReviewStatus.RELEASED.value, 0),
            confirmed=reviewed.get(ReviewStatus.CONFIRMED.value, 0),
        )

    def judged(self) -> dict[str, tuple[float, int]]:
        """Since when each instance counts, and how many events it has judged."""
        with self._reading() as connection:
            rows = connection.execute(select(t.judged))
            return {row.instance: (row.began, row.events) for row in rows}

    def note(self, id_: str, entry: AuditEntry) -> None:
        """Remember what was done elsewhere."""
        row = {
            "id": id_,
            "at": entry.when,
            "who": short(entry.who),
            "what": short(entry.what),
            "why": short(entry.why),
            "details": orjson.dumps(dict(entry.details), default=str).decode(),
        }
        with self._database.write() as connection:
            t.insert_new(connection, t.audit, [row])

    def audit(self, limit: int, before: float | None) -> list[AuditEntry]:
        """What was done, the latest first."""
        latest = select(t.audit).order_by(t.audit.c.at.desc(), t.audit.c.id).limit(limit)
        if before is not None:
            latest = latest.where(t.audit.c.at < before)
        with self._reading() as connection:
            return [
                AuditEntry(row.at, row.who, row.what, row.why, orjson.loads(row.details))
                for row in connection.execute(latest)
            ]


_REVIEWED = (
    t.review.c.who.label("review_who"),
    t.review.c.at.label("review_at"),
    t.review.c.why.label("review_why"),
)


def _same(table: Any) -> ColumnElement[bool]:
    found: ColumnElement[bool] = (table.c.part == t.held.c.part) & (table.c.pos == t.held.c.pos)
    return found


def _joined(*columns: Any) -> Select[Any]:
    together = t.held.join(t.body, _same(t.body)).outerjoin(t.review, _same(t.review))
    return select(*columns).select_from(together)


def _tags(connection: Connection, places: Sequence[Place]) -> dict[Place, list[tuple[int, str]]]:
    found: dict[Place, list[tuple[int, str]]] = {}
    for where in at_places(t.tag, places):
        for row in connection.execute(select(t.tag).where(where).order_by(t.tag.c.name)):
            found.setdefault((row.part, row.pos), []).append((row.kind, row.name))
    return found


def _numbers(
    connection: Connection, column: Any, where: Sequence[ColumnElement[bool]]
) -> dict[str, int]:
    n = func.count()
    of = select(column, n).where(*where).group_by(column).order_by(n.desc(), column)
    return {str(name): int(k) for name, k in connection.execute(of.limit(MOST_NAMES))}


def _tagged_numbers(connection: Connection, where: Sequence[ColumnElement[bool]]) -> dict[str, int]:
    n = func.count()
    together = t.tag.join(t.held, _same(t.tag))
    of = select(t.tag.c.name, n).select_from(together).where(t.tag.c.kind == t.FAMILY, *where)
    of = of.group_by(t.tag.c.name).order_by(n.desc(), t.tag.c.name).limit(MOST_NAMES)
    return {str(name): int(k) for name, k in connection.execute(of)}


def _days(connection: Connection, where: Sequence[ColumnElement[bool]]) -> Mapping[str, int]:
    day, n = t.held.c.day, func.count()
    of = select(day, n).where(*where).group_by(day).order_by(day.desc()).limit(MOST_NAMES)
    return {_date(int(number)): int(k) for number, k in reversed(connection.execute(of).all())}


def _date(day: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date().isoformat()
