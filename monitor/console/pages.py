"""The console within the service's application: its addresses, and what answers at them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from nicegui import app as library
from nicegui import background_tasks, ui
from starlette.requests import Request
from starlette.routing import Match, Mount
from starlette.types import Message, Receive, Scope, Send

from monitor.admin.auth import who
from monitor.console import (
    audit,
    blast,
    drills,
    event,
    history,
    incident,
    incidents,
    keys,
    lineage,
    overview,
    quarantine,
    thresholds,
)
from monitor.console.frame import framed
from monitor.console.login import add_elsewhere
from monitor.console.site import SITE, Site, Visit

Build = Callable[[Visit], Callable[[], Awaitable[None]]]
PAGES: dict[str, tuple[str, Build]] = {
    "/": ("Overview", overview.build),
    "/incidents": ("Incidents", incidents.build),
    "/thresholds": ("Thresholds", thresholds.build),
    "/quarantine": ("Quarantine", quarantine.build),
    "/policy": ("Policy", history.build),
    "/blast": ("Blast radius", blast.build),
    "/drills": ("Drills", drills.build),
    "/audit": ("Audit trail", audit.build),
    "/lineage": ("Lineage", lineage.build),
    "/keys": ("Keys", keys.build),
}
EVENT = "/quarantine/"
INCIDENT = "/incidents/"
ASSETS = "/_nicegui"
_made: list[str] = []
_sites: list[Site] = []
_plain: list[Any] = []
_tasks: list[asyncio.Task[Any]] = []


class ConsoleMount(Mount):
    """The library's application at the console's addresses only; others stay the service's."""

    def __init__(self, site: Site) -> None:
        super().__init__("/", app=library)
        self._site = site

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether that is an address of the console."""
        path = scope.get("path", "")
        if path in PAGES or path.startswith((EVENT, INCIDENT, ASSETS)):
            return super().matches(scope)
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, which brings the site to its page."""
        scope[SITE] = self._site
        gone = False

        async def watched() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or message["type"] == "http.disconnect"
            return message

        try:
            await super().handle(scope, watched, send)
        except RuntimeError as error:
            # The library finds no answer to give when the browser has left meanwhile.
            if not gone and "No response returned" not in str(error):
                raise


def mount(app: FastAPI, site: Site) -> None:
    """Have ``app`` answer with the console. One of a process may run at a time."""
    if library.is_started:
        add_elsewhere(app)
        return
    if not _made:
        _make_pages()
        _plain.extend(library.user_middleware)
        library.on_startup(_begin)
        library.on_shutdown(_end)
    # The library keeps one application for the whole process and takes middleware only before its
    # first request; a later service of the same process starts from there again.
    library.user_middleware[:] = _plain
    library.middleware_stack = None
    _sites[:] = [site]
    ui.run_with(
        app,
        tailwind=False,
        title="poisoning-monitor",
        show_welcome_message=False,
        markdown=False,
        reconnect_timeout=10.0,
    )
    app.router.routes[-1] = ConsoleMount(site)


def _begin() -> None:
    for site in _sites:
        _tasks.append(background_tasks.create(site.sample(), name="the console's samples"))


def _end() -> None:
    while _tasks:
        _tasks.pop().cancel()


def _make_pages() -> None:
    for path, (title, build) in PAGES.items():
        _made.append(path)
        _make_page(path, title, build)

    @ui.page(EVENT + "{key}")
    def one(request: Request, key: str) -> None:
        visit = _visit(request)
        framed(visit, f"Event {key}", lambda: event.build(visit, key))

    @ui.page(INCIDENT + "{identifier}")
    def group(request: Request, identifier: str) -> None:
        visit = _visit(request)
        framed(visit, f"Incident {identifier}", lambda: incident.build(visit, identifier))


def _make_page(path: str, title: str, build: Build) -> None:
    @ui.page(path)
    def page(request: Request) -> None:
        visit = _visit(request)
        framed(visit, title, lambda: build(visit))


def _visit(request: Request) -> Visit:
    dark = request.cookies.get("monitor_dark") == "1"
    return Visit(request.scope[SITE], request, who(request), dark, request.url.path)
