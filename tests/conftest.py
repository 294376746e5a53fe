"""What all tests share: the line that says how Kafka was tested."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.kafka_status = "no test asked for it"  # tests/kafka/conftest.py says what came of it
    # kafka-python reads its own files in a way that Python means to drop.
    config.addinivalue_line("filterwarnings", "ignore:.*_text is deprecated")


# The outermost wrapper ends last, so that the line stands right above pytest's closing line.
@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config):
    result = yield
    terminalreporter.write_line(f"kafka: {config.kafka_status}")
    return result
