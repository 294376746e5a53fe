"""The tables of the index of accepted events, their version, and whose they are.

Their names differ from those of the quarantine store, so that one database can hold both.
"""

from __future__ import annotations

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

from monitor.core.errors import StateError, UsageError
from monitor.store.tables import insert_new, place_columns, required

SCHEMA_VERSION = 2

metadata = MetaData()

segment = Table(
    "accepted_segment",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    required("rows", Integer),
    required("size", BigInteger),
    required("first_ts", Double),
    required("last_ts", Double),
    required("last_at", Double),
    required("spans", Text),
    required("sources", LargeBinary),
    required("subjects", LargeBinary),
)
"""Some thousand events each; ids go up. ``spans`` are places by partition, as JSON."""

column = Table(
    "accepted_segment_column",
    metadata,
    Column("segment", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    required("data", LargeBinary),
)

place = Table(
    "accepted_place",
    metadata,
    Column("part", Integer, primary_key=True, autoincrement=False),
    required("next", BigInteger),
    required("first", BigInteger),
)
"""Where reading goes on, and from where on everything is here."""

retracted = Table("accepted_retracted", metadata, *place_columns(), required("op", Text))
"""Kept when the event is forgotten: it must not be retracted again."""

request = Table(
    "accepted_request",
    metadata,
    Column("id", Text, primary_key=True),
    required("at", Double),
    required("who", Text),
    required("why", Text),
    required("details", Text),
    Index("accepted_request_by_time", "at"),
)

erased = Table(
    "accepted_erased",
    metadata,
    Column("source_sha256", Text, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    required("upto", BigInteger),
)
"""Events of this source up to this offset are not stored again."""

checkpoint = Table(
    "accepted_checkpoint",
    metadata,
    Column("name", Text, primary_key=True),
    required("ts", Double),
    required("record", Text),
)

meta = Table(
    "accepted_meta", metadata, Column("name", Text, primary_key=True), required("value", Text)
)


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
            f"The index of accepted events has schema version {found.get('schema_version')}, this "
            f"monitor uses {SCHEMA_VERSION}: use the version that made it, or give blast.url an "
            "empty database; it is filled again from the stream."
        )
    if found.get("stream") != stream:
        raise UsageError(
            f"The index of accepted events belongs to the stream {found.get('stream')!r}, not to "
            f"{stream!r}: give blast.url a database of its own."
        )
