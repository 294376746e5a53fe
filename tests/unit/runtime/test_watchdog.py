"""A loop that hangs ends the process; one that was suspended, or only works long, does not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import pytest

from monitor.core.errors import TransportError
from monitor.runtime import watchdog
from monitor.runtime.watchdog import TICK_SECONDS, Watchdog


def test_it_counts_ticks_and_not_the_clock() -> None:
    idle = [0.0]
    dog = Watchdog(lambda: idle[0], 3 * TICK_SECONDS, lambda _: None, lambda _: None)
    assert not dog.tick()
    idle[0] = 1e6  # suspended for days, and just continued
    assert [dog.tick() for _ in range(2)] == [False, False]
    idle[0] = 0.1
    assert not dog.tick()
    idle[0] = 5.0
    assert [dog.tick() for _ in range(3)] == [False, False, True]


def test_it_says_so_and_leaves_with_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "TICK_SECONDS", 0.01)
    left, told, done = list[int](), list[str](), threading.Event()

    def leave(code: int) -> None:
        left.append(code)
        done.set()

    with Watchdog(lambda: 99.0, 0.05, told.append, leave):
        assert done.wait(20)
    assert left == [TransportError.exit_code]
    assert "exit code 3" in told[0]


def test_a_process_that_hangs_ends() -> None:
    program = """
        import threading
        from monitor.runtime import watchdog
        watchdog.TICK_SECONDS = 0.01
        with watchdog.Watchdog(lambda: 99.0, 0.05, print):
            threading.Event().wait(60)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 3
