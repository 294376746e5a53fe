"""The interface with the fake desk behind it, on a real port.

``python -m tests.unit.admin.fake_server 8766`` leaves one running to look at.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI

from monitor.admin.app import create_app
from monitor.admin.auth import Auth
from monitor.admin.server import HttpServer
from monitor.admin.tokens import TokenFile
from monitor.console import add_console
from monitor.core.desk import Held, HeldFilter
from monitor.core.errors import StateError
from monitor.core.types import DecisionBatch, Verdict
from monitor.runtime.chains import Chains, remembered
from tests.unit.admin.fake_desk import FakeDesk
from tests.unit.admin.fake_incidents import FakeIncidents


class FakeStatus:
    """The desk's counts as the service's status."""

    ready = started = True

    def __init__(self, desk: FakeDesk | None) -> None:
        self._desk = desk

    def idle_seconds(self) -> float:
        return 0.02

    def snapshot(self) -> dict[str, Any]:
        return {} if self._desk is None else dict(self._desk.status())

    def flagged(self, limit: int = 50, verdict: Verdict | None = None) -> list[dict[str, Any]]:
        if self._desk is None:
            return []
        page = self._desk.quarantine.search(HeldFilter(), limit)
        return [dict(self._desk.quarantine.get(held.key).decision) for held in page.items]


class FakeJudge:
    """Judges nothing."""

    def peek(self, values: Sequence[bytes], partition: int | None = None) -> DecisionBatch:
        raise StateError("no partition's state is here")


def fake_app(desk: FakeDesk | None, auth: Auth | None = None, hosts: Sequence[str] = ()) -> FastAPI:
    """The application on a fake desk."""
    settings = SimpleNamespace(http=SimpleNamespace(max_body_bytes=20_000, max_check_events=5))
    return create_app(
        status=FakeStatus(desk), service=FakeJudge(), settings=settings, desk=desk, auth=auth,
        hosts=hosts,
    )  # fmt: skip


def console_app(desk: FakeDesk | None, auth: Auth | None = None) -> FastAPI:
    """The same with the console."""
    auth = Auth() if auth is None else auth
    app = fake_app(desk, auth)
    incidents = None if desk is None else FakeIncidents(desk)
    chains = None if desk is None else fake_chains(desk)
    add_console(app, FakeStatus(desk), desk, auth, incidents=incidents, chains=chains)
    return app


def fake_chains(desk: FakeDesk) -> Chains:
    """Lives of the desk's held events, as a folder's chains would tell them."""

    def look(event_id: str) -> list[dict[str, Any]]:
        found = remembered("feedback", event_id, desk.quarantine, lambda _: ())  # type: ignore[arg-type]
        for life in found:
            digest = hashlib.sha256(event_id.encode()).hexdigest()[:32]
            life |= {
                "state": f"{digest}@{life['offset'] // 256 * 256}",
                "software": "0.1.0",
                "audit": {"chain": "feedback-0", "record": life["offset"] // 32, "index": 3},
            }
            life["actions"] = [
                {
                    "what": {"released": "release", "confirmed": "confirm"}[review["status"]],
                    "who": review["who"], "why": review["why"], "when": review["at"],
                    "chain": "desk-monitor-0", "seq": 7,
                }
                for review in life["reviews"]
            ]  # fmt: skip
        return found

    return Chains(None, look)


@contextmanager
def serving(desk: FakeDesk | None, auth: Auth | None = None, **server: Any) -> Iterator[HttpServer]:
    """A server that answers for ``desk``; ``server`` are options of :class:`HttpServer`."""
    login = auth is not None and auth.login_needed
    with HttpServer(login=login, **server).start(fake_app(desk, auth)) as running:
        yield running


MARKUP = "<script>window.hurt=1</script><img src=x onerror='window.hurt=1'>{{ 1+1 }}"


def hostile(desk: FakeDesk) -> Held:
    """An event whose every text is markup."""
    held = desk.quarantine.get(desk.quarantine.search(HeldFilter(family="sybil"), 1).items[0].key)
    reasons = [
        reason | {"text": MARKUP, "detector": MARKUP, "evidence": {MARKUP: {MARKUP: 1.0, "b": 2.0}}}
        for reason in held.decision["reasons"]
    ]
    return replace(
        held, key="9-1", partition=9, offset=1, held_at=desk.clock(), event_id=MARKUP,
        source=MARKUP, subject=MARKUP, label=MARKUP, families=(MARKUP,), detectors=(MARKUP,),
        decision=dict(held.decision) | {"reasons": reasons}, value=MARKUP.encode(),
        incident="inc-9",
    )  # fmt: skip


def main(port: int, tokens: str | None) -> None:
    """Serve. A line of standard input is a number of events to hold at once, or ``hostile``."""
    desk = FakeDesk()
    auth = None if tokens is None else Auth(TokenFile(Path(tokens)))
    with HttpServer(port=port, login=auth is not None) as server:
        server.start(console_app(desk, auth))
        print(server.url, flush=True)
        for line in sys.stdin:
            if line.strip() == "hostile":
                desk.quarantine.add(hostile(desk))
            else:
                desk.attack(int(line))
        threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0, sys.argv[2] if sys.argv[2:] else None)
