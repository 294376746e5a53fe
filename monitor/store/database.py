"""A database by URL: SQLite in a file, or PostgreSQL. The only importer of its drivers."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from monitor.core.errors import TransportError, UsageError

_BUSY_SECONDS = 20
_CONNECT_SECONDS = 5
_STATEMENT_SECONDS = 60
_SAMPLE_ROWS = 1000
_ADVISORY_LOCK = 0x706F69736F6E
_POSTGRES = {"postgres", "postgresql", "postgresql+psycopg"}
_SQLITE = {"sqlite", "sqlite+pysqlite"}


def parse_url(url: str, setting: str = "quarantine.url") -> URL:
    """The URL with the driver that is used here; ``setting`` is where it stands.

    Raises
    ------
    UsageError
        When it is none, or of another database.

    Examples
    --------
    >>> parse_url("postgresql://u@h/d").drivername
    'postgresql+psycopg'
    """
    try:
        found = make_url(url)
    except ArgumentError:
        raise UsageError(
            f"{setting} is no URL; use sqlite:///path/to/file or postgresql://user@host/database"
        ) from None
    if found.drivername in _POSTGRES:
        return found.set(drivername="postgresql+psycopg")
    if found.drivername in _SQLITE and found.database not in (None, "", ":memory:"):
        return found.set(drivername="sqlite")
    raise UsageError(
        f"{setting}: {found.render_as_string()} is not supported; use "
        "sqlite:///path/to/file or postgresql://user@host/database"
    )


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string()


class Database:
    """Connections, for reading from any thread and for writing one at a time.

    Nothing is opened before it is first used, and every later use tries again.

    Parameters
    ----------
    url
        Where it is.
    setting, called
        The setting that says so, and what the database is called in sentences.

    Raises
    ------
    UsageError
        When the URL cannot be used, or its driver is not installed.
    """

    def __init__(
        self, url: str, setting: str = "quarantine.url", called: str = "quarantine store"
    ) -> None:
        self._url = parse_url(url, setting)
        self._setting, self._called = setting, called
        self.is_sqlite = self._url.drivername == "sqlite"
        self._lock = threading.Lock()
        try:
            self._engine = _sqlite(self._url) if self.is_sqlite else _postgres(self._url)
        except (ModuleNotFoundError, NoSuchModuleError):
            raise UsageError(
                f"{setting} names PostgreSQL, whose driver is not installed: "
                "pip install 'poisoning-monitor[postgres]'"
            ) from None

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection whose queries see one state of the database. Raises TransportError."""
        with self._failures():
            self._private_file()
            with self._engine.connect() as connection:
                if not self.is_sqlite:
                    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
                yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that no other writer of any process runs beside.

        Committed at the end. Raises TransportError; nothing is written then.
        """
        with self._lock, self._failures():
            self._private_file()
            engine = self._engine.execution_options(is_writer=True)
            with engine.begin() as connection:
                if not self.is_sqlite:
                    lock = text("SELECT pg_advisory_xact_lock(:n)")
                    connection.execute(lock, {"n": _ADVISORY_LOCK})
                yield connection

    def survey(self) -> None:
        """Have the database look at a sample of its tables, so that it plans its searches well."""
        if not self.is_sqlite:
            return  # autovacuum does
        with self._failures(), self._engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.execute(f"PRAGMA analysis_limit={_SAMPLE_ROWS}").fetchall()
            raw.execute("ANALYZE").fetchall()

    def shrink(self, *, wholly: bool = False) -> None:
        """Give freed space back, and with ``wholly`` leave nothing of deleted rows in the log."""
        if not self.is_sqlite:
            return  # autovacuum does
        with self._failures(), self._engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.execute("PRAGMA incremental_vacuum(2000)").fetchall()
            if wholly:
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _private_file(self) -> None:
        """Make the file for this user only: it holds people's feedback."""
        if not self.is_sqlite:
            return
        path = Path(self._url.database or "")
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            except OSError as error:
                raise TransportError(
                    f"Cannot make {path}: {error.strerror or error}. Check {self._setting} and "
                    "the folder's permissions."
                ) from error

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).strip().splitlines() or [""]
            raise TransportError(
                f"The {self._called} {self} does not work: {cause[0]}. Events are judged and "
                "held all the same; mend it, then it catches up."
            ) from error


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say so
        for pragma in (
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            "synchronous=NORMAL",
            # What is deleted is overwritten: somebody may have asked for it to be gone.
            "secure_delete=ON",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        is_writer = connection.get_execution_options().get("is_writer")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")

    return engine


def _postgres(url: URL) -> Engine:
    options = f"-c statement_timeout={_STATEMENT_SECONDS}s -c lock_timeout={_BUSY_SECONDS}s"
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={"connect_timeout": _CONNECT_SECONDS, "options": options},
    )
