"""The console on a fake desk that fails, hangs or has bugs, as it is told line by line.

``python -m tests.unit.admin.faulty_server PORT TOKENS|- two_person|desk|none``; lines of standard
input: ``PART down``, ``PART bug``, ``PART hang SECONDS``, ``well``, ``attack N``, and
``calls NAME``, which is answered by a number. A part is ``policy``, ``quarantine``, ``log`` or
one method of them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monitor.admin.auth import Auth
from monitor.admin.server import HttpServer
from monitor.admin.tokens import TokenFile
from monitor.console import add_console
from monitor.core.errors import StateError
from tests.unit.admin.fake_desk import FakeDesk
from tests.unit.admin.fake_server import FakeStatus, fake_app


class Faults:
    """What is wrong at present, and how often each method was asked."""

    def __init__(self) -> None:
        self.now: dict[str, Callable[[], None]] = {}
        self.calls: Counter[str] = Counter()

    def met(self, part: str, method: str) -> None:
        name = f"{part}.{method}"
        self.calls[name] += 1
        fault = self.now.get(name) or self.now.get(part)
        if fault is not None:
            fault()


class Part:
    """A part of a desk with faults."""

    def __init__(self, real: Any, name: str, faults: Faults) -> None:
        self._real, self._name, self._faults = real, name, faults

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)
        if not callable(method):
            return method

        def called(*args: Any, **kwargs: Any) -> Any:
            self._faults.met(self._name, name)
            return method(*args, **kwargs)

        return called


class FaultyDesk:
    """A whole desk with faults."""

    def __init__(self, real: FakeDesk, faults: Faults) -> None:
        self._real = real
        self.policy = Part(real.policy, "policy", faults)
        self.quarantine = Part(real.quarantine, "quarantine", faults)
        self.log = Part(real.log, "log", faults)

    def status(self) -> Mapping[str, Any]:
        return self._real.status()


def down() -> None:
    raise StateError("the quarantine's store cannot be reached: connection refused")


def bug() -> None:
    raise ZeroDivisionError("division by <script>window.hurt=1</script>")


def obey(line: str, real: FakeDesk, faults: Faults) -> None:
    """Do what a line says."""
    match line.split():
        case ["attack", n]:
            real.attack(int(n))
        case ["well"]:
            faults.now.clear()
        case ["calls", name]:
            print(faults.calls[name], flush=True)
        case [part, "down"]:
            faults.now[part] = down
        case [part, "bug"]:
            faults.now[part] = bug
        case [part, "hang", seconds]:
            faults.now[part] = lambda: time.sleep(float(seconds))


def main(port: int, tokens: str, kind: str) -> None:
    """Serve, and obey."""
    real, faults = FakeDesk(), Faults()
    real.policy.two_person = kind == "two_person"
    auth = Auth() if tokens == "-" else Auth(TokenFile(Path(tokens)))
    desk: Any = None if kind == "none" else FaultyDesk(real, faults)
    status = FakeStatus(real)
    app = fake_app(desk, auth)
    add_console(app, status, desk, auth)
    with HttpServer(port=port, login=auth.login_needed) as server:
        server.start(app)
        print(server.url, flush=True)
        for line in sys.stdin:
            obey(line, real, faults)
        threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
