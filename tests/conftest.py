"""What all tests share: environment, order, and lines that say how servers were tested."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

with warnings.catch_warnings():
    # The client reads its own files in a way that Python means to drop.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka  # noqa: F401


# As `monitor.__main__` does: numpy reads it when it is loaded.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# Brokers of tests live for seconds or minutes: what Java's second compiler gives in that time is
# about half of what it takes.
os.environ.setdefault("KAFKA_JVM_PERFORMANCE_OPTS", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1")

SERVERS = ("kafka_status", "postgres_status")
UNASKED = "no test asked for it"


def pytest_configure(config: pytest.Config) -> None:
    # tests/kafka/conftest.py and tests/checks/postgres.py say what came of it.
    config.kafka_status = config.postgres_status = UNASKED


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, and together what shares a browser, a service or a broker of its own.

    So no worker of pytest-xdist (``--dist loadgroup``) is left with a long one at the end, and
    what a module sets up once is not set up by each worker.
    """
    for item in items:
        if any(scope_of == "module" for scope_of in scopes(item)):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=_turn)


def scopes(item: pytest.Item) -> Iterator[str]:
    """Scopes of the fixtures that a test asks for."""
    found = getattr(item, "_fixtureinfo", None)  # a doctest has none
    for definitions in found.name2fixturedefs.values() if found is not None else ():
        yield from (definition.scope for definition in definitions)


def _turn(item: pytest.Item) -> int:
    path = item.path.as_posix()
    if "/tests/kafka/" in path:
        return 0
    # mypy is a minute of one test.
    return 1 if "/tests/web/" in path or path.endswith("/test_static.py") else 2


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output.update({name: getattr(session.config, name) for name in SERVERS})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended: what it says of the servers."""
    for name in SERVERS:
        said = getattr(node, "workeroutput", {}).get(name, UNASKED)
        if said != UNASKED:
            setattr(node.config, name, said)


# The outermost wrapper ends last, so that the lines stand right above pytest's closing line.
@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config):
    result = yield
    terminalreporter.write_line(f"postgres: {config.postgres_status}")
    terminalreporter.write_line(f"kafka: {config.kafka_status}")
    return result
