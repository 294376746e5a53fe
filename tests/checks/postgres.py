"""A private PostgreSQL for the session, from the system's package; skips with the reason without.

It lives in a folder of its own, listens on a socket in it and on no port, runs as another user
where we are root (it refuses to run as root), and is stopped by its own process id.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

START_SECONDS = 60
USERS = ("postgres", "nobody")


def binaries() -> Path | None:
    """The folder with initdb and postgres, the latest version's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
    on_path = shutil.which("initdb")
    places = [*found[::-1], *([Path(on_path)] if on_path else [])]
    return next((p.parent for p in places if (p.parent / "postgres").exists()), None)


class Cluster:
    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        who: dict = {"cwd": folder, "env": {"LC_ALL": "C", "PATH": os.environ["PATH"]}}
        if os.geteuid() == 0:
            name = next(name for name in USERS if name in {u.pw_name for u in pwd.getpwall()})
            user = pwd.getpwnam(name)
            os.chown(folder, user.pw_uid, user.pw_gid)
            who |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        init = [tools / "initdb", "-D", self.data, "-U", "monitor", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*init, "--no-sync"], check=True, capture_output=True, **who)
        options = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off"}
        flags = [part for k, v in options.items() for part in ("-c", f"{k}={v}")]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [tools / "postgres", "-D", self.data, *flags], stdout=log, stderr=log, **who
            )
        self.version = subprocess.run(
            [tools / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
        self._wait()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://monitor@/{database}?host={self.folder}"

    def execute(self, statement: str) -> None:
        engine = create_engine(
            self.url().replace("postgresql", "postgresql+psycopg", 1), isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.execute("SELECT 1")
            except Exception:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    pytest.fail((self.folder / "log").read_text(errors="replace"))
                time.sleep(0.1)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # a fast shutdown
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


@pytest.fixture(scope="session")
def postgres(request):
    """A running cluster."""
    pytest.importorskip("psycopg")
    tools = binaries()
    if tools is None:
        request.config.postgres_status = "not tested (no PostgreSQL here: apt-get install it)"
        pytest.skip("no PostgreSQL is installed")
    folder = Path(tempfile.mkdtemp(prefix="monitor-pg-"))
    try:
        cluster = Cluster(folder, tools)
        request.config.postgres_status = cluster.version
        yield cluster
        cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request, tmp_path):
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/quarantine.db"
    return request.getfixturevalue("postgres").fresh()
