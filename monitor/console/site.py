"""What all pages share: the desk, who asks, and calls that end in a sentence when they fail."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ParamSpec, TypeVar

from nicegui import ui
from starlette.requests import HTTPConnection

from monitor.admin.app import StatusView
from monitor.admin.auth import LOGIN_PAGE, Auth, allowed
from monitor.admin.chain_routes import ChainsView
from monitor.admin.desk import Desk
from monitor.admin.incident_routes import IncidentsView
from monitor.admin.people import Person, Role
from monitor.admin.problem import ProblemError, as_sentence
from monitor.console.live import SAMPLE_SECONDS, Live
from monitor.core.errors import MonitorError
from monitor.runtime.incident_board import IncidentSnapshot

log = logging.getLogger("monitor.console")
SITE = "monitor.console"
WORKERS = 32
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class Site:
    """A console: what it shows and who may see it."""

    status: StatusView
    desk: Desk | None
    auth: Auth
    incidents: IncidentsView | None = None
    chains: ChainsView | None = None
    live: Live = field(default_factory=Live)
    # Apart from each other and from the library's: a store that hangs takes threads, and must
    # not take those by which the counts are read.
    workers: Executor = field(default_factory=lambda: ThreadPoolExecutor(WORKERS, "console"))
    counting: Executor = field(default_factory=lambda: ThreadPoolExecutor(2, "console-counts"))

    async def sample(self) -> None:
        """Take a sample of the counts now and then, for as long as the loop runs."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                snapshot = await loop.run_in_executor(self.counting, self.status.snapshot)
                self.live.add(time.time(), snapshot)
            except Exception:
                # One bad reading must not end the rates for as long as the process lives.
                log.exception("the counts could not be sampled")
            await asyncio.sleep(SAMPLE_SECONDS)


class Failure(Exception):  # noqa: N818 - it carries a sentence for a person
    """A call failed; the sentence says why. ``cause`` is the desk's error, None for a bug."""

    def __init__(self, sentence: str, cause: Exception | None = None) -> None:
        super().__init__(sentence)
        self.cause = cause


@dataclass(slots=True)
class Visit:
    """One open page."""

    site: Site
    connection: HTTPConnection
    person: Person
    dark: bool
    path: str
    on_dark: list[Callable[[bool], None]] = field(default_factory=list)
    dialogs: list[ui.dialog] = field(default_factory=list)

    @property
    def desk(self) -> Desk:
        """The desk; pages are built only where there is one."""
        assert self.site.desk is not None
        return self.site.desk

    @property
    def asking(self) -> bool:
        """Whether a dialog is open, to which the keys then belong."""
        return any(bool(dialog.value) for dialog in self.dialogs)

    def may(self, role: Role) -> bool:
        """Whether the person may do what ``role`` may."""
        return self.person.role.covers(role)

    def now(self, role: Role = Role.VIEWER) -> str:
        """The person's name, once it is sure that they still may do this. Raises Failure."""
        try:
            self.person = self.site.auth.renew(self.person)
            return allowed(self.person, role).name
        except ProblemError as error:
            if error.status == 401:
                ui.navigate.to(f"{LOGIN_PAGE}?next={self.path}")
            raise Failure(error.detail, error) from error

    async def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``work`` in a thread, for somebody whose session still holds. Raises Failure."""
        return await self._in(self.site.workers, partial(work, *args, **kwargs))

    async def incidents(self) -> IncidentSnapshot:
        """The incidents of now; none where the process keeps none. Raises Failure."""
        view = self.site.incidents
        return IncidentSnapshot() if view is None else await self.call(view.snapshot)

    async def counts(self) -> dict[str, Any]:
        """The status of now. Raises Failure."""
        return await self._in(self.site.counting, self.site.status.snapshot)

    async def _in(self, threads: Executor, work: Callable[[], T]) -> T:
        self.now()
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work)
        except MonitorError as error:
            raise Failure(as_sentence(str(error)), error) from error
        except Exception as error:
            log.exception("the console's call failed")
            raise Failure("The service failed to answer; its log says why.") from error


def say(error: Failure) -> None:
    """Tell of a failure at the bottom of the page."""
    ui.notify(str(error), type="negative", position="bottom", timeout=8000, close_button="Dismiss")


def done(text: str) -> None:
    """Tell of something that worked."""
    ui.notify(text, type="positive", position="bottom", timeout=4000)


def tell(text: str) -> None:
    """Tell of something that there was no need to do."""
    ui.notify(text, type="info", position="bottom", timeout=8000)


def tag(element: Any, name: str) -> Any:
    """``element`` with a stable name for tests; never made of what events say."""
    element.props["data-testid"] = name
    return element
