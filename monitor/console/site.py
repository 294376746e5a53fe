"""What all pages share: the desk, who asks, and calls that end in a sentence when they fail."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, cast

from nicegui import run, ui
from starlette.requests import HTTPConnection

from monitor.admin.app import StatusView
from monitor.admin.auth import LOGIN_PAGE, Auth, allowed
from monitor.admin.desk import Desk
from monitor.admin.people import Person, Role
from monitor.admin.problem import ProblemError, as_sentence
from monitor.console.live import SAMPLE_SECONDS, Live
from monitor.core.errors import MonitorError

log = logging.getLogger("monitor.console")
SITE = "monitor.console"
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class Site:
    """A console: what it shows and who may see it."""

    status: StatusView
    desk: Desk | None
    auth: Auth
    live: Live = field(default_factory=Live)

    async def sample(self) -> None:
        """Take a sample of the counts now and then, for as long as the loop runs."""
        loop = asyncio.get_running_loop()
        while True:
            with suppress(MonitorError):
                snapshot = await loop.run_in_executor(None, self.status.snapshot)
                self.live.add(time.time(), snapshot)
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

    @property
    def desk(self) -> Desk:
        """The desk; pages are built only where there is one."""
        assert self.site.desk is not None
        return self.site.desk

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
        self.now()
        try:
            # The library gives None only when it shuts down.
            return cast("T", await run.io_bound(work, *args, **kwargs))
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


def tag(element: Any, name: str) -> Any:
    """``element`` with a stable name for tests; never made of what events say."""
    element.props["data-testid"] = name
    return element
