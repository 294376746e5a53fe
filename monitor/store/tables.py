"""The tables, their version, and whose they are."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from monitor.core.errors import StateError, UsageError

SCHEMA_VERSION = 1

metadata = MetaData()


def place_columns() -> list[Column[Any]]:
    """A partition and an offset, which name an event."""
    return [
        Column("part", Integer, primary_key=True, autoincrement=False),
        Column("pos", BigInteger, primary_key=True, autoincrement=False),
    ]


def required(name: str, kind: Any) -> Column[Any]:
    """A column that every row has a value in."""
    return Column(name, kind, nullable=False)


held = Table(
    "held",
    metadata,
    *place_columns(),
    required("held_at", Double),
    required("day", Integer),
    required("event_id", Text),
    required("source", Text),
    Column("subject", Text),
    required("label", Text),
    required("ts", Double),
    required("risk", Double),
    required("policy_version", BigInteger),
    Column("incident", Text),
    required("status", Text),
    required("reason", Text),
    required("size", BigInteger),
    Index("held_by_time", "held_at", "part", "pos"),
    Index("held_by_source", "source", "held_at"),
    Index("held_by_subject", "subject", "held_at"),
    Index("held_by_label", "label", "held_at"),
    Index("held_by_status", "status", "held_at"),
    Index("held_by_incident", "incident", "held_at"),
    Index("held_by_risk", "risk"),
)
"""What is searched."""

body = Table(
    "body",
    metadata,
    *place_columns(),
    required("decision", Text),
    Column("value", LargeBinary),
    Column("record_key", LargeBinary),
    required("headers", LargeBinary),
    Column("stamp", BigInteger),
)
"""What is large: the decision, and the record as it came."""

tag = Table(
    "tag",
    metadata,
    *place_columns(),
    Column("kind", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Index("tag_by_name", "kind", "name", "part", "pos"),
)
"""Families and detectors of an event."""
FAMILY, DETECTOR = 0, 1

review = Table(
    "review",
    metadata,
    *place_columns(),
    required("status", Text),
    required("who", Text),
    required("why", Text),
    required("at", Double),
    required("op", Text),
    Index("review_by_status", "status"),
)
"""The first review of each event. Kept when the event is forgotten: its name can come again."""

audit = Table(
    "audit",
    metadata,
    Column("id", Text, primary_key=True),
    required("at", Double),
    required("who", Text),
    required("what", Text),
    required("why", Text),
    required("details", Text),
    Index("audit_by_time", "at"),
)

erased = Table(
    "erased",
    metadata,
    Column("source_sha256", Text, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    required("upto", BigInteger),
)
"""Events of this source up to this offset are not stored again."""

place = Table(
    "place",
    metadata,
    Column("part", Integer, primary_key=True, autoincrement=False),
    required("next", BigInteger),
)
"""Where reading the quarantine goes on."""

judged = Table(
    "judged",
    metadata,
    Column("instance", Text, primary_key=True),
    required("began", Double),
    required("events", BigInteger),
)

counter = Table(
    "counter", metadata, Column("name", Text, primary_key=True), required("n", BigInteger)
)
meta = Table("meta", metadata, Column("name", Text, primary_key=True), required("value", Text))


def upsert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows; those whose key is there already replace what is there."""
    if rows:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        keys = [column.name for column in table.primary_key]
        statement = dialect.insert(table)
        changed = {c.name: statement.excluded[c.name] for c in table.c if c.name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)


def insert_new(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows, leaving out those whose key is there already."""
    if rows:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        connection.execute(dialect.insert(table).on_conflict_do_nothing(), rows)


def prepare(connection: Connection, stream: str) -> None:
    """Make the tables, or see that they are of this version and of ``stream``.

    Raises
    ------
    StateError
        When another version made them.
    UsageError
        When they belong to another stream.
    """
    metadata.create_all(connection)
    found = {row.name: row.value for row in connection.execute(select(meta))}
    ours = {"schema_version": str(SCHEMA_VERSION), "stream": stream}
    if not found:
        insert_new(connection, meta, [{"name": k, "value": v} for k, v in ours.items()])
        return
    if found.get("schema_version") != ours["schema_version"]:
        raise StateError(
            f"The quarantine store has schema version {found.get('schema_version')}, this monitor "
            f"uses {SCHEMA_VERSION}: use the version that made it, or give quarantine.url an empty "
            "database; it is filled again from the stream."
        )
    if found.get("stream") != stream:
        raise UsageError(
            f"The quarantine store belongs to the stream {found.get('stream')!r}, not to "
            f"{stream!r}: give quarantine.url a database of its own."
        )
