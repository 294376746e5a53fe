"""What all tests share: the line that says how Kafka was tested."""

from __future__ import annotations

import warnings

import pytest

with warnings.catch_warnings():
    # The client reads its own files in a way that Python means to drop.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka  # noqa: F401


def pytest_configure(config: pytest.Config) -> None:
    config.kafka_status = "no test asked for it"  # tests/kafka/conftest.py says what came of it


# The outermost wrapper ends last, so that the line stands right above pytest's closing line.
@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config):
    result = yield
    terminalreporter.write_line(f"kafka: {config.kafka_status}")
    return result
