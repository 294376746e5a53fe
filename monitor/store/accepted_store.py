"""The index of accepted events: what the learner was given, kept within bounds. Thread-safe.

A database in which some thousand events at a time lie in columns. Events and the place up to
which they were read are written in one transaction, so that whatever dies when, reading goes on
exactly where what is stored ends. A question reads the columns it needs of the segments that may
hold an answer.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

import orjson
from sqlalchemy import Connection, delete, func, select

from monitor.core.blast import Checkpoint, Place, Retracted, Wanted
from monitor.core.errors import TransportError
from monitor.lineage.checkpoints import checkpoint_row, read_checkpoints
from monitor.lineage.matching import Sieve
from monitor.lineage.names import may_hold
from monitor.lineage.segment import Segment
from monitor.store import accepted_tables as t
from monitor.store import accepted_writing as writing
from monitor.store.accepted_writing import Kept
from monitor.store.database import Database
from monitor.store.ledger_rows import Row, read_rows
from monitor.store.rows import source_digest
from monitor.store.tables import upsert

log = logging.getLogger(__name__)


class MovedError(TransportError):
    """Somebody else has stored these events: read on where the index says."""


class AcceptedStore:
    """Accepted events, retractions and checkpoints, in a database.

    Every method raises TransportError when the database does not work.

    Parameters
    ----------
    database
        Where.
    stream
        Names what is stored; a database of another stream is refused.
    kept
        How much.
    """

    def __init__(self, database: Database, stream: str, kept: Kept) -> None:
        self._database, self._stream, self._kept = database, stream, kept
        self._is_open = False

    def open(self) -> None:
        """Make the tables, or check them. Raises StateError and UsageError."""
        with self._database.write() as connection:
            t.prepare(connection, self._stream)
        self._is_open = True

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        if not self._is_open:
            self.open()
        with self._database.read() as connection:
            yield connection

    def places(self) -> dict[int, int]:
        """Where reading the accepted events goes on."""
        with self._reading() as connection:
            return writing.places(connection)

    def since(self) -> dict[int, int]:
        """By partition, the offset from which on everything is here."""
        with self._reading() as connection:
            return {row.part: row.first for row in connection.execute(select(t.place))}

    def add(
        self,
        new: Segment | None,
        before: Mapping[int, int],
        reached: Mapping[int, int],
        begins: Mapping[int, int] | None = None,
    ) -> None:
        """Store events that were read from ``before`` up to ``reached``, as one.

        Raises
        ------
        MovedError
            When reading does not stand at ``before`` any more; nothing is stored then.
        """
        with self._database.write() as connection:
            if writing.places(connection) != dict(before):
                raise MovedError("another instance has stored these accepted events already")
            writing.add(connection, new, reached, begins or {}, self._kept.segment_events)

    def clear(self) -> None:
        """Forget all events: the source is another one."""
        with self._database.write() as connection:
            writing.clear(connection)

    def apply(self, rows: Iterable[Row]) -> None:
        """Store what rows of the reviews ledger say; may be said again."""
        facts = read_rows(rows)
        with self._database.write() as connection:
            writing.apply(connection, facts)
        if any(upto for _, upto in facts.erased_accepted):
            self._database.shrink(wholly=True)

    def forget(self, now: float) -> int:
        """Remove what goes over the bounds, the oldest first; how many segments that were."""
        with self._database.write() as connection:
            removed = writing.forget(connection, self._kept, now)
        if removed:
            self._database.shrink()
        return removed

    def segments(self, wanted: Wanted) -> Iterator[Segment]:
        """The segments in which meant events may be, the oldest first; one state of them all.

        Their columns are there only as long as the iteration goes on.
        """
        c, sieve = t.segment.c, Sieve(wanted)
        with self._reading() as connection:
            known = connection.execute(
                select(c.id, c.rows, c.first_ts, c.last_ts, c.sources, c.subjects).order_by(c.id)
            ).all()
            for row in known:
                filters = bytes(row.sources), bytes(row.subjects)
                if sieve.may_hold(row.first_ts, row.last_ts, *filters):
                    yield Segment(row.rows, _Columns(connection, row.id))

    def last(self) -> Segment | None:
        """The last segment, whole; None while there is none."""
        c = t.segment.c
        with self._reading() as connection:
            row = connection.execute(select(c.id, c.rows).order_by(c.id.desc()).limit(1)).first()
            return None if row is None else writing.segment(connection, row.id, row.rows)

    def erasable(self, source: str) -> tuple[int, dict[int, int]]:
        """Events of a source that are here, and the last offset of each partition that has any."""
        c, key = t.segment.c, bytes.fromhex(source_digest(source))
        events, upto = 0, dict[int, int]()
        with self._reading() as connection:
            for row in connection.execute(select(c.id, c.rows, c.sources)).all():
                if not may_hold(bytes(row.sources), [key]):
                    continue
                found = Segment(row.rows, _Columns(connection, row.id))
                mine = found.source.among([source])
                part, pos = found.places.part[mine], found.places.pos[mine]
                events += len(part)
                for p, at in zip(part.tolist(), pos.tolist(), strict=True):
                    upto[p] = max(at, upto.get(p, -1))
        return events, upto

    def retracted(self, wanted: Sequence[Place]) -> dict[Place, str]:
        """Which of these places were retracted, and by which request."""
        with self._reading() as connection:
            return writing.retracted(connection, wanted)

    def request(self, name: str) -> Retracted | None:
        """A request for retraction, None when there was none of that name."""
        with self._reading() as connection:
            row = connection.execute(select(t.request).where(t.request.c.id == name)).first()
            return None if row is None else self._request(connection, row)

    def requests(self, limit: int, before: float | None) -> list[Retracted]:
        """Requests for retraction, the latest first."""
        of = select(t.request).order_by(t.request.c.at.desc(), t.request.c.id).limit(limit)
        if before is not None:
            of = of.where(t.request.c.at < before)
        with self._reading() as connection:
            return [self._request(connection, row) for row in connection.execute(of).all()]

    def _request(self, connection: Connection, row: object) -> Retracted:
        said = row._mapping  # type: ignore[attr-defined]
        mine = t.retracted.c.op == said["id"]
        n = connection.scalar(select(func.count()).select_from(t.retracted).where(mine))
        details = orjson.loads(said["details"])
        return Retracted(said["id"], said["who"], said["why"], said["at"], int(n or 0), details)

    def retractions(self) -> int:
        """How many events were retracted in all."""
        with self._reading() as connection:
            return int(connection.scalar(select(func.count()).select_from(t.retracted)) or 0)

    def size(self) -> tuple[int, int]:
        """Events and bytes."""
        with self._reading() as connection:
            return writing.count(connection)

    def announce(self, rows: Iterable[Row], keep: int) -> None:
        """Store checkpoints, the latest ``keep`` of them.

        Of one name the latest record counts: the ledger may be compacted, so whoever reads it
        from its beginning may have no other.
        """
        found = read_checkpoints(rows)
        if not found:
            return
        by_name = {one.name: one for one in self.checkpoints()}
        changed = {one.name for one in found if by_name.setdefault(one.name, one) != one}
        if changed:
            log.warning(
                "%d checkpoints were announced again with other offsets or another time, and the "
                "latest record of a name counts; one of them, %r",
                len(changed),
                min(changed)[:80],
            )
        by_name = {one.name: one for one in found}
        stored = [
            {"name": one.name, "ts": one.ts, "record": (checkpoint_row(one)[1] or b"").decode()}
            for one in by_name.values()
        ]
        c = t.checkpoint.c
        with self._database.write() as connection:
            upsert(connection, t.checkpoint, stored)
            over = select(c.name).order_by(c.ts.desc(), c.name.desc()).offset(keep)
            for name in connection.scalars(over).all():
                connection.execute(delete(t.checkpoint).where(c.name == name))

    def checkpoints(self) -> list[Checkpoint]:
        """Checkpoints, the latest first."""
        c = t.checkpoint.c
        of = select(c.name, c.record).order_by(c.ts.desc(), c.name.desc())
        with self._reading() as connection:
            rows = [(row.name.encode(), row.record.encode()) for row in connection.execute(of)]
        return read_checkpoints(rows)


class _Columns:
    """Reads a column of a segment when it is asked for."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection, self._number = connection, number

    def __call__(self, name: str) -> bytes:
        c = t.column.c
        of = select(c.data).where(c.segment == self._number, c.name == name)
        return bytes(self._connection.scalar(of) or b"")
