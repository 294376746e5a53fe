"""What all tests share: the lines that say how Kafka and PostgreSQL were tested."""

from __future__ import annotations

import warnings

import pytest

with warnings.catch_warnings():
    # The client reads its own files in a way that Python means to drop.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka  # noqa: F401


def pytest_configure(config: pytest.Config) -> None:
    # tests/kafka/conftest.py and tests/checks/postgres.py say what came of it.
    config.kafka_status = config.postgres_status = "no test asked for it"


# The outermost wrapper ends last, so that the lines stand right above pytest's closing line.
@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config):
    result = yield
    terminalreporter.write_line(f"postgres: {config.postgres_status}")
    terminalreporter.write_line(f"kafka: {config.kafka_status}")
    return result
