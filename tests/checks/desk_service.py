"""A loop and the quarantine's desk in this process, without a live policy."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from monitor.cli import wiring, wiring_desk
from monitor.config.settings import Settings
from monitor.runtime.quarantine import Outside, Quarantine


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Quarantine]:
    """The desk while the loop runs; afterwards what the loop raised, if anything."""
    transport, status = wiring.run_transport(settings), wiring.make_status()
    services: list = []
    outside = Outside(promised=lambda: settings.policy.quarantine_at, notice=status.notice)
    desk = wiring_desk.make_quarantine(settings, transport, lambda: services[0], outside)
    assert desk is not None
    gate = wiring.make_gate(settings, local=settings.transport == "local")
    services.append(wiring.make_service(settings, gate, transport, observers=[desk], status=status))
    stop, errors = threading.Event(), []

    def loop() -> None:
        try:
            services[0].run(stop)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    desk.start()
    try:
        yield desk
    finally:
        stop.set()
        thread.join(60)
        desk.stop()
    if errors:
        raise errors[0]
